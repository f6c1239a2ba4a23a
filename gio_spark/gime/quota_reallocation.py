"""Quota reallocated between clusters within the budget and the bounds of the sources.

Arrays (K, S) are per cluster and source; where sources are not bounded, S is 1. Amounts are in the
budget's unit: rows, or tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# A row fits where its cost is at most this far above the remaining room.
_SLACK = 1e-9
_ROUNDS = 16


@dataclass(frozen=True, eq=False)
class QuotaLimits:
    """Limits of every reallocation: rows of the pool, budget, floors and caps of sources.

    Attributes:
        sizes: Rows of the pool, (K, S); S is 1 without bounds on sources.
        cost: Amount per row, (K, S): 1, or the mean tokens. Rows of cost 0 are not used.
        budget: Amount that is never exceeded.
        floor: Least amount of each source, (S,); met to within one row.
        cap: Largest amount of each source, (S,); never exceeded.
    """

    sizes: NDArray[np.int64]
    cost: NDArray[np.float64]
    budget: float
    floor: NDArray[np.float64]
    cap: NDArray[np.float64]

    @classmethod
    def of_rows(cls, sizes: NDArray[np.int64], budget: int) -> QuotaLimits:
        """Limits of a budget in rows without bounds on sources; sizes is (K,)."""
        wide = np.asarray(sizes, np.int64)[:, None]
        return cls(wide, np.ones(wide.shape), budget, np.zeros(1), np.array([float(budget)]))

    @property
    def usable(self) -> NDArray[np.int64]:
        """Rows that can be selected, (K, S)."""
        return np.where((self.cost > 0) & (self.cap > 0)[None, :], self.sizes, 0)

    def spent(self, take: NDArray[np.int64]) -> NDArray[np.float64]:
        """Amount per source, (S,), of rows (K, S)."""
        return np.asarray((take * self.cost).sum(axis=0), np.float64)


def reallocate(
    take: NDArray[np.int64],
    need: NDArray[np.float64],
    amount: float,
    limits: QuotaLimits,
    *,
    most: NDArray[np.int64] | None = None,
    keep_one: bool = False,
) -> NDArray[np.int64]:
    """Reallocate an amount from the clusters of least need to those of most need.

    Rows are given up in order of need, lowest first; then sources below their floor are filled up,
    then the clusters of most need, within caps and budget; an amount that fits nowhere goes back to
    its cluster.

    Args:
        take: Allocation, (K, S).
        need: Benefit of a further row of a cluster, (K,).
        amount: Amount to reallocate, in the budget's unit.
        limits: Limits of the result.
        most: Largest gain in rows of a cluster, (K,); None: no limit but its size.
        keep_one: Whether the last row of a source of a cluster stays.

    Returns:
        New allocation, (K, S); `take` itself where less could be placed than was given up.
    """
    clusters, sources = take.shape
    need = np.repeat(np.asarray(need, np.float64), sources)
    source = np.tile(np.arange(sources), clusters)
    cost, usable = limits.cost.ravel(), limits.usable.ravel()
    initial = take.ravel()
    # Among rows of the same need, the source furthest above its floor gives up rows first, and the
    # source furthest below its cap gains rows first.
    spent_before = limits.spent(take)
    down = np.lexsort((-(spent_before - limits.floor)[source], need))
    up = np.lexsort((-(limits.cap - spent_before)[source], -need))
    no_limit = np.full(sources, np.inf)
    given_up = _fill_in_order(
        down, np.maximum(initial - keep_one, 0), cost, source, no_limit, amount
    )
    current = initial - given_up

    def remaining() -> tuple[NDArray[np.float64], float]:
        spent = np.bincount(source, current * cost, sources).astype(np.float64)
        return spent, limits.budget - float(spent.sum())

    spent, room = remaining()
    # A source is above its floor by less than a row.
    largest_cost = np.where((limits.cost == 1).all(axis=0), 0.0, limits.cost.max(axis=0))
    shortfall = np.where(spent < limits.floor - _SLACK, limits.floor + largest_cost - spent, 0.0)
    shortfall = np.minimum(shortfall, np.maximum(limits.cap - spent, 0))
    current = current + _fill_in_order(up, usable - current, cost, source, shortfall, room)
    gain = usable - current
    if most is not None:
        gain = np.minimum(gain, np.maximum(np.repeat(most, sources) - (current - initial), 0))
    for rows in (gain, np.maximum(initial - current, 0), usable - current):
        for _ in range(_ROUNDS):
            spent, room = remaining()
            rows = np.minimum(rows, usable - current)
            added = _fill_in_order(up, rows, cost, source, limits.cap - spent, room)
            if not added.any():
                break
            current, rows = current + added, rows - added
    lost = float((initial * cost).sum() - (current * cost).sum())
    row = 0.0 if (limits.cost == 1).all() else float(cost.max())
    return take if lost > row + _SLACK else current.reshape(take.shape)


def _fill_in_order(
    order: NDArray[np.intp],
    rows: NDArray[np.int64],
    cost: NDArray[np.float64],
    source: NDArray[np.intp],
    room: NDArray[np.float64],
    total: float,
) -> NDArray[np.int64]:
    """Rows that fit, in order, within the room of each source and the total."""
    price = np.where(cost > 0, cost, 1.0)[order]
    demand = np.where(cost > 0, rows, 0)[order] * price
    source_in_order = source[order]
    by_source = np.argsort(source_in_order, kind="stable")
    sizes = np.bincount(source_in_order, minlength=room.size)
    running = np.cumsum(demand[by_source]) - demand[by_source]
    starts = np.r_[0.0, np.cumsum(np.bincount(source_in_order, demand, room.size))[:-1]]
    before = np.empty_like(demand)
    before[by_source] = running - np.repeat(starts, sizes)
    fits = np.clip(room[source_in_order] - before, 0, demand)
    fits = np.floor(fits / price + _SLACK) * price
    fits = np.clip(total - (np.cumsum(fits) - fits), 0, fits)
    filled = np.zeros(rows.size, np.int64)
    filled[order] = np.floor(fits / price + _SLACK).astype(np.int64)
    return filled
