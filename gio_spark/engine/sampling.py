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
    """Hash of the id in [0, 2^53), which float64 represents exactly.

    Each purpose has its own salt: with a common one, the rows of a fit sample and of a selection
    would be correlated.
    """
    from pyspark.sql import functions as F

    column = F.col(id_column) if isinstance(id_column, str) else id_column
    return F.shiftrightunsigned(F.xxhash64(column, F.lit(salt)), 11)


def row_hash(df: DataFrame, *columns: Column) -> Column:
    """xxhash64 of columns that may have the same value in all rows of a file.

    The embedded engine reads such a column as a constant and its xxhash64 fails on constants alone;
    inside a map the rows are then lost without an error. A value that varies by row prevents this.
    """
    from pyspark.sql import functions as F

    if describe(df.sparkSession).kind != "embedded":
        return F.xxhash64(*columns)
    varying = F.when(F.monotonically_increasing_id() >= 0, columns[0])
    return F.xxhash64(varying, *columns[1:])


def hash_share(id_column: str | Column, share: float, salt: str) -> Column:
    """Predicate that selects a share (0..1) of the ids."""
    from pyspark.sql import functions as F

    return hash53(id_column, salt) < F.lit(round(min(max(share, 0.0), 1.0) * HASH_RANGE))


def bounded(df: DataFrame, limit: int, what: str) -> pa.Table:
    """Collect at most `limit` rows on the driver.

    Raises:
        InputError: There are more rows; `what` describes them in the message.
        GioSparkError: The engine failed for a known cause; see `engine_errors`.
    """
    with engine_errors():
        table = df.limit(limit + 1).toArrow()
    if table.num_rows > limit:
        raise InputError(f"More than {limit:,} rows of {what}: too many for the driver.")
    return table


def hash_sample(df: DataFrame, rows: int, salt: str, *, total: int) -> pa.Table:
    """Collect the `rows` rows with the smallest hashes on the driver, in order of (hash, id).

    Args:
        df: Rows with an `id` column.
        rows: Size of the sample; smaller where the table has fewer rows.
        salt: Purpose of the sample.
        total: Rows in `df` (an upper estimate is enough), to limit the output of the scan.
    """
    return hash_samples({"": (df, rows, total)}, salt)[""]


def hash_samples(parts: Mapping[str, tuple[DataFrame, int, int]], salt: str) -> dict[str, pa.Table]:
    """Collect a sample of each of several DataFrames with the same columns, in one job.

    Args:
        parts: Name -> DataFrame with an `id` column, size of the sample, number of rows; see
            `hash_sample`.
        salt: Purpose of the samples.
    """
    from pyspark.sql import functions as F

    samples: dict[str, pa.Table] = {}
    shares = {
        n: min(1.0, _with_margin(requested_rows) / max(total, 1))
        for n, (_, requested_rows, total) in parts.items()
    }
    while len(samples) < len(parts):
        pending = [name for name in parts if name not in samples]
        union = None
        for name in pending:
            part = parts[name][0].withColumn("_hash", hash53("id", salt))
            if shares[name] < 1.0:
                part = part.where(F.col("_hash") < F.lit(round(shares[name] * HASH_RANGE)))
            if len(parts) > 1:
                part = part.withColumn("_part", F.lit(name))
            union = part if union is None else union.unionByName(part)
        if union is None:
            break
        # The limit tolerates a `total` that was estimated too low, but not a wrong one.
        row_limit = sum(math.ceil(4 * _with_margin(parts[name][1])) + 1000 for name in pending)
        table = bounded(union, row_limit, f"the sample {salt!r}")
        for name in pending:
            sample_rows = table
            if len(parts) > 1:
                sample_rows = table.filter(pc.equal(table["_part"], name)).drop_columns(["_part"])
            requested_rows = parts[name][1]
            if sample_rows.num_rows < requested_rows and shares[name] < 1.0:
                shares[name] = min(1.0, 2 * shares[name])
                continue
            keys = [("_hash", "ascending"), ("id", "ascending")]
            order = pc.sort_indices(sample_rows, sort_keys=keys)
            samples[name] = take_rows(sample_rows, order[:requested_rows]).drop_columns(["_hash"])
    return samples


def _with_margin(rows: int) -> float:
    """Expected size of a hash sample that almost never has fewer than `rows` rows."""
    return rows + 6 * math.sqrt(rows) + 16
