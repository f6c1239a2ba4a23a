"""Schemas of selections: the pool's own columns with NOT NULL and comments, as DDL and as JSON."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from pyspark.sql import functions as F
from pyspark.sql import types as T

from gio_spark.tables.identifiers import quoted_column

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_PLAIN_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_MAPPED_CHARACTERS = frozenset(" ,;{}()\n\t=")


def selection_schema(schema: T.StructType, comments: dict[str, str] | None = None) -> T.StructType:
    """Schema with names, types, NOT NULL and comments alone, of a table that is written anew.

    What else Delta keeps in a field (column mapping, identity, generation, defaults) belongs to
    the table that was read.

    Args:
        schema: Of the table that was read.
        comments: Column -> its comment, where the engine's schema does not carry it.
    """
    return T.StructType([_selection_field(f, (comments or {}).get(f.name)) for f in schema.fields])


def _selection_field(field: T.StructField, comment: str | None = None) -> T.StructField:
    text = comment or field.metadata.get("comment")
    metadata = {"comment": text} if text else {}
    return T.StructField(field.name, _selection_type(field.dataType), field.nullable, metadata)


def _selection_type(kind: T.DataType) -> T.DataType:
    if isinstance(kind, T.StructType):
        return T.StructType([_selection_field(f) for f in kind.fields])
    if isinstance(kind, T.ArrayType):
        return T.ArrayType(_selection_type(kind.elementType), kind.containsNull)
    if isinstance(kind, T.MapType):
        return T.MapType(
            _selection_type(kind.keyType), _selection_type(kind.valueType), kind.valueContainsNull
        )
    if type(kind) is T.StringType:
        return T.StringType()
    return kind


def without_collation(rows: DataFrame) -> DataFrame:
    """Rows whose texts have Delta's type `string`, whatever collation a Connect client gave them.

    A client names the default collation with the types of its functions, and the server writes
    the type `string collate UTF8_BINARY` into the log, which readers other than Spark refuse.
    """
    texts = {
        name: F.col(quoted_column(name)).cast(_type_ddl(kind, not_null=True))
        for name, kind in column_types(rows.schema).items()
        if "string" in kind.simpleString()
    }
    return rows.withColumns(texts) if texts else rows


def numeric_columns(schema: T.StructType, most: int = 32) -> list[str]:
    """First columns of numbers and times, of plain names, that a log may hold statistics of."""
    kinds = (T.NumericType, T.DateType, T.TimestampType)
    names = [f.name for f in schema.fields if isinstance(f.dataType, kinds)]
    return [name for name in names if _PLAIN_NAME.fullmatch(name)][:most]


def has_plain_names(kind: T.DataType) -> bool:
    """Whether no column or nested field has a name that Delta on Spark maps to another one."""
    if isinstance(kind, T.StructType):
        return all(
            not set(f.name) & _MAPPED_CHARACTERS and has_plain_names(f.dataType)
            for f in kind.fields
        )
    if isinstance(kind, T.ArrayType):
        return has_plain_names(kind.elementType)
    if isinstance(kind, T.MapType):
        return has_plain_names(kind.keyType) and has_plain_names(kind.valueType)
    return True


def column_ddl(schema: T.StructType, *, not_null: bool = True) -> str:
    """Columns of a CREATE or ALTER TABLE statement; names and comments are quoted.

    Args:
        schema: Of the columns.
        not_null: Whether those without nulls are NOT NULL, which added columns cannot be.
    """
    return ", ".join(_field_ddl(f, " ", not_null) for f in schema.fields)


def _field_ddl(field: T.StructField, between: str, not_null: bool) -> str:
    text = f"{quoted_column(field.name)}{between}{_type_ddl(field.dataType, not_null)}"
    if not_null and not field.nullable:
        text += " NOT NULL"
    comment = field.metadata.get("comment")
    if comment:
        escaped = comment.replace("\\", "\\\\").replace("'", "\\'")
        text += f" COMMENT '{escaped}'"
    return text


def _type_ddl(kind: T.DataType, not_null: bool) -> str:
    if isinstance(kind, T.StructType):
        return f"STRUCT<{', '.join(_field_ddl(f, ': ', not_null) for f in kind.fields)}>"
    if isinstance(kind, T.ArrayType):
        return f"ARRAY<{_type_ddl(kind.elementType, not_null)}>"
    if isinstance(kind, T.MapType):
        types = _type_ddl(kind.keyType, not_null), _type_ddl(kind.valueType, not_null)
        return f"MAP<{', '.join(types)}>"
    return kind.simpleString()


def column_types(schema: T.StructType) -> dict[str, T.DataType]:
    """Column -> its type, without the collation that strings carry through Spark Connect."""
    return {f.name: _selection_type(f.dataType) for f in schema.fields}


def delta_schema_json(schema: T.StructType) -> str:
    """Schema as a Delta log holds it."""
    content: dict[str, Any] = json.loads(schema.json())
    return json.dumps(content)


_WIDENED: dict[type[T.DataType], tuple[type[T.DataType], ...]] = {
    T.ByteType: (T.ShortType, T.IntegerType, T.LongType),
    T.ShortType: (T.IntegerType, T.LongType),
    T.IntegerType: (T.LongType,),
    T.FloatType: (T.DoubleType,),
    T.DateType: (T.TimestampNTZType,),
}


def is_widened(before: T.DataType, now: T.DataType) -> bool:
    """Whether every value of a type is one of another, as Delta widens types; structs by field."""
    if isinstance(before, T.DecimalType) and isinstance(now, T.DecimalType):
        keeps_integer_digits = now.precision - now.scale >= before.precision - before.scale
        return keeps_integer_digits and now.scale >= before.scale
    if isinstance(before, T.ArrayType) and isinstance(now, T.ArrayType):
        return _same_or_widened(before.elementType, now.elementType)
    if isinstance(before, T.StructType) and isinstance(now, T.StructType):
        types = {f.name: f.dataType for f in before.fields}
        return all(_same_or_widened(types.get(f.name, f.dataType), f.dataType) for f in now.fields)
    if isinstance(before, T.MapType) and isinstance(now, T.MapType):
        keys = _same_or_widened(before.keyType, now.keyType)
        return keys and _same_or_widened(before.valueType, now.valueType)
    return isinstance(now, _WIDENED.get(type(before), ()))


def _same_or_widened(before: T.DataType, now: T.DataType) -> bool:
    return before.simpleString() == now.simpleString() or is_widened(before, now)
