"""Nearest-centroid search by blocked float32 matrix products, with exact decisions.

A float32 product does not give the same bits with every BLAS kernel, nor at every position of a
row in a block, so a plain argmin may flip near ties between machines, partitionings and batch
boundaries. Here the product only decides the clear rows: every row whose margin between the best
and the second best score is below the rounding bound is decided again in float64 among the
candidates that the bound leaves, ties going to the lowest index; the distances to the nearest
centroids are computed again in float64. The result is the same to the bit wherever a row stands.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from gio_spark.errors import InputError

FloatMatrix: TypeAlias = npt.NDArray[np.float32]
IntVector: TypeAlias = npt.NDArray[np.int32]

BLOCK_ROWS = 512
"""Rows of one product: the score block stays near the core's cache (94 % of the peak rate)."""

_EXACT_ELEMENTS = 1 << 20
_ROUNDOFF = 2.0**-24


@dataclass(frozen=True)
class Codebook:
    """Centroids and the norms that a search needs, computed once and used for every batch.

    Attributes:
        centroids: (K, d) float32, contiguous.
    """

    centroids: FloatMatrix

    def __post_init__(self) -> None:
        matrix = as_matrix(self.centroids, "centroids")
        if not len(matrix):
            raise InputError("there are no centroids to search: give at least one")
        object.__setattr__(self, "centroids", matrix)

    @cached_property
    def norms(self) -> npt.NDArray[np.float64]:
        """Squared length of each centroid, (K,) float64."""
        return row_squares(self.centroids)

    @cached_property
    def half_norms(self) -> FloatMatrix:
        """Half the squared lengths, (K,) float32: a score is the product minus this term."""
        half = (0.5 * self.norms).astype(np.float32)
        if not np.isfinite(half).all():
            raise InputError(
                "centroids hold NaN, infinite or huge values (squared length above 3e38): "
                "remove such rows or rescale the vectors"
            )
        return half

    @property
    def dimension(self) -> int:
        """Length of the vectors."""
        return int(self.centroids.shape[1])

    def __len__(self) -> int:
        return len(self.centroids)


def as_matrix(values: npt.ArrayLike, what: str) -> FloatMatrix:
    """Convert `values` to a contiguous float32 matrix.

    Args:
        values: (n, d) numbers.
        what: Name used in the error.

    Raises:
        InputError: The shape is not that of a matrix.
    """
    matrix = np.ascontiguousarray(values, dtype=np.float32)
    if matrix.ndim != 2:
        raise InputError(f"{what} must be a matrix (rows, dimension), not shape {matrix.shape}")
    return matrix


def row_squares(matrix: FloatMatrix, *, block: int = 256) -> npt.NDArray[np.float64]:
    """Squared length of each row in float64, the same bits at any block boundary."""
    out = np.empty(len(matrix), dtype=np.float64)
    # A block stays in the cache: twice as fast as blocks of 4,096 rows at 384 dimensions.
    buffer = np.empty((min(block, len(matrix)), *matrix.shape[1:]), dtype=np.float64)
    for start in range(0, len(matrix), block):
        part = buffer[: min(block, len(matrix) - start)]
        np.copyto(part, matrix[start : start + block])
        np.multiply(part, part, out=part)
        # np.add.reduce along the contiguous axis sums each row in one fixed order; einsum and
        # matrix products do not promise that.
        np.add.reduce(part, axis=1, out=out[start : start + block])
    return out


def largest_values(vectors: FloatMatrix) -> npt.NDArray[np.float64]:
    """Largest absolute value per dimension, (d,), without a matrix of absolute values."""
    above, below = vectors.max(axis=0, initial=0.0), vectors.min(axis=0, initial=0.0)
    return np.maximum(above, -below).astype(np.float64)


