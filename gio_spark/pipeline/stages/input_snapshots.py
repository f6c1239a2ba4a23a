"""Snapshots: frames and views are written once, identified by their content."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyspark.sql import functions as F
from pyspark.sql import types as T

from gio_spark.engine.capabilities import is_connect
from gio_spark.errors import GioSparkError, InputError
from gio_spark.pipeline.stages.purged_rows import frame_without_purged
from gio_spark.tables import Workspace, frame_digest, quoted
from gio_spark.tables.column_types import (
    carried_schema,
    carried_table,
    check_columns,
    check_frame_types,
)
from gio_spark.tables.delta import is_readable_otherwise

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from gio_spark.settings.inputs import InputSettings

_SNAPSHOT = "snapshot"


def as_location(
    spark: SparkSession,
    workspace: Workspace,
    value: Any,
    name: str,
    columns: Any = None,
) -> str | dict[str, Any] | list[Any]:
    """Value for the settings of an input; a frame is written once as a snapshot.

    Args:
        spark: Session.
        workspace: Where snapshots go.
        value: Path, table name, mapping, Spark or pandas DataFrame, Arrow table, or a list of
            those.
        name: Pool or target, for messages.
        columns: Roles of the frame's columns, as settings give them.
    """
    if isinstance(value, list | tuple):
        return [
            as_location(spark, workspace, v, f"{name}-{i + 1}", columns)
            for i, v in enumerate(value)
        ]
    if isinstance(value, str | dict):
        return value
    if hasattr(value, "__fspath__"):
        return str(value)
    frame = value
    if not hasattr(frame, "mapInArrow"):
        try:
            frame = spark.createDataFrame(_as_table(value, name))
        except GioSparkError:
            raise
        except Exception as error:
            if hasattr(value, "__len__") and len(value) == 0:
                raise InputError(f"{name}: the {type(value).__name__} has no rows.") from error
            raise InputError(
                f"{name}: cannot read a {type(value).__name__}. Give a path, a table's name, a "
                "Spark or pandas DataFrame or an Arrow table."
            ) from error
    elif is_connect(spark) != type(frame).__module__.startswith("pyspark.sql.connect"):
        raise InputError(f"{name}: the frame belongs to another session; pass spark=frame's own.")
    id_column = columns.get("id") if isinstance(columns, Mapping) else getattr(columns, "id", None)
    return snapshot(workspace, frame, name, f"the {type(value).__name__}", id_column)


def _as_table(value: Any, name: str) -> Any:
    """Frame of pandas, Polars or Arrow as an Arrow table in types that engines carry."""
    if not hasattr(value, "__arrow_c_stream__"):
        return value
    by_pandas = hasattr(value, "iloc")
    table = pa.Table.from_pandas(value, preserve_index=False) if by_pandas else pa.table(value)
    check_columns(name, f"the {type(value).__name__}", table.schema, ())
    return carried_table(table, carried_schema(table.schema), f"{name}: the {type(value).__name__}")


def pin_view(
    spark: SparkSession,
    workspace: Workspace,
    one: InputSettings,
    name: str,
    id_column: str | None = None,
) -> InputSettings:
    """Settings that read a snapshot, where an input is a view or a table without versions.

    What a view shows may change while a run reads it, so it is read once. A forecast, which writes
    nothing, reads the view itself where its rows are in no snapshot yet.
    """
    if not is_readable_otherwise(spark, one.location):
        return one
    frame = spark.read.table(quoted(one.location))
    if workspace.store.writable:
        place = snapshot(workspace, frame, name, one.location, id_column)
    else:
        place = _stored_snapshot(workspace, frame_digest(_storable(frame, name, one.location)))
    if not place:
        return one
    return one.model_copy(update={"location": place, "format": "delta", "version": None})


def snapshot(
    workspace: Workspace, frame: DataFrame, name: str, location: str, id_column: str | None
) -> str:
    """Write a frame once into the workspace, by the hash of its content; returns its location.

    Rows that were purged from the workspace are left out.

    Args:
        workspace: Where it is written.
        frame: Columns without a type (of nulls alone) become texts.
        name: Pool or target, for messages.
        location: Name of the frame, for messages.
        id_column: Its column of ids, where it has one.

    Raises:
        InputError: A column cannot be stored.
    """
    frame = _storable(frame, name, location)
    stored = _stored_snapshot(workspace, frame_digest(frame))
    if stored:
        return stored
    table = workspace.write_snapshot(frame_without_purged(workspace, frame, id_column, location))
    # What was written is what counts: a view may show other rows by now.
    rows = workspace.read_table(table)
    digest = frame_digest(rows)
    stored = _stored_snapshot(workspace, digest)
    if stored:
        workspace.store.drop(table)
        return stored
    workspace.record(
        run="", stage=_SNAPSHOT, fingerprint=digest, table=table, rows=int(rows.count()),
        seconds=0.0, only=(),
    )  # fmt: skip
    return workspace.place(table)


def _storable(frame: DataFrame, name: str, location: str) -> DataFrame:
    schema = frame.schema
    check_frame_types(name, location, schema)
    untyped = {
        f.name: F.lit(None).cast("string") for f in schema if isinstance(f.dataType, T.NullType)
    }
    return frame.withColumns(untyped) if untyped else frame


def _stored_snapshot(workspace: Workspace, digest: str) -> str:
    for record in reversed(workspace.recorded(_SNAPSHOT, digest)):
        if workspace.store.exists(record.table, look=True):
            return workspace.place(record.table)
    return ""
