"""Budgeted KL: the exact optimum with its certificate, in whole rows, and its divergence path.

A fractional plan that is rounded gives no row to small clusters, and then the plain KL is infinite.
So the plan in whole rows maximizes sum p_c log(r_c + 1/2). The gain of each further row of a
cluster falls, so the best plan has all rows whose gain lies above one threshold: greedy marginal
gains, which are optimal here, without the greedy loop.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gio_spark.errors import BudgetError, InputError


class BudgetedKL(NamedTuple):
    """Optimum of the budgeted KL: rows per cluster (K,) float64, KL in nats, lower bound, gap."""

    rows: NDArray
    divergence: float
    dual: float
    gap: float


def budgeted_kl(target_mass: ArrayLike, sizes: ArrayLike, budget: float) -> BudgetedKL:
    """Rows per cluster that minimize the KL divergence from the target distribution.

    Minimize KL(p || r/B) subject to 0 <= r_c <= N_c and sum r_c = B. The optimum is
    r_c = min(N_c, lambda p_c): every cluster is filled in proportion to its target mass until
    it is full. Exact and global, O(K log K). For any nu >= 0 the dual
    sum_c min_r (-p_c log r + nu r) - nu B bounds the optimum from below; nu = 1 / lambda makes
    the bound tight.

    Args:
        target_mass: (K,) target mass per cluster, any scale. Mass on clusters without rows is
            left out, so the divergence is that of the distribution conditional on the others.
        sizes: (K,) rows (or tokens) per cluster.
        budget: Rows (or tokens) to select, B.

    Returns:
        Rows per cluster (K,) float64 that sum to B, KL in nats, dual bound, gap.

    Raises:
        InputError: The arrays do not match, or have negative or non-finite entries.
        BudgetError: B is not positive, or above the rows of the target's clusters; `largest` is
            the number of those rows.

    Example:
        >>> optimum = budgeted_kl([0.5, 0.4, 0.1], [1000, 20, 1000], 100)
        >>> [round(float(rows), 2) for rows in optimum.rows]
        [66.67, 20.0, 13.33]
        >>> abs(optimum.gap) < 1e-9
        True
    """
    mass = np.asarray(target_mass, dtype=np.float64)
    available = np.asarray(sizes, dtype=np.float64)
    if mass.shape != available.shape or mass.ndim != 1:
        raise InputError(
            f"target_mass has shape {mass.shape} and sizes {available.shape}; (K,) each."
        )
    if (
        not (np.isfinite(mass).all() and np.isfinite(available).all())
        or min(mass.min(initial=0.0), available.min(initial=0.0)) < 0
    ):
        raise InputError("target_mass or sizes have negative or non-finite entries.")
    usable = np.flatnonzero((mass > 0) & (available > 0))
    share = mass[usable]
    capacity = available[usable]
    largest = float(capacity.sum())
    if not budget > 0 or budget > largest:
        raise BudgetError(
            f"The budget is {budget:g}, but the clusters that the target reaches hold "
            f"{largest:.0f}. Ask for at most that, or set a replay share so that other clusters "
            f"may be used.",
            largest=largest,
        )
    share = share / share.sum()
    level = _water_level(share, capacity, float(budget))
    rows = np.minimum(capacity, level * share)
    primal = float(np.sum(share * np.log(share * (budget / rows))))
    dual = _dual(share, capacity, float(budget), 1.0 / level)
    out = np.zeros(len(mass))
    out[usable] = rows
    return BudgetedKL(out, primal, dual, primal - dual)


def _water_level(share: NDArray, capacity: NDArray, budget: float) -> float:
    """Water level: the lambda with sum min(N_c, lambda p_c) = B."""
    full_at = capacity / share
    order = np.argsort(full_at, kind="stable")
    full_at, share, capacity = full_at[order], share[order], capacity[order]
    filled = np.concatenate(([0.0], np.cumsum(capacity)[:-1]))
    # Summed from the end, so that the small remainders carry no cancellation.
    remaining_share = np.cumsum(share[::-1])[::-1]
    levels = (budget - filled) / remaining_share
    # levels[j] is right when clusters before j are full and j is not.
    first = int(np.argmax(levels <= full_at)) if np.any(levels <= full_at) else len(levels) - 1
    return float(min(levels[first], full_at[-1]))


def _dual(share: NDArray, capacity: NDArray, budget: float, price: float) -> float:
    """Dual bound on KL(p || r/B) at a price per row."""
    rows = np.minimum(capacity, share / price)
    terms = share * np.log(share * (budget / rows)) + price * rows
    return float(np.sum(terms) - price * budget)


def integer_plan(
    target_mass: ArrayLike, sizes: ArrayLike, budget: float, *, cost: ArrayLike | None = None
) -> NDArray:
    """Whole rows per cluster that maximize sum p_c log(r_c + 1/2).

    A unit's gain is p_c log((r+3/2)/(r+1/2)); the threshold on it is found by bisection, since
    the number of units above a threshold has a closed form. Ties go to the lowest cluster.

    Args:
        target_mass: (K,) target mass per cluster.
        sizes: (K,) rows per cluster.
        budget: Whole rows to select, or, with `cost`, the largest sum of costs.
        cost: (K,) cost of a row of each cluster (mean tokens). Gains are then per unit of cost,
            and the plan ends with the first row that no longer fits.

    Returns:
        (K,) int64. Without `cost` it sums to the budget exactly.

    Raises:
        BudgetError: The clusters that the target reaches have fewer rows than the budget.

    Example:
        >>> integer_plan([0.5, 0.4, 0.1], [1000, 20, 1000], 100)
        array([67, 20, 13])
    """
    mass = np.asarray(target_mass, dtype=np.float64)
    available = np.asarray(sizes, dtype=np.int64)
    price = np.ones(len(mass)) if cost is None else np.asarray(cost, dtype=np.float64)
    out = np.zeros(len(mass), dtype=np.int64)
    usable = np.flatnonzero((mass > 0) & (available > 0))
    share, capacity, price = mass[usable], available[usable], price[usable]
    largest = float(capacity @ price)
    if budget < 0 or budget > largest * (1 + 1e-12):
        raise BudgetError(
            f"The budget is {budget:g}, but the clusters that the target reaches hold "
            f"{largest:.0f}. Ask for at most that, or set a replay share.",
            largest=largest,
        )
    if cost is None:
        budget = float(int(budget))
    if budget >= largest:
        out[usable] = capacity
        return out
    if len(usable) and budget > 0:
        out[usable] = _plan(share / price, share, capacity, price, float(budget))
    return out


def _plan(
    weight: NDArray, share: NDArray, capacity: NDArray, price: NDArray, budget: float
) -> NDArray:
    plan_below, plan_above = _bracket(weight, capacity, price, budget)
    # The closed form of the count may be off by one unit in rounding: decide those by gain.
    base = np.maximum(plan_below - 1, 0)
    top = np.minimum(plan_above + 1, capacity)
    cluster = np.repeat(np.arange(len(share)), top - base)
    starts = np.cumsum(top - base) - (top - base)
    level = np.arange(len(cluster)) - starts[cluster] + base[cluster]
    gain = weight[cluster] * np.log1p(1.0 / (level + 0.5))
    order = np.lexsort((level, cluster, -gain))
    remaining = budget - float(base @ price)
    spent = np.cumsum(price[cluster[order]])
    taken = order[: int(np.searchsorted(spent, remaining * (1 + 1e-15), side="right"))]
    return base + np.bincount(cluster[taken], minlength=len(share))


def _bracket(
    weight: NDArray, capacity: NDArray, price: NDArray, budget: float
) -> tuple[NDArray, NDArray]:
    """Two plans in threshold form, one within the budget and one at or above it."""

    def units(log_threshold: float) -> NDArray:
        with np.errstate(over="ignore"):
            bound = 1.0 / np.expm1(np.exp(log_threshold) / weight)
        return np.minimum(np.floor(np.minimum(bound, 2.0**60) + 0.5), capacity).astype(np.int64)

    high = float(np.log(weight.max() * np.log(3.0))) + 1e-6
    low = float(np.log((weight / (capacity + 1.0)).min())) - 1.0
    plan_below, plan_above = units(high), capacity
    for _ in range(200):
        if int((plan_above - plan_below).sum()) <= 2 * len(weight):
            break
        middle = 0.5 * (low + high)
        if middle in (low, high):
            break
        counts = units(middle)
        if float(counts @ price) <= budget:
            high, plan_below = middle, counts
        else:
            low, plan_above = middle, counts
    return plan_below, plan_above


def smoothed_path(
    distribution: NDArray, take: NDArray, cost: NDArray | None = None
) -> tuple[NDArray, NDArray]:
    """Clusters with rows, ordered by their part in the divergence, and the divergence's path.

    The divergence is KL(p || t (r + 1/2) / sum t (r + 1/2)) over the clusters with p > 0, t the
    cost of a row: finite for whole rows, and the objective of the integer plan. Clusters are added
    in order of how much they lower it; the path starts after the first one and ends at the
    divergence of the plan.
    """
    in_target = distribution > 0
    price = np.ones(len(distribution)) if cost is None else cost
    total = float(np.sum(price[in_target] * (take[in_target] + 0.5)))
    gain = np.where(in_target, distribution * np.log1p(2.0 * take), 0.0)
    order = np.flatnonzero(take > 0)
    order = order[np.argsort(-gain[order], kind="stable")]
    start = float(
        np.sum(
            distribution[in_target]
            * np.log(distribution[in_target] * total / (0.5 * price[in_target]))
        )
    )
    return order, start - np.cumsum(gain[order])
