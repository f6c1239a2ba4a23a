"""Tables of a workspace as other tools read them: delta-rs, DuckDB and pandas."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from deltalake import DeltaTable


def delta_tables(folder: Path) -> dict[str, DeltaTable]:
    """Name -> table, as delta-rs opens it; selections without their run and token.

    Left out are tables whose columns Delta maps to other names, which delta-rs does not read.
    """
    tables = {}
    for log in sorted(folder.glob("*/_delta_log")):
        if "columnMapping" not in (log / f"{0:020d}.json").read_text():
            name = log.parent.name
            short = name.rpartition("_")[0] if name.startswith("selection_") else name
            tables[short] = DeltaTable(str(log.parent))
    return tables


def column_types(table: DeltaTable) -> dict[str, str]:
    """Column -> type, as the log has it."""
    fields = json.loads(table.schema().to_json())["fields"]
    return {f["name"]: json.dumps(f["type"], sort_keys=True) for f in fields}


def by_delta_rs(table: DeltaTable) -> pa.Table:
    return table.to_pyarrow_table()


def by_pandas(table: DeltaTable) -> pa.Table:
    frame = table.to_pandas(types_mapper=pd.ArrowDtype)
    return pa.Table.from_pandas(frame, preserve_index=False)


def by_duckdb(table: DeltaTable) -> pa.Table:
    """DuckDB on the files that the log lists: its extension for Delta is a download of its own."""
    import duckdb

    with duckdb.connect() as connection:
        partitioned = bool(table.metadata().partition_columns)
        rows = connection.read_parquet(table.file_uris(), hive_partitioning=partitioned)
        return _in_utc(rows.to_arrow_table())


def _in_utc(table: pa.Table) -> pa.Table:
    """Instants in UTC: DuckDB shows them in the time zone of the machine."""
    for i, field in enumerate(table.schema):
        if pa.types.is_timestamp(field.type) and field.type.tz is not None:
            column = table[field.name].cast(pa.timestamp("us", tz="UTC"))
            table = table.set_column(i, field.name, column)
    return table


def sorted_rows(table: pa.Table) -> list[dict[str, Any]]:
    """Rows with their columns by name, in an order that their values decide."""
    table = table.select(sorted(table.column_names))
    return sorted(table.to_pylist(), key=repr)


def check_readers(folder: Path) -> dict[str, dict[str, str]]:
    """Assert that all readers give the same rows and types; returns table -> column types."""
    tables = delta_tables(folder)
    for name, table in tables.items():
        expected = by_delta_rs(table)
        rows = sorted_rows(expected)
        for read in (by_pandas, by_duckdb):
            other = read(table)
            assert sorted_rows(other) == rows, (name, read)
            assert _plain_types(other) == _plain_types(expected), (name, read)
    return {name: column_types(table) for name, table in tables.items()}


def _plain_types(table: pa.Table) -> dict[str, pa.DataType]:
    """Column -> type, without the names that readers give the elements of lists."""
    return {field.name: _plain(field.type) for field in table.schema}


def _plain(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_struct(kind):
        return pa.struct([(f.name, _plain(f.type)) for f in kind])
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.list_(_plain(kind.value_type))
    wide = {pa.large_string(): pa.string(), pa.large_binary(): pa.binary()}
    return wide.get(kind, kind)
