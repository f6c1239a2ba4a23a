"""Paths into nested columns and templates of them, read against the types of a table."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pyspark.sql import types as T

from gio_spark.errors import ConfigError, InputError
from gio_spark.tables.message_text import (
    CONTENT_FIELDS,
    ROLE_FIELDS,
    Step,
)

_TEMPLATE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_STEP = re.compile(r"\.(?P<field>[^.\[\]]+)|\[(?P<place>\*|-?[0-9]+)\]")


@dataclass(frozen=True)
class ContentPath:
    """Column and steps into its values, of which a template has one for each pair of braces.

    Attributes:
        column: Name of the column.
        kind: Its type.
        steps: Names of fields and keys, places in arrays, None for every element.
        is_json: Whether the column is a string that holds JSON.
    """

    column: str
    kind: T.DataType
    steps: tuple[Step, ...] = ()
    is_json: bool = False


def is_expression(text: str, columns: Sequence[str]) -> bool:
    """Whether a text that is no column's name is a template or a path into one of the columns."""
    return "{" in text or "}" in text or _longest(text, columns) is not None


def is_chat_type(kind: T.DataType) -> bool:
    """Whether a type is a list of structs with a role and content."""
    if not isinstance(kind, T.ArrayType) or not isinstance(kind.elementType, T.StructType):
        return False
    return all(chat_fields(kind.elementType))


def chat_fields(message: T.StructType) -> tuple[list[str], list[str]]:
    """Fields of a message with its role, and with its content."""
    types = {field.name: field.dataType for field in message.fields}
    roles = [n for n in ROLE_FIELDS if isinstance(types.get(n), T.StringType)]
    content = [n for n in CONTENT_FIELDS if n in types and _is_content(types[n])]
    return roles, content


def _is_content(kind: T.DataType) -> bool:
    return isinstance(kind, T.StringType) or is_parts_type(kind)


def is_parts_type(kind: T.DataType) -> bool:
    """Whether a type is a list of the parts of a message's content: texts, or structs with one."""
    if not isinstance(kind, T.ArrayType):
        return False
    part = kind.elementType
    if isinstance(part, T.StructType):
        return "text" in part.names and isinstance(part["text"].dataType, T.StringType)
    return isinstance(part, T.StringType)


def is_chat_json(kind: Any) -> bool:
    """Whether the type of a JSON column (see `json_types`) is a list of messages."""
    if not isinstance(kind, list) or not isinstance(kind[1], dict):
        return False
    names = set(kind[1])
    return bool(names & set(ROLE_FIELDS)) and bool(names & set(CONTENT_FIELDS))


def field_names(kind: T.DataType | None) -> list[str]:
    """Names of the fields of a struct; of any other type, none."""
    return kind.names if isinstance(kind, T.StructType) else []


def template_parts(template: str, role: str = "text") -> list[tuple[str, bool]]:
    """Parts of a template in order, and whether each is literal; the others are paths.

    Raises:
        ConfigError: A brace has no partner, or there is no path.
    """
    parts: list[tuple[str, bool]] = []
    end = 0
    for match in _TEMPLATE.finditer(template):
        parts.append((template[end : match.start()], True))
        end = match.end()
        token, path = match.group(), match.group(1)
        if path:
            parts.append((path, False))
        elif token in ("{{", "}}"):
            parts.append((token[0], True))
        else:
            problem = "an empty pair of braces" if path is not None else f"a single {token!r}"
            raise ConfigError(
                f"columns.{role} = {template!r} has {problem} at character {match.start() + 1}: "
                "write {column}, or {{ and }} for braces that are part of the text."
            )
    parts.append((template[end:], True))
    if all(is_literal for _, is_literal in parts):
        raise ConfigError(f"columns.{role} = {template!r} names no column: write {{column}}.")
    return [(part, is_literal) for part, is_literal in parts if part]


