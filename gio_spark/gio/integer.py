"""The plan in whole rows: greedy marginal gains, which are optimal here, without the greedy loop.

Rounding a fractional plan gives small clusters nothing, and then the plain KL is infinite. The
plan delivered maximises sum p_c log(r_c + 1/2) over whole rows. Each cluster's gains fall with
its rows, so the best plan takes all units whose gain lies above one threshold.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gio_spark.errors import BudgetError


def integer_plan(
    target_mass: ArrayLike, sizes: ArrayLike, budget: float, *, cost: ArrayLike | None = None
) -> NDArray:
    """Return the whole rows per cluster that maximise sum p_c log(r_c + 1/2).

    A unit's gain is p_c log((r+3/2)/(r+1/2)); the threshold on it is found by bisection, since
    the number of units above a threshold has a closed form. Ties go to the lowest cluster.

    Args:
        target_mass: (K,) target mass per cluster.
        sizes: (K,) rows per cluster.
        budget: whole rows to take, or, with `cost`, the sum that may be spent.
        cost: (K,) what a row of each cluster costs (mean tokens). Gains are then per unit of
            cost, and spending ends with the first row that no longer fits.

    Returns:
        (K,) int64. Without `cost` it sums to the budget exactly.

    Raises:
        BudgetError: the clusters that the target reaches hold less than the budget.
    """
    mass = np.asarray(target_mass, dtype=np.float64)
    held = np.asarray(sizes, dtype=np.int64)
    price = np.ones(len(mass)) if cost is None else np.asarray(cost, dtype=np.float64)
    out = np.zeros(len(mass), dtype=np.int64)
    used = np.flatnonzero((mass > 0) & (held > 0))
    share, full, price = mass[used], held[used], price[used]
    largest = float(full @ price)
    if budget < 0 or budget > largest * (1 + 1e-12):
        raise BudgetError(
            f"The budget is {budget:g}, but the clusters that the target reaches hold "
            f"{largest:.0f}. Ask for at most that, or set a replay share.",
            largest=largest,
        )
    if cost is None:
        budget = float(int(budget))
    if budget >= largest:
        out[used] = full
        return out
    if len(used) and budget > 0:
        out[used] = _plan(share / price, share, full, price, float(budget))
    return out


def _plan(worth: NDArray, share: NDArray, full: NDArray, price: NDArray, budget: float) -> NDArray:
    few, many = _bracket(worth, full, price, budget)
    # The closed form of the count may be off by one unit in rounding: decide those by gain.
    base = np.maximum(few - 1, 0)
    top = np.minimum(many + 1, full)
    cluster = np.repeat(np.arange(len(share)), top - base)
    starts = np.cumsum(top - base) - (top - base)
    level = np.arange(len(cluster)) - starts[cluster] + base[cluster]
    gain = worth[cluster] * np.log1p(1.0 / (level + 0.5))
    order = np.lexsort((level, cluster, -gain))
    left = budget - float(base @ price)
    spent = np.cumsum(price[cluster[order]])
    chosen = order[: int(np.searchsorted(spent, left * (1 + 1e-15), side="right"))]
    return base + np.bincount(cluster[chosen], minlength=len(share))


def _bracket(
    worth: NDArray, full: NDArray, price: NDArray, budget: float
) -> tuple[NDArray, NDArray]:
    """Return two plans of threshold form, one within the budget and one at or above it."""

    def units(log_threshold: float) -> NDArray:
        with np.errstate(over="ignore"):
            bound = 1.0 / np.expm1(np.exp(log_threshold) / worth)
        return np.minimum(np.floor(np.minimum(bound, 2.0**60) + 0.5), full).astype(np.int64)

    high = float(np.log(worth.max() * np.log(3.0))) + 1e-6
    low = float(np.log((worth / (full + 1.0)).min())) - 1.0
    few, many = units(high), full
    for _ in range(200):
        if int((many - few).sum()) <= 2 * len(worth):
            break
        middle = 0.5 * (low + high)
        if middle in (low, high):
            break
        counted = units(middle)
        if float(counted @ price) <= budget:
            high, few = middle, counted
        else:
            low, many = middle, counted
    return few, many
