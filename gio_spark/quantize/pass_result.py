"""What workers of a pass bring back: exact sums per cluster, the farthest rows, largest values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gio_spark.engine import decode_vectors, encode_vectors
from gio_spark.kernels.search import FloatMatrix
from gio_spark.kernels.sums import Grid, sums_by_cluster
from gio_spark.quantize.float64_rows import decode_doubles, encode_doubles

FAR, EXTENT = -1, -2
"""Buckets of the farthest rows and of the largest values; sums have 0 and above."""

ADDED_ROWS = 8192
"""Rows that are rounded and added at a time."""

SENT_BYTES = 16 << 20
"""Sums that a worker sends in one batch, about."""

SCHEMA = (
    "bucket int, cluster int, rows bigint, inertia double, sums binary, id string, distance float"
)


@dataclass(frozen=True)
class PassResult:
    """What one pass found.

    Attributes:
        sums: (K, d) float64, exact sums of the rows of each cluster.
        counts: (K,) int64.
        inertia: Sum of squared distances, exact on its grid.
        far_vectors: (m, d) float32, the farthest rows, farthest first (ties by id).
        far_distances: (m,) float32.
        largest: (d,) float64, the largest absolute values that the sums were scaled by.
    """

    sums: npt.NDArray[np.float64]
    counts: npt.NDArray[np.int64]
    inertia: float
    far_vectors: FloatMatrix
    far_distances: npt.NDArray[np.float32]
    largest: npt.NDArray[np.float64]

    @property
    def rows(self) -> int:
        """Rows of the batch."""
        return int(self.counts.sum())


class Partial:
    """Sums per cluster of one worker, all its batches together."""

    def __init__(self, clusters: int, dimension: int, buckets: int) -> None:
        self.buckets = buckets
        self.sums = np.zeros((clusters, dimension))
        self.inertia = np.zeros(clusters)
        self.counts = np.zeros(clusters, dtype=np.int64)

    def add(
        self,
        vectors: FloatMatrix,
        distance: npt.NDArray[np.float32],
        cluster: npt.NDArray[np.int32],
        grids: tuple[Grid, Grid],
    ) -> None:
        """Add rows, rounded to the grids of sums and of inertia."""
        # Block by block: the rounded rows take twice the memory of the rows.
        for start in range(0, len(cluster), ADDED_ROWS):
            block = slice(start, start + ADDED_ROWS)
            present, local = np.unique(cluster[block], return_inverse=True)
            rounded = grids[0].round(vectors[block])
            gaps = grids[1].round(distance[block, None])
            self.sums[present] += sums_by_cluster(rounded, local, len(present))
            self.inertia[present] += sums_by_cluster(gaps, local, len(present))[:, 0]
            self.counts[present] += np.bincount(local, minlength=len(present))

    def merge(self, other: Partial) -> None:
        """Add what another worker or thread has summed up on the same grids."""
        self.sums += other.sums
        self.inertia += other.inertia
        self.counts += other.counts

    def tables(self) -> Iterator[pa.Table]:
        """Give the clusters that got rows, some at a time: no second copy of all sums."""
        seen = np.flatnonzero(self.counts)
        step = max(1, SENT_BYTES // (8 * self.sums.shape[1]))
        for start in range(0, len(seen), step):
            part = seen[start : start + step]
            yield _sums_table(
                part, self.counts[part], self.inertia[part], self.sums[part], self.buckets
            )


class Farthest:
    """The rows farthest from their centres; ties by id, so that no partitioning changes them."""

    def __init__(self, most: int, dimension: int) -> None:
        self.most = most
        self.ids: list[str] = []
        self.distances = np.empty(0, dtype=np.float32)
        self.vectors = np.empty((0, dimension), dtype=np.float32)

    def add(self, ids: pa.Array, distance: npt.NDArray[np.float32], vectors: FloatMatrix) -> None:
        if not self.most:
            return
        floor = self.distances[-1] if len(self.distances) >= self.most else -np.inf
        rows = np.flatnonzero(distance >= floor)
        if len(rows) > 2 * self.most:
            edge = np.partition(distance[rows], len(rows) - self.most)[len(rows) - self.most]
            rows = rows[distance[rows] >= edge]
        if not len(rows):
            return
        names = ids.take(pa.array(rows)).cast(pa.string()).to_pylist()
        self._keep(names, distance[rows], vectors[rows])

    def merge(self, other: Farthest) -> None:
        """Take in the rows that another worker or thread has found."""
        self._keep(other.ids, other.distances, other.vectors)

    def _keep(
        self, ids: list[str], distance: npt.NDArray[np.float32], vectors: FloatMatrix
    ) -> None:
        names = self.ids + ids
        gaps = np.concatenate([self.distances, distance])
        order = _far_order(gaps, names)[: self.most]
        self.vectors = np.concatenate([self.vectors, vectors])[order]
        self.ids, self.distances = [names[i] for i in order], gaps[order]

    def table(self) -> pa.Table:
        return _far_table(self.ids, self.distances, self.vectors)


def _far_order(distances: npt.NDArray[np.float32], ids: list[str]) -> list[int]:
    return sorted(range(len(ids)), key=lambda i: (-distances[i], ids[i]))


def _sums_table(
    names: npt.NDArray[np.integer],
    counts: npt.NDArray[np.int64],
    inertia: npt.NDArray[np.float64],
    sums: npt.NDArray[np.float64],
    buckets: int,
) -> pa.Table:
    return _table(
        len(names),
        bucket=(names % buckets).astype(np.int32),
        cluster=names.astype(np.int32),
        rows=counts,
        inertia=inertia,
        sums=encode_doubles(sums),
    )


def _far_table(
    ids: list[str], distances: npt.NDArray[np.float32], vectors: FloatMatrix
) -> pa.Table:
    return _table(
        len(ids),
        bucket=np.full(len(ids), FAR, dtype=np.int32),
        id=pa.array(ids, pa.string()),
        distance=distances,
        sums=encode_vectors(vectors),
    )


def extent_table(extent: npt.NDArray[np.float64]) -> pa.Table:
    return _table(
        1, bucket=np.array([EXTENT], dtype=np.int32), sums=encode_doubles(extent[None, :])
    )


def _table(length: int, **columns: Any) -> pa.Table:
    """Return the columns given, the others of the pass's schema as nulls."""
    kinds = {
        "bucket": pa.int32(),
        "cluster": pa.int32(),
        "rows": pa.int64(),
        "inertia": pa.float64(),
        "sums": pa.binary(),
        "id": pa.string(),
        "distance": pa.float32(),
    }
    return pa.table(
        {
            name: pa.array(columns[name]) if name in columns else pa.nulls(length, kind)
            for name, kind in kinds.items()
        }
    )


