"""Measures of a selection: similarity to held-out target rows, and scores of proxy models."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gio_spark.errors import ConfigError, InputError
from gio_spark.evaluate import proxy_models
from gio_spark.evaluate.measure_inputs import SAMPLE, MeasureInputs, mean_distance
from gio_spark.gio.divergence_estimators import jsd_histogram
from gio_spark.strategy.evaluation_dataset import EvaluationDataset
from gio_spark.strategy.word_pair_model import WordPairs, cross_entropy, word_positions

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FOLD_COUNT = 3

MeasureFunction = Callable[[EvaluationDataset, MeasureInputs, "NDArray[np.intp]", int], float]


@dataclass(frozen=True)
class Measure:
    """Measure of a selection.

    Attributes:
        name: Name in settings and tables.
        title: Name on pages and in the terminal.
        higher_is_better: Whether a higher value is better.
        version: Number that is raised when the value of the same rows changes.
        compute: (dataset, inputs, rows, seed) -> value.
        needs: "texts", "labels" or "".
        default: Whether the measure is used if the settings name none.
    """

    name: str
    title: str
    higher_is_better: bool
    version: int
    compute: MeasureFunction
    needs: str = ""
    default: bool = True


def _sample_rows(hashes: NDArray[np.uint64], rows: NDArray[np.intp], seed: int) -> NDArray[np.intp]:
    """Sample of at most `SAMPLE` rows by a hash of their ids."""
    if len(rows) <= SAMPLE:
        return rows
    mixed = hashes[rows] ^ (np.uint64(seed + 1) * np.uint64(0xA0761D6478BD642F))
    mixed = (mixed ^ (mixed >> np.uint64(32))) * np.uint64(0xE7037ED1A0B428DB)
    mixed ^= mixed >> np.uint64(29)
    return rows[np.argsort(mixed, kind="stable")[:SAMPLE]]


def _energy(
    dataset: EvaluationDataset, inputs: MeasureInputs, rows: NDArray[np.intp], seed: int
) -> float:
    selected = dataset.vectors[_sample_rows(dataset.hashes, rows, seed)]
    if len(selected) < 2:
        raise InputError("The energy distance needs at least two selected rows.")
    across = mean_distance(selected, dataset.held_vectors[:SAMPLE])
    return 2.0 * across - mean_distance(selected, None) - inputs.held_spread


def _jsd(
    dataset: EvaluationDataset, inputs: MeasureInputs, rows: NDArray[np.intp], seed: int
) -> float:
    del seed
    clusters = len(dataset.centroids)
    selected = np.bincount(dataset.cluster[rows], minlength=clusters)
    return jsd_histogram(np.bincount(inputs.held_cluster, minlength=clusters), selected)


def _coverage(
    dataset: EvaluationDataset, inputs: MeasureInputs, rows: NDArray[np.intp], seed: int
) -> float:
    del dataset, seed
    mode = inputs.mode[rows]
    share = np.bincount(mode[mode >= 0], minlength=len(inputs.mode_share)) / len(rows)
    return float(np.minimum(share, inputs.mode_share).sum())


def _cross_entropy(
    dataset: EvaluationDataset, inputs: MeasureInputs, rows: NDArray[np.intp], seed: int
) -> float:
    del dataset, seed
    words, ends = inputs.words, inputs.word_ends
    held_words, previous = inputs.held_words, inputs.held_previous
    pair, first, held_pair = inputs.pair, inputs.pair_first, inputs.held_pair
    if words is None or ends is None or held_words is None or previous is None:
        raise InputError("There are no texts to take the cross-entropy of.")
    if pair is None or first is None or held_pair is None:
        raise InputError("There are no pairs of words to take the cross-entropy of.")
    positions = word_positions(ends, rows)
    return cross_entropy(
        words[positions], pair[positions], WordPairs(pair, first, held_pair), held_words, previous
    )


def _two_sample_auc(
    dataset: EvaluationDataset, inputs: MeasureInputs, rows: NDArray[np.intp], seed: int
) -> float:
    del inputs
    features, held_features = proxy_models.features(dataset)
    sampled = _sample_rows(dataset.hashes, rows, seed)
    return two_sample_auc(features[sampled], held_features[:SAMPLE])


def two_sample_auc(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """Cross-validated AUC of a classifier that separates two samples; 0.5: no difference.

    The classifier is a logistic regression on the standardized features and their squares, so that
    it detects differences of means and of variances.

    Args:
        first: (n, f).
        second: (m, f); both need at least two rows per fold.

    Raises:
        InputError: Too few rows.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> first, second = rng.normal(size=(2, 300, 2)).astype(np.float32)
        >>> two_sample_auc(first, second) < 0.6 < two_sample_auc(first, second + 2)
        True
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.preprocessing import StandardScaler

    if min(len(first), len(second)) < 2 * _FOLD_COUNT:
        raise InputError(
            f"The two-sample test has {len(first)} and {len(second)} rows; it needs "
            f"{2 * _FOLD_COUNT} of each."
        )
    rows = StandardScaler().fit_transform(np.concatenate([first, second]).astype(np.float32))
    rows = np.concatenate([rows, np.minimum(rows * rows, 25.0) - 1.0], axis=1)
    label = np.r_[np.zeros(len(first), int), np.ones(len(second), int)]
    fold = np.r_[np.arange(len(first)), np.arange(len(second))] % _FOLD_COUNT
    aucs = []
    for held_out_fold in range(_FOLD_COUNT):
        model = LogisticRegression(C=0.03, max_iter=100, tol=1e-3)
        model.fit(rows[fold != held_out_fold], label[fold != held_out_fold])
        scores = model.decision_function(rows[fold == held_out_fold])
        aucs.append(roc_auc_score(label[fold == held_out_fold], scores))
    return float(np.mean(aucs))


