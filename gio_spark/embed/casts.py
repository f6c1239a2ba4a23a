"""Numbers, times and strings out of whatever type a column has, with a mask of what is neither.

CSV and JSONL give strings, tables give proper types; both must end as the same values, and one
unreadable cell must cost its row, not the run.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gio_spark.errors import InputError

TIME = pa.timestamp("us", tz="UTC")


def as_numbers(array: pa.Array, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Float64 values (NaN where missing) and a mask of values that are no number."""
    kind = array.type
    bad = np.zeros(len(array), dtype=bool)
    if is_text(kind):
        array, bad = _parse(array, pa.float64(), float)
    elif pa.types.is_null(kind) or pa.types.is_boolean(kind) or pa.types.is_decimal(kind):
        array = array.cast(pa.float64())
    elif pa.types.is_integer(kind) or pa.types.is_floating(kind):
        array = array.cast(pa.float64(), safe=False)
    else:
        raise InputError(f"Column '{name}' holds {kind}, not numbers.")
    return pc.fill_null(array, float("nan")).to_numpy(zero_copy_only=False), bad


def as_times(array: pa.Array, name: str) -> tuple[pa.Array, np.ndarray]:
    """UTC timestamps in microseconds and a mask of values that are no time.

    Times without a zone are taken as UTC, which is the session's zone on every engine.
    """
    kind = array.type
    bad = np.zeros(len(array), dtype=bool)
    if is_text(kind):
        return _parse(array, TIME, _moment)
    if pa.types.is_null(kind):
        return array.cast(TIME), bad
    if pa.types.is_date(kind):
        return array.cast(pa.timestamp("us")).cast(TIME), bad
    if pa.types.is_timestamp(kind):
        return array.cast(pa.timestamp("us", kind.tz), safe=False).cast(TIME), bad
    raise InputError(f"Column '{name}' holds {kind}, not times.")


def as_strings(array: pa.Array, name: str) -> pa.Array:
    """Strings; numbers and booleans in Arrow's own spelling, the same on every engine."""
    kind = array.type
    if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        raise InputError(f"Column '{name}' holds {kind}; a string, number or boolean is needed.")
    return array.cast(pa.string())


def is_text(kind: pa.DataType) -> bool:
    """Tell whether a type is a string type."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)


def _read_or_none(text: str, read: Callable[[str], Any]) -> Any:
    try:
        return read(text)
    except ValueError:
        return None


def _parse(
    array: pa.Array, kind: pa.DataType, read: Callable[[str], Any]
) -> tuple[pa.Array, np.ndarray]:
    """Parse strings: all at once, or one by one where one of them is unreadable."""
    trimmed = pc.utf8_trim_whitespace(array)
    blank = pc.fill_null(pc.equal(trimmed, ""), True)
    trimmed = pc.if_else(blank, pa.scalar(None, trimmed.type), trimmed)
    naive = pa.timestamp("us") if kind == TIME else kind
    try:
        return trimmed.cast(naive).cast(kind), np.zeros(len(array), dtype=bool)
    except pa.ArrowInvalid:
        pass
    values: list[Any] = []
    bad = np.zeros(len(array), dtype=bool)
    for index, text in enumerate(trimmed.to_pylist()):
        value = None if text is None else _read_or_none(text, read)
        values.append(value)
        bad[index] = value is None and text is not None
    return pa.array(values, type=kind), bad
