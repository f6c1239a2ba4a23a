"""Text columns cast by their roles; a value that cannot be cast makes its row malformed."""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from gio_spark.tables.json_types import JsonParser

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
    plain = _PLAIN.get(kind)
    # Arrow's own cast is fast, but takes 0x10 for 16 and 1e400 for an infinite number.
    if plain and pc.all(pc.match_substring_regex(stripped, plain), min_count=0).as_py():
        try:
            return stripped.cast(kind).combine_chunks(), []
        except pa.ArrowInvalid:
            pass  # at least one value does not fit: find which below
    values: list[Any] = []
    failed = []
    for i, text in enumerate(stripped.to_pylist()):
        try:
            values.append(None if text is None else _scalar(text, kind))
        except (ValueError, TypeError, OverflowError, pa.ArrowInvalid):
            values.append(None)
            failed.append(i)
    return pa.array(values, kind), failed


# Numbers of which Arrow's cast is right: those that cannot be out of range, or are refused then.
_PLAIN = {
    pa.int64(): r"^-?[0-9]+$",
    pa.float64(): r"^[+-]?[0-9]{0,200}\.?[0-9]*([eE][+-]?[0-9]{1,2})?$",
}
# A day, or at least a year: of a time alone, the parser would complete the day on which it runs.
_DATED = re.compile(r"(?<![.\d])\d{4}|\d+[-/.]\w+[-/.]\d+")
_MOST_FLOAT32 = (2 - 2**-24) * 2.0**127
"""Numbers from here on become infinite as 32-bit floats."""


def _scalar(text: str, kind: pa.DataType) -> Any:
    """Value of a text.

    Raises:
        ValueError: It is none of the type, or out of its range.
    """
    if pa.types.is_list(kind):
        value = JsonParser().parse_all(text)
        if not isinstance(value, list):
            raise ValueError("not a list")
        numbers = [float(x) for x in value]
        if any(_MOST_FLOAT32 <= abs(x) < math.inf for x in numbers):
            raise ValueError("out of range")
        return numbers
    if pa.types.is_timestamp(kind):
        return _moment(text)
    if pa.types.is_integer(kind):
        return pa.scalar(_whole_number(text), kind).as_py()
    number = float(text)
    if math.isinf(number) and "inf" not in text.lower():
        raise ValueError("out of range")
    return number


def _whole_number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        number = float(text)
        if not number.is_integer():
            raise
        return int(number)


def _moment(text: str) -> Any:
    import pandas as pd

    moment = pd.Timestamp(text)
    if pd.isna(moment):  # NaT and nan, as pandas writes what is missing
        return None
    if not _DATED.search(text):
        raise ValueError("no date")
    moment = moment.tz_localize("UTC") if moment.tzinfo is None else moment.tz_convert("UTC")
    return moment.to_pydatetime(warn=False)  # to the microsecond, as tables hold times
