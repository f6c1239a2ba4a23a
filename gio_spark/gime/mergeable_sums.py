"""Sums, counts and histograms whose merge is exact: any order of merging gives the same bits.

A float sum depends on the order of its terms, and so on the partitioning. Here every total is in
integers instead: floats are split into an exponent and integer limbs (`split_sum`), histograms are
sorted (key, count) pairs, vectors are rounded to a fixed grid on which float32 matrix products are
exact (`on_grid`).
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from gio_spark.kernels import row_squares

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

# Unit vectors are rounded to multiples of 1/GRID. The partial sums of a product of two of them are
# at most |a||b| <= (GRID + sqrt(d)/2)^2 < 2^24 up to d = 36,000, and float32 holds every integer
# up to 2^24, so such products have the same bits in any order of summation and on any processor.
GRID = 4000.0
# Number of grid rows that add up in float32 without rounding: 4096 * (GRID + 14) < 2^24.
_EXACT_ROWS = 4096
_CACHED_ROWS = 256
_LIMB = 27
_EXACT_LIMBS = 1 << 25
# Keys are counted in an array where it is at most this many times longer than the keys.
_DENSE = 4
_BIAS = 1100
_SUB = 64

# Relative error of a value that `log_bin` has put into a bin, when the bin's middle stands for it.
BIN_ERROR = 0.5 / _SUB


def histogram(keys: NDArray[Any], weights: NDArray[Any] | None = None) -> NDArray[np.int64]:
    """Histogram of integer keys.

    Args:
        keys: Integers, shape (n,).
        weights: Integer weight per key; None counts each as one.

    Returns:
        Sorted distinct keys and their totals, int64 of shape (2, m).
    """
    keys = np.asarray(keys, np.int64)
    if weights is None and keys.size:
        low, span = int(keys.min()), int(keys.max()) - int(keys.min())
        if span < _DENSE * keys.size + 1024:
            # Counting needs no sorting where keys lie close together: clusters, days, bins.
            counts = np.bincount(keys - low)
            distinct_keys = np.flatnonzero(counts)
            return np.stack([distinct_keys + low, counts[distinct_keys]]).astype(np.int64)
    if weights is None:
        distinct_keys, counts = np.unique(keys, return_counts=True)
        return np.stack([distinct_keys, counts.astype(np.int64)])
    order = np.argsort(keys, kind="stable")
    return _collapse(keys[order], np.asarray(weights, np.int64)[order])


def merge_histograms(parts: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Sum of histograms key by key; exact, so associative and commutative to the last bit."""
    joined = np.concatenate([np.asarray(p, np.int64).reshape(2, -1) for p in parts], axis=1)
    order = np.argsort(joined[0], kind="stable")
    return _collapse(joined[0][order], joined[1][order])


def _collapse(keys: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    if keys.size == 0:
        return np.zeros((2, 0), np.int64)
    starts = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]])
    return np.stack([keys[starts], np.add.reduceat(counts, starts)])


def split_sum(values: NDArray[Any]) -> NDArray[np.int64]:
    """Exact sum of finite floats, as a histogram over (exponent, limb) that merges exactly.

    float64 is m * 2^(e-53) with an integer |m| < 2^53; m is cut into two limbs of 27 bits, and the
    limbs are added up per exponent in int64, which holds for 10^11 rows.
    """
    values = np.asarray(values, np.float64).ravel()
    if values.size == 0:
        return np.zeros((2, 0), np.int64)
    mantissa, exponent = np.frexp(values)
    integer = np.ldexp(mantissa, 53).astype(np.int64)
    high = integer >> _LIMB
    low = integer - (high << _LIMB)
    first = int(exponent.min())
    offset = exponent.astype(np.int64) - first
    summed = np.zeros((int(offset.max()) + 1, 2), np.int64)
    for start in range(0, values.size, _EXACT_LIMBS):
        part = slice(start, start + _EXACT_LIMBS)
        for limb, column in enumerate((low, high)):
            # Float64 holds these sums to the last bit: limbs of 27 bits, at most 2^26 of them.
            added = np.bincount(offset[part], column[part], len(summed))
            summed[:, limb] += added.astype(np.int64)
    keys = (np.arange(len(summed), dtype=np.int64) + first + _BIAS) * 2
    counted = np.stack([np.stack([keys, keys + 1], axis=1).ravel(), summed.ravel()])
    return counted[:, counted[1] != 0]


