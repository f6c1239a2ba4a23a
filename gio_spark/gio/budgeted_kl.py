"""Budgeted KL: the exact optimum with its certificate, in whole rows, and its divergence path.

Rounding a fractional plan gives small clusters nothing, and then the plain KL is infinite. The
whole plan maximizes sum p_c log(r_c + 1/2) instead. Each cluster's gains fall with its rows, so the
best plan takes all units whose gain lies above one threshold: greedy marginal gains, which are
optimal here, without the greedy loop.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gio_spark.errors import BudgetError, InputError


class BudgetedKL(NamedTuple):
    """The optimum: rows per cluster (float64), its divergence, a lower bound, and their gap."""

    rows: NDArray
    divergence: float
    dual: float
    gap: float


def budgeted_kl(target_mass: ArrayLike, sizes: ArrayLike, budget: float) -> BudgetedKL:
    """Choose rows per cluster so that the selection's law is as near the target's as can be.

    Minimise KL(p || r/B) subject to 0 <= r_c <= N_c and sum r_c = B. The optimum is
    r_c = min(N_c, lambda p_c): every cluster is filled in proportion to its target mass until
    it is full. Exact and global, O(K log K). For any nu >= 0 the dual
    sum_c min_r (-p_c log r + nu r) - nu B bounds the optimum from below; nu = 1 / lambda makes
    the bound tight.

    Args:
        target_mass: (K,) target mass per cluster, any scale. Mass on clusters without rows is
            left out, so the divergence is that of the law conditional on the others.
        sizes: (K,) rows (or tokens) per cluster.
        budget: rows (or tokens) to take, B.

    Returns:
        Rows per cluster (K,) float64 that sum to B, KL in nats, dual bound, gap.

    Raises:
        InputError: the arrays do not match, or have negative or non-finite entries.
        BudgetError: B is not positive, or above what the target's clusters hold; `largest` is
            what they hold.
    """
    mass = np.asarray(target_mass, dtype=np.float64)
    held = np.asarray(sizes, dtype=np.float64)
    if mass.shape != held.shape or mass.ndim != 1:
        raise InputError(f"target_mass has shape {mass.shape} and sizes {held.shape}; (K,) each.")
    if (
        not (np.isfinite(mass).all() and np.isfinite(held).all())
        or min(mass.min(initial=0.0), held.min(initial=0.0)) < 0
    ):
        raise InputError("target_mass or sizes have negative or non-finite entries.")
    used = np.flatnonzero((mass > 0) & (held > 0))
    share = mass[used]
    capacity = held[used]
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
    out[used] = rows
    return BudgetedKL(out, primal, dual, primal - dual)


def _water_level(share: NDArray, capacity: NDArray, budget: float) -> float:
    """Return lambda with sum min(N_c, lambda p_c) = B."""
    full_at = capacity / share
    order = np.argsort(full_at, kind="stable")
    full_at, share, capacity = full_at[order], share[order], capacity[order]
    taken = np.concatenate(([0.0], np.cumsum(capacity)[:-1]))
    # Summed from the end, so that the small remainders carry no cancellation.
    open_share = np.cumsum(share[::-1])[::-1]
    levels = (budget - taken) / open_share
    # levels[j] is right when clusters before j are full and j is not.
    first = int(np.argmax(levels <= full_at)) if np.any(levels <= full_at) else len(levels) - 1
    return float(min(levels[first], full_at[-1]))


def _dual(share: NDArray, capacity: NDArray, budget: float, price: float) -> float:
    """Return the dual bound on KL(p || r/B) at a price per row."""
    rows = np.minimum(capacity, share / price)
    terms = share * np.log(share * (budget / rows)) + price * rows
    return float(np.sum(terms) - price * budget)


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


def smoothed_path(
    law: NDArray, take: NDArray, cost: NDArray | None = None
) -> tuple[NDArray, NDArray]:
    """Return the clusters taken, in order of their part in the divergence, and its path.

    The divergence is KL(p || t (r + 1/2) / sum t (r + 1/2)) over the clusters with p > 0, t the
    cost of a row: finite for whole rows, and the objective of the integer plan. Clusters enter
    by what they take off it; the path starts after the first and ends at the plan's own value.
    """
    used = law > 0
    price = np.ones(len(law)) if cost is None else cost
    total = float(np.sum(price[used] * (take[used] + 0.5)))
    gain = np.where(used, law * np.log1p(2.0 * take), 0.0)
    order = np.flatnonzero(take > 0)
    order = order[np.argsort(-gain[order], kind="stable")]
    start = float(np.sum(law[used] * np.log(law[used] * total / (0.5 * price[used]))))
    return order, start - np.cumsum(gain[order])
