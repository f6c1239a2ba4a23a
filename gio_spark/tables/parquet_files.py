"""Parquet files with columns that an engine would misread or refuse, read by Arrow on workers."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from gio_spark.engine import map_arrow
from gio_spark.tables.column_types import (
    carried_schema,
    carried_table,
    check_columns,
    is_read_by_engines,
)
from gio_spark.tables.files import FileList, filesystem, partition_values

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyspark.sql import DataFrame, SparkSession

_BATCH_ROWS = 4_096
# Files whose footers the driver reads to share out their row groups; of more, each is one part.
_FOOTERS = 64
_ALL_GROUPS = -1


def schemas_of(files: FileList) -> tuple[pa.Schema, pa.Schema] | None:
    """Arrow schema of the first file as Arrow reads it, and as whoever wrote it had it.

    None where the footer cannot be read (it is encrypted).
    """
    store, _ = filesystem(files.root)
    try:
        with store.open_input_file(files.files[0].path) as file:
            footer = pq.read_metadata(file)
    except (pa.ArrowException, OSError):
        return None
    schema = footer.schema.to_arrow_schema()
    stored = (footer.metadata or {}).get(b"ARROW:schema")
    written = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(stored))) if stored else schema
    return schema, written


def rows_read_by_arrow(
    spark: SparkSession, name: str, files: FileList, dropped: Sequence[str]
) -> DataFrame | None:
    """Rows of files with a column that engines would misread, in types that hold its values.

    Args:
        spark: Session.
        name: Of the input, for messages.
        files: Its files.
        dropped: Columns that are left out.

    Returns:
        None where every engine reads the files and all their columns right.

    Raises:
        InputError: A column cannot be carried, or several have one name.
    """
    schemas = schemas_of(files)
    if schemas is None:
        return None
    schema, written = schemas
    check_columns(name, files.root, schema, dropped)
    clash = len({column.lower() for column in schema.names}) < len(schema.names)
    # Engines read all files of a folder, those that are left out as well.
    clash = clash or bool(files.left_out)
    # The embedded engine goes by the types that stand in the file as they were written.
    if not clash and all(is_read_by_engines(field.type) for field in (*schema, *written)):
        return None
    root = files.root
    folders = partition_values(root, files.files[0].path)
    fields = [*carried_schema(schema, dropped), *((c, pa.string()) for c in folders)]
    carried = pa.schema(fields)
    pieces = list(_pieces(files))
    work = spark.createDataFrame(
        pa.table({"path": [p for p, _ in pieces], "group": pa.array([g for _, g in pieces])})
    ).repartition(max(1, min(len(pieces), 1024)))

    def read(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
        store, _ = filesystem(root)
        for batch in batches:
            for path, group in zip(*(c.to_pylist() for c in batch.columns), strict=True):
                values = partition_values(root, path)
                with store.open_input_file(path) as stream, pq.ParquetFile(stream) as file:
                    groups = None if group == _ALL_GROUPS else [group]
                    names = [n for n in file.schema_arrow.names if n in carried.names]
                    for rows in file.iter_batches(_BATCH_ROWS, row_groups=groups, columns=names):
                        table = pa.Table.from_batches([rows])
                        for column, value in values.items():
                            table = table.append_column(
                                column, pa.array([value] * table.num_rows, pa.string())
                            )
                        yield carried_table(table, carried, f"{name}: {path}")

    return map_arrow(work, read, carried, batch_rows=1)


def _pieces(files: FileList) -> Iterator[tuple[str, int]]:
    """Paths with the number of a row group, or with that of all."""
    store, _ = filesystem(files.root)
    for path, length, _ in files.files:
        if not length:
            continue
        if len(files.files) > _FOOTERS:
            yield path, _ALL_GROUPS
            continue
        with store.open_input_file(path) as file:
            for group in range(pq.read_metadata(file).num_row_groups):
                yield path, group
