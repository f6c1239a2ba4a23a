"""Baselines that draw by hash: oracle, random, stratified random, full data."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gio_spark.evaluate.methods.base import method
from gio_spark.evaluate.methods.draws import top, uniform, within
from gio_spark.kernels.rounding import largest_remainders

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gio_spark.evaluate.dataset import EvaluationDataset


@method("oracle", needs=("good",))
def oracle(dataset: EvaluationDataset, budget: int, seed: int) -> NDArray[np.int64]:
    """Take the rows that are known to be best, at random among equals: what can be reached."""
    order = np.lexsort((uniform(dataset, seed, "oracle"), -np.asarray(dataset.good, np.float64)))
    return np.sort(order[:budget]).astype(np.int64)


@method("random")
def random(dataset: EvaluationDataset, budget: int, seed: int) -> NDArray[np.int64]:
    """Draw rows uniformly."""
    return top(uniform(dataset, seed, "random"), budget)


@method("stratified")
def stratified(dataset: EvaluationDataset, budget: int, seed: int) -> NDArray[np.int64]:
    """Draw the same share of every source, or of every cluster where there are no sources."""
    strata: NDArray[np.integer] = dataset.cluster
    if dataset.sources is not None:
        strata = np.unique(np.asarray(dataset.sources).astype(str), return_inverse=True)[1]
    take = proportional(np.bincount(strata), budget)
    return within(strata, take, uniform(dataset, seed, "stratified"))


@method("full", whole=True)
def full(dataset: EvaluationDataset, budget: int, seed: int) -> NDArray[np.int64]:
    """Take all rows, whatever the budget."""
    return np.arange(dataset.rows, dtype=np.int64)


def proportional(sizes: NDArray[np.int64], budget: int) -> NDArray[np.int64]:
    """Split a budget over groups in proportion to their sizes, by largest remainders.

    Args:
        sizes: (K,) rows in each group.
        budget: Whole rows, at most their sum.
    """
    exact = sizes * (budget / max(1, int(sizes.sum())))
    return largest_remainders(exact, budget, most=sizes)
