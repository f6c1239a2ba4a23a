"""One mini-batch pass: assign the rows of a hash bucket and collect sums per cluster.

Each partition emits exact partial sums (kernels.exact_sums) and its farthest rows; both are
combined on workers, so that the driver receives one row per cluster at any number of partitions.
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
from gio_spark.kernels import (
    PROBES,
    Codebook,
    group_centroids,
    largest_values,
    row_squares,
    search_nearest,
)
from gio_spark.kernels.exact_sums import Grid
from gio_spark.kernels.nearest_centroid import FloatMatrix
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
    PartialSums,
    PassResult,
    collect_result,
    combine_sums,
    extent_to_table,
    merge_extents,
    merge_farthest,
)

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

GROUP_BYTES = 32 << 20
"""Bytes of partial sums per group that is combined on one worker."""


def bucket_filter(share: float, number: int, salt: str, id_column: str = "id") -> Column:
    """Predicate of batch `number`: a window of the hash range of the ids.

    Consecutive windows cover the range cyclically, so that rows repeat only after all rows were
    used, and a batch has the same rows at any partitioning.
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
    """Mask (n,) of the id hashes that `bucket_filter` selects."""
    if share >= 1.0:
        return np.ones(len(positions), np.bool_)
    start, end = _window(share, number)
    in_window = (positions >= start) & (positions < end)
    return in_window if end <= HASH_RANGE else in_window | (positions < end - HASH_RANGE)


def _window(share: float, number: int) -> tuple[int, int]:
    """Start and end of batch `number`; an end beyond the hash range wraps around to its start."""
    width = max(1, round(share * HASH_RANGE))
    start = (number * width) % HASH_RANGE
    return start, start + width


def unit_rows(vectors: FloatMatrix) -> FloatMatrix:
    """Rows scaled to length one.

    Raises:
        InputError: A row is all zeros and has no direction.
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
    """Assign the rows of `df` and sum them by cluster.

    Args:
        df: The batch: id, vector (BINARY float32 or ARRAY<FLOAT>).
        centroids: (K, d) float32.
        largest: (d,) largest absolute values, from the sample; this function adds headroom.
        batch_rows: Expected rows of the batch, for the grid of the sums.
        far: Number of farthest rows to collect.
        spherical: Scale rows to length one first.
        two_level: Search with the two-level index; None: by the number of clusters.
        probes: Cells of the two-level index that are searched for a row.

    Raises:
        InputError: Invalid vectors.
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
    extent = merge_extents(table, dimension)
    grid, _ = _grids(largest, batch_rows)
    rows = pc.sum(table["rows"]).as_py() or 0
    if grid.covers(extent, max(rows, batch_rows)):
        return collect_result(table, clusters, dimension, largest)
    # Outliers exceed the range of the sample: repeat on a grid that covers them. This depends on
    # the rows of the batch alone, so the fit is the same at any partitioning.
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
    """Pass over rows in memory; bit-identical to `run_pass`.

    Args:
        ids: (n,) ids of the rows, to break ties.
        vectors: (n, d) float32, already scaled to length one for a spherical fit.
        centroids: (K, d) float32.
        largest: (d,) largest absolute values, as for `run_pass`.
        batch_rows: Expected rows, as for `run_pass`.
        far: Number of farthest rows to collect.
        two_level: Search with the two-level index.
        probes: Cells of the two-level index that are searched for a row.
        threads: Number of threads; as the sums are exact, it does not change the result.
    """
    dimension = centroids.shape[1]
    extent = largest_values(vectors)
    grids = _grids(largest, batch_rows)
    if not grids[0].covers(extent, max(len(vectors), batch_rows)):
        largest = np.maximum(largest, extent)
        grids = _grids(largest, max(len(vectors), batch_rows))
    codebook = group_centroids(centroids, probes=probes) if two_level else Codebook(centroids)
    block_rows = LARGE_BATCH if two_level else BATCH

    def sum_range(first: int, last: int) -> tuple[PartialSums, Farthest]:
        partial_sums, farthest = PartialSums(len(centroids), dimension, 1), Farthest(far, dimension)
        for start in range(first, last, block_rows):
            rows = vectors[start : min(start + block_rows, last)]
            cluster, distance = search_nearest(rows, codebook)
            partial_sums.add(rows, distance, cluster, grids)
            farthest.add(ids.slice(start, len(rows)), distance, rows)
        return partial_sums, farthest

    threads = max(1, min(threads, -(-len(vectors) // block_rows)))
    if threads == 1:
        partial_sums, farthest = sum_range(0, len(vectors))
    else:
        bounds = [len(vectors) * i // threads for i in range(threads + 1)]
        with ThreadPoolExecutor(threads) as pool:
            (partial_sums, farthest), *others = pool.map(sum_range, bounds[:-1], bounds[1:])
        for other_partial_sums, other_farthest in others:
            partial_sums.merge(other_partial_sums)
            farthest.merge(other_farthest)
    return PassResult(
        partial_sums.sums,
        partial_sums.counts,
        float(partial_sums.inertia.sum()),
        farthest.vectors,
        farthest.distances,
        largest,
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
    """Table of sums per cluster, farthest rows and largest values of a batch (see `SCHEMA`)."""
    clusters, dimension = centroids.shape
    grids = _grids(largest, batch_rows)
    broadcast = broadcast_codebook(df.sparkSession, centroids, two_level=two_level, probes=probes)
    buckets = max(1, min(clusters, -(-clusters * dimension * 8 * 16 // GROUP_BYTES)))

    def sum_batches(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
        codebook = broadcast.load()
        partial_sums, farthest = PartialSums(clusters, dimension, buckets), Farthest(far, dimension)
        extent = np.zeros(dimension)
        for batch in batches:
            vectors = decode_vectors(batch.column("vector"), dimension)
            if spherical:
                vectors = unit_rows(vectors)
            cluster, distance = search_nearest(vectors, codebook)
            np.maximum(extent, largest_values(vectors), out=extent)
            partial_sums.add(vectors, distance, cluster, grids)
            farthest.add(batch.column("id"), distance, vectors)
        yield from partial_sums.tables()
        yield farthest.table()
        yield extent_to_table(extent)

    def combine(table: pa.Table) -> pa.Table:
        bucket = table["bucket"][0].as_py()
        if bucket == FAR:
            return merge_farthest(table, far)
        if bucket == EXTENT:
            return extent_to_table(decode_doubles(table["sums"], dimension).max(axis=0))
        return combine_sums(table, dimension, buckets)

    rows_per_batch = LARGE_BATCH if clusters > TWO_LEVEL_ABOVE else BATCH
    partial = map_arrow(df.select("id", "vector"), sum_batches, SCHEMA, batch_rows=rows_per_batch)
    combined = group_arrow(partial, "bucket", combine, SCHEMA)
    table = bounded(combined, clusters + far + 1, "sums per cluster")
    broadcast.release()
    return table


def _grids(largest: npt.NDArray[np.float64], rows: int) -> tuple[Grid, Grid]:
    """Grids of the sums and of the inertia, with headroom above the largest sampled values."""
    return (
        Grid.covering(4.0 * largest, 2 * rows),
        Grid.covering([max(float(np.square(8.0 * largest).sum()), 1e-30)], 2 * rows),
    )
