"""Whole rows per cluster and source that keep the budget and the sources' totals exactly."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gio_spark.gio.budgeted_kl import integer_plan
from gio_spark.kernels.rounding import largest_remainders


def whole_totals(wanted: NDArray, low: NDArray, high: NDArray, budget: int) -> NDArray:
    """Round totals per source to whole numbers within their bounds that sum to the budget.

    Largest remainders first; ties to the lowest source.

    Args:
        wanted: (S,) fractional totals with sum `budget`.
        low: (S,) int64 lower bounds.
        high: (S,) int64 upper bounds.
        budget: the sum to reach; the bounds allow it.
    """
    return largest_remainders(wanted, budget, least=low, most=high)


def whole_rows(law: NDArray, amount: NDArray, held: NDArray, totals: NDArray) -> NDArray:
    """Round a plan per cluster and source to whole rows with exact totals per source.

    Rows per cluster come from the integer plan aimed at the fractional rows; within a cluster
    they are split as the fractional plan splits them; then single rows are moved until every
    source has its total, inside a cluster where one allows it.

    Args:
        law: (K,) target law, to weigh moves between clusters.
        amount: (K, S) fractional rows.
        held: (K, S) int64 rows there are.
        totals: (S,) int64 rows per source; the sum is the budget.
    """
    per_cluster = integer_plan(amount.sum(axis=1), held.sum(axis=1), int(totals.sum()))
    take = _split(per_cluster, amount, held)
    _move_inside(take, amount, held, totals)
    _move_across(law, take, held, totals)
    return take


def _split(per_cluster: NDArray, amount: NDArray, held: NDArray) -> NDArray:
    total = amount.sum(axis=1)
    scale = np.divide(per_cluster, total, out=np.zeros_like(total), where=total > 0)
    wanted = np.minimum(amount * scale[:, None], held)
    take = np.minimum(np.floor(wanted + 1e-9).astype(np.int64), held)
    for _ in range(held.shape[1] + 1):
        left = per_cluster - take.sum(axis=1)
        if not left.any():
            break
        room = take < held
        score = np.where(room, wanted - take, -np.inf)
        rank = np.argsort(np.argsort(-score, axis=1, kind="stable"), axis=1, kind="stable")
        take += (room & (rank < left[:, None])).astype(np.int64)
    left = per_cluster - take.sum(axis=1)
    for source in range(held.shape[1]):
        more = np.minimum(left, held[:, source] - take[:, source])
        take[:, source] += more
        left -= more
    return take


def _move_inside(take: NDArray, amount: NDArray, held: NDArray, totals: NDArray) -> None:
    """Swap sources inside clusters, in place, while that brings totals nearer."""
    for giver in range(len(totals)):
        for getter in range(len(totals)):
            while True:
                excess = int(take[:, giver].sum() - totals[giver])
                need = int(totals[getter] - take[:, getter].sum())
                able = (take[:, giver] > 0) & (take[:, getter] < held[:, getter])
                count = min(excess, need, int(able.sum()))
                if count <= 0:
                    break
                gain = (take[:, giver] - amount[:, giver]) - (take[:, getter] - amount[:, getter])
                chosen = np.argsort(np.where(able, -gain, np.inf), kind="stable")[:count]
                take[chosen, giver] -= 1
                take[chosen, getter] += 1


def _move_across(law: NDArray, take: NDArray, held: NDArray, totals: NDArray) -> None:
    """Drop rows of sources above their total where they cost least, then add where they gain."""
    for sign in (-1, 1):
        for source in range(len(totals)):
            while True:
                need = sign * (int(totals[source]) - int(take[:, source].sum()))
                if need <= 0:
                    break
                rows = take.sum(axis=1)
                if sign < 0:
                    able = take[:, source] > 0
                    change = -law * np.log1p(1.0 / (np.maximum(rows, 1) - 0.5))
                else:
                    able = take[:, source] < held[:, source]
                    change = law * np.log1p(1.0 / (rows + 0.5))
                # Half of what is left at a time, one row a cluster: gains shift with each row.
                count = min((need + 1) // 2, int(able.sum()))
                best = np.argsort(np.where(able, -change, np.inf), kind="stable")[:count]
                take[best, source] += sign
