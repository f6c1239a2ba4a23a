"""Text columns cast by their roles; a value that cannot be cast makes its row malformed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from gio_spark.settings.columns import Columns

# Reason and first characters of a line that could not be read; null on good rows.
BAD = "_malformed"
LINE = "_line"
_MAX_LINE_TEXT = 200


def type_of(name: str, columns: Columns) -> pa.DataType:
    """Type that a text column is cast to."""
    if name in columns.numeric or name == columns.quality:
        return pa.float64()
    if name == columns.tokens:
        return pa.int64()
    if name in (columns.event_time, columns.ingest_time):
        return pa.timestamp("us", tz="UTC")
    if name in (columns.vector, columns.image):
        return pa.list_(pa.float32())
    return pa.string()


def typed(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Cast text by role; a value that cannot be cast makes its row malformed."""
    columns: dict[str, pa.Array | pa.ChunkedArray] = {}
    reasons = table[BAD].to_pylist()
    for field in schema:
        columns[field.name] = column = table[field.name]
        if column.type != field.type:
            columns[field.name], failed = _cast(column, field.type)
            for i in failed:
                reasons[i] = reasons[i] or f"malformed value in column {field.name!r}"
    lines = table[LINE].to_pylist()
    input_names = [n for n in schema.names if n not in (BAD, LINE)]
    for i, reason in enumerate(reasons):
        if reason is not None and lines[i] is None:
            row = {n: table[n][i].as_py() for n in input_names}
            lines[i] = json.dumps(row, ensure_ascii=False)
    columns[BAD] = pa.array(reasons, pa.string())
    columns[LINE] = pa.array([x if x is None else x[:_MAX_LINE_TEXT] for x in lines], pa.string())
    return pa.table(columns, schema=schema)


def _cast(column: pa.ChunkedArray, kind: pa.DataType) -> tuple[pa.Array, list[int]]:
    stripped = pc.utf8_trim_whitespace(column)
    stripped = pc.if_else(pc.equal(stripped, ""), pa.scalar(None, pa.string()), stripped)
    if not pa.types.is_list(kind) and not pa.types.is_timestamp(kind):
        try:
            return stripped.cast(kind).combine_chunks(), []
        except pa.ArrowInvalid:
            pass  # at least one value does not cast: find which below
    values: list[Any] = []
    failed = []
    for i, text in enumerate(stripped.to_pylist()):
        try:
            values.append(None if text is None else _scalar(text, kind))
        except (ValueError, TypeError, OverflowError, pa.ArrowInvalid):
            values.append(None)
            failed.append(i)
    return pa.array(values, kind), failed


def _scalar(text: str, kind: pa.DataType) -> Any:
    if pa.types.is_list(kind):
        value = json.loads(text)
        if not isinstance(value, list):
            raise ValueError("not a list")
        return [float(x) for x in value]
    if pa.types.is_timestamp(kind):
        import pandas as pd

        moment = pd.Timestamp(text)
        moment = moment.tz_localize("UTC") if moment.tzinfo is None else moment.tz_convert("UTC")
        return moment.to_pydatetime()
    if pa.types.is_integer(kind):
        number = float(text)
        if not number.is_integer():
            raise ValueError("not a whole number")
        return int(number)
    return float(text)
