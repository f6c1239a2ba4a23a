"""Duplicates in the pool: exact ones by content hash, semantic ones by cosine inside clusters.

Of a set of duplicates one row stays: highest quality (nulls last), then lowest id.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gio_spark.engine import (
    bounded,
    broadcast_arrays,
    decode_vectors,
    encode_vectors,
    group_arrow,
    hash53,
    map_arrow,
)
from gio_spark.errors import ConfigError, InputError
from gio_spark.kernels import nearest
from gio_spark.kernels.cosine_threshold import exact_cosine, representatives
from gio_spark.kernels.nearest_centroid import FloatMatrix
from gio_spark.quantize.kmeans_pass import unit_rows
from gio_spark.quantize.kmeans_seeding import small_kmeans

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

EXACT, SEMANTIC = "exact_duplicate", "semantic_duplicate"

MOST_ROWS = 20_000
"""Rows of a cluster up to which one worker compares all of them; larger clusters are split."""

_SPLIT_SAMPLE = 64
_SCHEMA = "id string, keeper string, reason string, cosine float"


def exact_duplicates(df: DataFrame) -> DataFrame:
    """Rows whose content equals that of another row.

    Args:
        df: id STRING, content_hash STRING (rows without one are left out), and optionally
            quality DOUBLE.

    Returns:
        One row per duplicate to drop: id, keeper (the id that stays), reason, cosine (1).
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    ordered = Window.partitionBy("content_hash").orderBy(
        F.col("quality").desc_nulls_last(), F.col("id").asc()
    )
    return (
        _with_quality(df, "content_hash")
        .where(F.col("content_hash").isNotNull())
        .withColumn("keeper", F.first("id").over(ordered))
        .where(F.col("id") != F.col("keeper"))
        .select(
            "id",
            "keeper",
            F.lit(EXACT).alias("reason"),
            F.lit(1.0).cast("float").alias("cosine"),
        )
    )


def semantic_duplicates(
    df: DataFrame,
    sizes: npt.ArrayLike,
    *,
    threshold: float = 0.98,
    most_rows: int = MOST_ROWS,
    seed: int = 0,
) -> DataFrame:
    """Rows whose cosine with a better row of the same cluster reaches a threshold.

    Rows of a cluster are visited best first; a row is dropped when its cosine with a retained row
    reaches the threshold. Clusters above `most_rows` rows are split into cells by a K-means of
    their own, and rows are compared inside a cell: a pair across the border of two cells may be
    missed. Drop exact duplicates first: identical rows cannot be split.

    Args:
        df: id, vector, cluster and optionally quality.
        sizes: (K,) rows per cluster (ClusterStats.rows).
        threshold: Minimum cosine of duplicates.
        most_rows: Rows of a cluster up to which it is not split.
        seed: Seed of the centers inside split clusters.

    Returns:
        One row per duplicate to drop: id, keeper, reason, cosine FLOAT. The same rows at any
        partitioning.

    Raises:
        ConfigError: A threshold outside (0, 1].
        InputError: (when rows are read) a row of zeros, which has no direction.
    """
    from pyspark.sql import functions as F

    if not 0.0 < threshold <= 1.0:
        raise ConfigError(f"the duplicate threshold is {threshold}: give a cosine in (0, 1]")
    rows = _with_quality(df, "vector", "cluster").where(F.col("vector").isNotNull())
    counts = np.asarray(sizes)
    large = np.flatnonzero(counts > most_rows)
    if len(large):
        rows = _split_large_clusters(rows, counts, large, most_rows=most_rows, seed=seed)
    else:
        rows = rows.withColumn("cell", F.col("cluster").cast("bigint"))

    def duplicates_of_cell(table: pa.Table) -> pa.Table:
        return _duplicates_of_cell(table, threshold)

    return group_arrow(
        rows.select("id", "vector", "quality", "cell"), "cell", duplicates_of_cell, _SCHEMA
    )


def _with_quality(df: DataFrame, *columns: str) -> DataFrame:
    from pyspark.sql import functions as F

    missing_columns = [name for name in ("id", *columns) if name not in df.columns]
    if missing_columns:
        raise InputError(f"columns {missing_columns} are not in the table, which has {df.columns}")
    quality = F.col("quality") if "quality" in df.columns else F.lit(None)
    return df.select("id", *columns, quality.cast("double").alias("quality"))


