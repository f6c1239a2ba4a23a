"""Column types of JSONL files, from the values of all lines.

A type is a plain JSON value, so that it travels from workers to the driver: "bool", "int" (whole
numbers that a double holds exactly), "long" (other whole numbers of 64 bits), "float", "string",
["list", element], {"name": type, ...} for an object, and "json" where values agree in none of
these: such a column is carried as JSON text. None stands for null.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

import pyarrow as pa

JsonType: TypeAlias = Any

MIXED = "json"
# Objects with more keys than this are maps in disguise.
_MOST_FIELDS = 200
_EXACT, _LONG = 1 << 53, 1 << 63
_SCALARS = {
    "bool": pa.bool_(),
    "int": pa.int64(),
    "long": pa.int64(),
    "float": pa.float64(),
    "string": pa.string(),
}


def type_of_value(value: Any) -> JsonType:
    """Type of one parsed JSON value."""
    if value is None:
        return None
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        if abs(value) <= _EXACT:
            return "int"
        return "long" if -_LONG <= value < _LONG else MIXED
    if isinstance(value, float):
        return "float"
    if isinstance(value, str):
        return "string"
    if isinstance(value, list):
        return ["list", common_type(type_of_value(item) for item in value)]
    return {name: type_of_value(item) for name, item in value.items()} if value else MIXED


def common_type(types: Iterable[JsonType]) -> JsonType:
    """Type that holds the values of all given types exactly; "json" where there is none."""
    common: JsonType = None
    for one in types:
        common = one if common is None else _both(common, one)
        if common == MIXED:
            return MIXED
    return common


def _both(one: JsonType, other: JsonType) -> JsonType:
    if other is None or one == other:
        return one
    if one is None:
        return other
    if isinstance(one, list) and isinstance(other, list):
        return ["list", _both(one[1], other[1])]
    if isinstance(one, dict) and isinstance(other, dict):
        fields = {name: _both(one.get(name), other.get(name)) for name in {**one, **other}}
        return fields if len(fields) <= _MOST_FIELDS else MIXED
    pair = {one, other} if isinstance(one, str) and isinstance(other, str) else set()
    if pair == {"int", "long"}:
        return "long"
    return "float" if pair == {"int", "float"} else MIXED


def arrow_type(kind: JsonType) -> pa.DataType:
    """Arrow type of a column; a string where values are carried as JSON text."""
    nested_type = _nested(kind)
    return pa.string() if nested_type is None else nested_type


def _nested(kind: JsonType) -> pa.DataType | None:
    """Arrow type, or None where a part of it has no type of its own."""
    if isinstance(kind, list):
        element = _nested(kind[1])
        return None if element is None else pa.list_(element)
    if isinstance(kind, dict):
        fields = {name: _nested(part) for name, part in kind.items()}
        # Engines take names of fields for the same that differ in case alone.
        if None in fields.values() or len({name.lower() for name in fields}) < len(fields):
            return None
        return pa.struct(sorted(fields.items()))
    return _SCALARS.get(kind)


def as_text(value: Any) -> str | None:
    """A JSON value as text: a string as it is, anything else as JSON."""
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def json_array(values: list[Any], kind: pa.DataType) -> pa.Array:
    """Arrow array of parsed values; lone surrogates, which are no text, become question marks."""
    try:
        return pa.array(values, kind)
    except (UnicodeEncodeError, pa.ArrowInvalid):
        return pa.array([_encodable(value) for value in values], kind)


def _encodable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, list):
        return [_encodable(item) for item in value]
    if isinstance(value, dict):
        return {name: _encodable(item) for name, item in value.items()}
    return value


def array_rows(stream: Any) -> Iterator[tuple[dict[str, Any], str | None, str | None]]:
    """Objects of one JSON array, read in blocks.

    Args:
        stream: Bytes of the file.

    Yields:
        Each object; of an element that is none, and of a rest that cannot be parsed, the reason and
        the beginning of its text instead.
    """
    decoder, parse = codecs.getincrementaldecoder("utf-8")("replace"), json.JSONDecoder().raw_decode
    text, position, block = "", 0, _BLOCK
    first, ended = True, False
    while True:
        data = stream.read(block)
        ended = not data
        text = text[position:] + decoder.decode(bytes(data), final=ended)
        position = 0
        if first:
            position = text.index("[") + 1
            first = False
        while True:
            position = _GAP.match(text, position).end()  # type: ignore[union-attr]
            if position == len(text):
                break
            if text[position] == "]":
                return
            try:
                value, after = parse(text, position)
            except ValueError as error:
                if ended:
                    yield (
                        {},
                        f"malformed array: {getattr(error, 'msg', error)!s:.80}",
                        text[position : position + 200],
                    )
                    return
                break
            if after == len(text) and not ended:
                break  # a number may go on in the next block
            position = after
            if isinstance(value, dict):
                yield value, None, None
            else:
                yield {}, "malformed line: not an object", json.dumps(value)[:200]
        if ended:
            yield {}, "malformed array: it does not end", text[position : position + 200]
            return
        # An element longer than a block is parsed again when there is twice as much of it.
        block = max(_BLOCK, len(text) - position)


_GAP = re.compile(r"[\s,]*")
_BLOCK = 4 << 20
