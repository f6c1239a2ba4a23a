"""Baselines that draw by hash: oracle, random, stratified random, full data."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gio_spark.evaluate.methods.base import method
from gio_spark.evaluate.methods.draws import top, uniform, within
from gio_spark.kernels.rounding import largest_remainders

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gio_spark.evaluate.arena import Arena


@method("oracle", needs=("good",))
def oracle(arena: Arena, budget: int, seed: int) -> NDArray[np.int64]:
    """Take the rows that are known to be best, at random among equals: what can be reached."""
    order = np.lexsort((uniform(arena, seed, "oracle"), -np.asarray(arena.good, np.float64)))
    return np.sort(order[:budget]).astype(np.int64)


@method("random")
def random(arena: Arena, budget: int, seed: int) -> NDArray[np.int64]:
    """Draw rows uniformly."""
    return top(uniform(arena, seed, "random"), budget)


@method("stratified")
def stratified(arena: Arena, budget: int, seed: int) -> NDArray[np.int64]:
    """Draw the same share of every source, or of every cluster where there are no sources."""
    strata: NDArray[np.integer] = arena.cluster
    if arena.sources is not None:
        strata = np.unique(np.asarray(arena.sources).astype(str), return_inverse=True)[1]
    take = proportional(np.bincount(strata), budget)
    return within(strata, take, uniform(arena, seed, "stratified"))


@method("full", whole=True)
def full(arena: Arena, budget: int, seed: int) -> NDArray[np.int64]:
    """Take all rows, whatever the budget."""
    return np.arange(arena.rows, dtype=np.int64)


def proportional(sizes: NDArray[np.int64], budget: int) -> NDArray[np.int64]:
    """Split a budget over groups in proportion to their sizes, by largest remainders.

    Args:
        sizes: (K,) rows in each group.
        budget: Whole rows, at most their sum.
    """
    exact = sizes * (budget / max(1, int(sizes.sum())))
    return largest_remainders(exact, budget, most=sizes)