def _longest(text: str, names: Sequence[str]) -> str | None:
    """Longest of the names that a text begins with, where a step or nothing follows it."""
    fitting = [n for n in names if text.startswith(n) and text[len(n) : len(n) + 1] in ("", *".[")]
    return max(fitting, key=len, default=None)


@dataclass
class PathReader:
    """Paths of one expression against the columns of a table."""

    where: str
    text: str
    schema: T.StructType
    role: str = "text"
    has_messages: bool = False

    def path(self, path: str, *, in_template: bool) -> ContentPath:
        """Path as column and steps, checked against the types that it leads through."""
        column = _longest(path, self.schema.names)
        if column is None:
            root = re.split(r"[.\[]", path, maxsplit=1)[0]
            raise self._missing(f"no column {root!r}", root, self.schema.names, "columns")
        kind: T.DataType | None = self.schema[column].dataType
        rest = path[len(column) :]
        is_json = bool(rest) and isinstance(kind, T.StringType)
        if is_json:
            kind = None
        steps: list[Step] = []
        place = f"column {column!r}"
        while rest:
            step, length = self._step(rest, kind)
            kind = self._type_of_step(step, kind, place)
            steps.append(step)
            place = f"{path[: len(path) - len(rest) + length]!r}"
            rest = rest[length:]
        self._check_text(kind, place, in_template)
        self.has_messages = self.has_messages or kind is None or is_chat_type(kind)
        return ContentPath(column, self.schema[column].dataType, tuple(steps), is_json)

    def _step(self, rest: str, kind: T.DataType | None) -> tuple[Step, int]:
        """First step of a path, and its length; names of fields may hold dots themselves."""
        field = _longest(rest[1:], field_names(kind))
        if rest[0] == "." and field is not None:
            return field, 1 + len(field)
        match = _STEP.match(rest)
        if match is None:
            raise ConfigError(
                f"columns.{self.role} = {self.text!r} cannot be read at {rest!r}: write "
                ".field, [0], [-1] or [*]."
            )
        if match["field"] is not None:
            return match["field"], match.end()
        return None if match["place"] == "*" else int(match["place"]), match.end()

    def _type_of_step(self, step: Step, kind: T.DataType | None, place: str) -> T.DataType | None:
        if kind is None:
            return None
        if isinstance(step, str):
            if isinstance(kind, T.StructType):
                if step not in kind.names:
                    raise self._missing(f"no field {step!r} in {place}", step, kind.names, "fields")
                return kind[step].dataType
            if isinstance(kind, T.MapType) and isinstance(kind.keyType, T.StringType):
                return kind.valueType
        elif isinstance(kind, T.ArrayType):
            return kind.elementType
        if isinstance(kind, T.ArrayType):
            hint = f"write [0], [-1] or [*] before .{step}"
        else:
            names = field_names(kind)
            hint = f"it has the fields {', '.join(names)}" if names else "no step goes into it"
        raise self._error(f"{place} is {kind.simpleString()[:200]}: {hint}.")

    def _check_text(self, kind: T.DataType | None, place: str, in_template: bool) -> None:
        if kind is None or isinstance(kind, T.StringType) or is_chat_type(kind):
            return
        if in_template and isinstance(kind, T.IntegralType):
            return
        hint = ""
        if isinstance(kind, T.ArrayType):
            if is_parts_type(kind) and field_names(kind.elementType):
                return
            hint = "; [*] joins the elements of an array"
        elif field_names(kind):
            hint = f"; its fields are {', '.join(field_names(kind))}"
        raise self._error(f"{place} is {kind.simpleString()[:200]}, not a string{hint}.")

    def _missing(self, what: str, name: str, names: Sequence[str], plural: str) -> InputError:
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        names_text = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
        return self._error(f"there is {what}{hint}; the {plural} are: {names_text}.")

    def _error(self, problem: str) -> InputError:
        return InputError(f"{self.where}: columns.{self.role} = {self.text!r}: {problem}")
