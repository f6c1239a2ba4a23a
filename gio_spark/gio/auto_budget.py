"""The budget "auto": the largest selection that can have the target's distribution.

kappa = sup {k : pool distribution >= k * target distribution} is the mixture proportion of
Blanchard, Lee and Scott (JMLR 11, 2010); of N pool rows, N * kappa can be selected so
that they have the target's distribution. The least divergence cannot give a budget, because it
never falls as the budget grows.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gio_spark.errors import InputError
from gio_spark.gio.budgeted_kl import budgeted_kl

#: Standard errors of a one-sided 95 % bound.
Z = 1.64
#: Level sets with fewer target rows than this are not used.
LEAST_ROWS = 20


class MixtureShare(NamedTuple):
    """Estimate of kappa with the level set that decides it.

    Attributes:
        kappa: The estimate, 0 to 1.
        threshold: Log ratio from which on rows are in the set.
        pool_share: Share of the pool in the set.
        target_share: Share of the target in the set.
    """

    kappa: float
    threshold: float
    pool_share: float
    target_share: float


def mixture_share(
    pool_log_ratio: ArrayLike,
    target_log_ratio: ArrayLike,
    *,
    pool_counts: ArrayLike | None = None,
    target_counts: ArrayLike | None = None,
    z: float = Z,
) -> MixtureShare:
    """Estimate kappa from log density ratios (target over pool) of pool rows and target rows.

    For every set S, Q(S) >= kappa P(S), with Q the pool's and P the target's share in S
    (Blanchard, Lee and Scott 2010). The estimate is the least of (Q + z SE_Q) / (P - z SE_P) over
    the sets of rows with a ratio above a threshold. The ratios must be cross-fitted: no row may be
    scored by a model that was trained on it.

    Args:
        pool_log_ratio: (n,) log ratios of pool rows, in nats, or the bins of a histogram of them.
        target_log_ratio: (m,) log ratios of target rows, or bins.
        pool_counts: (n,) rows per bin; 1 where None.
        target_counts: (m,) rows per bin; 1 where None.
        z: Standard errors of the bounds.

    Returns:
        kappa and the set that decides it. kappa is 0 where the deciding set has no more pool rows
        than chance may put there.

    Raises:
        InputError: The pool or the target has no rows, or NaN ratios.

    Example:
        A pool of which a quarter is target-like, and a target without other rows:

        >>> share = mixture_share([-2.0, 2.0], [2.0], pool_counts=[7500, 2500],
        ...                       target_counts=[1000])
        >>> round(share.kappa, 3), share.threshold, share.pool_share
        (0.257, 2.0, 0.25)
    """
    pool, pool_weight = _sorted(pool_log_ratio, pool_counts, "pool")
    target, target_weight = _sorted(target_log_ratio, target_counts, "target")
    pool_rows, target_rows = float(pool_weight.sum()), float(target_weight.sum())
    levels, first = np.unique(target, return_index=True)
    above = np.cumsum(target_weight[::-1])[::-1][first]
    pool_tail = np.concatenate((np.cumsum(pool_weight[::-1])[::-1], [0.0]))
    pool_above = pool_tail[np.searchsorted(pool, levels, side="left")]
    # The set of all rows, pool and target: kappa is never above 1.
    levels = np.concatenate(([-np.inf], levels))
    target_tail = np.concatenate(([1.0], above / target_rows))
    pool_tail_share = np.concatenate(([1.0], pool_above / pool_rows))
    lower_share = target_tail - z * np.sqrt(target_tail * (1.0 - target_tail) / target_rows)
    upper_share = pool_tail_share + z * np.sqrt(
        pool_tail_share * (1.0 - pool_tail_share) / pool_rows
    )
    usable = (lower_share > 0) & ((target_tail * target_rows >= LEAST_ROWS) | (target_tail >= 1.0))
    ratio = np.full(len(target_tail), np.inf)
    ratio[usable] = upper_share[usable] / lower_share[usable]
    best = int(np.argmin(ratio))
    kappa = float(min(1.0, ratio[best]))
    if pool_tail_share[best] * pool_rows <= z * z:
        kappa = 0.0
    return MixtureShare(
        kappa, float(levels[best]), float(pool_tail_share[best]), float(target_tail[best])
    )


def _sorted(values: ArrayLike, counts: ArrayLike | None, role: str) -> tuple[NDArray, NDArray]:
    ratio = np.asarray(values, dtype=np.float64)
    weight = np.ones(len(ratio)) if counts is None else np.asarray(counts, dtype=np.float64)
    if ratio.ndim != 1 or weight.shape != ratio.shape or weight.sum() <= 0:
        raise InputError(f"The {role} has no log ratios, or their counts do not match.")
    if np.isnan(ratio).any():
        raise InputError(f"The {role} has NaN log ratios.")
    has_weight = weight > 0
    ratio, weight = ratio[has_weight], weight[has_weight]
    order = np.argsort(ratio, kind="stable")
    return ratio[order], weight[order]


class HeldoutCurve(NamedTuple):
    """Held-out cross-entropy of budgeted-KL plans over budgets.

    Attributes:
        budgets: Rows, ascending, (b,).
        cross_entropy: Nats per held-out target row, (b,).
        standard_error: Standard error of the difference to the best budget, paired by row, (b,).
        chosen: The largest budget within one standard error of the best; 0 for an empty curve.
    """

    budgets: NDArray
    cross_entropy: NDArray
    standard_error: NDArray
    chosen: float


def heldout_curve(
    fit_mass: ArrayLike,
    heldout_counts: ArrayLike,
    sizes: ArrayLike,
    budgets: ArrayLike | None = None,
) -> HeldoutCurve:
    """Cross-entropy of budgeted-KL plans on target rows that the plans were not made from.

    Args:
        fit_mass: (K,) target mass from one part of the target.
        heldout_counts: (K,) rows of the other part per cluster.
        sizes: (K,) pool rows per cluster.
        budgets: Budgets in rows; None: 40 of them, from 1 % to all rows of the target's clusters.

    Returns:
        The curve. Plans are smoothed by half a row per cluster, so that a held-out row on a
        cluster without quota has a finite cost.

    Example:
        >>> curve = heldout_curve([3, 1], [30, 10], [600, 600], budgets=[400, 800, 1200])
        >>> curve.chosen
        800.0
    """
    mass = np.asarray(fit_mass, dtype=np.float64)
    available = np.asarray(sizes, dtype=np.float64)
    heldout_rows = np.where(available > 0, np.asarray(heldout_counts, dtype=np.float64), 0.0)
    reach = float(available[mass > 0].sum())
    rows = float(heldout_rows.sum())
    if reach < 1 or rows < 2:
        empty = np.zeros(0)
        return HeldoutCurve(empty, empty, empty, 0.0)
    if budgets is None:
        budgets = np.unique(np.floor(np.geomspace(max(1.0, 0.01 * reach), reach, 40)))
    candidates = np.asarray(budgets, dtype=np.float64)
    candidates = candidates[(candidates >= 1) & (candidates <= reach)]
    logs = np.stack([_log_plan(mass, available, float(budget)) for budget in candidates])
    share = heldout_rows / rows
    entropy = -(logs @ share)
    gap = logs - logs[int(np.argmin(entropy))]
    mean = gap @ share
    spread = np.sqrt(np.maximum((gap * gap) @ share - mean * mean, 0.0) / (rows - 1))
    within = entropy <= entropy.min() + spread
    return HeldoutCurve(candidates, entropy, spread, float(candidates[within].max()))


def _log_plan(mass: NDArray, available: NDArray, budget: float) -> NDArray:
    rows = budgeted_kl(mass, available, budget).rows
    smoothed = np.where(available > 0, rows + 0.5, 0.5)
    return np.log(smoothed / smoothed.sum())
