"""The commented example that `gio-spark init` writes, made from the models themselves."""

from __future__ import annotations

import textwrap
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from gio_spark.settings.columns import Columns
from gio_spark.settings.run import RunSettings

_HEAD = """\
# gio-spark: choose the rows of a pool that are worth training on for a target.
# Every setting is shown with its default; delete what you do not change.
#   gio-spark validate CONFIG     check tables and columns, print plan and forecast
#   gio-spark run CONFIG          run (a second run goes on where the first stopped)
"""

_GIVEN = {
    "pool": "path/to/pool",
    "target": "path/to/target",
    "columns": {"id": "id", "text": "text"},
}


def example(given: dict[str, Any] | None = None) -> str:
    """Return a commented YAML text; `given` overrides the example values of top-level keys."""
    values = {**_GIVEN, **(given or {})}
    lines = [_HEAD]
    for name, field in RunSettings.model_fields.items():
        lines.append(_comment(field.description or "", 0))
        if name == "columns":
            lines.append("columns:")
            lines.extend(_block(Columns, values.get("columns", {})))
        elif name in values:
            lines.append(_entry(name, values[name], 0))
        else:
            default = field.get_default(call_default_factory=True)
            if isinstance(default, BaseModel):
                lines.append(f"{name}:")
                lines.extend(_block(type(default), {}))
            else:
                lines.append(_entry(name, default, 0))
        lines.append("")
    return "\n".join(lines)


def _block(model: type[BaseModel], given: dict[str, Any]) -> list[str]:
    lines = []
    for name, field in model.model_fields.items():
        lines.append(_comment(field.description or "", 2))
        default = field.get_default(call_default_factory=True)
        value = given.get(name, None if default is PydanticUndefined else default)
        if isinstance(value, BaseModel):
            value = value.model_dump(mode="json")
        entry = _entry(name, value, 2)
        # A role that is not given stays visible, but commented out.
        lines.append(entry if value not in (None, ()) else "  # " + entry.strip())
    return lines


def _entry(name: str, value: Any, indent: int) -> str:
    plain = list(value) if isinstance(value, tuple) else value
    # One line for any value; a scalar alone is dumped with a line that ends the document.
    text = yaml.safe_dump(plain, default_flow_style=True, sort_keys=False, width=100_000)
    return f"{' ' * indent}{name}: " + text.removesuffix("...\n").rstrip("\n")


def _comment(text: str, indent: int) -> str:
    pad = " " * indent
    return textwrap.fill(
        text, 96, initial_indent=f"{pad}# ", subsequent_indent=f"{pad}# ", break_long_words=False
    )
