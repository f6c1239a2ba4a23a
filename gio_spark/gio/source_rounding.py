"""Whole rows per cluster and source with exact budget and exact totals per source."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gio_spark.gio.budgeted_kl import integer_plan
from gio_spark.kernels.rounding import largest_remainders


def whole_totals(fractional: NDArray, low: NDArray, high: NDArray, budget: int) -> NDArray:
    """Round totals per source to whole numbers within their bounds that sum to the budget.

    Largest remainders first; ties to the lowest source.

    Args:
        fractional: (S,) fractional totals with sum `budget`.
        low: (S,) int64 lower bounds.
        high: (S,) int64 upper bounds.
        budget: The sum to reach; the bounds allow it.
    """
    return largest_remainders(fractional, budget, least=low, most=high)


def whole_rows(
    distribution: NDArray, amount: NDArray, available: NDArray, totals: NDArray
) -> NDArray:
    """Round a plan per cluster and source to whole rows with exact totals per source.

    Rows per cluster come from the integer plan for the fractional rows; within a cluster they are
    split between sources as in the fractional plan; then single rows are reallocated until every
    source has its total, within a cluster where possible.

    Args:
        distribution: (K,) target distribution, to weigh reallocations between clusters.
        amount: (K, S) fractional rows.
        available: (K, S) int64 rows of the pool.
        totals: (S,) int64 rows per source; the sum is the budget.
    """
    per_cluster = integer_plan(amount.sum(axis=1), available.sum(axis=1), int(totals.sum()))
    take = _split(per_cluster, amount, available)
    _reallocate_within_clusters(take, amount, available, totals)
    _reallocate_between_clusters(distribution, take, available, totals)
    return take


def _split(per_cluster: NDArray, amount: NDArray, available: NDArray) -> NDArray:
    total = amount.sum(axis=1)
    scale = np.divide(per_cluster, total, out=np.zeros_like(total), where=total > 0)
    exact = np.minimum(amount * scale[:, None], available)
    take = np.minimum(np.floor(exact + 1e-9).astype(np.int64), available)
    for _ in range(available.shape[1] + 1):
        remaining = per_cluster - take.sum(axis=1)
        if not remaining.any():
            break
        room = take < available
        score = np.where(room, exact - take, -np.inf)
        rank = np.argsort(np.argsort(-score, axis=1, kind="stable"), axis=1, kind="stable")
        take += (room & (rank < remaining[:, None])).astype(np.int64)
    remaining = per_cluster - take.sum(axis=1)
    for source in range(available.shape[1]):
        added = np.minimum(remaining, available[:, source] - take[:, source])
        take[:, source] += added
        remaining -= added
    return take


def _reallocate_within_clusters(
    take: NDArray, amount: NDArray, available: NDArray, totals: NDArray
) -> None:
    """Swap sources within clusters, in place, while that brings the totals nearer."""
    for from_source in range(len(totals)):
        for to_source in range(len(totals)):
            while True:
                excess = int(take[:, from_source].sum() - totals[from_source])
                shortfall = int(totals[to_source] - take[:, to_source].sum())
                is_eligible = (take[:, from_source] > 0) & (
                    take[:, to_source] < available[:, to_source]
                )
                count = min(excess, shortfall, int(is_eligible.sum()))
                if count <= 0:
                    break
                gain = (take[:, from_source] - amount[:, from_source]) - (
                    take[:, to_source] - amount[:, to_source]
                )
                clusters = np.argsort(np.where(is_eligible, -gain, np.inf), kind="stable")[:count]
                take[clusters, from_source] -= 1
                take[clusters, to_source] += 1


def _reallocate_between_clusters(
    distribution: NDArray, take: NDArray, available: NDArray, totals: NDArray
) -> None:
    """Drop rows of sources above their total where that costs least, then add where it gains most.

    In place.
    """
    for sign in (-1, 1):
        for source in range(len(totals)):
            while True:
                shortfall = sign * (int(totals[source]) - int(take[:, source].sum()))
                if shortfall <= 0:
                    break
                rows = take.sum(axis=1)
                if sign < 0:
                    is_eligible = take[:, source] > 0
                    change = -distribution * np.log1p(1.0 / (np.maximum(rows, 1) - 0.5))
                else:
                    is_eligible = take[:, source] < available[:, source]
                    change = distribution * np.log1p(1.0 / (rows + 0.5))
                # Half of the shortfall at a time, one row a cluster: gains change with each row.
                count = min((shortfall + 1) // 2, int(is_eligible.sum()))
                clusters = np.argsort(np.where(is_eligible, -change, np.inf), kind="stable")[:count]
                take[clusters, source] += sign
