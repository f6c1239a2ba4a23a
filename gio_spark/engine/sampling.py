"""Sampling by a hash of the row id: the same rows at any partitioning, cluster size or retry."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from gio_spark.engine.arrow import take_rows
from gio_spark.engine.capabilities import describe
from gio_spark.engine.engine_errors import engine_errors
from gio_spark.errors import InputError

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

HASH_RANGE = 1 << 53


def hash53(id_column: str | Column, salt: str) -> Column:
    """Return a hash of the id in [0, 2^53) that float64 holds exactly.

    One salt per purpose: with a common one the rows of a fit sample and of a selection would be
    correlated.
    """
    from pyspark.sql import functions as F

    column = F.col(id_column) if isinstance(id_column, str) else id_column
    return F.shiftrightunsigned(F.xxhash64(column, F.lit(salt)), 11)


def row_hash(df: DataFrame, *columns: Column) -> Column:
    """Return xxhash64 of columns that may hold one value in all rows of a file.

    The embedded engine reads such a column as a constant and its xxhash64 dies on constants alone;
    inside a map the rows are then lost without an error. A value that differs per row prevents it.
    """
    from pyspark.sql import functions as F

    if describe(df.sparkSession).kind != "embedded":
        return F.xxhash64(*columns)
    varying = F.when(F.monotonically_increasing_id() >= 0, columns[0])
    return F.xxhash64(varying, *columns[1:])


def hash_share(id_column: str | Column, share: float, salt: str) -> Column:
    """Return a predicate that keeps a given share (0..1) of the ids."""
    from pyspark.sql import functions as F

    return hash53(id_column, salt) < F.lit(round(min(max(share, 0.0), 1.0) * HASH_RANGE))


def bounded(df: DataFrame, limit: int, what: str) -> pa.Table:
    """Bring at most `limit` rows to the driver.

    Raises:
        InputError: There are more; `what` names them in the message.
        GioSparkError: The engine failed for a cause that is known; see `engine_errors`.
    """
    with engine_errors():
        table = df.limit(limit + 1).toArrow()
    if table.num_rows > limit:
        raise InputError(f"More than {limit:,} rows of {what}: too many for the driver.")
    return table


def hash_sample(df: DataFrame, rows: int, salt: str, *, total: int) -> pa.Table:
    """Bring the `rows` rows with the smallest hashes to the driver, in order of (hash, id).

    Args:
        df: Rows with an `id` column.
        rows: Rows wanted; fewer come where the table has fewer.
        salt: Purpose of the sample.
        total: Rows in `df` (an upper estimate is enough), to cut the scan's output early.
    """
    return hash_samples({"": (df, rows, total)}, salt)[""]


def hash_samples(parts: Mapping[str, tuple[DataFrame, int, int]], salt: str) -> dict[str, pa.Table]:
    """Bring a sample of each of several frames of the same columns, by one job.

    Args:
        parts: Name -> rows with an `id` column, rows wanted, rows there; see `hash_sample`.
        salt: Purpose of the samples.
    """
    from pyspark.sql import functions as F

    found: dict[str, pa.Table] = {}
    shares = {
        n: min(1.0, _margin(wanted) / max(total, 1)) for n, (_, wanted, total) in parts.items()
    }
    while len(found) < len(parts):
        left = [name for name in parts if name not in found]
        both = None
        for name in left:
            part = parts[name][0].withColumn("_hash", hash53("id", salt))
            if shares[name] < 1.0:
                part = part.where(F.col("_hash") < F.lit(round(shares[name] * HASH_RANGE)))
            if len(parts) > 1:
                part = part.withColumn("_part", F.lit(name))
            both = part if both is None else both.unionByName(part)
        if both is None:
            break
        # The bound leaves room for a `total` that was estimated low, not for a wrong one.
        most = sum(math.ceil(4 * _margin(parts[name][1])) + 1000 for name in left)
        table = bounded(both, most, f"the sample {salt!r}")
        for name in left:
            own = table
            if len(parts) > 1:
                own = table.filter(pc.equal(table["_part"], name)).drop_columns(["_part"])
            wanted = parts[name][1]
            if own.num_rows < wanted and shares[name] < 1.0:
                shares[name] = min(1.0, 2 * shares[name])
                continue
            keys = [("_hash", "ascending"), ("id", "ascending")]
            order = pc.sort_indices(own, sort_keys=keys)
            found[name] = take_rows(own, order[:wanted]).drop_columns(["_hash"])
    return found


def _margin(rows: int) -> float:
    """Return how many rows to expect so that hardly ever fewer than `rows` come."""
    return rows + 6 * math.sqrt(rows) + 16
