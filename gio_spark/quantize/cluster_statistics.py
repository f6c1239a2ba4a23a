"""Sizes, tokens, inertia, radius and skew of clusters, from one scan of the assignments table.

Spark accumulators would over-count after a lost executor. All statistics are sums of integers: a
float32 distance is a 24-bit integer times a power of two, so the integers of one cluster and one
exponent are added exactly, and inertia has the same bits at any partitioning. These cells (cluster,
exponent and leading bits) also form a histogram of distances, which yields quantiles without a
second scan.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gio_spark.engine import bounded, map_arrow
from gio_spark.errors import InputError
from gio_spark.gio.target_mass import cluster_radii

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_SHIFT = 18
"""Low bits dropped from a float32: exponent and five mantissa bits remain, cells 3 % wide."""

_CELLS = 1 << (32 - _SHIFT)
_BUFFERED_ROWS = 1 << 18
_SCHEMA = "cluster int, cell int, rows bigint, tokens bigint, whole bigint"


@dataclass(frozen=True)
class ClusterStats:
    """Statistics per cluster; arrays have one entry for each of the K clusters, empty ones too.

    Attributes:
        rows: (K,) int64.
        tokens: (K,) int64, zero where the table has no column tokens.
        inertia: (K,) float64, sum of squared distances.
        radius: (K,) float64, root mean squared distance, shrunk towards the pool's
            (gio.target_mass.cluster_radii); distance over radius is a row's reach.
        far: (K,) float64, distance within which `quantile` of the cluster's rows lie.
        limit: Reach within which `quantile` of all rows lie; a target row above it is out of
            reach.
        quantile: Share of rows within `far` and `limit`.
    """

    rows: npt.NDArray[np.int64]
    tokens: npt.NDArray[np.int64]
    inertia: npt.NDArray[np.float64]
    radius: npt.NDArray[np.float64]
    far: npt.NDArray[np.float64]
    limit: float
    quantile: float

    def skew(self) -> dict[str, float]:
        """Skew of the cluster sizes.

        Returns:
            empty: clusters without rows; largest_share: share of the largest; over_mean: largest
            over mean size; effective: exp of the entropy of the shares, over K (1: all equal).
        """
        total = int(self.rows.sum())
        if not total:
            return {
                "empty": float(len(self.rows)),
                "largest_share": 0.0,
                "over_mean": 0.0,
                "effective": 0.0,
            }
        share = self.rows[self.rows > 0] / total
        entropy = -float((share * np.log(share)).sum())
        return {
            "empty": float((self.rows == 0).sum()),
            "largest_share": float(share.max()),
            "over_mean": float(share.max() * len(self.rows)),
            "effective": float(np.exp(entropy) / len(self.rows)),
        }


def cluster_stats(
    assignments: DataFrame, clusters: int, *, quantile: float = 0.995
) -> ClusterStats:
    """Compute the statistics of all clusters in one scan of an assignments table.

    Args:
        assignments: cluster INT, distance FLOAT, and optionally tokens BIGINT.
        clusters: K.
        quantile: Share of rows within `limit` and `far`.

    Raises:
        InputError: When there are no rows, or a cluster number is not below `clusters`.
    """
    from pyspark.sql import functions as F

    tokens = F.col("tokens") if "tokens" in assignments.columns else F.lit(0)
    narrow = assignments.select(
        "cluster", "distance", F.coalesce(tokens.cast("bigint"), F.lit(0)).alias("tokens")
    )
    histogram = (
        map_arrow(narrow, _count, _SCHEMA, batch_rows=65_536)
        .groupBy("cluster", "cell")
        .agg(*(F.sum(c).cast("bigint").alias(c) for c in ("rows", "tokens", "whole")))
    )
    table = bounded(histogram, clusters * 1024, "histogram cells of the clusters")
    if not table.num_rows:
        raise InputError("the assignments table is empty: nothing to summarise")
    return _summarize(table, clusters, quantile)


def _count(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Histograms of buffered batches; runs on a worker."""
    buffer: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        buffer.append(batch)
        rows += batch.num_rows
        if rows >= _BUFFERED_ROWS:
            yield _histogram(buffer)
            buffer, rows = [], 0
    if buffer:
        yield _histogram(buffer)


