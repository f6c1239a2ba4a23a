"""Content by expression: text of nested columns, of several columns, and of chat messages.

`columns.text`, like `columns.output`, is the exact name of a column, or else an expression: a path
into a column (`messages[0].content`) or a template of paths (`"{title}\\n{body}"`). Its text is a
column made of the engine's own functions, or of a Python function where it comes from JSON or holds
calls of tools. It costs nothing where a query does not read it, and the columns that it reads stay
as they are.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pyspark.sql import functions as F
from pyspark.sql import types as T

from gio_spark.engine import bounded, describe
from gio_spark.tables.content_paths import ContentPath, PathReader, is_chat_type, template_parts
from gio_spark.tables.identifiers import quoted_column
from gio_spark.tables.message_text import (
    TOOL_CALLS,
    USUAL_ROLES,
    chat_roles,
    json_value,
    normal_role,
    plain_value,
    text_at,
    values_at,
)
from gio_spark.tables.text_columns import chat_roles_at, text_column_at

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

    from gio_spark.settings.columns import Columns

TEXT_COLUMN = "_content_text"
OUTPUT_COLUMN = "_content_output"
# Raised when an expression gives another text than before, so that stored rows are not reused.
TEXT_FORMAT = 2
# Rows whose messages are looked at for roles that are not part of the text.
SAMPLED_ROWS = 1_000


@dataclass(frozen=True)
class ContentExpression:
    """Parts of the text of a row.

    Attributes:
        parts: Literal texts and paths, in order; one path alone is no template.
        roles: Roles of the messages that count, as `normal_role` gives them.
        has_messages: Whether a path may lead to chat messages.
    """

    parts: tuple[str | ContentPath, ...]
    roles: frozenset[str]
    has_messages: bool = False

    def text(self) -> Column:
        """Text of a row; null where no path leads to any."""
        columns = [p if isinstance(p, str) else self._text_at(p) for p in self.parts]
        texts = [column for column in columns if not isinstance(column, str)]
        if len(columns) == 1:
            return texts[0]
        filled = [
            F.lit(column) if isinstance(column, str) else F.coalesce(column, F.lit(""))
            for column in columns
        ]
        return F.when(F.coalesce(*texts).isNotNull(), F.concat(*filled))

    def _text_at(self, path: ContentPath) -> Column:
        column = F.col(quoted_column(path.column))
        if path.is_json or (self.has_messages and TOOL_CALLS in self.roles):
            return _by_python(_TextAt(path, self.roles), column)
        return text_column_at(column, path.kind, path.steps, self.roles)

    def roles_of_messages(self) -> Column:
        """Roles of the messages of a row, a line each."""
        columns = []
        for path in self.parts:
            if isinstance(path, str):
                continue
            column = F.col(quoted_column(path.column))
            columns.append(
                _by_python(_RolesAt(path), column)
                if path.is_json
                else chat_roles_at(column, path.kind, path.steps)
            )
        return F.concat_ws("\n", *columns)


def _by_python(function: _TextAt | _RolesAt, column: Column) -> Column:
    return F.udf(function, T.StringType(), useArrow=False)(column)  # type: ignore[call-overload]


@dataclass(frozen=True)
class _TextAt:
    """Function for the text at a path; a class, so that it is pickled by reference."""

    path: ContentPath
    roles: frozenset[str]

    def __call__(self, argument: Any) -> str | None:
        value = json_value(argument) if self.path.is_json else plain_value(argument)
        return text_at(value, self.path.steps, self.roles)


@dataclass(frozen=True)
class _RolesAt:
    """Function for the roles of messages in JSON; a class for the same reason."""

    path: ContentPath

    def __call__(self, argument: Any) -> str:
        values = values_at(json_value(argument), self.path.steps)
        roles = [role for value in values for role in chat_roles(value)]
        return "\n".join(roles)


def content_expression(
    where: str,
    schema: T.StructType,
    columns: Columns,
    *,
    json_messages: bool = False,
    role: Literal["text", "output"] = "text",
) -> ContentExpression | None:
    """Expression that a role is in a table; None for a plain column of any other type.

    Args:
        where: Name and place of the input, for messages.
        schema: Of the table.
        columns: Roles of its columns.
        json_messages: Whether the named column is a string that holds messages as JSON.
        role: Which role.

    Raises:
        ConfigError: A template or a path cannot be read.
        InputError: A column or field is missing, or what the path leads to is no text.
    """
    text = columns.text if role == "text" else columns.output
    if text is None:
        return None
    roles = frozenset(map(normal_role, columns.chat_roles))
    if text in schema.names:
        if not json_messages and not is_chat_type(schema[text].dataType):
            return None
        return ContentExpression(
            (ContentPath(text, schema[text].dataType, is_json=json_messages),), roles, True
        )
    reader = PathReader(where, text, schema, role)
    if "{" not in text and "}" not in text:
        parts: list[str | ContentPath] = [reader.path(text, in_template=False)]
    else:
        parts = [
            part if is_literal else reader.path(part, in_template=True)
            for part, is_literal in template_parts(text, role)
        ]
    return ContentExpression(tuple(parts), roles, reader.has_messages)


def with_text_column(rows: DataFrame, name: str, expression: ContentExpression) -> DataFrame:
    """Rows with the text of an expression as one more column."""
    text = expression.text()
    if describe(rows.sparkSession).kind == "embedded":
        # The engine fails where it moves a filter on a function of array elements into the scan of
        # a table. It moves none on a random value, and this one is never below zero.
        text = F.when(F.rand(0) >= F.lit(0.0), text)
    return rows.withColumn(name, text)


def sampled_unusual_roles(rows: DataFrame, expression: ContentExpression) -> dict[str, int]:
    """Messages of unknown roles that are not part of the text, by role, in the first rows."""
    sample = rows.limit(SAMPLED_ROWS).select(expression.roles_of_messages().alias("roles"))
    counts: Counter[str] = Counter()
    for text in bounded(sample, SAMPLED_ROWS, "roles of messages")["roles"].to_pylist():
        counts.update(text.split("\n") if text else [])
    known = expression.roles | USUAL_ROLES
    unusual = Counter({role: n for role, n in counts.items() if normal_role(role) not in known})
    return dict(unusual.most_common(20))
