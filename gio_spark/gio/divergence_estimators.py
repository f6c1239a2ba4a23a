"""Estimators of the divergence between the distributions of two samples."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gio_spark.errors import ConfigError, InputError
from gio_spark.gio.distances import blocks, centered, squared_distances, squared_norms


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
    """Jensen-Shannon divergence of two histograms over the same bins, between 0 and log 2 nats.

    Source: Lin 1991, IEEE Trans. Inf. Theory 37(1), with equal weights.

    Args:
        p: (K,) counts or masses.
        q: (K,) counts or masses.
        smoothing: Count added to every bin of both before they are normalized.

    Raises:
        InputError: The shapes differ, or a histogram is empty or has negative bins.

    Example:
        >>> round(jsd_histogram([1, 1, 0], [0, 1, 1]), 4)
        0.3466
    """
    left, right = _distributions(p, q, smoothing)
    middle = 0.5 * (left + right)
    return 0.5 * _kl(left, middle) + 0.5 * _kl(right, middle)


def _kl(p: NDArray, q: NDArray) -> float:
    left, right = _distributions(p, q, 0.0)
    in_first = left > 0
    return float(np.sum(left[in_first] * np.log(left[in_first] / right[in_first])))


def _distributions(p: ArrayLike, q: ArrayLike, smoothing: float) -> tuple[NDArray, NDArray]:
    left = np.asarray(p, dtype=np.float64) + smoothing
    right = np.asarray(q, dtype=np.float64) + smoothing
    if left.shape != right.shape or left.ndim != 1:
        raise InputError(f"The histograms have shapes {left.shape} and {right.shape}; (K,) each.")
    if min(left.sum(), right.sum()) <= 0 or min(left.min(), right.min()) < 0:
        raise InputError("A histogram is empty or has negative bins.")
    return left / left.sum(), right / right.sum()


def _weights(values: ArrayLike | None, rows: int) -> NDArray:
    if values is None:
        return np.full(rows, 1.0 / rows)
    weight = np.asarray(values, dtype=np.float64)
    if weight.shape != (rows,) or weight.min() < 0 or weight.sum() <= 0:
        raise InputError(f"Weights must be {rows} numbers, not negative and not all zero.")
    return weight / weight.sum()


def _mean_distance(x: NDArray, y: NDArray, left: NDArray, right: NDArray) -> float:
    """Weighted mean distance sum_ij left_i right_j |x_i - y_j|."""
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
    """Energy distance 2 E|X-Y| - E|X-X'| - E|Y-Y'|, zero only for equal distributions.

    Source: Szekely and Rizzo 2013, J. Stat. Plan. Inference 143(8).

    Args:
        x: (n, d) rows.
        y: (m, d) rows.
        x_weights: (n,) weights; equal where None.
        y_weights: (m,) weights; equal where None.
        unbiased: Leave the zero self-pairs out of the means (U-statistic); equal weights only.
            The default is the V-statistic, never below zero.

    Returns:
        The distance, in the unit of the rows.

    Raises:
        InputError: There are too few rows, values that are not finite, or impossible weights.
        ConfigError: Weights with `unbiased`.

    Example:
        >>> energy_distance([0.0, 1.0], [0.0, 1.0]), energy_distance([0.0], [2.0])
        (0.0, 4.0)
    """
    a, b = _rows("x", x, 1 + unbiased), _rows("y", y, 1 + unbiased)
    a, b = centered(a, b)
    if unbiased and (x_weights is not None or y_weights is not None):
        raise ConfigError("The unbiased energy distance takes no weights.")
    left, right = _weights(x_weights, len(a)), _weights(y_weights, len(b))
    within_left = _mean_distance(a, a, left, left)
    within_right = _mean_distance(b, b, right, right)
    if unbiased:
        within_left *= len(a) / (len(a) - 1)
        within_right *= len(b) / (len(b) - 1)
    return 2.0 * _mean_distance(a, b, left, right) - within_left - within_right
