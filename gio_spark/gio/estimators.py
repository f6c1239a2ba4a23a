"""Estimators of how far two samples' laws lie apart. All in nats, all on (n, d) rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gio_spark.errors import ConfigError, InputError
from gio_spark.gio.distances import blocks, centred, squared_distances, squared_norms


def _rows(name: str, values: ArrayLike, least: int) -> NDArray:
    rows = np.asarray(values, dtype=np.float64)
    if rows.ndim == 1:
        rows = rows[:, None]
    if len(rows) < least:
        raise InputError(f"{name} has {len(rows)} rows; this estimator needs at least {least}.")
    if not np.isfinite(rows).all():
        raise InputError(f"{name} has NaN or infinite values.")
    return rows


def jsd_histogram(p: ArrayLike, q: ArrayLike, *, smoothing: float = 0.0) -> float:
    """Jensen-Shannon divergence of two histograms over the same cells, between 0 and log 2 nats.

    Args:
        p: (K,) counts or masses.
        q: (K,) counts or masses.
        smoothing: added to every cell of both before they are normalised.
    """
    left, right = _laws(p, q, smoothing)
    middle = 0.5 * (left + right)
    return 0.5 * _kl(left, middle) + 0.5 * _kl(right, middle)


def _kl(p: NDArray, q: NDArray) -> float:
    left, right = _laws(p, q, 0.0)
    used = left > 0
    return float(np.sum(left[used] * np.log(left[used] / right[used])))


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
