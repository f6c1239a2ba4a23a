"""Distances between pool and target in float32 tiles: nearest targets, and targets' neighbours."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gio_spark.evaluate.methods.shared import shared
from gio_spark.gio.distances import squared_distances, squared_norms

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gio_spark.evaluate.dataset import EvaluationDataset

TILE_BYTES = 64 * 2**20
#: Entries of neighbour lists (targets x neighbours) that are kept at most: 8 bytes each.
KEPT = 2**25


class Neighbours(NamedTuple):
    """Lists of each target row, nearest first.

    Attributes:
        rows: (m, L) int32 pool rows.
        distance: (m, L) float32 euclidean distances.
    """

    rows: NDArray[np.int32]
    distance: NDArray[np.float32]


def centred(dataset: EvaluationDataset) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Vectors of target and pool, moved so that the target's mean is the origin.

    Distances stay what they are, and |a|^2 - 2 a.b + |b|^2 loses no digits far from the origin.
    """
    origin = dataset.target_vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
    return dataset.target_vectors - origin, dataset.vectors - origin


def tiles(dataset: EvaluationDataset) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Yield (targets, squared distances to all pool rows) for blocks of target rows.

    A tile is (b, n) float32 of at most 64 MiB; the caller may write on it.
    """
    target, pool = centred(dataset)
    norms = squared_norms(pool)
    step = max(1, TILE_BYTES // (4 * max(1, len(pool))))
    for start in range(0, len(target), step):
        block = slice(start, min(len(target), start + step))
        yield block, squared_distances(target[block], pool, right_norms=norms)


def target_distance(dataset: EvaluationDataset) -> NDArray[np.float32]:
    """Distance of each pool row to its nearest target row, (n,) float32."""

    def make() -> NDArray[np.float32]:
        least = np.full(dataset.rows, np.inf, dtype=np.float32)
        for _, tile in tiles(dataset):
            np.minimum(least, tile.min(axis=0), out=least)
        return np.sqrt(least)

    return shared(dataset, "target distance", make)


def most_neighbours(dataset: EvaluationDataset) -> int:
    """Longest lists that are kept."""
    return min(dataset.rows, max(1, KEPT // max(1, len(dataset.target_vectors))))


def list_length(wanted: int, most: int) -> int:
    """One of few lengths (128, 1,024, 8,192 ...), so that budgets and methods share lists.

    Args:
        wanted: Entries at least.
        most: Entries at most.
    """
    length = 128
    while length < wanted:
        length *= 8
    return min(most, length)


def neighbours(dataset: EvaluationDataset, length: int) -> Neighbours:
    """Return each target row's nearest pool rows; ties to the lowest row.

    Args:
        dataset: The dataset.
        length: Neighbours at least; a list is cut at `most_neighbours`.
    """
    rounded = list_length(length, most_neighbours(dataset))

    def make() -> Neighbours:
        m = len(dataset.target_vectors)
        rows = np.empty((m, rounded), dtype=np.int32)
        distance = np.empty((m, rounded), dtype=np.float32)
        for block, tile in tiles(dataset):
            rows[block], distance[block] = smallest(tile, rounded)
        return Neighbours(rows, np.sqrt(distance))

    return shared(dataset, ("neighbours", rounded), make)


def smallest(
    tile: NDArray[np.float32], length: int
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Columns and values of the smallest entries of each row, ascending."""
    if length < tile.shape[1]:
        found = np.argpartition(tile, length - 1, axis=1)[:, :length]
        found.sort(axis=1)
    else:
        found = np.broadcast_to(np.arange(tile.shape[1]), tile.shape)
    values = np.take_along_axis(tile, found, axis=1)
    order = np.argsort(values, axis=1, kind="stable")
    return np.take_along_axis(found, order, axis=1), np.take_along_axis(values, order, axis=1)


def first_rank(lists: NDArray[np.integer], rows: int) -> NDArray[np.int64]:
    """Best place of each pool row over all lists, (rows,); `L` where it is in none.

    Taking rows in this order is a round robin: each list gives its next row in each round.

    Args:
        lists: (m, L) pool rows, best first; -1 is no row.
        rows: Rows of the pool.
    """
    length = lists.shape[1]
    # One spare entry takes what -1 writes.
    rank = np.full(rows + 1, length, dtype=np.int64)
    for place in range(length - 1, -1, -1):
        rank[lists[:, place]] = place
    return rank[:rows]
