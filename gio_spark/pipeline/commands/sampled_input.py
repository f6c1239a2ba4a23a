"""Inputs as a bounded sample shows them: rows, columns, and what the values of each column are."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from pyspark.sql import types as T

from gio_spark.engine.engine_errors import engine_errors
from gio_spark.errors import InputError
from gio_spark.pipeline.commands.table_rows import find_pin, open_table
from gio_spark.settings.inputs import InputSettings
from gio_spark.tables.content_paths import is_chat_type
from gio_spark.tables.message_text import is_chat, json_value

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

SAMPLED_ROWS = 500
TEXT_NAMES = ("text", "content", "body", "document", "doc", "passage", "sentence", "abstract",
              "message")  # fmt: skip
MOST_CATEGORIES = 50
_SHOWN_COLUMNS = 30

Kind = Literal[
    "text", "chat", "chat json", "vector", "image", "number", "time", "category", "other"
]

_VECTOR = re.compile(r"vec|emb|feat|repr")
_IMAGE = re.compile(r"image|img|pixel|picture|photo|png|jpe?g")
_MAGIC = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"RIFF", b"BM")
_NUMBERS = (T.NumericType, T.BooleanType)


@dataclass(frozen=True)
class SampledColumn:
    """A column as a sample shows it.

    Attributes:
        name: Its name.
        type: Its type.
        values: Values of the sampled rows.
        kind: What the values are.
    """

    name: str
    type: T.DataType
    values: list[Any]
    kind: Kind

    @property
    def present(self) -> list[Any]:
        """Values that are not null."""
        return [value for value in self.values if value is not None]

    @property
    def distinct(self) -> int:
        """Number of different values."""
        return len({str(value) for value in self.present})

    @property
    def characters(self) -> float:
        """Mean length of the values as text."""
        return sum(len(str(value)) for value in self.present) / max(1, len(self.present))


@dataclass(frozen=True)
class SampledInput:
    """An input as a sample shows it.

    Attributes:
        location: Where it is.
        format: delta, parquet, jsonl, csv, or view.
        count: Number of rows.
        columns: Its columns in order.
        rows: The rows.
    """

    location: str
    format: str
    count: int
    columns: tuple[SampledColumn, ...]
    rows: DataFrame = field(repr=False)

    @property
    def types(self) -> str:
        """Names and types of the columns, as a sentence lists them."""
        described = [
            f"{c.name} {c.type.simpleString()[:40]}" for c in self.columns[:_SHOWN_COLUMNS]
        ]
        return ", ".join(described) + (", ..." if len(self.columns) > _SHOWN_COLUMNS else "")

    def column(self, name: str) -> SampledColumn | None:
        """Column of a name; None where it is not there."""
        return next((column for column in self.columns if column.name == name), None)


def sample_input(spark: SparkSession, location: str, name: str) -> SampledInput:
    """Count an input and look at some rows of it.

    Raises:
        InputError: It cannot be read, or has no rows.
    """
    settings = InputSettings(location=location)
    pin = find_pin(spark, settings, name)
    rows = open_table(spark, settings, pin, {}, name).rows
    form = "view" if pin is None else pin.format
    with engine_errors(location=location):
        count = rows.count()
        sample = rows.limit(SAMPLED_ROWS).toArrow()
    if not count:
        raise InputError(f"{name}: {location} holds no rows.")
    columns = []
    for at, kind_of_column in enumerate(rows.schema.fields):
        values = sample.column(at).to_pylist()
        kind = _kind(kind_of_column.name, kind_of_column.dataType, values, form)
        columns.append(SampledColumn(kind_of_column.name, kind_of_column.dataType, values, kind))
    return SampledInput(location, form, count, tuple(columns), rows)


def _kind(name: str, kind: T.DataType, values: list[Any], form: str) -> Kind:
    present = [value for value in values if value is not None]
    if not present:
        return "other"
    if isinstance(kind, _NUMBERS):
        return "number"
    if isinstance(kind, T.TimestampType | T.TimestampNTZType | T.DateType):
        return "time"
    if is_chat_type(kind):
        return "chat"
    if isinstance(kind, T.ArrayType):
        return _kind_of_lists(name, kind, present)
    if isinstance(kind, T.BinaryType):
        return _kind_of_bytes(name, present)
    return _kind_of_texts(name, present, form) if isinstance(kind, T.StringType) else "other"


def _kind_of_lists(name: str, kind: T.ArrayType, present: list[Any]) -> Kind:
    if not isinstance(kind.elementType, T.NumericType):
        return "other"
    lengths = {len(value) for value in present}
    if len(lengths) > 1 or not max(lengths):
        return "other"
    return "image" if _IMAGE.search(name.lower()) else "vector"


def _kind_of_bytes(name: str, present: list[Any]) -> Kind:
    if all(bytes(value).startswith(_MAGIC) for value in present):
        return "image"
    lengths = {len(value) for value in present}
    is_vector = len(lengths) == 1 and max(lengths) % 4 == 0 and _VECTOR.search(name.lower())
    return "vector" if is_vector and max(lengths) else "other"


def _kind_of_texts(name: str, present: list[str], form: str) -> Kind:
    if is_chat(json_value(present[0])):
        return "chat" if form == "jsonl" else "chat json"
    if form in ("csv", "jsonl"):  # the columns of these have no types of their own
        if all(_is_time(value) for value in present):
            return "time"
        if form == "csv" and all(_is_number(value) for value in present if value.strip()):
            return "number"
        if all(_is_vector(value) for value in present):
            return "vector"
    few = len(set(present)) <= min(MOST_CATEGORIES, max(2, len(present) // 4))
    return "category" if few and name.lower() not in TEXT_NAMES else "text"


def _is_time(value: str) -> bool:
    try:
        datetime.fromisoformat(value.strip().replace("Z", "+00:00"))
    except ValueError:
        return False
    return "-" in value


def _is_number(value: str) -> bool:
    try:
        return math.isfinite(float(value))
    except ValueError:
        return False


def _is_vector(value: str) -> bool:
    numbers = json_value(value) if value.startswith("[") else None
    return (
        isinstance(numbers, list)
        and len(numbers) > 1
        and all(isinstance(number, int | float) for number in numbers)
    )
