"""Distances between pool and target in float32 tiles, and lists of nearest pool rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gio_spark.gio.distances import squared_distances, squared_norms
from gio_spark.strategy.methods.shared_work import compute_once

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gio_spark.strategy.evaluation_dataset import EvaluationDataset

TILE_BYTES = 64 * 2**20
#: Most entries of neighbor lists (target rows x neighbors): 8 bytes each.
MAX_ENTRIES = 2**25


class NeighborLists(NamedTuple):
    """Nearest pool rows of each target row, nearest first.

    Attributes:
        rows: (m, L) int32 pool rows.
        distance: (m, L) float32 Euclidean distances.
    """

    rows: NDArray[np.int32]
    distance: NDArray[np.float32]


def centered(dataset: EvaluationDataset) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Vectors of target and pool minus the mean of the target.

    Distances do not change, and |a|^2 - 2 a.b + |b|^2 loses fewer digits near the origin.
    """
    origin = dataset.target_vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
    return dataset.target_vectors - origin, dataset.vectors - origin


def tiles(dataset: EvaluationDataset) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Blocks of target rows with their squared distances to all pool rows.

    A tile is (b, n) float32 of at most 64 MiB; the caller may change it.
    """
    target, pool = centered(dataset)
    norms = squared_norms(pool)
    step = max(1, TILE_BYTES // (4 * max(1, len(pool))))
    for start in range(0, len(target), step):
        block = slice(start, min(len(target), start + step))
        yield block, squared_distances(target[block], pool, right_norms=norms)


def target_distance(dataset: EvaluationDataset) -> NDArray[np.float32]:
    """Distance of each pool row to its nearest target row, (n,) float32."""

    def compute() -> NDArray[np.float32]:
        smallest_squared = np.full(dataset.rows, np.inf, dtype=np.float32)
        for _, tile in tiles(dataset):
            np.minimum(smallest_squared, tile.min(axis=0), out=smallest_squared)
        return np.sqrt(smallest_squared)

    return compute_once(dataset, "target distance", compute)


def max_list_length(dataset: EvaluationDataset) -> int:
    """Largest length of the neighbor lists of a dataset."""
    return min(dataset.rows, max(1, MAX_ENTRIES // max(1, len(dataset.target_vectors))))


def list_length(at_least: int, at_most: int) -> int:
    """List length out of few values (128, 1,024, 8,192 ...), so that budgets share lists.

    Args:
        at_least: Smallest number of entries.
        at_most: Largest number of entries, which takes precedence.

    Example:
        >>> list_length(200, 5_000), list_length(200, 300)
        (1024, 300)
    """
    length = 128
    while length < at_least:
        length *= 8
    return min(at_most, length)


def nearest_rows(dataset: EvaluationDataset, length: int) -> NeighborLists:
    """Nearest pool rows of each target row; ties go to the lowest row.

    Args:
        dataset: Dataset of the bake-off.
        length: Smallest number of neighbors; lists end at `max_list_length`.
    """
    rounded = list_length(length, max_list_length(dataset))

    def compute() -> NeighborLists:
        target_rows = len(dataset.target_vectors)
        rows = np.empty((target_rows, rounded), dtype=np.int32)
        distance = np.empty((target_rows, rounded), dtype=np.float32)
        for block, tile in tiles(dataset):
            rows[block], distance[block] = smallest(tile, rounded)
        return NeighborLists(rows, np.sqrt(distance))

    return compute_once(dataset, ("neighbours", rounded), compute)


def smallest(
    tile: NDArray[np.float32], length: int
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Columns and values of the `length` smallest entries of each row, ascending."""
    if length < tile.shape[1]:
        columns = np.argpartition(tile, length - 1, axis=1)[:, :length]
        columns.sort(axis=1)
    else:
        columns = np.broadcast_to(np.arange(tile.shape[1]), tile.shape)
    values = np.take_along_axis(tile, columns, axis=1)
    order = np.argsort(values, axis=1, kind="stable")
    return np.take_along_axis(columns, order, axis=1), np.take_along_axis(values, order, axis=1)


def first_rank(lists: NDArray[np.integer], rows: int) -> NDArray[np.int64]:
    """Best position of each pool row over all lists, (rows,); `L` if it is in no list.

    Taking rows in this order is a round robin: each list gives its next row in each round.

    Args:
        lists: (m, L) pool rows, best first; -1 is no row.
        rows: Number of pool rows.

    Example:
        >>> first_rank(np.array([[3, 1, 0], [1, 2, -1]]), 5).tolist()
        [2, 0, 1, 0, 3]
    """
    length = lists.shape[1]
    # The last entry takes the ranks of -1.
    rank = np.full(rows + 1, length, dtype=np.int64)
    for position in range(length - 1, -1, -1):
        rank[lists[:, position]] = position
    return rank[:rows]
