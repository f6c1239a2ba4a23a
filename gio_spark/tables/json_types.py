"""Column types of JSONL files, from the values of all lines.

A type is a plain JSON value, so that it travels from workers to the driver: "bool", "int" (whole
numbers that a double holds exactly), "long" (other whole numbers of 64 bits), "float", "string",
["list", element], {"name": type, ...} for an object, and "json" where values agree in none of
these: such a column is carried as JSON text. None stands for null.

Parsers accept what no column can hold as it stands: a key twice in one object (the last one wins),
numbers above the largest double (they become infinite) and halves of surrogate pairs (they are no
text). `JsonParser` names these, so that their rows go to quarantine.
"""

from __future__ import annotations

import codecs
import json
import math
import re
from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

import pyarrow as pa

from gio_spark.errors import InputError

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


class JsonParser:
    """Parser of JSON that names values which would change on their way into a table.

    Example:
        >>> JsonParser().parse('{"a": 1, "a": 2}')
        ({'a': 2}, 16, 'a key twice in one object')
    """

    def __init__(self) -> None:
        """Make a parser; it notes the faults of one value at a time."""
        self._fault: str | None = None
        self._decode = json.JSONDecoder(
            object_pairs_hook=self._object, parse_float=self._number
        ).raw_decode

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        fields = dict(pairs)
        if len(fields) < len(pairs):
            self._fault = "a key twice in one object"
        return fields

    def _number(self, text: str) -> float:
        number = float(text)
        if math.isinf(number):  # the constants Infinity and -Infinity do not come here
            self._fault = "a number out of range"
        return number

    def parse(self, text: str, start: int = 0) -> tuple[Any, int, str | None]:
        """Parse the value that begins at a position.

        Returns:
            The value, the position behind it, and why no table can hold it, or None.

        Raises:
            ValueError: It is not JSON, or not all of it is there.
        """
        self._fault = None
        try:
            value, end = self._decode(text, start)
        except RecursionError as error:
            raise ValueError("nested too deep") from error
        if self._fault is None and text.find("\\u", start, end) >= 0:
            # Most escapes are of whole pairs, or of other characters.
            half = _HALF_PAIR.search(text, start, end)
            if half and not _is_text(json.dumps(value, ensure_ascii=False)):
                self._fault = "half of a surrogate pair"
        return value, end, self._fault

    def parse_all(self, text: str) -> Any:
        """Parse a whole text.

        Raises:
            ValueError: It is not JSON, or no table can hold its value.
        """
        value, end, fault = self.parse(text, len(text) - len(text.lstrip()))
        if fault is None and text[end:].strip():
            fault = "more than one value"
        if fault is not None:
            raise ValueError(fault)
        return value


def parsed_object(parser: JsonParser, line: bytes) -> tuple[dict[str, Any], str | None]:
    """Object of a line, or no fields and the reason why the line is malformed."""
    try:
        value = parser.parse_all(line.removeprefix(codecs.BOM_UTF8).decode())
        if not isinstance(value, dict):
            raise ValueError("not an object")
    except UnicodeDecodeError:
        return {}, "malformed line: not UTF-8"
    except ValueError as error:
        # Without the position, so that lines are counted by the kind of error.
        return {}, f"malformed line: {_reason(error)}"
    return value, None


def array_rows(stream: Any, path: str) -> Iterator[tuple[dict[str, Any], str | None, str | None]]:
    """Objects of one JSON array, read in blocks.

    Args:
        stream: Bytes of the file.
        path: Its path, for messages.

    Yields:
        Each object; of an element that is none or that no table can hold, the reason and the
        beginning of its text instead.

    Raises:
        InputError: The array is broken or cut off, so that rows would be missing, or something
            follows it.
    """
    # Bytes that are not UTF-8 become halves of surrogate pairs, so that their element is known.
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    parser = JsonParser()
    text, position, block = "", 0, _BLOCK
    count, first, ended = 0, True, False
    while not ended:
        data = stream.read(block)
        ended = not data
        text = text[position:] + decoder.decode(bytes(data), final=ended)
        position = text.index("[") + 1 if first else 0
        first, broken = False, "it does not end"
        while True:
            position = _GAP.match(text, position).end()  # type: ignore[union-attr]
            if position == len(text):
                break
            if text[position] == "]":
                if text[position + 1 :].strip() or _has_text(stream):
                    raise InputError(_broken_array(path, count, "something follows it"))
                return
            try:
                value, after, fault = parser.parse(text, position)
            except ValueError as error:
                broken = _reason(error)
                break
            if after == len(text) and not ended:
                break  # a number may go on in the next block
            element = text[position:after]
            position, count = after, count + 1
            if not _is_text(element):
                fault = "not UTF-8"
            elif fault is None and not isinstance(value, dict):
                fault = "not an object"
            if fault is None:
                yield value, None, None
            else:
                detail = (
                    element[:_DETAIL].encode("utf-8", "surrogateescape").decode("utf-8", "replace")
                )
                yield {}, f"malformed line: {fault}", detail
        # An element longer than a block is parsed again when there is twice as much of it.
        block = max(_BLOCK, len(text) - position)
    raise InputError(_broken_array(path, count, broken))


def _has_text(stream: Any) -> bool:
    """Whether anything but blanks is left in a stream."""
    return any(bytes(block).strip() for block in iter(lambda: stream.read(_BLOCK), b""))


def _broken_array(path: str, count: int, reason: str) -> str:
    return (
        f"Cannot read {path}: its JSON array is broken after {count:,} elements: {reason}. Write "
        "the file again, or write an object in each line."
    )


def _reason(error: ValueError) -> str:
    return f"{getattr(error, 'msg', error)!s:.80}"


def _is_text(text: str) -> bool:
    """Whether a string has no halves of surrogate pairs, which are no text."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


_HALF_PAIR = re.compile(r"\\u[dD][89a-fA-F]")
_GAP = re.compile(r"[\s,]*")
_BLOCK = 4 << 20
_DETAIL = 200
