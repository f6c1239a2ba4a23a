"""Candidate strategies: selection methods that are tried on a sample before the default is left."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gio_spark.errors import GioSparkError
from gio_spark.settings.strategy_settings import DEFAULT_STRATEGY, RANDOM_STRATEGY
from gio_spark.strategy.methods import get, methods, registered_by_users, run_method
from gio_spark.strategy.methods.hash_draws import gumbel, top, uniform
from gio_spark.strategy.methods.method_registry import reordered
from gio_spark.strategy.methods.shared_work import compute_once

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gio_spark.strategy.evaluation_dataset import EvaluationDataset

DEFAULT, RANDOM = DEFAULT_STRATEGY, RANDOM_STRATEGY
CANDIDATES = (
    DEFAULT,
    "kl_ratio_t0",
    "kl_hash",
    "kl_knn_t0",
    "kl_knn_t025",
    "classifier_top",
    "classifier_resample",
    "knn_retrieval",
    "sparse_regions",
    "stratified",
    RANDOM,
)
#: Rows that a judge's model is trained on.
TRAINING_ROWS = 6_000


class Trial(NamedTuple):
    """Rows that a candidate takes from a split's dataset.

    Attributes:
        rows: Rows to train on, at most `TRAINING_ROWS`; a row that stands for many pool rows is
            listed repeatedly. Empty if the candidate failed.
        selected: Number of rows of the sample that it selects.
        seconds: Wall time of the selection.
        problem: Reason of a failure; empty otherwise.
    """

    rows: NDArray[np.int64]
    selected: int
    seconds: float
    problem: str = ""


def candidates(dataset: EvaluationDataset, names: tuple[str, ...] = ()) -> list[str]:
    """Names of the candidates that a dataset allows: the given ones, or all and those of users.

    The default and random rows are always among them.
    """
    allowed = set(methods(dataset))
    listed = (DEFAULT, RANDOM, *(names or (*CANDIDATES, *registered_by_users())))
    return [n for n in dict.fromkeys(listed) if n in allowed and not get(n).takes_all]


def try_candidate(
    name: str, dataset: EvaluationDataset, budget: int, count: int | None, seed: int
) -> Trial:
    """Rows that a candidate selects from a dataset, as rows to train on.

    Args:
        name: Name of the candidate.
        dataset: Dataset without the rows that judge.
        budget: Budget in pool rows.
        count: Most rows to train on; None: as many as are selected, at most `TRAINING_ROWS`.
        seed: Seed.
    """
    if dataset.weights is None:
        return _trial(name, dataset, None, budget, count, seed)
    if name == RANDOM:
        # Few sample rows stand for a small budget's random rows; any others have the same law.
        scores = gumbel(dataset, seed, "random rows") + np.log(dataset.weights)
        rows = top(scores, min(count or TRAINING_ROWS, dataset.rows))
        return Trial(rows, len(rows), 0.0)
    if get(name).weighted:
        return _trial(name, dataset, dataset.weights, budget, count, seed)
    thinned, positions = compute_once(
        dataset, ("equal weights", seed), lambda: _equal_weights(dataset, seed)
    )
    thinned_budget = round(budget * thinned.rows / dataset.pool_rows)
    trial = _trial(name, thinned, None, max(1, thinned_budget), count, seed)
    return trial._replace(rows=positions[trial.rows])


def _trial(
    name: str,
    dataset: EvaluationDataset,
    weights: NDArray[np.float64] | None,
    budget: int,
    count: int | None,
    seed: int,
) -> Trial:
    try:
        selection = run_method(name, dataset, min(budget, dataset.pool_rows), seed)
    except GioSparkError as error:
        return Trial(np.zeros(0, np.int64), 0, 0.0, f"{type(error).__name__}: {error}")
    if count is None:
        count = min(TRAINING_ROWS, len(selection.rows))
    rows = training_rows(selection.rows, weights, count)
    return Trial(rows, len(selection.rows), selection.seconds, selection.problem)


def training_rows(
    rows: NDArray[np.int64], weights: NDArray[np.float64] | None, count: int
) -> NDArray[np.int64]:
    """Systematic sample of selected rows in proportion to their weights, with repeats.

    Args:
        rows: (r,) selected rows, ascending.
        weights: (n,) pool rows that each row of the dataset stands for; None: all alike.
        count: Rows to list; without weights at most r are.

    Example:
        >>> training_rows(np.array([0, 2, 3]), np.array([1.0, 1.0, 1.0, 2.0]), 4).tolist()
        [0, 2, 3, 3]
        >>> training_rows(np.array([0, 2, 3]), None, 4).tolist()
        [0, 2, 3]
    """
    if weights is None and len(rows) <= count:
        return rows
    share = np.ones(len(rows)) if weights is None else weights[rows]
    ends = np.floor(np.cumsum(share) * (count / max(share.sum(), 1e-300)) + 0.5)
    return np.repeat(rows, np.diff(ends, prepend=0.0).astype(np.int64))


def _equal_weights(
    dataset: EvaluationDataset, seed: int
) -> tuple[EvaluationDataset, NDArray[np.int64]]:
    """Sub-sample whose rows all stand for equally many pool rows, and its positions."""
    import dataclasses

    weights = dataset.weights
    if weights is None:
        return dataset, np.arange(dataset.rows)
    draws = uniform(dataset, seed, "equal weights")
    positions = np.flatnonzero(draws < weights / weights.max()).astype(np.int64)
    return dataclasses.replace(reordered(dataset, positions), weights=None), positions
