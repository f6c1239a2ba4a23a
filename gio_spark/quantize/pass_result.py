"""Results of a pass: exact sums per cluster, the farthest rows, the largest absolute values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gio_spark.engine import decode_vectors, encode_vectors
from gio_spark.kernels.exact_sums import Grid, sums_by_cluster
from gio_spark.kernels.nearest_centroid import FloatMatrix
from gio_spark.quantize.float64_rows import decode_doubles, encode_doubles

FAR, EXTENT = -1, -2
"""Buckets of the farthest rows and of the largest values; buckets of sums start at 0."""

SUM_BLOCK_ROWS = 8192
"""Rows that are rounded and summed at a time."""

SENT_BYTES = 16 << 20
"""Approximate bytes of sums in one output batch of a worker."""

SCHEMA = (
    "bucket int, cluster int, rows bigint, inertia double, sums binary, id string, distance float"
)


@dataclass(frozen=True)
class PassResult:
    """Result of one pass.

    Attributes:
        sums: (K, d) float64, exact sums of the rows of each cluster.
        counts: (K,) int64.
        inertia: Sum of squared distances, exact on its grid.
        far_vectors: (m, d) float32, the farthest rows, farthest first (ties by id).
        far_distances: (m,) float32.
        largest: (d,) float64, largest absolute values, the scale of the sums.
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


class PartialSums:
    """Sums per cluster over all batches of one worker."""

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
        # In blocks: the rounded rows take twice the memory of the rows.
        for start in range(0, len(cluster), SUM_BLOCK_ROWS):
            block = slice(start, start + SUM_BLOCK_ROWS)
            present, local = np.unique(cluster[block], return_inverse=True)
            rounded = grids[0].round(vectors[block])
            rounded_distances = grids[1].round(distance[block, None])
            self.sums[present] += sums_by_cluster(rounded, local, len(present))
            self.inertia[present] += sums_by_cluster(rounded_distances, local, len(present))[:, 0]
            self.counts[present] += np.bincount(local, minlength=len(present))

    def merge(self, other: PartialSums) -> None:
        """Add the sums of another worker or thread, on the same grids."""
        self.sums += other.sums
        self.inertia += other.inertia
        self.counts += other.counts

    def tables(self) -> Iterator[pa.Table]:
        """Tables of the nonempty clusters, in blocks, without a second copy of all sums."""
        nonempty = np.flatnonzero(self.counts)
        step = max(1, SENT_BYTES // (8 * self.sums.shape[1]))
        for start in range(0, len(nonempty), step):
            block = nonempty[start : start + step]
            yield _sums_table(
                block, self.counts[block], self.inertia[block], self.sums[block], self.buckets
            )


class Farthest:
    """Rows farthest from their centers; ties by id, so that they do not depend on partitioning."""

    def __init__(self, count: int, dimension: int) -> None:
        self.count = count
        self.ids: list[str] = []
        self.distances = np.empty(0, dtype=np.float32)
        self.vectors = np.empty((0, dimension), dtype=np.float32)

    def add(self, ids: pa.Array, distance: npt.NDArray[np.float32], vectors: FloatMatrix) -> None:
        """Add rows; (n,) ids and distances, (n, d) vectors."""
        if not self.count:
            return
        threshold = self.distances[-1] if len(self.distances) >= self.count else -np.inf
        rows = np.flatnonzero(distance >= threshold)
        if len(rows) > 2 * self.count:
            threshold = np.partition(distance[rows], len(rows) - self.count)[len(rows) - self.count]
            rows = rows[distance[rows] >= threshold]
        if not len(rows):
            return
        row_ids = ids.take(pa.array(rows)).cast(pa.string()).to_pylist()
        self._merge_rows(row_ids, distance[rows], vectors[rows])

    def merge(self, other: Farthest) -> None:
        """Merge the farthest rows of another worker or thread."""
        self._merge_rows(other.ids, other.distances, other.vectors)

    def _merge_rows(
        self, ids: list[str], distance: npt.NDArray[np.float32], vectors: FloatMatrix
    ) -> None:
        all_ids = self.ids + ids
        all_distances = np.concatenate([self.distances, distance])
        order = _farthest_order(all_distances, all_ids)[: self.count]
        self.vectors = np.concatenate([self.vectors, vectors])[order]
        self.ids, self.distances = [all_ids[i] for i in order], all_distances[order]

    def table(self) -> pa.Table:
        """Farthest rows as a table of the pass's schema."""
        return _farthest_table(self.ids, self.distances, self.vectors)


def _farthest_order(distances: npt.NDArray[np.float32], ids: list[str]) -> list[int]:
    return sorted(range(len(ids)), key=lambda i: (-distances[i], ids[i]))


def _sums_table(
    clusters: npt.NDArray[np.integer],
    counts: npt.NDArray[np.int64],
    inertia: npt.NDArray[np.float64],
    sums: npt.NDArray[np.float64],
    buckets: int,
) -> pa.Table:
    return _pass_table(
        len(clusters),
        bucket=(clusters % buckets).astype(np.int32),
        cluster=clusters.astype(np.int32),
        rows=counts,
        inertia=inertia,
        sums=encode_doubles(sums),
    )


def _farthest_table(
    ids: list[str], distances: npt.NDArray[np.float32], vectors: FloatMatrix
) -> pa.Table:
    return _pass_table(
        len(ids),
        bucket=np.full(len(ids), FAR, dtype=np.int32),
        id=pa.array(ids, pa.string()),
        distance=distances,
        sums=encode_vectors(vectors),
    )


def extent_to_table(extent: npt.NDArray[np.float64]) -> pa.Table:
    """Largest absolute values (d,) as a table of the pass's schema."""
    return _pass_table(
        1, bucket=np.array([EXTENT], dtype=np.int32), sums=encode_doubles(extent[None, :])
    )


def _pass_table(length: int, **columns: Any) -> pa.Table:
    """Table of schema `SCHEMA`, with nulls for columns that are not given."""
    types = {
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
            name: pa.array(columns[name]) if name in columns else pa.nulls(length, type_)
            for name, type_ in types.items()
        }
    )


