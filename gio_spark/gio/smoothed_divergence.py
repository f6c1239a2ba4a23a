"""Smoothed KL divergences of whole numbers of rows, as reports show them: finite for any plan."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def smoothed_kl(law: NDArray, counts: NDArray) -> float:
    """KL(p || counts + 1/2, normalised) in nats: finite for any whole numbers."""
    used = law > 0
    if not used.any():
        return float("nan")
    p = law[used] / law[used].sum()
    q = (counts + 0.5) / (counts + 0.5).sum()
    return float(np.sum(p * np.log(p / q[used])))


def divergence_path(law: NDArray, take: NDArray, order: NDArray) -> NDArray:
    """`smoothed_kl` after each cluster of `order` is added; it ends at the plan's own."""
    used = law > 0
    if not used.any() or not len(order):
        return np.zeros(len(order))
    p = np.where(used, law, 0.0) / law[used].sum()
    entropy = float(np.sum(p[used] * np.log(p[used])))
    gains = p[order] * (np.log(take[order] + 0.5) - np.log(0.5))
    cross = np.log(0.5) + np.cumsum(gains)
    return entropy - cross + np.log(np.cumsum(take[order]) + 0.5 * len(law))


def divergences(law: NDArray, sizes: NDArray, take: NDArray, seed: int) -> dict[str, float]:
    """Smoothed KL of the pool, of random rows (as many as taken) and of the plan."""
    generator = np.random.default_rng(seed)
    sizes = np.asarray(sizes, np.int64)
    draw = int(take.sum())
    random = [
        smoothed_kl(law, generator.multivariate_hypergeometric(sizes, draw, method="marginals"))
        for _ in range(8)
    ]
    return {
        "pool": smoothed_kl(law, sizes),
        "random": float(np.mean(random)),
        "selection": smoothed_kl(law, np.asarray(take)),
    }
