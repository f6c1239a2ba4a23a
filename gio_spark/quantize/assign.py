"""Assignment of every row to its nearest cluster, in one pass over the vectors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gio_spark.engine import decode_vectors, map_arrow
from gio_spark.engine.arrow import arrow_fields
from gio_spark.errors import InputError
from gio_spark.kernels import PROBES, Codebook, TwoLevelCodebook, search_nearest, search_nearest_two
from gio_spark.kernels.nearest_centroid import as_matrix
from gio_spark.quantize.codebook_broadcast import (
    BATCH,
    LARGE_BATCH,
    TWO_LEVEL_ABOVE,
    broadcast_codebook,
)
from gio_spark.quantize.kmeans_pass import unit_rows

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def assign(
    df: DataFrame,
    centroids: npt.ArrayLike,
    *,
    second: bool = False,
    carry: Sequence[str] = (),
    spherical: bool = False,
    two_level: bool | None = None,
    probes: int = PROBES,
) -> DataFrame:
    """Assign each row that has a vector to its nearest centroid, exactly once.

    Args:
        df: id, vector (BINARY float32 or ARRAY<FLOAT>) and the columns to carry. Rows whose
            vector is null (quarantined by the embedding stage) are left out.
        centroids: (K, d) float32.
        second: Also return the second-nearest cluster.
        carry: Columns passed through unchanged.
        spherical: Scale rows to length one first; distances are then 2 - 2 cos.
        two_level: Search with the two-level index; None: above 8,192 clusters.
        probes: Cells of the two-level index that are searched for a row.

    Returns:
        id STRING, cluster INT, distance FLOAT (squared euclidean, computed in float64), with
        `second` also second INT, second_distance FLOAT; then the carried columns.

    Raises:
        InputError: A carried column is missing, or (when rows are read) vectors are ragged, NaN
            or of another dimension.
    """
    from pyspark.sql import functions as F

    matrix = as_matrix(centroids, "centroids")
    if second and len(matrix) < 2:
        raise InputError("the second-nearest cluster needs at least two centroids")
    Codebook(matrix).half_norms  # noqa: B018 - invalid centroids fail here, not on a worker
    columns = df.columns
    missing_columns = [name for name in ("id", "vector", *carry) if name not in columns]
    if missing_columns:
        raise InputError(f"columns {missing_columns} are not in the table, which has {columns}")
    name_conflicts = {"id", "cluster", "distance", "second", "second_distance"} & set(carry)
    if name_conflicts:
        raise InputError(
            f"carried columns {sorted(name_conflicts)} have names that assignment gives itself"
        )
    vector_rows = df.select("id", "vector", *carry).where(F.col("vector").isNotNull())
    fields = [
        pa.field("id", pa.string()),
        pa.field("cluster", pa.int32()),
        pa.field("distance", pa.float32()),
    ]
    if second:
        fields += [pa.field("second", pa.int32()), pa.field("second_distance", pa.float32())]
    if carry:
        fields += arrow_fields(vector_rows.select(*carry))
    broadcast = broadcast_codebook(df.sparkSession, matrix, two_level=two_level, probes=probes)
    carried = tuple(carry)

    def assign_batches(batches: Iterator[pa.RecordBatch]) -> Iterator[dict[str, Any]]:
        codebook = broadcast.load()
        for batch in batches:
            vectors = decode_vectors(
                batch.column("vector"),
                codebook.dimension,
                what="column 'vector' of the rows to assign",
            )
            yield {
                "id": batch.column("id"),
                **_nearest_columns(vectors, codebook, second=second, spherical=spherical),
                **{name: batch.column(name) for name in carried},
            }

    batch_rows = LARGE_BATCH if len(matrix) > TWO_LEVEL_ABOVE else BATCH
    return map_arrow(vector_rows, assign_batches, pa.schema(fields), batch_rows=batch_rows)


def _nearest_columns(
    vectors: npt.NDArray[np.float32],
    codebook: Codebook | TwoLevelCodebook,
    *,
    second: bool,
    spherical: bool,
) -> dict[str, npt.NDArray]:
    """Columns of the nearest cluster (and the second-nearest) of each vector."""
    if spherical:
        vectors = unit_rows(vectors)
    if not second:
        cluster, distance = search_nearest(vectors, codebook)
        return {"cluster": cluster, "distance": distance}
    cluster, distance, second_cluster, second_distance = search_nearest_two(vectors, codebook)
    return {
        "cluster": cluster,
        "distance": distance,
        "second": second_cluster,
        "second_distance": second_distance,
    }
