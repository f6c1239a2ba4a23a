"""Whole rows per cluster and source under a budget in tokens."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: Rounds of single rows; each takes what fits, and a handful is enough.
ROUNDS = 64


def token_rows(
    law: NDArray,
    amount: NDArray,
    rows: NDArray,
    cost: NDArray,
    *,
    budget: float,
    floor: NDArray,
    cap: NDArray,
) -> NDArray:
    """Round a plan in tokens to whole rows.

    Rounded down first; then floors are filled up, and what is left of the budget goes to the rows
    that gain most per token. Budget and caps are never passed, and are met, like floors, to within
    one row.

    Args:
        law: (K,) target law, to weigh clusters.
        amount: (K, S) fractional tokens.
        rows: (K, S) int64 rows there are.
        cost: (K, S) mean tokens of a row, 0 where there are none.
        budget: tokens.
        floor: (S,) least tokens per source.
        cap: (S,) most tokens per source.

    Returns:
        (K, S) int64 rows to take.
    """
    usable = np.where(cost > 0, rows, 0)
    wanted = np.divide(amount, cost, out=np.zeros_like(amount), where=cost > 0)
    take = np.minimum(np.floor(wanted + 1e-9).astype(np.int64), usable)
    for short in (True, False):
        for _ in range(ROUNDS):
            spent = (take * cost).sum(axis=0)
            room = (cap if not short else np.minimum(cap, _above(floor, spent, cost))) - spent
            added = _fit(law, take, usable, cost, room, budget - float(spent.sum()))
            if added is None:
                break
            take = take + added
    return take


def _above(floor: NDArray, spent: NDArray, cost: NDArray) -> NDArray:
    """Return the tokens up to which sources below their floor may go: the floor and one row."""
    return np.where(spent < floor - 1e-9, floor + cost.max(axis=0), spent)


def _fit(
    law: NDArray, take: NDArray, usable: NDArray, cost: NDArray, room: NDArray, left: float
) -> NDArray | None:
    """Return one more row of each cell that fits, best gain per token first; None: none fits."""
    open_ = (take < usable) & (cost <= room[None, :] * (1 + 1e-12)) & (cost <= left * (1 + 1e-12))
    cluster, source = np.nonzero(open_)
    if not len(cluster):
        return None
    price = cost[cluster, source]
    held = (take * cost).sum(axis=1)[cluster] + 0.5 * price
    gain = law[cluster] * np.log1p(price / held) / price
    order = np.lexsort((source, cluster, -gain))
    cluster, source, price = cluster[order], source[order], price[order]
    # Sums up to a row count rows that come before it, taken or not: a row that fits so fits.
    fits = np.cumsum(price) <= left * (1 + 1e-12)
    for s in np.unique(source):
        own = source == s
        fits[own] &= np.cumsum(price[own]) <= room[s] * (1 + 1e-12)
    fits[0] = True
    added = np.zeros_like(take)
    added[cluster[fits], source[fits]] = 1
    return added
