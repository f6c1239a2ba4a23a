"""Search among very many centroids through two levels.

Centroids are grouped into about sqrt(K) cells, each into its two nearest ones; a row is compared
with the cells' centres and then with the centroids of its two best cells: about 5 sqrt(K)
comparisons instead of K (centroids in one cell only: 3 sqrt(K), but a third more misses on
vectors without coarse structure). Both levels use
the exact decisions of `search`, so the answer, which may miss the nearest centroid, is still the
same to the bit wherever a row stands. How often it misses is measured by `agreement`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from gio_spark.errors import InputError
from gio_spark.kernels.search import (
    Codebook,
    FloatMatrix,
    IntVector,
    as_matrix,
    nearest,
    nearest_two,
    paired_distances,
)
from gio_spark.kernels.sums import Grid, sums_by_cluster

_LLOYD_STEPS = 6


@dataclass(frozen=True)
class TwoLevel:
    """Centroids grouped into cells.

    Attributes:
        centroids: (K, d) float32.
        coarse: (G, d) float32 centres of the cells.
        cells: (K, 2) int32, the two nearest cells of each centroid ((K, 1) for a single cell).
    """

    centroids: FloatMatrix
    coarse: FloatMatrix
    cells: IntVector

    @property
    def dimension(self) -> int:
        """Length of the vectors."""
        return int(self.centroids.shape[1])

    def __len__(self) -> int:
        return len(self.centroids)

    @cached_property
    def top(self) -> Codebook:
        """The cells' centres."""
        return Codebook(self.coarse)

    @cached_property
    def members(self) -> list[npt.NDArray[np.intp]]:
        """The centroids of each cell, in rising order."""
        flat = self.cells.reshape(-1)
        order = np.argsort(flat, kind="stable")
        edges = np.searchsorted(flat, np.arange(len(self.coarse) + 1), sorter=order)
        # Place i of the flat array belongs to centroid i // columns: in rising order in a cell.
        return [order[a:b] // self.cells.shape[1] for a, b in pairwise(edges)]

    @cached_property
    def books(self) -> list[Codebook]:
        """A codebook per cell."""
        return [Codebook(self.centroids[m]) for m in self.members]


def group_centroids(centroids: npt.ArrayLike, *, cells: int | None = None) -> TwoLevel:
    """Group centroids into cells by a few Lloyd steps; the same cells for the same centroids.

    Args:
        centroids: (K, d) float32.
        cells: Cells wanted; None: about sqrt(K). Empty ones are dropped.
    """
    matrix = as_matrix(centroids, "centroids")
    if not len(matrix):
        raise InputError("there are no centroids to group: give at least one")
    wanted = min(len(matrix), cells or max(1, math.isqrt(len(matrix))))
    coarse = matrix[np.linspace(0, len(matrix) - 1, wanted).astype(np.intp)]
    grid = Grid.covering(np.abs(matrix).max(axis=0), len(matrix))
    rounded = grid.round(matrix)
    for _ in range(_LLOYD_STEPS):
        cell, distance = nearest(matrix, coarse)
        count = np.bincount(cell, minlength=len(coarse))
        sums = sums_by_cluster(rounded, cell, len(coarse))
        seen = count > 0
        coarse = coarse.copy()
        coarse[seen] = (sums[seen] / count[seen, None]).astype(np.float32)
        # Empty cells take over the centroids that are farthest from theirs.
        empty = np.flatnonzero(~seen)
        coarse[empty] = matrix[np.argsort(-distance, kind="stable")[: len(empty)]]
    cell, _ = nearest(matrix, coarse)
    coarse = coarse[np.unique(cell)]
    if len(coarse) < 2:
        return TwoLevel(matrix, coarse, np.zeros((len(matrix), 1), dtype=np.int32))
    first, _, second, _ = nearest_two(matrix, coarse)
    return TwoLevel(matrix, coarse, np.stack([first, second], axis=1))


def find(vectors: npt.ArrayLike, book: Codebook | TwoLevel) -> tuple[IntVector, FloatMatrix]:
    """Find the nearest centroid: exact with a `Codebook`, by two levels with a `TwoLevel`.

    Returns and raises as `search.nearest`.
    """
    if isinstance(book, Codebook):
        return nearest(vectors, book)
    matrix = as_matrix(vectors, "vectors")
    cluster, distance, _, _ = _probe(matrix, book, second=False)
    return cluster, distance


def find_two(
    vectors: npt.ArrayLike, book: Codebook | TwoLevel
) -> tuple[IntVector, FloatMatrix, IntVector, FloatMatrix]:
    """Find the nearest and second-nearest centroid, as `find`.

    Returns and raises as `search.nearest_two`.
    """
    if isinstance(book, Codebook):
        return nearest_two(vectors, book)
    if len(book) < 2:
        raise InputError("the second-nearest cluster needs at least two centroids")
    return _probe(as_matrix(vectors, "vectors"), book, second=True)


def agreement(vectors: npt.ArrayLike, book: TwoLevel) -> dict[str, float]:
    """Compare the two-level search with the exact one.

    Returns:
        rows compared; agreement: share of rows given their nearest centroid; excess: inertia
        above the exact one, as a share of it.
    """
    matrix = as_matrix(vectors, "vectors")
    _, near = find(matrix, book)
    _, exact = nearest(matrix, book.centroids)
    total = float(exact.astype(np.float64).sum())
    # Rows as near to another centroid as to the nearest one agree.
    return {
        "rows": float(len(matrix)),
        "agreement": float((near <= exact).mean()) if len(matrix) else 1.0,
        "excess": float(near.astype(np.float64).sum()) / total - 1.0 if total > 0 else 0.0,
    }


def _probe(
    matrix: FloatMatrix, book: TwoLevel, *, second: bool
) -> tuple[IntVector, FloatMatrix, IntVector, FloatMatrix]:
    """Look into the two best cells of each row; candidates compete by (distance, index)."""
    rows = len(matrix)
    if len(book.top) > 1:
        first, _, other, _ = nearest_two(matrix, book.top)
        probes = [first, other]
    else:
        probes = [nearest(matrix, book.top)[0]]
    depth = 2 if second else 1
    names = np.full((rows, depth * len(probes)), len(book), dtype=np.int64)
    for column, cell in enumerate(probes):
        order = np.argsort(cell, kind="stable")
        edges = np.searchsorted(cell, np.arange(len(book.coarse) + 1), sorter=order)
        for c in np.flatnonzero(np.diff(edges)):
            lines = order[edges[c] : edges[c + 1]]
            inside = book.books[c]
            if second and len(inside) > 1:
                a, _, b, _ = nearest_two(matrix[lines], inside)
                names[lines, 2 * column] = book.members[c][a]
                names[lines, 2 * column + 1] = book.members[c][b]
            else:
                found = nearest(matrix[lines], inside)[0]
                names[lines, depth * column] = book.members[c][found]
    gaps = np.full(names.shape, np.inf, dtype=np.float32)
    for column in range(names.shape[1]):
        there = np.flatnonzero(names[:, column] < len(book))
        gaps[there, column] = paired_distances(matrix[there], book.centroids, names[there, column])
    # A centroid that stands in both cells is one candidate.
    order = np.lexsort((names, gaps), axis=1)
    names = np.take_along_axis(names, order, axis=1)
    gaps = np.take_along_axis(gaps, order, axis=1)
    cluster, distance = names[:, 0].astype(np.int32), gaps[:, 0].copy()
    if not second:
        return cluster, distance, cluster, distance
    other = (names != names[:, :1]) & (names < len(book))
    place = other.argmax(axis=1)
    lines = np.arange(rows)
    rest, beyond = names[lines, place].astype(np.int32), gaps[lines, place]
    lonely = np.flatnonzero(~other.any(axis=1))
    if len(lonely):
        # Both cells held one centroid between them: look everywhere.
        _, _, rest[lonely], beyond[lonely] = nearest_two(matrix[lonely], book.centroids)
    return cluster, distance, rest, beyond
