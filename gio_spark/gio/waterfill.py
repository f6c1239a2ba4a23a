"""Budgeted KL on the quantised measure: the exact optimum, with its certificate."""

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