def paired_distances(
    vectors: FloatMatrix, centroids: FloatMatrix, cluster: npt.NDArray[np.integer]
) -> FloatMatrix:
    """Squared distance of each row to its centroid, computed in float64, rounded once to float32.

    Args:
        vectors: (n, d) float32.
        centroids: (K, d) float32.
        cluster: (n,) indices into `centroids`.

    Returns:
        (n,) float32 squared Euclidean distances, the same bits on every machine.
    """
    rows, dimension = vectors.shape
    out = np.empty(rows, dtype=np.float32)
    step = max(1, min(BLOCK_ROWS, _EXACT_ELEMENTS // max(dimension, 1)))
    buffer = np.empty((min(step, rows), dimension), dtype=np.float64)
    for start in range(0, rows, step):
        part = vectors[start : start + step]
        gap = buffer[: len(part)]
        np.subtract(part, centroids[cluster[start : start + step]], out=gap, dtype=np.float64)
        np.multiply(gap, gap, out=gap)
        out[start : start + step] = np.add.reduce(gap, axis=1)
    return out


def nearest(
    vectors: npt.ArrayLike, centroids: npt.ArrayLike | Codebook
) -> tuple[IntVector, FloatMatrix]:
    """Nearest centroid of each row and its squared distance.

    Args:
        vectors: (n, d) float32.
        centroids: (K, d) float32, or a `Codebook` (cheaper when used for many batches).

    Returns:
        cluster: (n,) int32, ties to the lowest index.
        distance: (n,) float32, squared Euclidean.

    Raises:
        InputError: Dimensions differ, or values are NaN, infinite or too large for float32.
    """
    matrix, codebook = _checked(vectors, centroids)
    cluster = np.empty(len(matrix), dtype=np.int32)
    for start, scores in _score_blocks(matrix, codebook):
        cluster[start : start + len(scores)] = _certified_best(
            matrix[start : start + len(scores)], codebook, scores
        )
    return cluster, paired_distances(matrix, codebook.centroids, cluster)


def nearest_two(
    vectors: npt.ArrayLike, centroids: npt.ArrayLike | Codebook
) -> tuple[IntVector, FloatMatrix, IntVector, FloatMatrix]:
    """Nearest and second-nearest centroid of each row, with their squared distances.

    Args:
        vectors: (n, d) float32.
        centroids: (K, d) float32 or a `Codebook`, K at least 2.

    Returns:
        cluster, distance, second, second_distance: each (n,), as in `nearest`.

    Raises:
        InputError: As `nearest`, or there are fewer than two centroids.
    """
    matrix, codebook = _checked(vectors, centroids)
    if len(codebook) < 2:
        raise InputError("the second-nearest cluster needs at least two centroids")
    first = np.empty(len(matrix), dtype=np.int32)
    second = np.empty(len(matrix), dtype=np.int32)
    for start, scores in _score_blocks(matrix, codebook):
        part = matrix[start : start + len(scores)]
        row_index = np.arange(len(scores))
        best = _certified_best(part, codebook, scores)
        # The certified nearest centroid is excluded (not the float32 argmax: a near tie may have
        # been decided the other way), and the other centroids are decided by the same rule.
        scores[row_index, best] = -np.inf
        second[start : start + len(scores)] = _certified_best(part, codebook, scores, excluded=best)
        first[start : start + len(scores)] = best
    return (
        first,
        paired_distances(matrix, codebook.centroids, first),
        second,
        paired_distances(matrix, codebook.centroids, second),
    )


def nearest_many(
    vectors: npt.ArrayLike, centroids: npt.ArrayLike | Codebook, count: int
) -> IntVector:
    """The `count` nearest centroids of each row, nearest first.

    Args:
        vectors: (n, d) float32.
        centroids: (K, d) float32 or a `Codebook`.
        count: How many, at most K.

    Returns:
        (n, count) int32, each column decided as exactly as `nearest`.

    Raises:
        InputError: As `nearest`, or there are fewer centroids than `count`.
    """
    matrix, codebook = _checked(vectors, centroids)
    if not 1 <= count <= len(codebook):
        raise InputError(f"{count} nearest of {len(codebook)} centroids cannot be found")
    out = np.empty((len(matrix), count), dtype=np.int32)
    for start, scores in _score_blocks(matrix, codebook):
        part = matrix[start : start + len(scores)]
        row_index = np.arange(len(scores))
        for column in range(count):
            # Centroids of earlier columns are excluded by a score of minus infinity.
            best = _certified_best(part, codebook, scores)
            out[start : start + len(scores), column] = best
            scores[row_index, best] = -np.inf
    return out


def squared_distances(a: npt.ArrayLike, b: npt.ArrayLike) -> FloatMatrix:
    """All squared Euclidean distances between two sets of rows, in float32.

    Computed as |a|^2 - 2 a.b + |b|^2.

    The product is float32 and so are its rounding errors (about 2 (d+3) 6e-8 |a||b|); use
    `nearest` where the decision must be exact.

    Args:
        a: (n, d) float32.
        b: (m, d) float32.

    Returns:
        (n, m) float32, never negative.

    Raises:
        InputError: The dimensions differ.
    """
    left, right = as_matrix(a, "the first operand"), as_matrix(b, "the second operand")
    if left.shape[1] != right.shape[1]:
        raise InputError(
            f"vectors of dimension {left.shape[1]} cannot be compared with "
            f"dimension {right.shape[1]}"
        )
    tile = left @ right.T
    tile *= -2.0
    tile += row_squares(left).astype(np.float32)[:, None]
    tile += row_squares(right).astype(np.float32)[None, :]
    return np.maximum(tile, 0.0, out=tile)


def _checked(
    vectors: npt.ArrayLike, centroids: npt.ArrayLike | Codebook
) -> tuple[FloatMatrix, Codebook]:
    matrix = as_matrix(vectors, "vectors")
    codebook = centroids if isinstance(centroids, Codebook) else Codebook(np.asarray(centroids))
    if matrix.shape[1] != codebook.dimension:
        raise InputError(
            f"vectors have dimension {matrix.shape[1]}, centroids {codebook.dimension}: "
            "both must come from the same embedder"
        )
    return matrix, codebook


def _score_blocks(matrix: FloatMatrix, codebook: Codebook) -> Iterator[tuple[int, FloatMatrix]]:
    """Yield (start, scores): x.c - |c|^2/2 for blocks of rows; the largest is the nearest."""
    rows = min(len(matrix), BLOCK_ROWS)
    buffer = np.empty((rows, len(codebook)), dtype=np.float32)
    transposed = codebook.centroids.T
    for start in range(0, len(matrix), BLOCK_ROWS):
        part = matrix[start : start + BLOCK_ROWS]
        scores = buffer[: len(part)]
        # Overflow and NaN are checked once, in the best scores.
        with np.errstate(over="ignore", invalid="ignore"):
            np.matmul(part, transposed, out=scores)
            scores -= codebook.half_norms
        yield start, scores


def _certified_best(
    part: FloatMatrix, codebook: Codebook, scores: FloatMatrix, excluded: IntVector | None = None
) -> IntVector:
    """Exact argmax of a score block, without one excluded centroid per row where given.

    A score's error is at most e_c = u((d+2)|x||c| + 2|c|^2): the product's rounding in any order
    of summation, the rounding of the half norm and the subtraction.
    """
    row_index = np.arange(len(scores))
    best = np.argmax(scores, axis=1)
    top = scores[row_index, best]
    if not np.isfinite(top).all():
        unusable = int(np.count_nonzero(~np.isfinite(top)))
        raise InputError(
            f"vectors: {unusable} of {len(part)} rows of a block hold NaN, infinite or huge values "
            "(squared length above 3e38). Leave such rows out, or scale the vectors."
        )
    if len(codebook) - (excluded is not None) < 2:
        return best.astype(np.int32)
    scores[row_index, best] = -np.inf
    runner_up = np.max(scores, axis=1)
    scores[row_index, best] = top
    lengths = _lengths_at_most(part)
    norms = codebook.norms
    largest = float(norms.max())
    slack = _ROUNDOFF * ((codebook.dimension + 2) * lengths * np.sqrt(largest) + 2.0 * largest)
    doubtful = np.flatnonzero(top.astype(np.float64) - runner_up <= 2.0 * slack)
    cluster = best.astype(np.int32)
    if len(doubtful):
        cluster[doubtful] = _decide(part, codebook, scores, doubtful, best, excluded)
    return cluster


def _lengths_at_most(rows: FloatMatrix) -> npt.NDArray[np.float64]:
    """Upper bounds of the rows' lengths, close to them and cheap to compute."""
    with np.errstate(over="ignore", under="ignore"):
        squares = np.einsum("ij,ij->i", rows, rows).astype(np.float64)
    # Room for the rounding of float32 sums, and for squares that are too small for it.
    room = 1.0 + 2.0 * (rows.shape[1] + 2) * _ROUNDOFF
    return np.sqrt(squares * room + rows.shape[1] * float(np.finfo(np.float32).tiny))


def _decide(
    part: FloatMatrix,
    codebook: Codebook,
    scores: FloatMatrix,
    doubtful: npt.NDArray[np.intp],
    best: npt.NDArray[np.intp],
    excluded: IntVector | None,
) -> IntVector:
    """Decide doubtful rows in float64 among the candidates that the rounding bound leaves."""
    out = np.empty(len(doubtful), dtype=np.int32)
    lengths = np.sqrt(row_squares(part[doubtful]))
    radii = np.sqrt(codebook.norms)
    step = max(1, _EXACT_ELEMENTS // max(len(codebook), 1))
    for start in range(0, len(doubtful), step):
        rows = doubtful[start : start + step]
        # A bound per centroid, so that one centroid of great length does not make every
        # centroid a candidate of every row.
        error = _ROUNDOFF * (
            (codebook.dimension + 2) * lengths[start : start + step, None] * radii[None, :]
            + 2.0 * codebook.norms[None, :]
        )
        block = scores[rows].astype(np.float64)
        row_index = np.arange(len(rows))
        floor = block[row_index, best[rows]] - error[row_index, best[rows]]
        candidate = block + error >= floor[:, None]
        if excluded is not None:
            candidate[row_index, excluded[rows]] = False
        row, centroid = np.nonzero(candidate)
        exact = _exact_pairs(part[rows], codebook.centroids, row, centroid)
        # Sorted by (row, distance, index): the first pair of each row is its nearest centroid.
        order = np.lexsort((centroid, exact, row))
        first_pair = np.searchsorted(row[order], row_index)
        out[start : start + step] = centroid[order][first_pair]
    return out


def _exact_pairs(
    rows: FloatMatrix,
    centroids: FloatMatrix,
    row: npt.NDArray[np.intp],
    centroid: npt.NDArray[np.intp],
) -> npt.NDArray[np.float64]:
    """Squared distances in float64 of the pairs (rows[row], centroids[centroid])."""
    out = np.empty(len(row), dtype=np.float64)
    step = max(1, _EXACT_ELEMENTS // max(rows.shape[1], 1))
    for start in range(0, len(row), step):
        gap = rows[row[start : start + step]].astype(np.float64)
        gap -= centroids[centroid[start : start + step]]
        np.multiply(gap, gap, out=gap)
        np.add.reduce(gap, axis=1, out=out[start : start + step])
    return out
