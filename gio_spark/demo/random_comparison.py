"""Comparison of a selection with random rows of the same budget, by labels it did not use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

RANDOM_DRAWS = 10


@dataclass(frozen=True)
class RowMeasure:
    """Measure of a set of rows, with its unit and direction."""

    name: str
    unit: str
    higher_is_better: bool
    compute: Callable[[pa.Table], float]


@dataclass(frozen=True)
class Comparison:
    """Measure of the selection, with mean and standard deviation over random rows."""

    measure: RowMeasure
    selected: float
    random: float
    spread: float

    @property
    def better(self) -> bool:
        gain = self.selected - self.random
        return gain > 0 if self.measure.higher_is_better else gain < 0


def compare(pool: pa.Table, ids: set[str], measures: list[RowMeasure]) -> list[Comparison]:
    """Comparison of the pool rows with these ids with `RANDOM_DRAWS` random sets of the same size.

    Returns:
        One comparison per measure; `random` is the mean over the draws, `spread` their standard
        deviation.
    """
    selection = pool.filter(np.fromiter((i in ids for i in pool["id"].to_pylist()), bool))
    draws = [
        pool.take(
            np.random.default_rng(seed).choice(pool.num_rows, selection.num_rows, replace=False)
        )
        for seed in range(RANDOM_DRAWS)
    ]
    comparisons = []
    for measure in measures:
        values = np.array([measure.compute(draw) for draw in draws])
        comparisons.append(
            Comparison(measure, measure.compute(selection), float(values.mean()), values.std())
        )
    return comparisons


def image_measures(target: pa.Table, held_out: pa.Table) -> list[RowMeasure]:
    """Measures of image rows: share of clean rows, class shares, accuracy of a classifier."""
    from sklearn.linear_model import LogisticRegression

    target_shares = _class_shares(target)
    test_pixels, test_digits = _pixel_matrix(held_out), held_out["digit"].to_numpy()

    def clean(rows: pa.Table) -> float:
        return 100 * float(np.mean(np.array(rows["damage"].to_pylist()) == "clean"))

    def mix_distance(rows: pa.Table) -> float:
        return 100 * 0.5 * float(np.abs(_class_shares(rows) - target_shares).sum())

    def accuracy(rows: pa.Table) -> float:
        model = LogisticRegression(C=0.1, max_iter=300)
        model.fit(_pixel_matrix(rows), rows["digit"].to_numpy())
        return 100 * float(model.score(test_pixels, test_digits))

    return [
        RowMeasure("clean images", "%", True, clean),
        RowMeasure("distance from the target's mix of digits", "%", False, mix_distance),
        RowMeasure("accuracy on held-out target images", "%", True, accuracy),
    ]


def text_measures(held_out: pa.Table, scientific: tuple[str, ...]) -> list[RowMeasure]:
    """Measures of text rows: share of scientific paragraphs, cross-entropy of held-out text."""
    test_words = _words(held_out)

    def share(rows: pa.Table) -> float:
        return 100 * float(np.mean(np.isin(rows["package"].to_pylist(), scientific)))

    def cross_entropy(rows: pa.Table) -> float:
        """Bits per word of the held-out text under a unigram model with add-one smoothing."""
        vocabulary, counts = np.unique(
            np.concatenate([_words(rows), test_words]), return_counts=True
        )
        words, word_counts = np.unique(test_words, return_counts=True)
        test_counts = np.zeros(len(vocabulary))
        test_counts[np.searchsorted(vocabulary, words)] = word_counts
        probability = (counts - test_counts + 1) / (
            counts.sum() - len(test_words) + len(vocabulary)
        )
        return float(-(test_counts @ np.log2(probability)) / len(test_words))

    return [
        RowMeasure("paragraphs from numpy, scipy, scikit-learn", "%", True, share),
        RowMeasure("cross-entropy of held-out target text", "bits a word", False, cross_entropy),
    ]


def _class_shares(rows: pa.Table) -> np.ndarray:
    return np.bincount(rows["digit"].to_numpy(), minlength=10) / rows.num_rows


def _pixel_matrix(rows: pa.Table) -> np.ndarray:
    flat = rows["image"].combine_chunks().flatten().to_numpy()
    return flat.reshape(rows.num_rows, -1) / 255


def _words(rows: pa.Table) -> np.ndarray:
    return np.array(" ".join(rows["text"].to_pylist()).casefold().split())
