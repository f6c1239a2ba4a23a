"""Write docs/configuration.md from the settings models, so that it cannot go out of date."""

from __future__ import annotations

import inspect
import types
import typing
from pathlib import Path
from typing import Any

from gio_spark.settings.run import SHORTHANDS, RunSettings
from pydantic import BaseModel
from pydantic.fields import FieldInfo

PAGE = Path(__file__).resolve().parent.parent / "docs" / "configuration.md"
HEAD = """\
# Settings of a run

Made by `make docs` from the models in `gio_spark/settings`. `gio-spark init` writes the same as a
commented YAML file; every key can be overridden on the command line (`quantize.clusters=500`) and
given to `curate` in Python (`quantize={"clusters": 500}`). An unknown key is an error that names
the nearest known one.
"""


def page() -> str:
    """Return the whole page."""
    lines = [HEAD, "## Top level\n", *_table(RunSettings)]
    short = ", ".join(f"`{name}` for `{'.'.join(SHORTHANDS[name])}`" for name in SHORTHANDS)
    lines.append(f"\nShort names at the top level: {short}.")
    for name, field in RunSettings.model_fields.items():
        model = _model(field)
        if model is not None:
            heading = f"## {name}" + (" (each)" if name == "target" else "")
            lines += ["", heading, "", inspect.cleandoc(model.__doc__ or ""), "", *_table(model)]
    return "\n".join(lines) + "\n"


def _table(model: type[BaseModel]) -> list[str]:
    rows = ["| key | default | meaning |", "|---|---|---|"]
    for name, field in model.model_fields.items():
        meaning = (field.description or "").replace("|", "\\|")
        rows.append(f"| `{name}` | {_default(field)} | {meaning} |")
    return rows


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "(needed)"
    value: Any = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return "see below"
    if value is None or value in ((), {}, []):
        return "none"
    return f"`{value}`"


def _model(field: FieldInfo) -> type[BaseModel] | None:
    """Return the settings model in a field's type, if there is one."""
    waiting = [field.annotation]
    while waiting:
        kind = waiting.pop()
        plain = isinstance(kind, type) and not isinstance(kind, types.GenericAlias)
        if plain and issubclass(kind, BaseModel):
            return kind
        waiting += typing.get_args(kind)
    return None


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"==> Wrote {PAGE.relative_to(PAGE.parent.parent)}")