def _split_large_clusters(
    df: DataFrame,
    sizes: npt.NDArray[Any],
    large: npt.NDArray[np.intp],
    *,
    most_rows: int,
    seed: int,
) -> DataFrame:
    """Add a column `cell`: the cluster, or the nearest inner center of a large cluster."""
    centers = _inner_centers(df, sizes, large, most_rows=most_rows, seed=seed)
    edges = np.searchsorted(centers["cluster"].to_numpy(), [*large, large[-1] + 1])
    broadcast = broadcast_arrays(
        df.sparkSession,
        {"centers": decode_vectors(centers["vector"]), "edges": edges, "large": large},
    )
    first = len(sizes)

    def add_cells(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
        arrays = broadcast.load()
        for batch in batches:
            cluster = batch.column("cluster").to_numpy(zero_copy_only=False)
            cell = cluster.astype(np.int64)
            for number in np.flatnonzero(np.isin(arrays["large"], cluster)):
                start, end = arrays["edges"][number : number + 2]
                if start == end:
                    continue  # none of its rows was sampled: it remains one cell
                rows = np.flatnonzero(cluster == arrays["large"][number])
                vectors = decode_vectors(batch.column("vector").take(pa.array(rows)))
                nearest_center, _ = nearest(unit_rows(vectors), arrays["centers"][start:end])
                cell[rows] = first + start + nearest_center
            yield pa.table(
                {
                    "id": batch.column("id"),
                    "vector": batch.column("vector"),
                    "quality": batch.column("quality"),
                    "cell": cell,
                }
            )

    vector_type = dict(df.dtypes)["vector"]
    return map_arrow(df, add_cells, f"id string, vector {vector_type}, quality double, cell bigint")


def _inner_centers(
    df: DataFrame,
    sizes: npt.NDArray[Any],
    large: npt.NDArray[np.intp],
    *,
    most_rows: int,
    seed: int,
) -> pa.Table:
    """Fit centers inside each large cluster, on workers, on a hash sample of its rows.

    Returns:
        cluster INT, number INT, vector BINARY, sorted.
    """
    cells = -(-2 * sizes[large] // most_rows)
    share = np.minimum(1.0, _SPLIT_SAMPLE * cells / sizes[large])
    broadcast = broadcast_arrays(
        df.sparkSession, {"large": large, "below": np.rint(share * 2.0**53)}
    )
    cells_per_cluster = {int(c): int(n) for c, n in zip(large, cells, strict=True)}

    def sample(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        arrays = broadcast.load()
        for batch in batches:
            cluster = batch.column("cluster").to_numpy(zero_copy_only=False)
            index = np.searchsorted(arrays["large"], cluster).clip(max=len(arrays["large"]) - 1)
            in_sample = arrays["large"][index] == cluster
            in_sample &= (
                batch.column("hash").to_numpy(zero_copy_only=False) < arrays["below"][index]
            )
            yield batch.filter(pa.array(in_sample))

    def fit(table: pa.Table) -> dict[str, Any]:
        table = table.sort_by([("hash", "ascending"), ("id", "ascending")])
        cluster = table["cluster"][0].as_py()
        vectors = unit_rows(decode_vectors(table["vector"]))
        centers = small_kmeans(vectors, cells_per_cluster[cluster], seed=seed)
        return {
            "cluster": np.full(len(centers), cluster, dtype=np.int32),
            "number": np.arange(len(centers), dtype=np.int32),
            "vector": encode_vectors(centers),
        }

    hashed = df.select("id", "vector", "cluster", hash53("id", f"duplicates-{seed}").alias("hash"))
    vector_type = dict(df.dtypes)["vector"]
    sampled = map_arrow(
        hashed, sample, f"id string, vector {vector_type}, cluster int, hash bigint"
    )
    fitted = group_arrow(sampled, "cluster", fit, "cluster int, number int, vector binary")
    table = bounded(fitted, int(cells.sum()), "centers inside large clusters")
    return table.sort_by([("cluster", "ascending"), ("number", "ascending")])


def _duplicates_of_cell(table: pa.Table, threshold: float) -> pa.Table:
    """Duplicates among the rows of one cell, in the columns of `semantic_duplicates`."""
    order = pc.sort_indices(table, sort_keys=[("quality", "descending"), ("id", "ascending")])
    table = table.take(order)
    rows: FloatMatrix = unit_rows(decode_vectors(table["vector"]))
    keeper = representatives(rows, threshold)
    dropped = np.flatnonzero(keeper != np.arange(len(rows)))
    names = table["id"]
    return pa.table(
        {
            "id": names.take(pa.array(dropped)),
            "keeper": names.take(pa.array(keeper[dropped])),
            "reason": pa.array([SEMANTIC] * len(dropped), pa.string()),
            "cosine": exact_cosine(rows[dropped], rows[keeper[dropped]]).astype(np.float32),
        }
    )
