"""Text of chat messages and nested values on workers; `content_expressions` is the entry.

Values are plain Python ones (see `plain_value`), whether they come from typed columns or from JSON,
so that every file format and engine gives the same text.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any

from pyspark.sql import Row

from gio_spark.tables.json_types import JsonParser

# A step of a path: name of a field or key, place in an array, or None for every element.
Step = str | int | None

TOOL_CALLS = "tool_calls"
ROLE_FIELDS = ("role", "from")
CONTENT_FIELDS = ("content", "value")
ALIASES = {"human": "user", "gpt": "assistant"}
# Messages of these roles are left out without a warning where `chat_roles` does not name them.
USUAL_ROLES = frozenset(
    ("user", "assistant", "system", "developer", "tool", "function", "function_call", "observation")
)


def normal_role(role: Any) -> str:
    """Role in lower case, with ShareGPT's names replaced by those of OpenAI; (none) for a null."""
    name = str(role).lower() if role is not None else "(none)"
    return ALIASES.get(name, name)


def plain_value(value: Any) -> Any:
    """Value of a user-defined function's argument with dicts in place of rows."""
    if isinstance(value, Row):
        fields = zip(value.__fields__, value, strict=True)
        return {name: plain_value(item) for name, item in fields}
    if isinstance(value, dict):
        return {key: plain_value(item) for key, item in value.items()}
    return [plain_value(item) for item in value] if isinstance(value, list) else value


def json_value(text: Any) -> Any:
    """Parsed JSON, or None where a text is not JSON or holds what is no text (`JsonParser`)."""
    try:
        return JsonParser().parse_all(text) if isinstance(text, str) else None
    except ValueError:
        return None


def values_at(value: Any, steps: Sequence[Step]) -> list[Any]:
    """Values that a path leads to: at most one, or with steps for every element any number."""
    for depth, step in enumerate(steps):
        if isinstance(value, list) and step is None:
            rest = steps[depth + 1 :]
            return [inner for item in value for inner in values_at(item, rest)]
        if isinstance(value, list) and isinstance(step, int):
            value = value[step] if -len(value) <= step < len(value) else None
        else:
            value = value.get(step) if isinstance(value, dict) and isinstance(step, str) else None
    return [] if value is None else [value]


def text_at(value: Any, steps: Sequence[Step], roles: Collection[str]) -> str | None:
    """Text at a path, several joined by a newline; None where there is none."""
    return _joined([text_of(one, roles) for one in values_at(value, steps)])


def text_of(value: Any, roles: Collection[str]) -> str | None:
    """Text of one value; None for a null and for a list or object that holds no text.

    Args:
        value: Text, number, chat messages or parts of a message's content.
        roles: Roles of the messages that count, as `normal_role` gives them.
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list):
        if is_chat(value):
            messages = [m for m in value if isinstance(m, dict)]
            return _joined([text or None for m in messages for text in _message_texts(m, roles)])
        return _joined([_part_text(part) for part in value])
    if isinstance(value, dict):
        return _part_text(value)
    return json.dumps(value) if isinstance(value, bool | int | float) else str(value)


def is_chat(value: Any) -> bool:
    """Whether a value is a list of objects with a role and content."""
    return isinstance(value, list) and any(
        isinstance(item, dict)
        and any(name in item for name in ROLE_FIELDS)
        and any(name in item for name in (*CONTENT_FIELDS, TOOL_CALLS))
        for item in value
    )


def chat_roles(value: Any) -> list[str]:
    """Roles of the messages of a chat, as they are but for lower case; of other values, none."""
    messages = [m for m in value if isinstance(m, dict)] if is_chat(value) else []
    return [str(_first(message, ROLE_FIELDS) or "(none)").lower() for message in messages]


def _role(message: dict[str, Any]) -> str:
    return normal_role(_first(message, ROLE_FIELDS))


def _first(message: dict[str, Any], names: Sequence[str]) -> Any:
    return next((message[name] for name in names if message.get(name) is not None), None)


def _joined(texts: Sequence[str | None]) -> str | None:
    present = [text for text in texts if text is not None]
    return "\n".join(present) if present else None


def _message_texts(message: dict[str, Any], roles: Collection[str]) -> list[str | None]:
    texts: list[str | None] = []
    if _role(message) in roles:
        contents = [text_of(message.get(name), ()) for name in CONTENT_FIELDS]
        texts.append(next((text for text in contents if text is not None), None))
    if TOOL_CALLS in roles:
        calls = message.get(TOOL_CALLS)
        one = message.get("function_call")
        texts += [_call_text(call) for call in (calls if isinstance(calls, list) else [one])]
    return texts


def _call_text(call: Any) -> str | None:
    """Name of a called function and its arguments as JSON: get_weather {"city":"Oslo"}."""
    function = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(function, dict) or function.get("name") is None:
        return None
    arguments = function.get("arguments")
    if arguments is not None and not isinstance(arguments, str):
        # A typed struct has the arguments of all calls, null where a call has them not.
        arguments = json.dumps(
            _without_nulls(arguments), ensure_ascii=False, separators=(",", ":"), sort_keys=True,
            default=str,
        )  # fmt: skip
    return f"{function['name']} {arguments or ''}".rstrip()


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def _part_text(part: Any) -> str | None:
    """Text of a part of content: a text itself, or an object with one; images have none."""
    text = part.get("text") if isinstance(part, dict) else part
    return text if isinstance(text, str) else None
