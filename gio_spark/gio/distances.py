"""Squared Euclidean distances in tiles, so that no large matrix is in memory at once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

#: Bytes one tile of distances may take. Three or four tiles live at once in the callers.
TILE_BYTES = 128 * 2**20
#: Below this part of |a|^2 + |b|^2, float64 distances are recomputed from differences: the matrix
#: form has lost half of their digits there, and copies of a row would not be at distance 0.
CLOSE = 1e-6


def squared_norms(rows: NDArray) -> NDArray:
    """Squared length of every row, (n,), in the rows' own precision."""
    return np.einsum("ij,ij->i", rows, rows)


def squared_distances(
    left: NDArray, right: NDArray, *, right_norms: NDArray | None = None
) -> NDArray:
    """All squared distances between two sets of rows.

    One matrix product; the result has the precision of `left`. In float64, close pairs are
    recomputed from their difference, so that copies lie at exactly 0.

    Args:
        left: (n, d) rows.
        right: (m, d) rows.
        right_norms: (m,) squared norms of `right`, if they are known already.

    Returns:
        (n, m) squared distances, never below zero.
    """
    if right_norms is None:
        right_norms = squared_norms(right)
    tile = left @ right.T
    tile *= -2.0
    left_norms = squared_norms(left)
    tile += left_norms[:, None]
    tile += right_norms[None, :]
    if tile.dtype == np.float64:
        _refine(tile, left, right, left_norms, right_norms)
    np.maximum(tile, 0.0, out=tile)
    return tile


def _refine(tile: NDArray, left: NDArray, right: NDArray, *norms: NDArray) -> None:
    """Recompute the close pairs of `tile` from their differences, in place."""
    rows, columns = np.nonzero(tile < CLOSE * (norms[0][:, None] + norms[1][None, :]))
    for block in blocks(len(rows), left.shape[1], 16):
        gap = left[rows[block]] - right[columns[block]]
        tile[rows[block], columns[block]] = squared_norms(gap)


def blocks(rows: int, columns: int, itemsize: int, *, limit: int = TILE_BYTES) -> Iterator[slice]:
    """Yield slices over `rows` such that a (slice, columns) tile stays within `limit` bytes."""
    step = max(1, limit // max(1, columns * itemsize))
    for start in range(0, rows, step):
        yield slice(start, min(rows, start + step))


def centered(*matrices: NDArray, dtype: type = np.float64) -> list[NDArray]:
    """Matrices minus the mean row of the first one.

    Distances do not change, and the cancellation in |a|^2 - 2ab + |b|^2 becomes harmless for data
    far from the origin.
    """
    origin = matrices[0].mean(axis=0, dtype=np.float64)
    return [np.ascontiguousarray(m.astype(np.float64) - origin, dtype=dtype) for m in matrices]


def neighbor_distances(
    queries: NDArray, points: NDArray, k: int, *, skip_self: bool = False
) -> NDArray:
    """Squared distances to the k nearest points, ascending.

    Args:
        queries: (n, d) rows.
        points: (m, d) rows; the same object as `queries` where `skip_self` is set.
        k: Number of neighbors, at most m (m - 1 with `skip_self`).
        skip_self: Leave out the i-th point for the i-th query. By position, so that exact
            duplicates of a row still count as its neighbors.

    Returns:
        (n, k) float64 squared distances.
    """
    left, right = centered(points, queries)[::-1]
    norms = squared_norms(right)
    out = np.empty((len(left), k))
    for block in blocks(len(left), len(right), 8):
        tile = squared_distances(left[block], right, right_norms=norms)
        if skip_self:
            tile[np.arange(block.stop - block.start), np.arange(block.start, block.stop)] = np.inf
        if k < tile.shape[1]:
            tile = np.partition(tile, k - 1, axis=1)[:, :k]
        tile.sort(axis=1)
        out[block] = tile[:, :k]
    return out
