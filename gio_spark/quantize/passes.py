"""One mini-batch pass: assign a hash bucket of the rows, bring back sums per cluster.

Workers emit, per partition, exact partial sums (kernels.sums) and their farthest rows; both are
combined by worker groups, so that the driver receives one row per cluster however many partitions
there are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gio_spark.engine import (
    bounded,
    decode_vectors,
    encode_vectors,
    group_arrow,
    hash53,
    map_arrow,
)
from gio_spark.errors import InputError
from gio_spark.kernels import PROBES, Codebook, find, group_centroids, row_squares
from gio_spark.kernels.search import FloatMatrix
from gio_spark.kernels.sums import Grid, sums_by_cluster
from gio_spark.quantize.book import BATCH, LARGE_BATCH, TWO_LEVEL_ABOVE, ship_book
from gio_spark.quantize.wire import decode_doubles, encode_doubles

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

DENSE_BYTES = 64 << 20
"""Partial sums above this size are emitted batch by batch instead of kept in the worker."""

_GROUP_BYTES = 32 << 20
_FAR, _EXTENT = -1, -2
_HASH_RANGE = 1 << 53
_SCHEMA = (
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


def bucket_filter(share: float, number: int, salt: str, id_column: str = "id") -> Column:
    """Return the predicate of batch `number`: a window of the ids' hash range.

    Windows follow one another round the range, so that batches repeat rows only after all rows
    had their turn, and a batch is the same rows at any partitioning.
    """
    from pyspark.sql import functions as F

    if share >= 1.0:
        return F.lit(True)
    width = max(1, round(share * _HASH_RANGE))
    start = (number * width) % _HASH_RANGE
    end = start + width
    position = hash53(id_column, salt)
    if end <= _HASH_RANGE:
        return (position >= F.lit(start)) & (position < F.lit(end))
    return (position >= F.lit(start)) | (position < F.lit(end - _HASH_RANGE))


def unit_rows(vectors: FloatMatrix) -> FloatMatrix:
    """Return the rows scaled to length one.

    Raises:
        InputError: When a row is all zeros: it has no direction.
    """
    lengths = np.sqrt(row_squares(vectors))
    if (lengths == 0.0).any():
        raise InputError(
            f"{int((lengths == 0.0).sum())} rows are all zeros and have no direction: "
            "quarantine them, or set spherical to false"
        )
    return (vectors / lengths[:, None]).astype(np.float32)


def run_pass(
    df: DataFrame,
    centroids: FloatMatrix,
    *,
    largest: npt.NDArray[np.float64],
    batch_rows: int,
    far: int = 0,
    spherical: bool = False,
    two_level: bool | None = None,
    probes: int = PROBES,
) -> PassResult:
    """Assign the rows of `df` and add them up by cluster.

    Args:
        df: The batch: id, vector (BINARY float32 or ARRAY<FLOAT>).
        centroids: (K, d) float32.
        largest: (d,) largest absolute values, from the sample; headroom is added here.
        batch_rows: Expected rows of the batch, for the grid of the sums.
        far: Farthest rows wanted.
        spherical: Normalise rows first.
        two_level: Search through two levels; None: by the number of clusters.
        probes: Cells that such a search looks into.

    Raises:
        InputError: Bad vectors.
    """
    clusters, dimension = centroids.shape
    table = _partial_sums(
        df,
        centroids,
        largest=largest,
        batch_rows=batch_rows,
        far=far,
        spherical=spherical,
        two_level=two_level,
        probes=probes,
    )
    extent = _extent(table, dimension)
    grid, _ = _grids(largest, batch_rows)
    rows = sum(table["rows"].drop_null().to_pylist())
    if grid.covers(extent, max(rows, batch_rows)):
        return _collect(table, clusters, dimension, largest)
    # Outliers that the sample did not show: once more on a grid that holds them. Which batch it
    # happens in depends on its rows alone, so the fit stays the same at any partitioning.
    return run_pass(
        df,
        centroids,
        largest=np.maximum(largest, extent),
        batch_rows=max(rows, batch_rows),
        far=far,
        spherical=spherical,
        two_level=two_level,
        probes=probes,
    )


def pass_of_arrays(
    ids: pa.Array,
    vectors: FloatMatrix,
    centroids: FloatMatrix,
    *,
    largest: npt.NDArray[np.float64],
    far: int = 0,
    two_level: bool = False,
    probes: int = PROBES,
) -> PassResult:
    """Do a pass over rows that are in memory; the result is that of `run_pass`, to the bit.

    Args:
        ids: Their ids, for ties.
        vectors: (n, d) float32, scaled to length one already where that is wanted.
        centroids: (K, d) float32.
        largest: (d,) largest absolute values, as for `run_pass`.
        far: Farthest rows wanted.
        two_level: Search through two levels.
        probes: Cells that such a search looks into.
    """
    clusters, dimension = centroids.shape
    extent = np.abs(vectors).max(axis=0, initial=0.0).astype(np.float64)
    grid, inertia_grid = _grids(largest, len(vectors))
    if not grid.covers(extent, len(vectors)):
        largest = np.maximum(largest, extent)
        grid, inertia_grid = _grids(largest, len(vectors))
    book = group_centroids(centroids, probes=probes) if two_level else Codebook(centroids)
    total, best = _Partial(clusters, dimension, 1), _Farthest(far, dimension)
    size = LARGE_BATCH if two_level else BATCH
    for start in range(0, len(vectors), size):
        part = vectors[start : start + size]
        cluster, distance = find(part, book)
        total.add(grid.round(part), inertia_grid.round(distance[:, None]), cluster)
        best.add(ids.slice(start, size), distance, part)
    return PassResult(
        total.sums, total.counts, float(total.inertia.sum()), best.vectors, best.distances, largest
    )


def _partial_sums(
    df: DataFrame,
    centroids: FloatMatrix,
    *,
    largest: npt.NDArray[np.float64],
    batch_rows: int,
    far: int,
    spherical: bool,
    two_level: bool | None,
    probes: int,
) -> pa.Table:
    """Bring back sums per cluster, the farthest rows and the largest values of a batch."""
    clusters, dimension = centroids.shape
    grid, inertia_grid = _grids(largest, batch_rows)
    shipped = ship_book(df.sparkSession, centroids, two_level=two_level, probes=probes)
    buckets = max(1, min(clusters, -(-clusters * dimension * 8 * 16 // _GROUP_BYTES)))
    keep_dense = clusters * dimension * 8 <= DENSE_BYTES

    def work(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
        book = shipped.load()
        total = _Partial(clusters, dimension, buckets) if keep_dense else None
        best = _Farthest(far, dimension)
        extent = np.zeros(dimension)
        for batch in batches:
            vectors = decode_vectors(batch.column("vector"), dimension)
            if spherical:
                vectors = unit_rows(vectors)
            cluster, distance = find(vectors, book)
            np.maximum(extent, np.abs(vectors).max(axis=0, initial=0.0), out=extent)
            part = total or _Partial(clusters, dimension, buckets, touched=cluster)
            part.add(grid.round(vectors), inertia_grid.round(distance[:, None]), cluster)
            best.add(batch.column("id"), distance, vectors)
            if total is None:
                yield part.table()
        if total is not None:
            yield total.table()
        yield best.table()
        yield _extent_table(extent)

    def combine(table: pa.Table) -> pa.Table:
        bucket = table["bucket"][0].as_py()
        if bucket == _FAR:
            return _farthest_of(table, far)
        if bucket == _EXTENT:
            return _extent_table(decode_doubles(table["sums"], dimension).max(axis=0))
        return _combine_sums(table, dimension, buckets)

    rows = LARGE_BATCH if clusters > TWO_LEVEL_ABOVE else BATCH
    partial = map_arrow(df.select("id", "vector"), work, _SCHEMA, batch_rows=rows)
    joined = group_arrow(partial, "bucket", combine, _SCHEMA)
    return bounded(joined, clusters + far + 1, "sums per cluster")


def _grids(largest: npt.NDArray[np.float64], rows: int) -> tuple[Grid, Grid]:
    """Return the grids of the sums and of the inertia, with room above what the sample showed."""
    return (
        Grid.covering(4.0 * largest, 2 * rows),
        Grid.covering([max(float(np.square(8.0 * largest).sum()), 1e-30)], 2 * rows),
    )


class _Partial:
    """Sums per cluster of one worker: dense over all clusters, or over those of one batch."""

    def __init__(
        self,
        clusters: int,
        dimension: int,
        buckets: int,
        touched: npt.NDArray[np.int32] | None = None,
    ) -> None:
        self.names = np.arange(clusters, dtype=np.int32) if touched is None else np.unique(touched)
        self.sparse = touched is not None
        self.buckets = buckets
        self.sums = np.zeros((len(self.names), dimension))
        self.inertia = np.zeros(len(self.names))
        self.counts = np.zeros(len(self.names), dtype=np.int64)

    def add(
        self,
        vectors: npt.NDArray[np.float64],
        distance: npt.NDArray[np.float64],
        cluster: npt.NDArray[np.int32],
    ) -> None:
        present, local = np.unique(cluster, return_inverse=True)
        where = np.searchsorted(self.names, present) if self.sparse else present
        self.sums[where] += sums_by_cluster(vectors, local, len(present))
        self.inertia[where] += sums_by_cluster(distance, local, len(present))[:, 0]
        self.counts[where] += np.bincount(local, minlength=len(present))

    def table(self) -> pa.Table:
        seen = np.flatnonzero(self.counts)
        return _sums_table(
            self.names[seen], self.counts[seen], self.inertia[seen], self.sums[seen], self.buckets
        )


class _Farthest:
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
        names = self.ids + ids.take(pa.array(rows)).cast(pa.string()).to_pylist()
        gaps = np.concatenate([self.distances, distance[rows]])
        order = _far_order(gaps, names)[: self.most]
        self.vectors = np.concatenate([self.vectors, vectors[rows]])[order]
        self.ids, self.distances = [names[i] for i in order], gaps[order]

    def table(self) -> pa.Table:
        return _far_table(self.ids, self.distances, self.vectors)


def _far_order(distances: npt.NDArray[np.float32], ids: list[str]) -> list[int]:
    return sorted(range(len(ids)), key=lambda i: (-distances[i], ids[i]))


def _sums_table(
    names: npt.NDArray[np.int32],
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
        bucket=np.full(len(ids), _FAR, dtype=np.int32),
        id=pa.array(ids, pa.string()),
        distance=distances,
        sums=encode_vectors(vectors),
    )


def _extent_table(extent: npt.NDArray[np.float64]) -> pa.Table:
    return _table(
        1, bucket=np.array([_EXTENT], dtype=np.int32), sums=encode_doubles(extent[None, :])
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


def _farthest_of(table: pa.Table, most: int) -> pa.Table:
    ids = table["id"].to_pylist()
    distances = table["distance"].to_numpy()
    order = _far_order(distances, ids)[:most]
    vectors = decode_vectors(table["sums"])
    return _far_table([ids[i] for i in order], distances[order], vectors[order])


def _combine_sums(table: pa.Table, dimension: int, buckets: int) -> pa.Table:
    names, local = np.unique(table["cluster"].to_numpy(), return_inverse=True)
    sums = sums_by_cluster(decode_doubles(table["sums"], dimension), local, len(names))
    inertia = sums_by_cluster(table["inertia"].to_numpy()[:, None], local, len(names))[:, 0]
    counts = np.zeros(len(names), dtype=np.int64)
    np.add.at(counts, local, table["rows"].to_numpy())
    return _sums_table(names.astype(np.int32), counts, inertia, sums, buckets)


def _extent(table: pa.Table, dimension: int) -> npt.NDArray[np.float64]:
    found = table.filter(pa.array(table["bucket"].to_numpy() == _EXTENT))
    return decode_doubles(found["sums"], dimension).max(axis=0, initial=0.0)


def _collect(
    table: pa.Table, clusters: int, dimension: int, largest: npt.NDArray[np.float64]
) -> PassResult:
    bucket = table["bucket"].to_numpy()
    body = table.filter(pa.array(bucket >= 0))
    names = body["cluster"].to_numpy()
    sums = np.zeros((clusters, dimension))
    counts = np.zeros(clusters, dtype=np.int64)
    inertia = np.zeros(clusters)
    sums[names] = decode_doubles(body["sums"], dimension)
    counts[names] = body["rows"].to_numpy()
    inertia[names] = body["inertia"].to_numpy()
    far = table.filter(pa.array(bucket == _FAR))
    ids, distances = far["id"].to_pylist(), far["distance"].to_numpy()
    order = _far_order(distances, ids)
    vectors = decode_vectors(far["sums"], dimension)
    return PassResult(sums, counts, float(inertia.sum()), vectors[order], distances[order], largest)