def farthest_of(table: pa.Table, most: int) -> pa.Table:
    ids = table["id"].to_pylist()
    distances = table["distance"].to_numpy()
    order = _far_order(distances, ids)[:most]
    vectors = decode_vectors(table["sums"])
    return _far_table([ids[i] for i in order], distances[order], vectors[order])


def combine_sums(table: pa.Table, dimension: int, buckets: int) -> pa.Table:
    names, local = np.unique(table["cluster"].to_numpy(), return_inverse=True)
    sums = sums_by_cluster(decode_doubles(table["sums"], dimension), local, len(names))
    inertia = sums_by_cluster(table["inertia"].to_numpy()[:, None], local, len(names))[:, 0]
    counts = np.zeros(len(names), dtype=np.int64)
    np.add.at(counts, local, table["rows"].to_numpy())
    return _sums_table(names, counts, inertia, sums, buckets)


def largest_seen(table: pa.Table, dimension: int) -> npt.NDArray[np.float64]:
    found = table.filter(pa.array(table["bucket"].to_numpy() == EXTENT))
    return decode_doubles(found["sums"], dimension).max(axis=0, initial=0.0)


def collect(
    table: pa.Table, clusters: int, dimension: int, largest: npt.NDArray[np.float64]
) -> PassResult:
    bucket = table["bucket"].to_numpy()
    sums = np.zeros((clusters, dimension))
    counts = np.zeros(clusters, dtype=np.int64)
    inertia = np.zeros(clusters)
    for batch in table.to_batches():
        # One batch at a time: all sums, filtered and decoded, would be in memory four times.
        body = batch.filter(pc.greater_equal(batch["bucket"], 0))
        names = body["cluster"].to_numpy()
        sums[names] = decode_doubles(body["sums"], dimension)
        counts[names] = body["rows"].to_numpy()
        inertia[names] = body["inertia"].to_numpy()
    far = table.filter(pa.array(bucket == FAR))
    ids, distances = far["id"].to_pylist(), far["distance"].to_numpy()
    order = _far_order(distances, ids)
    vectors = decode_vectors(far["sums"], dimension)
    return PassResult(sums, counts, float(inertia.sum()), vectors[order], distances[order], largest)
