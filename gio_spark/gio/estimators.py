"""Estimators of how far two samples' laws lie apart. All in nats, all on (n, d) rows."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gio_spark.errors import ConfigError, InputError
from gio_spark.gio.distances import (
    blocks,
    centred,
    neighbour_distances,
    squared_distances,
    squared_norms,
)
from gio_spark.gio.exact import (
    published_divergence_curve,
    published_scores,
    target_log_distance,
)

#: The least squared distance inside a logarithm: duplicates would give -infinity.
TINY = 1e-300


def _rows(name: str, values: ArrayLike, least: int) -> NDArray:
    rows = np.asarray(values, dtype=np.float64)
    if rows.ndim == 1:
        rows = rows[:, None]
    if len(rows) < least:
        raise InputError(f"{name} has {len(rows)} rows; this estimator needs at least {least}.")
    if not np.isfinite(rows).all():
        raise InputError(f"{name} has NaN or infinite values.")
    return rows


def knn_divergence(
    target: ArrayLike,
    selection: ArrayLike,
    k: int = 5,
    *,
    form: Literal["plain", "digamma", "bias_reduced"] = "plain",
    k_selection: int | None = None,
) -> float:
    """Estimate KL(target || selection) from distances to the k-th neighbour.

    Source: Wang, Kulkarni, Verdu 2009, "Divergence estimation for multidimensional densities via
    k-nearest-neighbor distances". plain (eq. 5, equal k): (d/n) sum log(nu_k / rho_k) +
    log(m / (n-1)). digamma: for unequal k, plus psi(k) - psi(k_selection), the exact bias of
    the two log-densities. bias_reduced (eq. 25): one radius a row, the larger of the two k-th
    distances, and the neighbours counted inside it on each side.

    Args:
        target: (n, d) rows, n > k.
        selection: (m, d) rows, m >= k.
        k: neighbour inside the target.
        form: see above.
        k_selection: neighbour inside the selection; `k` where None.

    Returns:
        KL in nats; may be below zero for near-equal laws, as the estimate is noisy.

    Raises:
        InputError: too few rows, or non-finite values.
        ConfigError: unequal k with the plain form.
    """
    other = k if k_selection is None else k_selection
    if k < 1 or other < 1:
        raise ConfigError(f"k is {k} and k_selection {other}; both must be at least 1.")
    x = _rows("target", target, k + 1)
    w = _rows("selection", selection, other)
    if form == "plain" and other != k:
        raise ConfigError("The plain form needs equal k on both sides; use form='digamma'.")
    from scipy.special import digamma

    (n, d), m = x.shape, len(w)
    rho = neighbour_distances(x, x, k, skip_self=True)[:, k - 1]
    nu = neighbour_distances(x, w, other)[:, other - 1]
    constant = float(np.log(m / (n - 1)))
    if form != "bias_reduced":
        ratio = np.log(np.maximum(nu, TINY)) - np.log(np.maximum(rho, TINY))
        return 0.5 * d * float(ratio.mean()) + constant + float(digamma(k) - digamma(other))
    radius = np.maximum(rho, nu)
    inside, rho = _within(x, x, radius, skip_self=True)
    outside, nu = _within(x, w, radius, skip_self=False)
    ratio = np.log(np.maximum(nu, TINY)) - np.log(np.maximum(rho, TINY))
    bias = digamma(inside) - digamma(outside)
    return float(np.mean(0.5 * d * ratio + bias)) + constant


def _within(
    queries: NDArray, points: NDArray, radius: NDArray, *, skip_self: bool
) -> tuple[NDArray, NDArray]:
    """Return how many points lie within each squared radius, and the farthest of them."""
    left, right = centred(points, queries)[::-1]
    norms = squared_norms(right)
    count = np.empty(len(left), dtype=np.int64)
    far = np.empty(len(left))
    for block in blocks(len(left), len(right), 8):
        tile = squared_distances(left[block], right, right_norms=norms)
        if skip_self:
            tile[np.arange(block.stop - block.start), np.arange(block.start, block.stop)] = np.inf
        # The radius is one of these distances, computed the same way up to the last bits.
        near = tile <= radius[block][:, None] * (1 + 1e-9)
        count[block] = near.sum(axis=1)
        far[block] = np.where(near, tile, 0.0).max(axis=1)
    return np.maximum(count, 1), far


def published_divergence(target: ArrayLike, selection: ArrayLike, k: int = 5) -> float:
    """Return the estimate of KL(target || selection) that the published GIO code minimises.

    Its cross term averages over all pairs, so it is not a consistent estimate of KL; it is here
    to compare with published numbers. See `exact_path` for the formula.
    """
    x = _rows("target", target, k + 1)
    w = _rows("selection", selection, 1)
    rho = target_log_distance(x, k)
    mean_log = published_scores(x, w).mean()
    curve = published_divergence_curve(
        np.array([mean_log]), np.array([len(w)]), rho, len(x), x.shape[1], k
    )
    return float(curve[0])


def kl_histogram(p: ArrayLike, q: ArrayLike, *, smoothing: float = 0.0) -> float:
    """Return KL(p || q) of two histograms over the same cells, in nats.

    Args:
        p: (K,) counts or masses.
        q: (K,) counts or masses.
        smoothing: added to every cell of both before they are normalised.

    Returns:
        The divergence; infinite where q is zero and p is not.
    """
    left, right = _laws(p, q, smoothing)
    used = left > 0
    if np.any(right[used] == 0):
        return float("inf")
    return float(np.sum(left[used] * np.log(left[used] / right[used])))


def jsd_histogram(p: ArrayLike, q: ArrayLike, *, smoothing: float = 0.0) -> float:
    """Return the Jensen-Shannon divergence of two histograms, between 0 and log 2 nats."""
    left, right = _laws(p, q, smoothing)
    middle = 0.5 * (left + right)
    return 0.5 * kl_histogram(left, middle) + 0.5 * kl_histogram(right, middle)


def _laws(p: ArrayLike, q: ArrayLike, smoothing: float) -> tuple[NDArray, NDArray]:
    left = np.asarray(p, dtype=np.float64) + smoothing
    right = np.asarray(q, dtype=np.float64) + smoothing
    if left.shape != right.shape or left.ndim != 1:
        raise InputError(f"The histograms have shapes {left.shape} and {right.shape}; (K,) each.")
    if min(left.sum(), right.sum()) <= 0 or min(left.min(), right.min()) < 0:
        raise InputError("A histogram is empty or has negative cells.")
    return left / left.sum(), right / right.sum()


def _weights(values: ArrayLike | None, rows: int) -> NDArray:
    if values is None:
        return np.full(rows, 1.0 / rows)
    weight = np.asarray(values, dtype=np.float64)
    if weight.shape != (rows,) or weight.min() < 0 or weight.sum() <= 0:
        raise InputError(f"Weights must be {rows} numbers, not negative and not all zero.")
    return weight / weight.sum()


def _mean_distance(x: NDArray, y: NDArray, left: NDArray, right: NDArray) -> float:
    """Return sum_ij left_i right_j |x_i - y_j|."""
    norms = squared_norms(y)
    total = 0.0
    for block in blocks(len(x), len(y), 8):
        tile = np.sqrt(squared_distances(x[block], y, right_norms=norms))
        if x is y:  # rounding leaves a little on the diagonal, which the root makes visible
            tile[np.arange(block.stop - block.start), np.arange(block.start, block.stop)] = 0.0
        total += float(left[block] @ (tile @ right))
    return total


def energy_distance(
    x: ArrayLike,
    y: ArrayLike,
    *,
    x_weights: ArrayLike | None = None,
    y_weights: ArrayLike | None = None,
    unbiased: bool = False,
) -> float:
    """Return 2 E|X-Y| - E|X-X'| - E|Y-Y'| (Szekely and Rizzo), zero only for equal laws.

    Args:
        x: (n, d) rows.
        y: (m, d) rows.
        x_weights: (n,) weights; equal where None.
        y_weights: (m,) weights; equal where None.
        unbiased: leave the zero self-pairs out of the means (U-statistic); equal weights only.
            The default is the V-statistic, never below zero.
    """
    a, b = _rows("x", x, 1 + unbiased), _rows("y", y, 1 + unbiased)
    a, b = centred(a, b)
    if unbiased and (x_weights is not None or y_weights is not None):
        raise ConfigError("The unbiased energy distance takes no weights.")
    left, right = _weights(x_weights, len(a)), _weights(y_weights, len(b))
    own_left = _mean_distance(a, a, left, left)
    own_right = _mean_distance(b, b, right, right)
    if unbiased:
        own_left *= len(a) / (len(a) - 1)
        own_right *= len(b) / (len(b) - 1)
    return 2.0 * _mean_distance(a, b, left, right) - own_left - own_right


def mmd(
    x: ArrayLike, y: ArrayLike, *, bandwidth: float | None = None, unbiased: bool = False
) -> float:
    """Return the squared maximum mean discrepancy with the kernel exp(-|x-y|^2 / (2 h^2)).

    Source: Gretton et al. 2012, eq. 3 (unbiased) and 5 (biased).

    Args:
        x: (n, d) rows.
        y: (m, d) rows.
        bandwidth: h; the median distance between rows (of the first 1,000 of both) where None.
        unbiased: leave the self-pairs out; may then be below zero.
    """
    a, b = _rows("x", x, 1 + unbiased), _rows("y", y, 1 + unbiased)
    a, b = centred(a, b)
    if bandwidth is None:
        both = np.concatenate([a[:1000], b[:1000]])
        gaps = squared_distances(both, both)[np.triu_indices(len(both), 1)]
        bandwidth = float(np.sqrt(np.median(gaps))) if len(gaps) else 1.0
    if not bandwidth > 0:
        raise InputError("More than half of the rows are equal; give the bandwidth yourself.")
    scale = -0.5 / bandwidth**2
    own = [_kernel_mean(rows, rows, scale) for rows in (a, b)]
    if unbiased:
        own = [(mean * n - 1.0) / (n - 1) for mean, n in zip(own, (len(a), len(b)), strict=True)]
    return own[0] + own[1] - 2.0 * _kernel_mean(a, b, scale)


def _kernel_mean(x: NDArray, y: NDArray, scale: float) -> float:
    norms = squared_norms(y)
    total = 0.0
    for block in blocks(len(x), len(y), 8):
        tile = squared_distances(x[block], y, right_norms=norms)
        if x is y:
            tile[np.arange(block.stop - block.start), np.arange(block.start, block.stop)] = 0.0
        tile *= scale
        total += float(np.exp(tile, out=tile).sum())
    return total / (len(x) * len(y))


def frechet_distance(x: ArrayLike, y: ArrayLike) -> float:
    """Return the squared Frechet distance of the Gaussians fitted to two samples.

    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)); Dowson and Landau 1982. Covariances over n - 1.
    """
    a, b = _rows("x", x, 2), _rows("y", y, 2)
    a, b = centred(a, b)
    gap = a.mean(axis=0) - b.mean(axis=0)
    first = np.atleast_2d(np.cov(a, rowvar=False))
    second = np.atleast_2d(np.cov(b, rowvar=False))
    # tr (C1 C2)^(1/2) through the symmetric root of C1, which keeps everything real.
    values, vectors = np.linalg.eigh(first)
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ second @ root), 0.0)).sum()
    return float(gap @ gap + np.trace(first) + np.trace(second) - 2.0 * cross)


def intrinsic_dimension(
    rows: ArrayLike, *, method: Literal["two_nn", "mle"] = "two_nn", k: int = 10
) -> float:
    """Estimate the dimension of the set that the rows lie on.

    Args:
        rows: (n, d). Duplicates of a row are left out (their neighbour distance is 0).
        method: "two_nn", from the ratio of the two nearest distances (Facco et al. 2017, in the
            unbiased maximum likelihood form); "mle", from the k nearest (Levina and Bickel 2004,
            averaged as MacKay and Ghahramani propose).
        k: neighbours used by "mle", at least 3.

    Raises:
        InputError: too few distinct rows.
        ConfigError: unknown method or k below 3.
    """
    points = np.unique(_rows("rows", rows, 3), axis=0)
    if method == "two_nn":
        near = neighbour_distances(points, points, 2, skip_self=True) if len(points) > 2 else None
        if near is None:
            raise InputError("Fewer than 3 distinct rows; the dimension cannot be estimated.")
        logs = 0.5 * np.log(near[:, 1] / np.maximum(near[:, 0], TINY))
        return float((len(points) - 1) / logs.sum())
    if method != "mle" or k < 3:
        raise ConfigError(f"method is {method!r} with k {k}; use 'two_nn' or 'mle' with k >= 3.")
    if len(points) <= k:
        raise InputError(f"{len(points)} distinct rows; 'mle' with k={k} needs more than {k}.")
    logs = 0.5 * np.log(np.maximum(neighbour_distances(points, points, k, skip_self=True), TINY))
    inverse = (logs[:, -1:] - logs[:, :-1]).sum(axis=1) / (k - 2)
    return float(1.0 / inverse.mean())
