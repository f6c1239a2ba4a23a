"""How good a selection is: what it shares with held-out rows of the target, and what it teaches."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gio_spark.errors import ConfigError, InputError
from gio_spark.evaluate import proxies
from gio_spark.evaluate.dataset import EvaluationDataset
from gio_spark.evaluate.language import Pairs, cross_entropy, places
from gio_spark.evaluate.measure_inputs import SAMPLE, MeasureInputs, mean_distance
from gio_spark.gio.estimators import jsd_histogram

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FOLDS = 3

Judge = Callable[[EvaluationDataset, MeasureInputs, "NDArray[np.intp]", int], float]


@dataclass(frozen=True)
class Measure:
    """One way to judge a selection.

    Attributes:
        name: As settings and tables call it.
        title: As people read it.
        higher_is_better: Direction.
        version: Raised when the value of the same rows changes.
        judge: (dataset, ruler, rows, seed) -> value.
        needs: "texts", "labels" or "".
        default: Whether it is used where the settings name none.
    """

    name: str
    title: str
    higher_is_better: bool
    version: int
    judge: Judge
    needs: str = ""
    default: bool = True


def _spread(hashes: NDArray[np.uint64], rows: NDArray[np.intp], seed: int) -> NDArray[np.intp]:
    """At most `SAMPLE` of the rows, by a hash of their own."""
    if len(rows) <= SAMPLE:
        return rows
    mixed = hashes[rows] ^ (np.uint64(seed + 1) * np.uint64(0xA0761D6478BD642F))
    mixed = (mixed ^ (mixed >> np.uint64(32))) * np.uint64(0xE7037ED1A0B428DB)
    mixed ^= mixed >> np.uint64(29)
    return rows[np.argsort(mixed, kind="stable")[:SAMPLE]]


def _energy(
    dataset: EvaluationDataset, ruler: MeasureInputs, rows: NDArray[np.intp], seed: int
) -> float:
    chosen = dataset.vectors[_spread(dataset.hashes, rows, seed)]
    if len(chosen) < 2:
        raise InputError("The energy distance needs at least two selected rows.")
    across = mean_distance(chosen, dataset.held_vectors[:SAMPLE])
    return 2.0 * across - mean_distance(chosen, None) - ruler.held_spread


def _jsd(
    dataset: EvaluationDataset, ruler: MeasureInputs, rows: NDArray[np.intp], seed: int
) -> float:
    del seed
    clusters = len(dataset.centroids)
    mine = np.bincount(dataset.cluster[rows], minlength=clusters)
    return jsd_histogram(np.bincount(ruler.held_cluster, minlength=clusters), mine)


def _coverage(
    dataset: EvaluationDataset, ruler: MeasureInputs, rows: NDArray[np.intp], seed: int
) -> float:
    del dataset, seed
    mode = ruler.mode[rows]
    share = np.bincount(mode[mode >= 0], minlength=len(ruler.mode_share)) / len(rows)
    return float(np.minimum(share, ruler.mode_share).sum())


def _cross_entropy(
    dataset: EvaluationDataset, ruler: MeasureInputs, rows: NDArray[np.intp], seed: int
) -> float:
    del dataset, seed
    words, ends = ruler.words, ruler.word_ends
    held, previous = ruler.held_words, ruler.held_previous
    pair, first, held_pair = ruler.pair, ruler.pair_first, ruler.held_pair
    if words is None or ends is None or held is None or previous is None:
        raise InputError("There are no texts to take the cross-entropy of.")
    if pair is None or first is None or held_pair is None:
        raise InputError("There are no pairs of words to take the cross-entropy of.")
    at = places(ends, rows)
    return cross_entropy(words[at], pair[at], Pairs(pair, first, held_pair), held, previous)


def _two_sample_auc(
    dataset: EvaluationDataset, ruler: MeasureInputs, rows: NDArray[np.intp], seed: int
) -> float:
    del ruler
    mine, held = proxies.features(dataset)
    chosen = _spread(dataset.hashes, rows, seed)
    return two_sample_auc(mine[chosen], held[:SAMPLE])


def two_sample_auc(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """Return how well a cross-validated classifier tells two samples apart: 0.5 is not at all.

    A logistic regression on the standardised features and their squares, so that it sees means
    and spreads.

    Args:
        first: (n, f).
        second: (m, f); both need at least two rows per fold.

    Raises:
        InputError: Too few rows.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.preprocessing import StandardScaler

    if min(len(first), len(second)) < 2 * _FOLDS:
        raise InputError(
            f"The two-sample test has {len(first)} and {len(second)} rows; it needs "
            f"{2 * _FOLDS} of each."
        )
    rows = StandardScaler().fit_transform(np.concatenate([first, second]).astype(np.float32))
    rows = np.concatenate([rows, np.minimum(rows * rows, 25.0) - 1.0], axis=1)
    truth = np.r_[np.zeros(len(first), int), np.ones(len(second), int)]
    fold = np.r_[np.arange(len(first)), np.arange(len(second))] % _FOLDS
    found = []
    for part in range(_FOLDS):
        model = LogisticRegression(C=0.03, max_iter=100, tol=1e-3)
        model.fit(rows[fold != part], truth[fold != part])
        told = model.decision_function(rows[fold == part])
        found.append(roc_auc_score(truth[fold == part], told))
    return float(np.mean(found))


_ALL = (
    Measure("energy", "energy distance", False, 1, _energy),
    Measure("jsd", "Jensen-Shannon divergence, nats", False, 1, _jsd),
    Measure("coverage", "coverage of the target's modes", True, 1, _coverage),
    Measure("two_sample_auc", "two-sample AUC", False, 1, _two_sample_auc),
    Measure("cross_entropy", "cross-entropy, nats per word", False, 1, _cross_entropy, "texts"),
    Measure("proxy_linear", "linear model", True, 1, proxies.linear, "labels"),
    Measure("proxy_boosting", "boosted trees", True, 2, proxies.boosting, "labels", default=False),
    Measure(
        "proxy_cnn", "small convolutional network", True, 2, proxies.cnn, "labels", default=False
    ),
)
MEASURES = {m.name: m for m in _ALL}


def wanted_measures(names: Sequence[str], *, texts: bool, labels: bool) -> tuple[Measure, ...]:
    """Measures of the settings, or every usual one that the data allows.

    Args:
        names: From the settings; none: what the data allows.
        texts: Whether pool and held-out target have texts.
        labels: Whether both have labels.

    Raises:
        ConfigError: An unknown measure, with the nearest known name.
        InputError: A measure was asked for whose texts or labels are not there.
    """
    there = {"": True, "texts": texts, "labels": labels}
    if not names:
        return tuple(m for m in _ALL if m.default and there[m.needs])
    chosen = []
    for name in dict.fromkeys(names):
        if name not in MEASURES:
            near = difflib.get_close_matches(name, MEASURES, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(MEASURES)}."
            raise ConfigError(f"No measure is called {name!r}: {hint}")
        measure = MEASURES[name]
        if not there[measure.needs]:
            role = measure.needs.rstrip("s")
            raise InputError(
                f"The measure {name!r} needs {measure.needs} of the pool and of the held-out "
                f"target rows: set columns.{role} for both, or leave the measure out."
            )
        chosen.append(measure)
    return tuple(chosen)
