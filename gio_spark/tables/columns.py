"""Checks of an input's columns against their roles: missing columns and unfit types."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from pyspark.sql import types as T

from gio_spark.errors import InputError
from gio_spark.tables.content_paths import is_expression

if TYPE_CHECKING:
    from gio_spark.settings.columns import Columns


# Roles that say something of a row beside its content: an input may do without.
_OPTIONAL_ROLES = ("source", "group", "event_time", "ingest_time", "quality", "tokens", "label")


def without_absent_roles(columns: Columns, present: list[str]) -> Columns:
    """Roles without those optional ones whose column is not there."""
    absent = {r: None for r in _OPTIONAL_ROLES if getattr(columns, r) not in (None, *present)}
    return columns.model_copy(update=absent) if absent else columns


def check_names(name: str, location: str, present: list[str], columns: Columns) -> None:
    """Raise one error that names every missing column and the nearest present one.

    What an expression of `columns.text` reads is checked against the types (`content_expression`).

    Raises:
        InputError: A column is missing, or no column holds content.
    """
    role_columns = {**{f"columns.{r}": c for r, c in columns.named().items()}}
    role_columns |= {f"columns.numeric[{i}]": c for i, c in enumerate(columns.numeric)}
    role_columns |= {f"columns.categorical[{i}]": c for i, c in enumerate(columns.categorical)}
    problems = []
    for role, column in role_columns.items():
        if column in present or (
            role in ("columns.text", "columns.output") and is_expression(column, present)
        ):
            continue
        near = difflib.get_close_matches(column, present, n=1, cutoff=0.5)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        problems.append(f"{role} = {column!r}{hint}")
    if problems:
        present_text = ", ".join(present[:20]) + (", ..." if len(present) > 20 else "")
        raise InputError(
            f"{name}: {location} lacks the column(s) {'; '.join(problems)}. It has: {present_text}."
        )
    if not columns.content():
        raise InputError(
            f"{name}: no content column is set. Set one of columns.text, columns.vector, "
            f"columns.image, columns.numeric or columns.categorical. It has: {', '.join(present)}."
        )


_NUMBERS = (
    T.ByteType,
    T.ShortType,
    T.IntegerType,
    T.LongType,
    T.FloatType,
    T.DoubleType,
    T.DecimalType,
)
_INTEGERS = (T.ByteType, T.ShortType, T.IntegerType, T.LongType)


def _is_integer_decimal(kind: T.DataType) -> bool:
    """Whether a decimal has no digits after the point, as unsigned integers of 64 bits become."""
    return isinstance(kind, T.DecimalType) and kind.scale == 0


def _paths_into(column: str | None, types: dict[str, T.DataType]) -> str:
    """Hint with paths that begin at a nested column; of other types, nothing."""
    kind = types.get(str(column))
    element = kind.elementType if isinstance(kind, T.ArrayType) else kind
    root = f"{column}[*]" if isinstance(kind, T.ArrayType) else f"{column}"
    fields = element.names[:3] if isinstance(element, T.StructType) else []
    if not fields and not isinstance(kind, T.ArrayType):
        return ""
    return ", messages or a path: " + " or ".join([f"{root}.{f}" for f in fields] or [root])


def check_types(name: str, location: str, schema: T.StructType, columns: Columns) -> None:
    """Raise where a column's type cannot play its role.

    Raises:
        InputError: With the type that is there and those that would do.
    """
    types = {f.name: f.dataType for f in schema.fields}

    def need(role: str, column: str | None, ok: bool, requirement: str) -> None:
        if column is not None and not ok:
            raise InputError(
                f"{name}: column {column!r} of {location} is {types[column].simpleString()}, "
                f"but columns.{role} must be {requirement}."
            )

    def of(column: str | None, kinds: tuple[type, ...]) -> bool:
        return column is None or isinstance(types[column], kinds)

    need(
        "id",
        columns.id,
        of(columns.id, (T.StringType, *_INTEGERS)) or _is_integer_decimal(types[str(columns.id)]),
        "a string or an integer (engines print floats and decimals differently)",
    )
    for role in ("text", "output"):
        column = getattr(columns, role)
        paths = _paths_into(column, types)
        need(role, column, of(column, (T.StringType,)), f"a string{paths}")
    nested = (T.ArrayType, T.MapType, T.StructType, T.BinaryType)
    group = columns.group
    need("group", group, group is None or not of(group, nested), "a text, a number or a date")
    for role in ("event_time", "ingest_time"):
        column = getattr(columns, role)
        need(
            role,
            column,
            of(column, (T.TimestampType, T.TimestampNTZType, T.DateType)),
            "a timestamp or a date",
        )
    for role in ("quality", "tokens"):
        column = getattr(columns, role)
        need(role, column, of(column, _NUMBERS), "a number")
    for column in columns.numeric:
        need("numeric", column, of(column, (*_NUMBERS, T.BooleanType)), "a number")
    for role in ("vector", "image"):
        column = getattr(columns, role)
        ok = (
            column is None
            or isinstance(types[column], T.BinaryType)
            or (
                isinstance(types[column], T.ArrayType)
                and isinstance(types[column].elementType, _NUMBERS)  # type: ignore[attr-defined]
            )
        )
        need(role, column, ok, "binary or an array of numbers")
