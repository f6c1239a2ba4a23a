"""The published objective solved exactly: one score per candidate, one sort, prefix sums.

Source: Everaert and Potts, arXiv 2306.11670. Its estimate of KL(X || W) averages the log
distance over all neighbors, so it is a mean over pairs, every candidate has a fixed score, and
the best set of any size is the candidates with the smallest scores.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gio_spark.errors import InputError
from gio_spark.gio.distances import (
    blocks,
    centered,
    neighbor_distances,
    squared_distances,
    squared_norms,
)

#: The published code's guards: on distances inside logarithms, and on squared distances.
EPS = 1e-8
SQUARED_RANGE = (1e-10, 1e20)


class ExactPath(NamedTuple):
    """Candidates in the order of the best sets, and the divergence after each."""

    order: NDArray
    divergence: NDArray


def published_scores(
    target: ArrayLike, vectors: ArrayLike, *, weights: ArrayLike | None = None
) -> NDArray:
    """Score mean_i log(|x_i - v| + 1e-8) of every row v.

    The score of a row needs the target alone, so that a map over a table can compute it.

    Args:
        target: (n, d) target rows.
        vectors: (m, d) candidates.
        weights: (n,) weights of the target rows; equal where None.

    Returns:
        (m,) float64 scores.
    """
    x, w = (np.atleast_2d(np.asarray(a)) for a in (target, vectors))
    x, w = centered(x, w)
    share = np.full(len(x), 1.0 / len(x))
    if weights is not None:
        share = np.asarray(weights, dtype=np.float64)
        share = share / share.sum()
    norms = squared_norms(x)
    out = np.empty(len(w))
    for block in blocks(len(w), len(x), 8):
        tile = squared_distances(w[block], x, right_norms=norms)
        np.clip(tile, *SQUARED_RANGE, out=tile)
        np.sqrt(tile, out=tile)
        tile += EPS
        np.log(tile, out=tile)
        out[block] = tile @ share
    return out


def target_log_distance(target: NDArray, k: int) -> float:
    """Mean log(rho_k(x_i) + 1e-8), rho_k the distance to the k-th neighbor in the target.

    Raises:
        InputError: The target has no k-th neighbor.
    """
    if not 1 <= k < len(target):
        raise InputError(
            f"k is {k}, but the target has {len(target)} rows; k must lie in 1 to "
            f"{len(target) - 1}."
        )
    squared = neighbor_distances(target, target, k, skip_self=True)[:, k - 1]
    return float(np.mean(np.log(np.sqrt(np.clip(squared, *SQUARED_RANGE)) + EPS)))


def published_divergence_curve(
    mean_log: NDArray, sizes: NDArray, rho: float, n: int, d: int, k: int
) -> NDArray:
    """Published divergence, in nats, of sets with these mean pair log distances.

    d * mean_ij log|x_i - w_j| - d * mean_i log rho_k + log k - log(n-1) + log m - log(m!)/m.
    """
    from scipy.special import gammaln

    m = np.asarray(sizes, dtype=np.float64)
    tail = np.log(k) - np.log(n - 1) + np.log(m) - gammaln(m + 1.0) / m
    return d * (np.asarray(mean_log) - rho) + tail


def exact_path(
    target: ArrayLike,
    pool: ArrayLike,
    k: int = 5,
    *,
    initial: ArrayLike | None = None,
    weights: ArrayLike | None = None,
) -> ExactPath:
    """Optimal selections of every size of the published objective.

    Source: Everaert and Potts, arXiv 2306.11670.

    Args:
        target: (n, d) target rows.
        pool: (m, d) candidates.
        k: Neighbor used inside the target.
        initial: (m0, d) initial data; it counts in the divergence from the start.
        weights: (n,) weights of target rows in the cross term.

    Returns:
        order (m,): candidates by score, ties by lowest index. divergence (m,): after each pick, in
        nats.

    Raises:
        InputError: Dimensions differ, or the target has at most k rows.

    Example:
        >>> exact_path([[0.0], [1.0], [2.0]], [[9.0], [1.5], [4.0]], k=1).order
        array([1, 2, 0])
    """
    x, w = (np.atleast_2d(np.asarray(a)) for a in (target, pool))
    if x.shape[1] != w.shape[1]:
        raise InputError(f"The target has dimension {x.shape[1]} and the pool {w.shape[1]}.")
    rho = target_log_distance(x, k)
    scores = published_scores(x, w, weights=weights)
    order = np.argsort(scores, kind="stable")
    sums, initial_count = np.cumsum(scores[order]), 0
    if initial is not None and len(np.atleast_2d(initial)):
        initial_scores = published_scores(x, initial, weights=weights)
        sums, initial_count = sums + initial_scores.sum(), len(initial_scores)
    counts = initial_count + np.arange(1, len(order) + 1)
    curve = published_divergence_curve(sums / counts, counts, rho, len(x), x.shape[1], k)
    return ExactPath(order, curve)
