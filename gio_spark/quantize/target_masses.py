"""Mass of the target on the clusters of the pool, and its share that is out of reach."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gio_spark.engine import bounded, broadcast_arrays, decode_vectors, hash_sample, map_arrow
from gio_spark.errors import InputError
from gio_spark.gio.target_mass import TargetMass, kernel_mass, kernel_width, nearest_clusters
from gio_spark.kernels.nearest_centroid import FloatMatrix, as_matrix
from gio_spark.quantize.kmeans_pass import unit_rows

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

Rows: TypeAlias = "pa.RecordBatch | pa.Table"

_MASS_OUT, _ROWS, _ROWS_OUT = -1, -2, -3
_WIDTH_SAMPLE = 4096
_INPUT_LABEL = "column 'vector' of the target"
_NO_VECTORS = f"{_INPUT_LABEL}: no row has a vector. Check the table and its columns.vector."


def target_mass(
    df: DataFrame,
    centroids: npt.ArrayLike,
    *,
    radius: npt.ArrayLike | None = None,
    limit: float = float("inf"),
    neighbors: int = 8,
    weight: str | None = None,
    width: float | None = None,
    spherical: bool = False,
    seed: int = 0,
    rows: int | None = None,
) -> TargetMass:
    """Mass of the target rows, each spread over its nearest pool clusters.

    A row whose distance over the radius of its cluster is above `limit` is out of reach: counted,
    but not spread (`radius` and `limit` come from ClusterStats of the pool).

    Args:
        df: Target rows: id, vector and the weight column; rows without a vector are left out.
        centroids: (K, d) float32 of the pool.
        radius: (K,) from the pool's ClusterStats; required with `limit`.
        limit: Reach limit from the pool's ClusterStats.
        neighbors: Number of clusters over which one row is spread.
        weight: Column with a row's weight (tokens, quality), null is 0; None: weight 1 for all.
        width: Kernel width in squared distance; None: from a hash sample of the rows.
        spherical: Scale rows to length one first.
        seed: Seed of the hash sample.
        rows: Rows of `df`, when known.

    Returns:
        gio.TargetMass: `.mass` (K,), `.unreachable` share, counts; bit-identical at any
        partitioning.

    Raises:
        InputError: No row has a vector.
    """
    from pyspark.sql import functions as F

    matrix = as_matrix(centroids, "centroids")
    clusters, dimension = matrix.shape
    row_weight = (
        F.lit(1.0) if weight is None else F.coalesce(F.col(weight).cast("double"), F.lit(0.0))
    )
    target_rows = df.where(F.col("vector").isNotNull()).select(
        "id", "vector", row_weight.alias("weight")
    )
    neighbors = min(neighbors, clusters)
    arrays = {"centroids": matrix}
    if radius is not None:
        arrays["radius"] = np.asarray(radius, dtype=np.float64)

    def spread(part: Rows, broadcast_values: Mapping[str, Any], width: float) -> TargetMass:
        return kernel_mass(
            _vectors(part, dimension, spherical),
            broadcast_values["centroids"],
            width,
            radii=broadcast_values.get("radius"),
            limit=limit,
            neighbors=neighbors,
            weights=part.column("weight").to_numpy(),
        )

    if width is None:
        total = target_rows.count() if rows is None else rows
        if total < 1:
            raise InputError(_NO_VECTORS)
        sample, is_complete = _sample(target_rows, total, seed)
        if not sample.num_rows:
            raise InputError(_NO_VECTORS)
        width = _width(_vectors(sample, dimension, spherical), matrix, total)
        if is_complete:
            return spread(sample, arrays, width)  # a second scan would read the same rows
    broadcast = broadcast_arrays(df.sparkSession, arrays)
    fixed_width = float(width)

    def mass_of_batches(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
        broadcast_values = broadcast.load()
        total = TargetMass.empty(clusters)
        for batch in batches:
            total = total.merge(spread(batch, broadcast_values, fixed_width))
        yield _mass_to_table(total)

    partial_masses = map_arrow(
        target_rows.select("vector", "weight"),
        mass_of_batches,
        "cluster int, fixed bigint",
        batch_rows=4096,
    )
    sums = partial_masses.groupBy("cluster").agg(F.sum("fixed").cast("bigint").alias("fixed"))
    mass = _mass_from_table(bounded(sums, clusters + 3, "target mass per cluster"), clusters)
    if not mass.rows:
        raise InputError(_NO_VECTORS)
    return mass


def _sample(df: DataFrame, rows: int, seed: int) -> tuple[pa.Table, bool]:
    """Hash sample for the kernel width, and whether it contains all rows."""
    # One row more than needed: fewer rows than requested are certainly all.
    table = hash_sample(
        df, min(rows, _WIDTH_SAMPLE) + 1, f"target-width-{seed}", total=max(rows, 1)
    )
    is_complete = table.num_rows <= min(rows, _WIDTH_SAMPLE)
    return table.slice(0, min(rows, _WIDTH_SAMPLE)), is_complete


def _width(sample: FloatMatrix, centroids: FloatMatrix, rows: int) -> float:
    if len(centroids) < 2:
        return 0.0
    return kernel_width(nearest_clusters(sample, centroids, 2)[1], len(centroids), rows)


def _vectors(part: Rows, dimension: int, spherical: bool) -> FloatMatrix:
    vectors = decode_vectors(part.column("vector"), dimension, what=_INPUT_LABEL)
    _check_finite(vectors)
    return unit_rows(vectors) if spherical else vectors


def _check_finite(vectors: FloatMatrix) -> None:
    count = int((~np.isfinite(vectors).all(axis=1)).sum())
    if count:
        raise InputError(
            f"{_INPUT_LABEL}: {count:,} vectors hold NaN or infinite values. Leave such rows out, "
            "as a run does by putting them into quarantine."
        )


def _mass_to_table(mass: TargetMass) -> pa.Table:
    nonempty = np.flatnonzero(mass.fixed)
    extra = np.array([mass.out_of_reach, mass.rows, mass.rows_out_of_reach], dtype=np.int64)
    return pa.table(
        {
            "cluster": np.concatenate([nonempty, [_MASS_OUT, _ROWS, _ROWS_OUT]]).astype(np.int32),
            "fixed": np.concatenate([mass.fixed[nonempty], extra]),
        }
    )


def _mass_from_table(table: pa.Table, clusters: int) -> TargetMass:
    cluster, value = table["cluster"].to_numpy(), table["fixed"].to_numpy()
    fixed = np.zeros(clusters, dtype=np.int64)
    fixed[cluster[cluster >= 0]] = value[cluster >= 0]
    extra = dict(zip(cluster[cluster < 0].tolist(), value[cluster < 0].tolist(), strict=True))
    return TargetMass(fixed, extra.get(_MASS_OUT, 0), extra.get(_ROWS, 0), extra.get(_ROWS_OUT, 0))
