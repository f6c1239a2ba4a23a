"""Casts of columns of any type to numbers, times and strings, with masks of invalid values.

CSV and JSONL files have strings where tables have typed values; both give the same result. An
invalid value makes its row unusable and does not end the run.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gio_spark.errors import InputError

TIMESTAMP_TYPE = pa.timestamp("us", tz="UTC")


def as_numbers(array: pa.Array, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Float64 values (NaN for null and invalid ones) and a mask of the invalid values.

    Args:
        array: Strings, numbers, booleans or decimals.
        name: Name of the column, for the error.

    Raises:
        InputError: The column has another type.

    Example:
        >>> values, invalid = as_numbers(pa.array(["1.5", "x", None]), "price")
        >>> values.tolist(), invalid.tolist()
        ([1.5, nan, nan], [False, True, False])
    """
    arrow_type = array.type
    invalid = np.zeros(len(array), dtype=bool)
    if is_text(arrow_type):
        array, invalid = _parse_strings(array, pa.float64(), float)
    elif (
        pa.types.is_null(arrow_type)
        or pa.types.is_boolean(arrow_type)
        or pa.types.is_decimal(arrow_type)
    ):
        array = array.cast(pa.float64())
    elif pa.types.is_integer(arrow_type) or pa.types.is_floating(arrow_type):
        array = array.cast(pa.float64(), safe=False)
    else:
        raise InputError(f"Column '{name}' holds {arrow_type}, not numbers.")
    return pc.fill_null(array, float("nan")).to_numpy(zero_copy_only=False), invalid


def as_times(array: pa.Array, name: str) -> tuple[pa.Array, np.ndarray]:
    """UTC timestamps in microseconds and a mask of the invalid values.

    Times without a zone are in UTC, which is the session's time zone on every engine.

    Raises:
        InputError: The column has neither strings nor dates nor timestamps.
    """
    arrow_type = array.type
    invalid = np.zeros(len(array), dtype=bool)
    if is_text(arrow_type):
        return _parse_strings(array, TIMESTAMP_TYPE, _parse_time)
    if pa.types.is_null(arrow_type):
        return array.cast(TIMESTAMP_TYPE), invalid
    if pa.types.is_date(arrow_type):
        return array.cast(pa.timestamp("us")).cast(TIMESTAMP_TYPE), invalid
    if pa.types.is_timestamp(arrow_type):
        return array.cast(pa.timestamp("us", arrow_type.tz), safe=False).cast(
            TIMESTAMP_TYPE
        ), invalid
    raise InputError(f"Column '{name}' holds {arrow_type}, not times.")


def as_strings(array: pa.Array, name: str) -> pa.Array:
    """Strings; numbers and booleans in the format of Arrow, the same on every engine.

    Raises:
        InputError: The column has a nested or binary type.

    Example:
        >>> as_strings(pa.array([1, None, 3]), "label").to_pylist()
        ['1', None, '3']
    """
    arrow_type = array.type
    if (
        pa.types.is_nested(arrow_type)
        or pa.types.is_binary(arrow_type)
        or pa.types.is_large_binary(arrow_type)
    ):
        raise InputError(
            f"Column '{name}' holds {arrow_type}; a string, number or boolean is needed."
        )
    return array.cast(pa.string())


def is_text(arrow_type: pa.DataType) -> bool:
    """Whether a type is a string type."""
    return bool(pa.types.is_string(arrow_type) or pa.types.is_large_string(arrow_type))


def _parse_time(text: str) -> datetime:
    time = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return time if time.tzinfo else time.replace(tzinfo=timezone.utc)


def _parse_or_none(text: str, parse_one: Callable[[str], Any]) -> Any:
    try:
        return parse_one(text)
    except ValueError:
        return None


def _parse_strings(
    array: pa.Array, arrow_type: pa.DataType, parse_one: Callable[[str], Any]
) -> tuple[pa.Array, np.ndarray]:
    """Parsed strings and a mask of invalid ones; parsed one by one only if one is invalid."""
    trimmed = pc.utf8_trim_whitespace(array)
    is_blank = pc.fill_null(pc.equal(trimmed, ""), True)
    trimmed = pc.if_else(is_blank, pa.scalar(None, trimmed.type), trimmed)
    naive = pa.timestamp("us") if arrow_type == TIMESTAMP_TYPE else arrow_type
    try:
        return trimmed.cast(naive).cast(arrow_type), np.zeros(len(array), dtype=bool)
    except pa.ArrowInvalid:
        pass
    values: list[Any] = []
    invalid = np.zeros(len(array), dtype=bool)
    for index, text in enumerate(trimmed.to_pylist()):
        value = None if text is None else _parse_or_none(text, parse_one)
        values.append(value)
        invalid[index] = value is None and text is not None
    return pa.array(values, type=arrow_type), invalid
