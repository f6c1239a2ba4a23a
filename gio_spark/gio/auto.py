"""How much to take: the largest budget at which a selection with the target's own law exists.

kappa = sup {k : pool law >= k * target law}, the mixture proportion (Blanchard, Lee, Scott 2010);
of N pool rows, N * kappa can be chosen so that they have the target's law. The least divergence
is no guide: it never falls as the budget grows.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gio_spark.errors import InputError
from gio_spark.gio.budgeted_kl import budgeted_kl

#: Standard errors that a share is moved by, one-sided 95 %.
Z = 1.64
#: Level sets with fewer target rows than this say nothing.
LEAST_ROWS = 20


class MixtureShare(NamedTuple):
    """kappa with the level set that decides it.

    Attributes:
        kappa: the estimate, 0 to 1.
        threshold: log ratio from which on rows are in the set.
        pool_share: share of the pool in the set.
        target_share: share of the target in the set.
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
    """Estimate kappa from log density ratios (target over pool) of rows of both sides.

    For every set S, Q(S) >= kappa P(S), Q the pool's and P the target's share in S. The estimate
    is the least of (Q + z SE_Q) / (P - z SE_P) over the sets of rows with a ratio above a
    threshold. The ratios must be cross-fitted: a row may not be scored by a model it trained.

    Args:
        pool_log_ratio: (n,) log ratios of pool rows, or the bins of a histogram of them.
        target_log_ratio: (m,) log ratios of target rows, or bins.
        pool_counts: (n,) rows per bin; 1 where None.
        target_counts: (m,) rows per bin; 1 where None.
        z: standard errors allowed for.

    Returns:
        kappa and the set that decides it. kappa is 0 where the deciding set holds no more pool
        rows than chance may put there.

    Raises:
        InputError: no rows on a side, or NaN ratios.
    """
    pool, pool_weight = _sorted(pool_log_ratio, pool_counts, "pool")
    target, target_weight = _sorted(target_log_ratio, target_counts, "target")
    pool_rows, target_rows = float(pool_weight.sum()), float(target_weight.sum())
    levels, first = np.unique(target, return_index=True)
    above = np.cumsum(target_weight[::-1])[::-1][first]
    pool_tail = np.concatenate((np.cumsum(pool_weight[::-1])[::-1], [0.0]))
    held = pool_tail[np.searchsorted(pool, levels, side="left")]
    # The whole pool against the whole target: kappa is never above 1.
    levels = np.concatenate(([-np.inf], levels))
    p = np.concatenate(([1.0], above / target_rows))
    q = np.concatenate(([1.0], held / pool_rows))
    low = p - z * np.sqrt(p * (1.0 - p) / target_rows)
    high = q + z * np.sqrt(q * (1.0 - q) / pool_rows)
    usable = (low > 0) & ((p * target_rows >= LEAST_ROWS) | (p >= 1.0))
    ratio = np.full(len(p), np.inf)
    ratio[usable] = high[usable] / low[usable]
    best = int(np.argmin(ratio))
    kappa = float(min(1.0, ratio[best]))
    if q[best] * pool_rows <= z * z:
        kappa = 0.0
    return MixtureShare(kappa, float(levels[best]), float(q[best]), float(p[best]))


def _sorted(values: ArrayLike, counts: ArrayLike | None, side: str) -> tuple[NDArray, NDArray]:
    ratio = np.asarray(values, dtype=np.float64)
    weight = np.ones(len(ratio)) if counts is None else np.asarray(counts, dtype=np.float64)
    if ratio.ndim != 1 or weight.shape != ratio.shape or weight.sum() <= 0:
        raise InputError(f"The {side} has no log ratios, or their counts do not match.")
    if np.isnan(ratio).any():
        raise InputError(f"The {side} has NaN log ratios.")
    keep = weight > 0
    ratio, weight = ratio[keep], weight[keep]
    order = np.argsort(ratio, kind="stable")
    return ratio[order], weight[order]


class HeldoutCurve(NamedTuple):
    """Held-out cross-entropy of water-filled plans over budgets.

    Attributes:
        budgets: rows, ascending.
        cross_entropy: nats per held-out target row.
        standard_error: of the difference to the best budget, paired by row.
        chosen: the largest budget within one standard error of the best; 0 for an empty curve.
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
    """Score water-filled plans by target rows that did not shape them.

    Args:
        fit_mass: (K,) target mass from one part of the target.
        heldout_counts: (K,) rows of the other part per cluster.
        sizes: (K,) pool rows per cluster.
        budgets: rows to try; 40 from 1 % to all that the target's clusters hold where None.

    Returns:
        The curve. Plans are smoothed by half a row per cluster, so that a held-out row on a
        cluster without quota costs much, not everything.
    """
    mass = np.asarray(fit_mass, dtype=np.float64)
    held = np.asarray(sizes, dtype=np.float64)
    counts = np.where(held > 0, np.asarray(heldout_counts, dtype=np.float64), 0.0)
    reach = float(held[mass > 0].sum())
    rows = float(counts.sum())
    if reach < 1 or rows < 2:
        empty = np.zeros(0)
        return HeldoutCurve(empty, empty, empty, 0.0)
    if budgets is None:
        budgets = np.unique(np.floor(np.geomspace(max(1.0, 0.01 * reach), reach, 40)))
    tried = np.asarray(budgets, dtype=np.float64)
    tried = tried[(tried >= 1) & (tried <= reach)]
    logs = np.stack([_log_plan(mass, held, float(budget)) for budget in tried])
    share = counts / rows
    entropy = -(logs @ share)
    gap = logs - logs[int(np.argmin(entropy))]
    mean = gap @ share
    spread = np.sqrt(np.maximum((gap * gap) @ share - mean * mean, 0.0) / (rows - 1))
    within = entropy <= entropy.min() + spread
    return HeldoutCurve(tried, entropy, spread, float(tried[within].max()))


def _log_plan(mass: NDArray, held: NDArray, budget: float) -> NDArray:
    rows = budgeted_kl(mass, held, budget).rows
    smooth = np.where(held > 0, rows + 0.5, 0.5)
    return np.log(smooth / smooth.sum())