_ALL = (
    Measure("energy", "energy distance", False, 1, _energy),
    Measure("jsd", "Jensen-Shannon divergence, nats", False, 1, _jsd),
    Measure("coverage", "coverage of the target's modes", True, 1, _coverage),
    Measure("two_sample_auc", "two-sample AUC", False, 1, _two_sample_auc),
    Measure("cross_entropy", "cross-entropy, nats per word", False, 1, _cross_entropy, "texts"),
    Measure("proxy_linear", "linear model", True, 1, proxy_models.linear, "labels"),
    Measure(
        "proxy_boosting", "boosted trees", True, 2, proxy_models.boosting, "labels", default=False
    ),
    Measure(
        "proxy_cnn",
        "small convolutional network",
        True,
        2,
        proxy_models.cnn,
        "labels",
        default=False,
    ),
)
MEASURES = {m.name: m for m in _ALL}


def measures_of_settings(names: Sequence[str], *, texts: bool, labels: bool) -> tuple[Measure, ...]:
    """Measures of the settings, or all default measures that the data allows.

    Args:
        names: Names from the settings; empty: the default measures that the data allows.
        texts: Whether pool and held-out target have texts.
        labels: Whether pool and held-out target have labels.

    Raises:
        ConfigError: A measure is unknown; the message has the nearest known name.
        InputError: A measure needs texts or labels that are missing.

    Example:
        >>> [measure.name for measure in measures_of_settings((), texts=False, labels=False)]
        ['energy', 'jsd', 'coverage', 'two_sample_auc']
    """
    available = {"": True, "texts": texts, "labels": labels}
    if not names:
        return tuple(m for m in _ALL if m.default and available[m.needs])
    measures = []
    for name in dict.fromkeys(names):
        if name not in MEASURES:
            close = difflib.get_close_matches(name, MEASURES, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(MEASURES)}."
            raise ConfigError(f"No measure is called {name!r}: {hint}")
        measure = MEASURES[name]
        if not available[measure.needs]:
            role = measure.needs.rstrip("s")
            raise InputError(
                f"The measure {name!r} needs {measure.needs} of the pool and of the held-out "
                f"target rows: set columns.{role} for both, or leave the measure out."
            )
        measures.append(measure)
    return tuple(measures)
