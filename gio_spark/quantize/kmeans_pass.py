"""One mini-batch pass: assign a hash bucket of the rows, bring back sums per cluster.

Workers emit, per partition, exact partial sums (kernels.sums) and their farthest rows; both are
combined by worker groups, so that the driver receives one row per cluster however many partitions
there are.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gio_spark.engine import (
    HASH_RANGE,
    bounded,
    decode_vectors,
    group_arrow,
    hash53,
    map_arrow,
)
from gio_spark.errors import InputError
from gio_spark.kernels import PROBES, Codebook, find, group_centroids, largest_values, row_squares
from gio_spark.kernels.search import FloatMatrix
from gio_spark.kernels.sums import Grid
from gio_spark.quantize.codebook_broadcast import (
    BATCH,
    LARGE_BATCH,
    TWO_LEVEL_ABOVE,
    broadcast_codebook,
)
from gio_spark.quantize.float64_rows import decode_doubles
from gio_spark.quantize.pass_result import (
    EXTENT,
    FAR,
    SCHEMA,
    Farthest,
    Partial,
    PassResult,
    collect,
    combine_sums,
    extent_table,
    farthest_of,
    largest_seen,
)

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

GROUP_BYTES = 32 << 20
"""Sums that one group of the workers which combine them is made for."""


def bucket_filter(share: float, number: int, salt: str, id_column: str = "id") -> Column:
    """Return the predicate of batch `number`: a window of the ids' hash range.

    Windows follow one another round the range, so that batches repeat rows only after all rows
    had their turn, and a batch is the same rows at any partitioning.
    """
    from pyspark.sql import functions as F

    if share >= 1.0:
        return F.lit(True)
    start, end = _window(share, number)
    position = hash53(id_column, salt)
    if end <= HASH_RANGE:
        return (position >= F.lit(start)) & (position < F.lit(end))
    return (position >= F.lit(start)) | (position < F.lit(end - HASH_RANGE))


def in_bucket(positions: npt.NDArray[np.int64], share: float, number: int) -> npt.NDArray[np.bool_]:
    """Tell for hashes (n,) of the ids which `bucket_filter` keeps."""
    if share >= 1.0:
        return np.ones(len(positions), np.bool_)
    start, end = _window(share, number)
    inside = (positions >= start) & (positions < end)
    return inside if end <= HASH_RANGE else inside | (positions < end - HASH_RANGE)


def _window(share: float, number: int) -> tuple[int, int]:
    """Return start and end of batch `number`; what is past the range goes on from its start."""
    width = max(1, round(share * HASH_RANGE))
    start = (number * width) % HASH_RANGE
    return start, start + width


def unit_rows(vectors: FloatMatrix) -> FloatMatrix:
    """Return the rows scaled to length one.

    Raises:
        InputError: When a row is all zeros: it has no direction.
    """
    lengths = np.sqrt(row_squares(vectors))
    if (lengths == 0.0).any():
        raise InputError(
            f"column 'vector': {int((lengths == 0.0).sum()):,} of {len(vectors):,} rows are all "
            "zeros and have no direction. Leave them out, or set quantize.spherical to false."
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
    extent = largest_seen(table, dimension)
    grid, _ = _grids(largest, batch_rows)
    rows = pc.sum(table["rows"]).as_py() or 0
    if grid.covers(extent, max(rows, batch_rows)):
        return collect(table, clusters, dimension, largest)
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
    batch_rows: int,
    far: int = 0,
    two_level: bool = False,
    probes: int = PROBES,
    threads: int = 1,
) -> PassResult:
    """Do a pass over rows that are in memory; the result is that of `run_pass`, to the bit.

    Args:
        ids: Their ids, for ties.
        vectors: (n, d) float32, scaled to length one already where that is wanted.
        centroids: (K, d) float32.
        largest: (d,) largest absolute values, as for `run_pass`.
        batch_rows: Expected rows, likewise.
        far: Farthest rows wanted.
        two_level: Search through two levels.
        probes: Cells that such a search looks into.
        threads: That share the rows; as the sums are exact, their number changes no bit.
    """
    dimension = centroids.shape[1]
    extent = largest_values(vectors)
    grids = _grids(largest, batch_rows)
    if not grids[0].covers(extent, max(len(vectors), batch_rows)):
        largest = np.maximum(largest, extent)
        grids = _grids(largest, max(len(vectors), batch_rows))
    book = group_centroids(centroids, probes=probes) if two_level else Codebook(centroids)
    size = LARGE_BATCH if two_level else BATCH

    def share(first: int, last: int) -> tuple[Partial, Farthest]:
        total, best = Partial(len(centroids), dimension, 1), Farthest(far, dimension)
        for start in range(first, last, size):
            part = vectors[start : min(start + size, last)]
            cluster, distance = find(part, book)
            total.add(part, distance, cluster, grids)
            best.add(ids.slice(start, len(part)), distance, part)
        return total, best

    threads = max(1, min(threads, -(-len(vectors) // size)))
    if threads == 1:
        total, best = share(0, len(vectors))
    else:
        cuts = [len(vectors) * i // threads for i in range(threads + 1)]
        with ThreadPoolExecutor(threads) as pool:
            (total, best), *others = pool.map(share, cuts[:-1], cuts[1:])
        for sums, farthest in others:
            total.merge(sums)
            best.merge(farthest)
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
    grids = _grids(largest, batch_rows)
    shipped = broadcast_codebook(df.sparkSession, centroids, two_level=two_level, probes=probes)
    buckets = max(1, min(clusters, -(-clusters * dimension * 8 * 16 // GROUP_BYTES)))

    def work(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
        book = shipped.load()
        total, best = Partial(clusters, dimension, buckets), Farthest(far, dimension)
        extent = np.zeros(dimension)
        for batch in batches:
            vectors = decode_vectors(batch.column("vector"), dimension)
            if spherical:
                vectors = unit_rows(vectors)
            cluster, distance = find(vectors, book)
            np.maximum(extent, largest_values(vectors), out=extent)
            total.add(vectors, distance, cluster, grids)
            best.add(batch.column("id"), distance, vectors)
        yield from total.tables()
        yield best.table()
        yield extent_table(extent)

    def combine(table: pa.Table) -> pa.Table:
        bucket = table["bucket"][0].as_py()
        if bucket == FAR:
            return farthest_of(table, far)
        if bucket == EXTENT:
            return extent_table(decode_doubles(table["sums"], dimension).max(axis=0))
        return combine_sums(table, dimension, buckets)

    rows = LARGE_BATCH if clusters > TWO_LEVEL_ABOVE else BATCH
    partial = map_arrow(df.select("id", "vector"), work, SCHEMA, batch_rows=rows)
    joined = group_arrow(partial, "bucket", combine, SCHEMA)
    found = bounded(joined, clusters + far + 1, "sums per cluster")
    shipped.release()
    return found


def _grids(largest: npt.NDArray[np.float64], rows: int) -> tuple[Grid, Grid]:
    """Return the grids of the sums and of the inertia, with room above what the sample showed."""
    return (
        Grid.covering(4.0 * largest, 2 * rows),
        Grid.covering([max(float(np.square(8.0 * largest).sum()), 1e-30)], 2 * rows),
    )
