"""Assignment of every row to its nearest cluster, in one pass over the vectors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gio_spark.engine import decode_vectors, map_arrow
from gio_spark.errors import InputError
from gio_spark.kernels import PROBES, Codebook, TwoLevel, find, find_two
from gio_spark.kernels.search import as_matrix
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
            vector is null (set aside by the embedding stage) give no row.
        centroids: (K, d) float32.
        second: Also give the second-nearest cluster.
        carry: Columns passed through unchanged.
        spherical: Scale rows to length one first; distances are then 2 - 2 cos.
        two_level: Search through two levels; None: above 8,192 clusters.
        probes: Cells that such a search looks into.

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
    Codebook(matrix).half_norms  # noqa: B018 - bad centroids are refused here, not on a worker
    names = df.columns
    missing = [name for name in ("id", "vector", *carry) if name not in names]
    if missing:
        raise InputError(f"columns {missing} are not in the table, which has {names}")
    taken = {"id", "cluster", "distance", "second", "second_distance"} & set(carry)
    if taken:
        raise InputError(f"carried columns {sorted(taken)} have names that assignment gives itself")
    wanted = df.select("id", "vector", *carry).where(F.col("vector").isNotNull())
    fields = [
        pa.field("id", pa.string()),
        pa.field("cluster", pa.int32()),
        pa.field("distance", pa.float32()),
    ]
    if second:
        fields += [pa.field("second", pa.int32()), pa.field("second_distance", pa.float32())]
    if carry:
        fields += _carried_fields(wanted.select(*carry))
    shipped = broadcast_codebook(df.sparkSession, matrix, two_level=two_level, probes=probes)
    kept = tuple(carry)

    def work(batches: Iterator[pa.RecordBatch]) -> Iterator[dict[str, Any]]:
        book = shipped.load()
        for batch in batches:
            vectors = decode_vectors(
                batch.column("vector"), book.dimension, what="column 'vector' of the rows to assign"
            )
            yield {
                "id": batch.column("id"),
                **_found(vectors, book, second=second, spherical=spherical),
                **{name: batch.column(name) for name in kept},
            }

    rows = LARGE_BATCH if len(matrix) > TWO_LEVEL_ABOVE else BATCH
    return map_arrow(wanted, work, pa.schema(fields), batch_rows=rows)


def _carried_fields(df: DataFrame) -> list[pa.Field]:
    """Return the Arrow fields of carried columns."""
    from pyspark.sql.pandas.types import to_arrow_type
    from pyspark.sql.types import TimestampType

    # to_arrow_type takes the time zone under names that differ between Spark versions.
    return [
        pa.field(
            f.name,
            pa.timestamp("us", tz="UTC")
            if isinstance(f.dataType, TimestampType)
            else to_arrow_type(f.dataType),
        )
        for f in df.schema.fields
    ]


def _found(
    vectors: npt.NDArray[np.float32], book: Codebook | TwoLevel, *, second: bool, spherical: bool
) -> dict[str, npt.NDArray]:
    if spherical:
        vectors = unit_rows(vectors)
    if not second:
        cluster, distance = find(vectors, book)
        return {"cluster": cluster, "distance": distance}
    cluster, distance, other, beyond = find_two(vectors, book)
    return {
        "cluster": cluster,
        "distance": distance,
        "second": other,
        "second_distance": beyond,
    }
