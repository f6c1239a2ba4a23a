"""Types of Arrow columns as both engines carry them: as they are, cast without loss, or refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa
from pyspark.sql import types as T

from gio_spark.errors import InputError

_WIDER = {
    pa.uint8(): pa.int16(),
    pa.uint16(): pa.int32(),
    pa.uint32(): pa.int64(),
    pa.uint64(): pa.decimal128(20, 0),
    pa.float16(): pa.float32(),
    pa.date64(): pa.date32(),
    pa.null(): pa.string(),
    pa.large_string(): pa.string(),
    pa.string_view(): pa.string(),
    pa.large_binary(): pa.binary(),
    pa.binary_view(): pa.binary(),
}
_MOST_DIGITS = 38


def carried_type(kind: pa.DataType) -> pa.DataType | None:
    """Type that a column is carried in, with the same values; None where there is none.

    Unsigned integers become wider signed ones (64 bits: whole decimals), half floats become floats,
    nanoseconds microseconds (a cast that would lose some is refused), categories their values, and
    a column of nulls alone one of texts. Times of day, durations, intervals, unions and decimals of
    more than 38 digits have no type in Delta tables.
    """
    t = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return carried_type(kind.storage_type)
    if t.is_dictionary(kind) or t.is_run_end_encoded(kind):
        return carried_type(kind.value_type)
    if kind in _WIDER:
        return _WIDER[kind]
    if t.is_timestamp(kind):
        return pa.timestamp("us", tz=kind.tz)
    if t.is_fixed_size_binary(kind):
        return pa.binary()
    if t.is_decimal(kind):
        few = kind.precision <= _MOST_DIGITS
        return pa.decimal128(kind.precision, kind.scale) if few else None
    if t.is_map(kind):
        key, item = carried_type(kind.key_type), carried_type(kind.item_type)
        return None if key is None or item is None else pa.map_(key, item)
    if t.is_struct(kind):
        fields = {field.name: carried_type(field.type) for field in kind}
        return None if None in fields.values() else pa.struct(list(fields.items()))
    if t.is_nested(kind):
        element = None if t.is_union(kind) else carried_type(kind.value_type)
        return None if element is None else pa.list_(element)
    if t.is_time(kind) or t.is_duration(kind) or t.is_interval(kind):
        return None
    return kind


# Types that engines read correctly although they are written as another.
_READ_ALIKE = (
    pa.types.is_large_string,
    pa.types.is_string_view,
    pa.types.is_large_binary,
    pa.types.is_binary_view,
    pa.types.is_fixed_size_binary,
    pa.types.is_decimal128,
)


def is_read_by_engines(kind: pa.DataType) -> bool:
    """Whether every engine reads a column of Parquet files right; others are read by Arrow."""
    if any(is_alike(kind) for is_alike in _READ_ALIKE):
        return True
    t = pa.types
    if t.is_timestamp(kind):
        return bool(kind.unit != "ns")
    if t.is_map(kind):
        return is_read_by_engines(kind.key_type) and is_read_by_engines(kind.item_type)
    if t.is_struct(kind):
        return all(is_read_by_engines(field.type) for field in kind)
    if t.is_list(kind) or t.is_large_list(kind) or t.is_fixed_size_list(kind):
        return is_read_by_engines(kind.value_type)
    return carried_type(kind) == kind


def check_columns(name: str, location: str, schema: pa.Schema, dropped: Sequence[str]) -> None:
    """Refuse columns of one name, and columns that no table can carry.

    Raises:
        InputError: With the columns, and what to do.
    """
    check_unique(name, location, [c for c in schema.names if c not in dropped])
    odd = [f for f in schema if f.name not in dropped and carried_type(f.type) is None]
    if odd:
        named = ", ".join(f"column {field.name!r} of {location} is {field.type}" for field in odd)
        raise InputError(
            f"{name}: {named}, which Delta tables and Spark cannot hold. Cast, or leave out: "
            f"columns.drop: [{', '.join(field.name for field in odd)}]."
        ).about(location=location, column=odd[0].name)


_CARRIED = (
    T.StringType, T.CharType, T.VarcharType, T.BinaryType, T.BooleanType, T.NumericType, T.DateType,
    T.TimestampType, T.TimestampNTZType, T.VariantType, T.NullType,
)  # fmt: skip


def _is_carried(kind: T.DataType) -> bool:
    if isinstance(kind, T.ArrayType):
        return _is_carried(kind.elementType)
    if isinstance(kind, T.MapType):
        return _is_carried(kind.keyType) and _is_carried(kind.valueType)
    if isinstance(kind, T.StructType):
        return all(_is_carried(field.dataType) for field in kind.fields)
    return isinstance(kind, _CARRIED)


def check_frame_types(name: str, location: str, schema: T.StructType) -> None:
    """Refuse columns of a frame in types of Spark's own that a selection cannot have.

    These are vectors of pyspark.ml and other user-defined types, intervals and times of day.

    Raises:
        InputError: With the columns, and what to do.
    """
    odd = {f.name: f.dataType.simpleString() for f in schema.fields if not _is_carried(f.dataType)}
    if odd:
        raise uncarried_columns(name, location, odd)


def uncarried_columns(name: str, location: str, odd: Mapping[str, str]) -> InputError:
    """Error for columns (name -> type) that a selection cannot have."""
    named = ", ".join(f"column {column!r} of {location} is {kind}" for column, kind in odd.items())
    return InputError(
        f"{name}: {named}, which Delta tables cannot hold. Cast (pyspark.ml.functions."
        f"vector_to_array for vectors), or leave out: columns.drop: [{', '.join(odd)}]."
    ).about(location=location, column=next(iter(odd)))


def check_unique(name: str, location: str, names: Sequence[str]) -> None:
    """Refuse columns of one name, or of names that differ in case alone, which engines mix up.

    Raises:
        InputError: With the columns.
    """
    by_name: dict[str, list[str]] = {}
    for column in names:
        by_name.setdefault(column.lower(), []).append(column)
    clash = next((same for same in by_name.values() if len(same) > 1), None)
    if clash:
        raise InputError(
            f"{name}: {location} has several columns named {', '.join(map(repr, clash))} (case "
            "does not count): rename them, or leave all but one out by columns.drop."
        ).about(location=location, column=clash[0])


def carried_schema(schema: pa.Schema, dropped: Sequence[str] = ()) -> pa.Schema:
    """Schema of the columns as they are carried, without the dropped ones."""
    fields = [(field, carried_type(field.type)) for field in schema if field.name not in dropped]
    return pa.schema([pa.field(f.name, kind, f.nullable) for f, kind in fields if kind is not None])


def carried_table(table: pa.Table, schema: pa.Schema, where: str) -> pa.Table:
    """Columns of a table as a schema carries them; missing ones are null.

    Args:
        table: With the columns of the schema, or some of them.
        schema: See `carried_schema`.
        where: Name of the table, for messages.

    Raises:
        InputError: A value would change by the cast.
    """
    columns: list[pa.Array | pa.ChunkedArray] = []
    for field in schema:
        if field.name not in table.column_names:
            columns.append(pa.nulls(table.num_rows, field.type))
            continue
        column = table[field.name]
        try:
            columns.append(column if column.type == field.type else column.cast(field.type))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise InputError(
                f"{where}: column {field.name!r} is {column.type} and cannot be carried as "
                f"{field.type}: {str(error)[:150]}. Cast it, or leave it out: columns.drop: "
                f"[{field.name}]."
            ).about(column=field.name) from error
    return pa.table(columns, schema=schema)
