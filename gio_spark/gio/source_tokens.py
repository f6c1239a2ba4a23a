"""Whole rows per cluster and source under a budget in tokens."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: Rounds of single rows; each adds the rows that fit, and a handful is enough.
ROUNDS = 64


def token_rows(
    distribution: NDArray,
    amount: NDArray,
    rows: NDArray,
    cost: NDArray,
    *,
    budget: float,
    floor: NDArray,
    cap: NDArray,
) -> NDArray:
    """Round a plan in tokens to whole rows.

    The plan is rounded down; then floors are filled up, and the remaining budget goes to the rows
    that gain most per token. Budget and caps are never exceeded, and are met, like floors, to
    within one row.

    Args:
        distribution: (K,) target distribution, to weigh clusters.
        amount: (K, S) fractional tokens.
        rows: (K, S) int64 rows of the pool.
        cost: (K, S) mean tokens of a row, 0 where there are none.
        budget: Budget in tokens.
        floor: (S,) least tokens per source.
        cap: (S,) most tokens per source.

    Returns:
        (K, S) int64 rows to select.
    """
    usable = np.where(cost > 0, rows, 0)
    exact = np.divide(amount, cost, out=np.zeros_like(amount), where=cost > 0)
    take = np.minimum(np.floor(exact + 1e-9).astype(np.int64), usable)
    for fill_floors in (True, False):
        for _ in range(ROUNDS):
            spent = (take * cost).sum(axis=0)
            room = (cap if not fill_floors else np.minimum(cap, _above(floor, spent, cost))) - spent
            added = _fit(distribution, take, usable, cost, room, budget - float(spent.sum()))
            if added is None:
                break
            take = take + added
    return take


def _above(floor: NDArray, spent: NDArray, cost: NDArray) -> NDArray:
    """Tokens up to which sources below their floor are filled: the floor and one row."""
    return np.where(spent < floor - 1e-9, floor + cost.max(axis=0), spent)


def _fit(
    distribution: NDArray,
    take: NDArray,
    usable: NDArray,
    cost: NDArray,
    room: NDArray,
    remaining: float,
) -> NDArray | None:
    """One more row of each source of a cluster that fits, best gain per token first; else None."""
    is_open = (
        (take < usable) & (cost <= room[None, :] * (1 + 1e-12)) & (cost <= remaining * (1 + 1e-12))
    )
    cluster, source = np.nonzero(is_open)
    if not len(cluster):
        return None
    price = cost[cluster, source]
    selected_tokens = (take * cost).sum(axis=1)[cluster] + 0.5 * price
    gain = distribution[cluster] * np.log1p(price / selected_tokens) / price
    order = np.lexsort((source, cluster, -gain))
    cluster, source, price = cluster[order], source[order], price[order]
    # Sums up to a row include all rows before it, added or not: a row that fits them fits.
    fits = np.cumsum(price) <= remaining * (1 + 1e-12)
    for s in np.unique(source):
        of_source = source == s
        fits[of_source] &= np.cumsum(price[of_source]) <= room[s] * (1 + 1e-12)
    fits[0] = True
    added = np.zeros_like(take)
    added[cluster[fits], source[fits]] = 1
    return added
