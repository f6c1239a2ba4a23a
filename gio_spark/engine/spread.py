"""Small inputs over all cores: Spark reads a row group in one task, however many cores wait."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gio_spark.engine.info import describe, slots

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

SPLIT_BYTES = 128 << 20
"""What Spark reads in one task by default: larger inputs come in splits enough."""

SMALL_BYTES = 1 << 30
"""Input on a cluster, whose cores are not known here, that is spread."""


TINY_BYTES = 4 << 20
"""Input that one core embeds before a shuffle would be done."""

EVEN = 1.3
"""How much more than its part one core may get before rows are shuffled for it."""


def spread(
    df: DataFrame,
    key: str,
    stored_bytes: int | None,
    fullest_share: Callable[[int], float | None],
) -> DataFrame:
    """Spread the rows of a small input by the hash of a column, for work that costs much per row.

    A file of a million rows is often one row group, and a row group is never split: without this
    one core of many would embed it. A larger input is given back as it is, without a shuffle.

    Args:
        df: Rows.
        key: Column that is different in every row.
        stored_bytes: Size of the input in storage; None where it is not known.
        fullest_share: Number of cores -> share of the rows that one would read; None: not known.
    """
    kind = describe(df.sparkSession).kind
    # The embedded engine's threads share what is read.
    if kind == "embedded" or stored_bytes is None or stored_bytes < TINY_BYTES:
        return df
    if kind == "local":
        cores = slots(df.sparkSession)
        small = stored_bytes < cores * SPLIT_BYTES
        share = fullest_share(cores) if small else None
        even = share is not None and share * cores < EVEN
        return df.repartition(cores, key) if small and not even else df
    # Without a number the engine makes as many partitions as it has cores, of a megabyte at least.
    return df.repartition(key) if stored_bytes < SMALL_BYTES else df