def total(summed: NDArray[np.int64]) -> float:
    """Correctly rounded value of a `split_sum`."""
    exact = Fraction(0)
    for key, count in summed.T.tolist():
        power = key // 2 - _BIAS - 53 + (_LIMB if key % 2 else 0)
        exact += count * Fraction(2) ** power
    return float(exact)


def log_bin(values: NDArray[Any]) -> NDArray[np.int64]:
    """Bin of each finite float, of relative width 1/64 at most, from its bits alone."""
    values = np.asarray(values, np.float64)
    mantissa, exponent = np.frexp(np.abs(values))
    inside = np.floor((mantissa - 0.5) * (2 * _SUB)).astype(np.int64)
    key = (exponent.astype(np.int64) + _BIAS) * _SUB + inside + 1
    return np.where(values == 0, 0, np.where(values < 0, -key, key))


def bin_middle(keys: NDArray[np.int64]) -> NDArray[np.float64]:
    """Middle of each bin of `log_bin`; off by `BIN_ERROR` (relative) at most."""
    inside = (np.abs(keys) - 1) % _SUB
    exponent = (np.abs(keys) - 1) // _SUB - _BIAS
    middle = np.ldexp(0.5 + (inside + 0.5) / (2 * _SUB), exponent)
    return np.where(keys == 0, 0.0, np.sign(keys) * middle)


def key_quantile(counted: NDArray[np.int64], share: float) -> int:
    """Key below or at which a share (0..1) of a histogram's count lies."""
    cumulative = np.cumsum(counted[1])
    rank = max(1, int(np.ceil(share * cumulative[-1])))
    return int(counted[0][np.searchsorted(cumulative, rank)])


def on_grid(
    vectors: NDArray[Any], squares: NDArray[np.float64] | None = None
) -> NDArray[np.float32]:
    """Scale rows to unit length and round them to the grid of 1/GRID (rows of zeros stay zero).

    Args:
        vectors: Finite rows (n, d).
        squares: Their squared lengths, if they are known already.

    Returns:
        Whole numbers in float32, shape (n, d). Products of two such matrices are exact; divide
        them by GRID**2 for cosines, which are then off by about 1e-4.
    """
    wide = np.asarray(vectors, np.float32)
    norms = np.sqrt(row_squares(wide) if squares is None else squares)
    scale = np.divide(GRID, norms, out=np.zeros_like(norms), where=norms > 0)
    grid = np.empty_like(wide)
    factor = scale.astype(np.float32)[:, None]
    # Block by block, so that the rows are in the cache for the second pass.
    for start in range(0, len(wide), _CACHED_ROWS):
        part = slice(start, start + _CACHED_ROWS)
        np.multiply(wide[part], factor[part], out=grid[part])
        np.rint(grid[part], out=grid[part])
    return grid


def grid_sums(grid: NDArray[np.float32]) -> tuple[NDArray[np.int64], int]:
    """Exact column sums, int64 (d,), and the exact sum of squares of grid rows."""
    summed = np.zeros(grid.shape[1], np.int64)
    squares = 0
    for start in range(0, grid.shape[0], _EXACT_ROWS):
        part = grid[start : start + _EXACT_ROWS]
        summed += part.sum(axis=0).astype(np.int64)
        squares += int(np.einsum("ij,ij->i", part, part).astype(np.int64).sum())
    return summed, squares


def project(grid: NDArray[np.float32], basis: NDArray[np.float32]) -> NDArray[np.float64]:
    """Project grid rows (n, d) on grid directions (p, d): whole numbers again, shape (n, p)."""
    low = (grid @ basis.T).astype(np.float64)
    low /= GRID
    return np.rint(low, out=low)


def gram(rows: NDArray[np.float64]) -> NDArray[np.int64]:
    """Exact second moments of whole-number rows, int64 of shape (p, p)."""
    result = np.zeros((rows.shape[1], rows.shape[1]), np.int64)
    for start in range(0, rows.shape[0], 65_536):
        part = rows[start : start + 65_536]
        result += (part.T @ part).astype(np.int64)
    return result
