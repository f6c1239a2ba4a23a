"""Content hashes: 128 bits of SHA-256 over an encoding built in Arrow.

Engines print, round and compare values differently, so nothing here goes through a SQL cast. A
column of text alone is hashed as its UTF-8 bytes: anyone can compute the id of a text with
`sha256sum`. Everything else is hashed over a canonical encoding, one piece for each column:

    tag (1 byte), length of the value in bytes (8 bytes, little endian), the value's bytes

| tag | values | bytes |
|---|---|---|
| n | null | none |
| b | booleans | one byte, 0 or 1 |
| i | integers of any width | int64, little endian |
| f | floats of any width | float64, little endian; one NaN, no negative zero |
| t | timestamps and dates | int64 microseconds since 1970 (UTC) |
| s | strings; decimals in their own digits | UTF-8 |
| y | binary; lists of numbers | the bytes; the list's values, little endian |

A list of float32 and the same numbers stored as bytes therefore have one hash.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gio_spark.engine.arrow import bytes_of, joined

HASH_CHARACTERS = 32
_BYTES = HASH_CHARACTERS // 2
# 0xff never occurs in UTF-8, so no text shares the hash of a missing one.
_NULL_TEXT = b"\xff null"


def content_hashes(columns: Sequence[pa.Array | pa.ChunkedArray]) -> pa.Array:
    """Hash rows of one or several columns to 32 hexadecimal characters each.

    Args:
        columns: Arrays of one length n. A single string column is hashed as plain UTF-8.

    Returns:
        String array of n hashes, never null.

    Raises:
        ValueError: No column was given.
        TypeError: A column holds a type that has no canonical encoding (structs, maps).
    """
    if not columns:
        raise ValueError("content_hashes needs at least one column")
    arrays = [one_array(column) for column in columns]
    if len(arrays) == 1 and _is_string(arrays[0].type):
        encoded = pc.fill_null(arrays[0].cast(pa.large_binary()), _NULL_TEXT)
    else:
        pieces = [piece for array in arrays for piece in _encode(array)]
        encoded = pc.binary_join_element_wise(*pieces, pa.scalar(b"", pa.large_binary()))
    return _digest(encoded)


def one_array(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Return the column as one plain array: chunks joined, dictionaries and views decoded."""
    array = joined(column)
    kind = array.type
    if pa.types.is_dictionary(kind):
        return array.cast(kind.value_type)
    if pa.types.is_string_view(kind):
        return array.cast(pa.large_string())
    if pa.types.is_binary_view(kind):
        return array.cast(pa.large_binary())
    return array


def _digest(encoded: pa.Array) -> pa.Array:
    """SHA-256 of each value of a large binary array without nulls, as 32 hex characters."""
    rows = len(encoded)
    data, offsets = bytes_of(encoded)
    sha256 = hashlib.sha256
    view = memoryview(data.data)
    bounds = offsets.tolist()
    # About 1 microsecond a row; slices of a memoryview copy nothing.
    digests = [
        sha256(view[start:stop]).digest()[:_BYTES] for start, stop in itertools.pairwise(bounds)
    ]
    text = b"".join(digests).hex().encode()
    ends = np.arange(0, (rows + 1) * HASH_CHARACTERS, HASH_CHARACTERS, dtype=np.int32)
    return pa.StringArray.from_buffers(rows, pa.py_buffer(ends), pa.py_buffer(text))


def _encode(array: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Return the heads (tag and length) and the values of a column, both large binary."""
    tag, values = _values(array)
    missing = np.asarray(array.is_null())
    _, offsets = bytes_of(values)
    heads = np.empty((len(array), 9), np.uint8)
    heads[:, 0] = np.where(missing, ord("n"), ord(tag))
    heads[:, 1:] = (
        np.ascontiguousarray(np.diff(offsets).astype("<i8")).view(np.uint8).reshape(-1, 8)
    )
    return _fixed(heads), values


def _values(array: pa.Array) -> tuple[str, pa.Array]:
    """Return the tag of the column's type and its values as bytes; a null is no bytes."""
    kind = array.type
    types = pa.types
    if types.is_null(kind):
        return "n", _fixed(np.empty((len(array), 0), np.uint8))
    if types.is_decimal(kind):
        return "s", _blank(array.cast(pa.string()))
    if _is_string(kind):
        return "s", _blank(array)
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        return "y", _blank(array)
    if types.is_boolean(kind):
        return "b", _packed(array, array.cast(pa.uint8()), np.dtype("u1"))
    if types.is_integer(kind):
        return "i", _packed(array, array.cast(pa.int64()), np.dtype("<i8"))
    if types.is_floating(kind):
        return "f", _packed(array, array.cast(pa.float64()), np.dtype("<f8"))
    if types.is_date(kind) or types.is_timestamp(kind):
        moments = array.cast(pa.timestamp("us", getattr(kind, "tz", None)), safe=False)
        return "t", _packed(array, moments.cast(pa.int64()), np.dtype("<i8"))
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return "y", _list_bytes(array)
    raise TypeError(f"no canonical encoding of {kind}: use text, numbers, bytes, times or lists")


def _is_string(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _blank(array: pa.Array) -> pa.Array:
    if pa.types.is_fixed_size_binary(array.type):
        array = array.cast(pa.binary())
    return pc.fill_null(array.cast(pa.large_binary()), b"")


def _fixed(matrix: np.ndarray) -> pa.Array:
    """Return the rows of a uint8 matrix as a large binary array."""
    rows, width = matrix.shape
    ends = np.arange(rows + 1, dtype=np.int64) * width
    data = pa.py_buffer(np.ascontiguousarray(matrix))
    return pa.LargeBinaryArray.from_buffers(
        pa.large_binary(), rows, [None, pa.py_buffer(ends), data]
    )


def _numbers(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    values = np.ascontiguousarray(values, dtype=dtype)
    if dtype.kind == "f":
        values = values + dtype.type(0)  # -0.0 becomes 0.0
        values[np.isnan(values)] = np.nan  # one bit pattern for every NaN
    return values


def _packed(array: pa.Array, cast: pa.Array, dtype: np.dtype) -> pa.Array:
    """Return fixed-width numbers as bytes, nothing where the row is null."""
    values = _numbers(pc.fill_null(cast, 0).to_numpy(zero_copy_only=False), dtype)
    present = ~np.asarray(array.is_null())
    ends = np.concatenate([[0], np.cumsum(present)]).astype(np.int64) * dtype.itemsize
    return pa.LargeBinaryArray.from_buffers(
        pa.large_binary(),
        len(array),
        [None, pa.py_buffer(ends), pa.py_buffer(np.ascontiguousarray(values[present]))],
    )


def _list_bytes(array: pa.Array) -> pa.Array:
    """Return lists of numbers as their values' bytes (null elements as NaN)."""
    inner = array.type.value_type
    floating = pa.types.is_floating(inner)
    if not floating and not pa.types.is_integer(inner):
        raise TypeError(f"no canonical encoding of lists of {inner}: use lists of numbers")
    # float32 stays as it is, so that a list and its stored bytes agree.
    width = inner.bit_width // 8
    dtype = np.dtype(f"<f{width}") if floating and width > 2 else np.dtype("<f8")
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
    flat = array.flatten()  # drops null lists
    if not floating:
        flat = flat.cast(pa.float64(), safe=False)
    values = _numbers(flat.to_numpy(zero_copy_only=False), dtype)
    ends = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64) * dtype.itemsize
    return pa.LargeBinaryArray.from_buffers(
        pa.large_binary(), len(array), [None, pa.py_buffer(ends), pa.py_buffer(values)]
    )
