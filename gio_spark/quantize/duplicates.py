"""Duplicates in the pool: exact ones by content hash, semantic ones inside clusters.

Of duplicates the best is kept: highest quality (nulls last), then lowest id.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gio_spark.engine import decode_vectors, group_arrow, hash_sample, map_arrow, ship
from gio_spark.errors import ConfigError, InputError
from gio_spark.kernels import nearest
from gio_spark.kernels.cosine import exact_cosine, keepers
from gio_spark.kernels.search import FloatMatrix
from gio_spark.quantize.passes import unit_rows
from gio_spark.quantize.seeding import small_kmeans

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

EXACT, SEMANTIC = "exact_duplicate", "semantic_duplicate"

MOST_ROWS = 20_000
"""Rows of a cluster that one worker compares; larger clusters are split."""

_SPLIT_SAMPLE = 64
_SCHEMA = "id string, keeper string, reason string, cosine float"


def exact_duplicates(df: DataFrame) -> DataFrame:
    """Find rows whose content another row has too.

    Args:
        df: id STRING, content_hash STRING (rows without one are left out), and quality DOUBLE
            where there is one.

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
    """Find rows of one cluster that point the same way.

    Rows of a cluster are taken best first; a row is dropped when its cosine with a row that was
    kept reaches the threshold. Clusters above `most_rows` are split into cells around centres of
    their own, and rows are compared inside a cell: near the border of two cells a pair may be
    missed. Drop exact duplicates first: rows that are all alike cannot be split.

    Args:
        df: id, vector, cluster and quality where there is one.
        sizes: (K,) rows per cluster (ClusterStats.rows).
        threshold: Cosine from which two rows are duplicates.
        most_rows: Rows that one worker compares.
        seed: Seed of the centres of split clusters.

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
        rows = _split(rows, counts, large, most_rows=most_rows, seed=seed)
    else:
        rows = rows.withColumn("cell", F.col("cluster").cast("bigint"))

    def compare(table: pa.Table) -> pa.Table:
        return _compare(table, threshold)

    return group_arrow(rows.select("id", "vector", "quality", "cell"), "cell", compare, _SCHEMA)


def _with_quality(df: DataFrame, *columns: str) -> DataFrame:
    from pyspark.sql import functions as F

    missing = [name for name in ("id", *columns) if name not in df.columns]
    if missing:
        raise InputError(f"columns {missing} are not in the table, which has {df.columns}")
    quality = F.col("quality") if "quality" in df.columns else F.lit(None)
    return df.select("id", *columns, quality.cast("double").alias("quality"))


def _split(
    df: DataFrame,
    sizes: npt.NDArray[Any],
    large: npt.NDArray[np.intp],
    *,
    most_rows: int,
    seed: int,
) -> DataFrame:
    """Give rows of large clusters the cell of their nearest centre inside the cluster."""
    from pyspark.sql import functions as F

    centres, edges = [], [0]
    for cluster in large:
        rows = int(sizes[cluster])
        cells = -(-2 * rows // most_rows)
        sample = hash_sample(
            df.where(F.col("cluster") == int(cluster)).select("id", "vector"),
            min(rows, _SPLIT_SAMPLE * cells),
            f"duplicates-{seed}-{cluster}",
            total=rows,
        )
        vectors = unit_rows(decode_vectors(sample["vector"]))
        centres.append(small_kmeans(vectors, cells, seed=seed))
        edges.append(edges[-1] + len(centres[-1]))
    shipped = ship(
        df.sparkSession,
        {"centres": np.concatenate(centres), "edges": np.array(edges), "large": large},
    )
    first = len(sizes)

    def work(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
        held = shipped.load()
        for batch in batches:
            cluster = batch.column("cluster").to_numpy(zero_copy_only=False)
            cell = cluster.astype(np.int64)
            for number in np.flatnonzero(np.isin(held["large"], cluster)):
                lines = np.flatnonzero(cluster == held["large"][number])
                part = decode_vectors(batch.column("vector").take(pa.array(lines)))
                low, high = held["edges"][number : number + 2]
                found, _ = nearest(unit_rows(part), held["centres"][low:high])
                cell[lines] = first + low + found
            yield pa.table(
                {
                    "id": batch.column("id"),
                    "vector": batch.column("vector"),
                    "quality": batch.column("quality"),
                    "cell": cell,
                }
            )

    kind = dict(df.dtypes)["vector"]
    return map_arrow(df, work, f"id string, vector {kind}, quality double, cell bigint")


def _compare(table: pa.Table, threshold: float) -> pa.Table:
    order = pc.sort_indices(
        table, sort_keys=[("quality", "descending"), ("id", "ascending")], null_placement="at_end"
    )
    table = table.take(order)
    rows: FloatMatrix = unit_rows(decode_vectors(table["vector"]))
    keeper = keepers(rows, threshold)
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
