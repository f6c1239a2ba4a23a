"""Baseline methods: oracle, random rows, stratified random rows and all rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gio_spark.kernels.rounding import largest_remainders
from gio_spark.strategy.methods.hash_draws import top, top_of_clusters, uniform
from gio_spark.strategy.methods.method_registry import method

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gio_spark.strategy.evaluation_dataset import EvaluationDataset


@method("oracle", needs=("good",))
def oracle(dataset: EvaluationDataset, budget: int, seed: int) -> NDArray[np.int64]:
    """Take the rows that are known to be best, at random among equals: what can be reached."""
    order = np.lexsort((uniform(dataset, seed, "oracle"), -np.asarray(dataset.good, np.float64)))
    return np.sort(order[:budget]).astype(np.int64)


@method("random", weighted=True)
def random(dataset: EvaluationDataset, budget: int, seed: int) -> NDArray[np.int64]:
    """Draw rows uniformly."""
    return top(uniform(dataset, seed, "random"), budget, dataset.weights)


@method("stratified", weighted=True)
def stratified(dataset: EvaluationDataset, budget: int, seed: int) -> NDArray[np.int64]:
    """Draw the same share of every source, or of every cluster where there are no sources."""
    strata: NDArray[np.integer] = dataset.cluster
    if dataset.sources is not None:
        strata = np.unique(np.asarray(dataset.sources).astype(str), return_inverse=True)[1]
    sizes = np.rint(np.bincount(strata, dataset.weights)).astype(np.int64)
    draws = uniform(dataset, seed, "stratified")
    return top_of_clusters(strata, proportional(sizes, budget), draws, dataset.weights)


@method("full", takes_all=True)
def full(dataset: EvaluationDataset, budget: int, seed: int) -> NDArray[np.int64]:
    """Take all rows, whatever the budget."""
    return np.arange(dataset.rows, dtype=np.int64)


def proportional(sizes: NDArray[np.int64], budget: int) -> NDArray[np.int64]:
    """Allocation of a budget in proportion to group sizes, by largest remainders, (K,) int64.

    Args:
        sizes: (K,) rows in each group.
        budget: Number of rows, at most the sum of `sizes`.

    Example:
        >>> proportional(np.array([50, 30, 20, 0]), 7).tolist()
        [4, 2, 1, 0]
    """
    exact = sizes * (budget / max(1, int(sizes.sum())))
    return largest_remainders(exact, budget, most=sizes)