def merge_farthest(table: pa.Table, count: int) -> pa.Table:
    """Farthest `count` rows among those of several workers."""
    ids = table["id"].to_pylist()
    distances = table["distance"].to_numpy()
    order = _farthest_order(distances, ids)[:count]
    vectors = decode_vectors(table["sums"])
    return _farthest_table([ids[i] for i in order], distances[order], vectors[order])


def combine_sums(table: pa.Table, dimension: int, buckets: int) -> pa.Table:
    """Sum of the partial sums of several workers, per cluster."""
    clusters, local = np.unique(table["cluster"].to_numpy(), return_inverse=True)
    sums = sums_by_cluster(decode_doubles(table["sums"], dimension), local, len(clusters))
    inertia = sums_by_cluster(table["inertia"].to_numpy()[:, None], local, len(clusters))[:, 0]
    counts = np.zeros(len(clusters), dtype=np.int64)
    np.add.at(counts, local, table["rows"].to_numpy())
    return _sums_table(clusters, counts, inertia, sums, buckets)


def merge_extents(table: pa.Table, dimension: int) -> npt.NDArray[np.float64]:
    """Largest absolute values (d,) over all workers."""
    extents = table.filter(pa.array(table["bucket"].to_numpy() == EXTENT))
    return decode_doubles(extents["sums"], dimension).max(axis=0, initial=0.0)


def collect_result(
    table: pa.Table, clusters: int, dimension: int, largest: npt.NDArray[np.float64]
) -> PassResult:
    """Result of a pass from the combined rows of its table."""
    bucket = table["bucket"].to_numpy()
    sums = np.zeros((clusters, dimension))
    counts = np.zeros(clusters, dtype=np.int64)
    inertia = np.zeros(clusters)
    for batch in table.to_batches():
        # Batch by batch: filtering and decoding all sums at once would need four copies.
        sum_rows = batch.filter(pc.greater_equal(batch["bucket"], 0))
        cluster = sum_rows["cluster"].to_numpy()
        sums[cluster] = decode_doubles(sum_rows["sums"], dimension)
        counts[cluster] = sum_rows["rows"].to_numpy()
        inertia[cluster] = sum_rows["inertia"].to_numpy()
    far = table.filter(pa.array(bucket == FAR))
    ids, distances = far["id"].to_pylist(), far["distance"].to_numpy()
    order = _farthest_order(distances, ids)
    vectors = decode_vectors(far["sums"], dimension)
    return PassResult(sums, counts, float(inertia.sum()), vectors[order], distances[order], largest)
