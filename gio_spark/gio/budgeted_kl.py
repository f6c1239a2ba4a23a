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
from gio_spark.gio.row_repetition import Repetition


class BudgetedKL(NamedTuple):
    """Optimum of the budgeted KL: rows per cluster (K,) float64, KL in nats, lower bound, gap."""

    rows: NDArray
    divergence: float
    dual: float
    gap: float


def budgeted_kl(
    target_mass: ArrayLike,
    sizes: ArrayLike,
    budget: float,
    *,
    repeat: Repetition | None = None,
) -> BudgetedKL:
    """Rows per cluster that minimize the KL divergence from the target distribution.

    Minimize KL(p || r/B) subject to 0 <= r_c <= N_c and sum r_c = B. The optimum is
    r_c = min(N_c, lambda p_c): every cluster is filled in proportion to its target mass until
    it is full. Exact and global, O(K log K). For any nu >= 0 the dual
    sum_c min_r (-p_c log r + nu r) - nu B bounds the optimum from below; nu = 1 / lambda makes
    the bound tight. Where rows may repeat, the r_c are copies, the divergence is
    sum p_c log(p_c B / e_c(r_c)) with e_c the rows that copies are worth, and r_c <= most * N_c.

    Args:
        target_mass: (K,) target mass per cluster, any scale. Mass on clusters without rows is
            left out, so the divergence is that of the distribution conditional on the others.
        sizes: (K,) rows (or tokens) per cluster.
        budget: Rows (or tokens) to select, B.
        repeat: Repetition of rows; None: each row is taken once at most.

    Returns:
        Rows (copies) per cluster (K,) float64 that sum to B, KL in nats, dual bound, gap.

    Raises:
        InputError: The arrays do not match, or have negative or non-finite entries.
        BudgetError: B is not positive, or above the rows of the target's clusters with their
            repeats; `largest` is the number of those rows.

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
    fresh = available[usable]
    capacity = fresh if repeat is None else repeat.most * fresh
    largest = float(capacity.sum())
    if not budget > 0 or budget > largest:
        raise BudgetError(
            f"The budget is {budget:g}, but the clusters that the target reaches hold "
            f"{largest:.0f}. Ask for at most that, or set a replay share so that other clusters "
            f"may be used.",
            largest=largest,
        )
    share = share / share.sum()
    budget = float(budget)
    if repeat is None:
        level = _water_level(share, capacity, budget)
        rows, price = np.minimum(capacity, level * share), 1.0 / level
        at_price = np.minimum(capacity, share / price)
        worth, worth_at_price = rows, at_price
    else:
        rows, price = repeat.fill(share, fresh, budget)
        at_price = repeat.copies_at(share, fresh, price)
        worth, worth_at_price = (repeat.effective_rows(r, fresh) for r in (rows, at_price))
    primal = float(np.sum(share * np.log(share * (budget / worth))))
    # For any price, the least of divergence plus price per row is reached at these rows.
    terms = share * np.log(share * (budget / worth_at_price)) + price * at_price
    dual = float(np.sum(terms) - price * budget)
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


def integer_plan(
    target_mass: ArrayLike,
    sizes: ArrayLike,
    budget: float,
    *,
    cost: ArrayLike | None = None,
    repeat: Repetition | None = None,
) -> NDArray:
    """Whole rows per cluster that maximize sum p_c log(r_c + 1/2).

    A unit's gain is p_c log((r+3/2)/(r+1/2)); the threshold on it is found by bisection, since
    the number of units above a threshold has a closed form. Ties go to the lowest cluster. Where
    rows may repeat, r_c counts copies, and sum p_c log(e_c(r_c) + 1/2) is maximized.

    Args:
        target_mass: (K,) target mass per cluster.
        sizes: (K,) rows per cluster.
        budget: Whole rows to select, or, with `cost`, the largest sum of costs.
        cost: (K,) cost of a row of each cluster (mean tokens). Gains are then per unit of cost,
            and the plan ends with the first row that no longer fits.
        repeat: Repetition of rows; None: each row is taken once at most.

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
    share, fresh, price = mass[usable], available[usable], price[usable]
    capacity = fresh if repeat is None else repeat.most * fresh
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
        repetition = Repetition(most=1) if repeat is None else repeat
        out[usable] = _plan(share / price, fresh, price, float(budget), repetition)
    return out


def _plan(
    weight: NDArray, fresh: NDArray, price: NDArray, budget: float, repeat: Repetition
) -> NDArray:
    capacity = repeat.most * fresh
    plan_below, plan_above = _bracket(weight, fresh, price, budget, repeat)
    # The closed form of the count may be off by one unit in rounding: decide those by gain.
    base = np.maximum(plan_below - 1, 0)
    top = np.minimum(plan_above + 1, capacity)
    cluster = np.repeat(np.arange(len(fresh)), top - base)
    starts = np.cumsum(top - base) - (top - base)
    level = np.arange(len(cluster)) - starts[cluster] + base[cluster]
    gain = _gain(weight[cluster], fresh[cluster], level, repeat)
    order = np.lexsort((level, cluster, -gain))
    remaining = budget - float(base @ price)
    spent = np.cumsum(price[cluster[order]])
    taken = order[: int(np.searchsorted(spent, remaining * (1 + 1e-15), side="right"))]
    return base + np.bincount(cluster[taken], minlength=len(fresh))


def _gain(weight: NDArray, fresh: NDArray, level: NDArray, repeat: Repetition) -> NDArray:
    """Gain of one more copy beside `level` copies."""
    worth, next_worth = (
        repeat.effective_rows(n.astype(np.float64), fresh) for n in (level, level + 1)
    )
    return weight * np.log1p((next_worth - worth) / (worth + 0.5))


def _bracket(
    weight: NDArray, fresh: NDArray, price: NDArray, budget: float, repeat: Repetition
) -> tuple[NDArray, NDArray]:
    """Two plans in threshold form, one within the budget and one at or above it."""
    capacity = repeat.most * fresh

    def units(log_threshold: float) -> NDArray:
        threshold = float(np.exp(log_threshold))
        # The gain of a copy is the slope somewhere on its way: that of the last is at this point.
        last = repeat.copies_at(weight, fresh, threshold, smoothing=0.5)
        whole = np.minimum(np.floor(last), capacity).astype(np.int64)
        is_above = _gain(weight, fresh, whole, repeat) >= threshold
        return np.minimum(whole + is_above, capacity)

    high = float(np.log(weight.max() * np.log(3.0))) + 1e-6
    low = float(np.log(_gain(weight, fresh, capacity - 1, repeat).min())) - 1.0
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
