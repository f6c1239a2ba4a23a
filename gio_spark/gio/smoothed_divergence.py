"""Smoothed KL divergences of whole numbers of rows, finite for any plan, as reports show them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def smoothed_kl(distribution: NDArray, counts: NDArray) -> float:
    """Smoothed divergence KL(p || counts + 1/2, normalized) in nats: finite for any counts.

    Args:
        distribution: (K,) target distribution, on any scale.
        counts: (K,) rows per cluster.

    Returns:
        Nats; NaN where the distribution is all zero.

    Example:
        >>> import numpy as np
        >>> round(smoothed_kl(np.array([0.5, 0.5, 0.0]), np.array([10, 10, 0])), 4)
        0.0235
    """
    in_target = distribution > 0
    if not in_target.any():
        return float("nan")
    p = distribution[in_target] / distribution[in_target].sum()
    q = (counts + 0.5) / (counts + 0.5).sum()
    return float(np.sum(p * np.log(p / q[in_target])))


def divergence_path(distribution: NDArray, take: NDArray, order: NDArray) -> NDArray:
    """`smoothed_kl` after each cluster of `order`, (c,); the last is that of the plan."""
    in_target = distribution > 0
    if not in_target.any() or not len(order):
        return np.zeros(len(order))
    p = np.where(in_target, distribution, 0.0) / distribution[in_target].sum()
    entropy = float(np.sum(p[in_target] * np.log(p[in_target])))
    gains = p[order] * (np.log(take[order] + 0.5) - np.log(0.5))
    cross = np.log(0.5) + np.cumsum(gains)
    return entropy - cross + np.log(np.cumsum(take[order]) + 0.5 * len(distribution))


def divergences(
    distribution: NDArray,
    sizes: NDArray,
    take: NDArray,
    seed: int,
    *,
    copies: NDArray | None = None,
) -> dict[str, float]:
    """Smoothed KL in nats of the pool, of as many random rows as selected, and of the plan.

    Args:
        distribution: (K,) target distribution.
        sizes: (K,) rows of the pool.
        take: (K,) rows of the plan.
        seed: Seed of the random rows.
        copies: (K,) rows of the plan with their repeats, where rows repeat.
    """
    generator = np.random.default_rng(seed)
    sizes = np.asarray(sizes, np.int64)
    draw = int(take.sum())
    random = [
        smoothed_kl(
            distribution, generator.multivariate_hypergeometric(sizes, draw, method="marginals")
        )
        for _ in range(8)
    ]
    return {
        "pool": smoothed_kl(distribution, sizes),
        "random": float(np.mean(random)),
        "selection": smoothed_kl(distribution, np.asarray(take if copies is None else copies)),
    }
