"""How a selection compares with random rows at the same budget, by labels it never saw."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

RANDOM_DRAWS = 10


@dataclass(frozen=True)
class Figure:
    """One figure of a set of rows: what it says, and whether higher is better."""

    name: str
    unit: str
    higher_is_better: bool
    of: Callable[[pa.Table], float]


@dataclass(frozen=True)
class Comparison:
    """A figure for the selection beside random draws of the same number of rows."""

    figure: Figure
    selected: float
    random: float
    spread: float

    @property
    def better(self) -> bool:
        gain = self.selected - self.random
        return gain > 0 if self.figure.higher_is_better else gain < 0


def compare(pool: pa.Table, ids: set[str], figures: list[Figure]) -> list[Comparison]:
    """Measure the rows of the pool with these ids, and RANDOM_DRAWS random sets as large.

    Returns:
        One comparison per figure; `random` is the mean over the draws, `spread` their standard
        deviation.
    """
    chosen = pool.filter(np.fromiter((i in ids for i in pool["id"].to_pylist()), bool))
    draws = [
        pool.take(np.random.default_rng(seed).choice(pool.num_rows, chosen.num_rows, replace=False))
        for seed in range(RANDOM_DRAWS)
    ]
    found = []
    for figure in figures:
        values = np.array([figure.of(draw) for draw in draws])
        found.append(Comparison(figure, figure.of(chosen), float(values.mean()), values.std()))
    return found


def image_figures(target: pa.Table, held_out: pa.Table) -> list[Figure]:
    """Figures for images: clean rows, mix of classes, accuracy of a classifier."""
    from sklearn.linear_model import LogisticRegression

    wanted = _mix(target)
    test, truth = _pixels(held_out), held_out["digit"].to_numpy()

    def clean(rows: pa.Table) -> float:
        return 100 * float(np.mean(np.array(rows["damage"].to_pylist()) == "clean"))

    def mix_distance(rows: pa.Table) -> float:
        return 100 * 0.5 * float(np.abs(_mix(rows) - wanted).sum())

    def accuracy(rows: pa.Table) -> float:
        model = LogisticRegression(C=0.1, max_iter=300)
        model.fit(_pixels(rows), rows["digit"].to_numpy())
        return 100 * float(model.score(test, truth))

    return [
        Figure("clean images", "%", True, clean),
        Figure("distance from the target's mix of digits", "%", False, mix_distance),
        Figure("accuracy on held-out target images", "%", True, accuracy),
    ]


def text_figures(held_out: pa.Table, scientific: tuple[str, ...]) -> list[Figure]:
    """Figures for text: scientific paragraphs, cross-entropy of held-out text."""
    test = _words(held_out)

    def share(rows: pa.Table) -> float:
        return 100 * float(np.mean(np.isin(rows["package"].to_pylist(), scientific)))

    def cross_entropy(rows: pa.Table) -> float:
        """Bits per word of the held-out text under the rows' unigrams, one added to each count."""
        vocabulary, counts = np.unique(np.concatenate([_words(rows), test]), return_counts=True)
        words, times = np.unique(test, return_counts=True)
        here = np.zeros(len(vocabulary))
        here[np.searchsorted(vocabulary, words)] = times
        probability = (counts - here + 1) / (counts.sum() - len(test) + len(vocabulary))
        return float(-(here @ np.log2(probability)) / len(test))

    return [
        Figure("paragraphs from numpy, scipy, scikit-learn", "%", True, share),
        Figure("cross-entropy of held-out target text", "bits a word", False, cross_entropy),
    ]


def _mix(rows: pa.Table) -> np.ndarray:
    return np.bincount(rows["digit"].to_numpy(), minlength=10) / rows.num_rows


def _pixels(rows: pa.Table) -> np.ndarray:
    flat = rows["image"].combine_chunks().flatten().to_numpy()
    return flat.reshape(rows.num_rows, -1) / 255


def _words(rows: pa.Table) -> np.ndarray:
    return np.array(" ".join(rows["text"].to_pylist()).casefold().split())
