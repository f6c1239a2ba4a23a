"""Text of typed nested columns by the engines' own functions; `content_expressions` is the entry.

A field of a null struct is null on Spark and may be an empty text on the embedded engine, so every
access asks whether there is a struct.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

from pyspark.sql import functions as F
from pyspark.sql import types as T

from gio_spark.tables.content_paths import chat_fields, is_chat_type
from gio_spark.tables.message_text import ALIASES, Step

if TYPE_CHECKING:
    from pyspark.sql import Column


def text_column_at(
    value: Column, kind: T.DataType, steps: Sequence[Step], roles: Collection[str]
) -> Column:
    """Text at a path, several joined by a newline; null where there is none.

    Args:
        value: Column that the path begins at.
        kind: Its type, which the path fits.
        steps: Of the path.
        roles: Roles of the messages that count, as `normal_role` gives them.
    """
    if steps:
        step, rest = steps[0], steps[1:]
        if step is None and isinstance(kind, T.ArrayType):
            element = kind.elementType
            return _joined(value, lambda item: text_column_at(item, element, rest, roles))
        return text_column_at(*_one_step(value, kind, step), rest, roles)
    if isinstance(kind, T.ArrayType):
        element = kind.elementType
        is_struct = isinstance(element, T.StructType)
        if isinstance(element, T.StructType) and is_chat_type(kind):
            return _chat_text(value, element, roles)
        return _joined(value, lambda item: _field(item, "text") if is_struct else item)
    return value if isinstance(kind, T.StringType) else value.cast("string")


def chat_roles_at(value: Column, kind: T.DataType, steps: Sequence[Step]) -> Column:
    """Roles of the messages at a path, a line each; null where there are none."""
    if steps:
        step, rest = steps[0], steps[1:]
        if step is None and isinstance(kind, T.ArrayType):
            element = kind.elementType
            return _joined(value, lambda item: chat_roles_at(item, element, rest))
        return chat_roles_at(*_one_step(value, kind, step), rest)
    message = kind.elementType if isinstance(kind, T.ArrayType) else None
    if not isinstance(message, T.StructType) or not is_chat_type(kind):
        return F.lit(None).cast("string")
    return _joined(value, lambda item: F.coalesce(_role(item, message), F.lit("(none)")))


def _one_step(value: Column, kind: T.DataType, step: Step) -> tuple[Column, T.DataType]:
    """Field, value of a key, or element of an array, and its type."""
    if isinstance(kind, T.StructType) and isinstance(step, str):
        return _field(value, step), kind[step].dataType
    if isinstance(kind, T.MapType):
        return F.try_element_at(value, F.lit(step)), kind.valueType
    if isinstance(kind, T.ArrayType) and isinstance(step, int):
        place = step + 1 if step >= 0 else step  # engines count from 1
        return F.try_element_at(value, F.lit(place)), kind.elementType
    raise TypeError(f"step {step!r} does not fit {kind.simpleString()}")


def _field(struct: Column, name: str) -> Column:
    return F.when(struct.isNotNull(), struct.getField(name))


def _joined(array: Column, text_of_item: Callable[[Column], Column]) -> Column:
    """Texts of the elements joined by a newline, without nulls; null where there are none."""
    texts = F.filter(F.transform(array, text_of_item), lambda text: text.isNotNull())
    return F.when(F.size(texts) > 0, F.array_join(texts, "\n"))


def _role(item: Column, message: T.StructType) -> Column:
    names, _ = chat_fields(message)
    return F.lower(F.coalesce(*[_field(item, name) for name in names]))


def _chat_text(messages: Column, message: T.StructType, roles: Collection[str]) -> Column:
    _, names = chat_fields(message)
    accepted = [*roles, *(alias for alias, role in ALIASES.items() if role in roles)]

    def content(item: Column) -> Column:
        fields = [(_field(item, name), message[name].dataType) for name in names]
        text = F.coalesce(*[text_column_at(field, type_, (), ()) for field, type_ in fields])
        return F.when(_role(item, message).isin(accepted) & (text != F.lit("")), text)

    return _joined(messages, content)