def _histogram(batches: list[pa.RecordBatch]) -> pa.Table:
    """Sums of rows, tokens and integer mantissas of the distances per (cluster, cell)."""
    cluster, distance, tokens = (
        np.concatenate([b.column(name).to_numpy(zero_copy_only=False) for b in batches])
        for name in ("cluster", "distance", "tokens")
    )
    bits = distance.astype(np.float32).view(np.uint32).astype(np.int64)
    mantissa = (bits & 0x7FFFFF) | np.where(bits >> 23, 0x800000, 0)
    key = cluster.astype(np.int64) * _CELLS + (bits >> _SHIFT)
    keys, local = np.unique(key, return_inverse=True)
    sums = np.zeros((3, len(keys)), dtype=np.int64)
    for index, values in enumerate((np.ones_like(mantissa), tokens, mantissa)):
        np.add.at(sums[index], local, values)
    return pa.table(
        {
            "cluster": (keys // _CELLS).astype(np.int32),
            "cell": (keys % _CELLS).astype(np.int32),
            "rows": sums[0],
            "tokens": sums[1],
            "whole": sums[2],
        }
    )


def _summarize(table: pa.Table, clusters: int, quantile: float) -> ClusterStats:
    cluster, cell, rows, tokens, mantissas = (
        table[name].to_numpy() for name in ("cluster", "cell", "rows", "tokens", "whole")
    )
    if cluster.min() < 0 or cluster.max() >= clusters:
        raise InputError(
            f"the assignments name cluster {int(cluster.max())}, the codebook has {clusters}: "
            "they do not belong together"
        )
    order = np.lexsort((cell, cluster))
    cluster, cell, rows, tokens, mantissas = (
        a[order] for a in (cluster, cell, rows, tokens, mantissas)
    )
    exponent = np.maximum(cell >> (23 - _SHIFT), 1) - 150
    distance_sums = np.ldexp(mantissas.astype(np.float64), exponent)
    row_counts = np.zeros(clusters, dtype=np.int64)
    token_counts = np.zeros(clusters, dtype=np.int64)
    inertia = np.zeros(clusters)
    # add.at adds sequentially in this sorted order, so the sums have the same bits every time.
    np.add.at(row_counts, cluster, rows)
    np.add.at(token_counts, cluster, tokens)
    np.add.at(inertia, cluster, distance_sums)
    radius = cluster_radii(inertia, row_counts)
    upper = np.sqrt(_upper_edge(cell))
    far = np.zeros(clusters)
    cumulative_rows = np.cumsum(rows)
    rows_before = np.concatenate([[0], np.cumsum(row_counts)])[cluster]
    reaches_quantile = cumulative_rows - rows_before >= np.ceil(quantile * row_counts[cluster])
    first = np.flatnonzero(reaches_quantile)
    nonempty, first_index = np.unique(cluster[first], return_index=True)
    far[nonempty] = upper[first[first_index]]
    reach = np.divide(upper, radius[cluster], out=np.zeros(len(upper)), where=radius[cluster] > 0)
    by_reach = np.argsort(reach, kind="stable")
    limit_index = int(np.searchsorted(np.cumsum(rows[by_reach]), np.ceil(quantile * rows.sum())))
    return ClusterStats(
        rows=row_counts,
        tokens=token_counts,
        inertia=inertia,
        radius=radius,
        far=far,
        limit=float(reach[by_reach[min(limit_index, len(reach) - 1)]]),
        quantile=quantile,
    )


def _upper_edge(cell: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
    """Largest float32 of each histogram cell."""
    bits = ((cell.astype(np.int64) + 1) << _SHIFT) - 1
    edge = bits.astype(np.uint32).view(np.float32).astype(np.float64)
    # Cell 0 has distance zero: its rows equal the centroid.
    return np.where(cell == 0, 0.0, edge)
