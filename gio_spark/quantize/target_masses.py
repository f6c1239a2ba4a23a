"""The target's mass on the pool's clusters, and the share of it that is out of reach."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gio_spark.engine import bounded, broadcast_arrays, decode_vectors, hash_sample, map_arrow
from gio_spark.errors import InputError
from gio_spark.gio.mass import TargetMass, kernel_mass, kernel_width, nearest_clusters
from gio_spark.kernels.search import FloatMatrix, as_matrix
from gio_spark.quantize.kmeans_pass import unit_rows

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

Rows: TypeAlias = "pa.RecordBatch | pa.Table"

_OUT, _ROWS, _ROWS_OUT = -1, -2, -3
_WIDTH_SAMPLE = 4096
_WHOSE = "column 'vector' of the target"
_NOTHING = f"{_WHOSE}: no row has a vector. Check the table and its columns.vector."


def target_mass(
    df: DataFrame,
    centroids: npt.ArrayLike,
    *,
    radius: npt.ArrayLike | None = None,
    limit: float = float("inf"),
    neighbours: int = 8,
    weight: str | None = None,
    width: float | None = None,
    spherical: bool = False,
    seed: int = 0,
    rows: int | None = None,
) -> TargetMass:
    """Spread target rows over their nearest pool clusters.

    A row whose distance over its cell's radius is above `limit` is out of reach: counted, never
    spread (ClusterStats gives `radius` and `limit` of the pool).

    Args:
        df: Target rows: id, vector and the weight column; rows without a vector are left out.
        centroids: (K, d) float32 of the pool.
        radius: (K,) from the pool's ClusterStats; needed with `limit`.
        limit: Reach limit from the pool's ClusterStats.
        neighbours: Clusters over which one row is spread.
        weight: Column with a row's weight (tokens, quality), null counting 0; None: every row 1.
        width: Kernel width in squared distance; None: from a hash sample of the rows.
        spherical: Scale rows to length one first.
        seed: Seed of that sample.
        rows: Rows of `df`, when known.

    Returns:
        gio.mass.TargetMass: `.mass` (K,), `.unreachable` share, counts; the same to the bit at
        any partitioning.

    Raises:
        InputError: When no row has a vector.
    """
    from pyspark.sql import functions as F

    matrix = as_matrix(centroids, "centroids")
    clusters, dimension = matrix.shape
    load = F.lit(1.0) if weight is None else F.coalesce(F.col(weight).cast("double"), F.lit(0.0))
    wanted = df.where(F.col("vector").isNotNull()).select("id", "vector", load.alias("weight"))
    neighbours = min(neighbours, clusters)
    arrays = {"centroids": matrix}
    if radius is not None:
        arrays["radius"] = np.asarray(radius, dtype=np.float64)

    def spread(part: Rows, held: Mapping[str, Any], width: float) -> TargetMass:
        return kernel_mass(
            _vectors_of(part, dimension, spherical),
            held["centroids"],
            width,
            radii=held.get("radius"),
            limit=limit,
            neighbours=neighbours,
            weights=part.column("weight").to_numpy(),
        )

    if width is None:
        total = wanted.count() if rows is None else rows
        if total < 1:
            raise InputError(_NOTHING)
        sample, whole = _sample(wanted, total, seed)
        if not sample.num_rows:
            raise InputError(_NOTHING)
        width = _width(_vectors_of(sample, dimension, spherical), matrix, total)
        if whole:
            return spread(sample, arrays, width)  # a second scan would bring the same rows
    shipped = broadcast_arrays(df.sparkSession, arrays)
    found_width = float(width)

    def work(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
        held = shipped.load()
        total = TargetMass.empty(clusters)
        for batch in batches:
            total = total.merge(spread(batch, held, found_width))
        yield _mass_table(total)

    parts = map_arrow(
        wanted.select("vector", "weight"), work, "cluster int, fixed bigint", batch_rows=4096
    )
    summed = parts.groupBy("cluster").agg(F.sum("fixed").cast("bigint").alias("fixed"))
    found = _from_table(bounded(summed, clusters + 3, "target mass per cluster"), clusters)
    if not found.rows:
        raise InputError(_NOTHING)
    return found


def _sample(df: DataFrame, rows: int, seed: int) -> tuple[pa.Table, bool]:
    """Bring a hash sample for the kernel's width, and tell whether it is all there is."""
    # One more than there should be: fewer than asked for are certainly all.
    table = hash_sample(
        df, min(rows, _WIDTH_SAMPLE) + 1, f"target-width-{seed}", total=max(rows, 1)
    )
    whole = table.num_rows <= min(rows, _WIDTH_SAMPLE)
    return table.slice(0, min(rows, _WIDTH_SAMPLE)), whole


def _width(sample: FloatMatrix, centroids: FloatMatrix, rows: int) -> float:
    if len(centroids) < 2:
        return 0.0
    return kernel_width(nearest_clusters(sample, centroids, 2)[1], len(centroids), rows)


def _vectors_of(part: Rows, dimension: int, spherical: bool) -> FloatMatrix:
    vectors = decode_vectors(part.column("vector"), dimension, what=_WHOSE)
    _refuse_bad(vectors)
    return unit_rows(vectors) if spherical else vectors


def _refuse_bad(vectors: FloatMatrix) -> None:
    bad = int((~np.isfinite(vectors).all(axis=1)).sum())
    if bad:
        raise InputError(
            f"{_WHOSE}: {bad:,} vectors hold NaN or infinite values. Leave such rows out, as a run "
            "does by putting them into quarantine."
        )


def _mass_table(found: TargetMass) -> pa.Table:
    seen = np.flatnonzero(found.fixed)
    extra = np.array([found.out_of_reach, found.rows, found.rows_out_of_reach], dtype=np.int64)
    return pa.table(
        {
            "cluster": np.concatenate([seen, [_OUT, _ROWS, _ROWS_OUT]]).astype(np.int32),
            "fixed": np.concatenate([found.fixed[seen], extra]),
        }
    )


def _from_table(table: pa.Table, clusters: int) -> TargetMass:
    cluster, value = table["cluster"].to_numpy(), table["fixed"].to_numpy()
    fixed = np.zeros(clusters, dtype=np.int64)
    fixed[cluster[cluster >= 0]] = value[cluster >= 0]
    extra = dict(zip(cluster[cluster < 0].tolist(), value[cluster < 0].tolist(), strict=True))
    return TargetMass(fixed, extra.get(_OUT, 0), extra.get(_ROWS, 0), extra.get(_ROWS_OUT, 0))
