"""Properties of the Delta tables that a workspace makes: statistics, and names of columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from gio_spark.tables.table_schema import has_plain_names, numeric_columns

if TYPE_CHECKING:
    from pyspark.sql import types as T

# The least and greatest value of each column of each file are for readers who look for values, and
# the log would hold texts of rows. Stages look for partitions, and what they write is read whole:
# gathering them would cost a tenth of a commit and more. Of embeddings the log is asked how many
# rows have a reason.
_NO_STATISTICS = {"delta.dataSkippingNumIndexedCols": "0"}
_STATISTICS_COLUMNS = "delta.dataSkippingStatsColumns"
_STATISTICS = {"embeddings": {_STATISTICS_COLUMNS: "reason"}}

# Delta keeps names with blanks, commas or brackets in its log, and gives columns other names in
# the Parquet files. The embedded engine writes such names into the files.
_NAME_MAPPING = {
    "delta.columnMapping.mode": "name",
    "delta.minReaderVersion": "2",
    "delta.minWriterVersion": "5",
}


def stage_properties(table: str, schema: T.StructType, *, embedded: bool) -> dict[str, str]:
    """Properties of a table of a stage.

    Args:
        table: Its name.
        schema: Of the rows that are written first.
        embedded: Whether the embedded engine makes it.
    """
    return _STATISTICS.get(table, _NO_STATISTICS) | name_mapping(schema, embedded=embedded)


def selection_properties(schema: T.StructType, *, embedded: bool) -> dict[str, str]:
    """Properties of a selection, whose log has statistics of numbers and times, not of texts."""
    names = numeric_columns(schema)
    statistics = {_STATISTICS_COLUMNS: ",".join(names)} if names else _NO_STATISTICS
    return statistics | name_mapping(schema, embedded=embedded)


def name_mapping(schema: T.StructType, *, embedded: bool) -> dict[str, str]:
    """Properties that names of columns with blanks, commas or brackets need on Spark."""
    return {} if embedded or has_plain_names(schema) else dict(_NAME_MAPPING)


def assignments(properties: Mapping[str, str]) -> str:
    """Properties as TBLPROPERTIES takes them; names and values are constants of this module."""
    return ", ".join(f"'{key}' = '{value}'" for key, value in properties.items())
