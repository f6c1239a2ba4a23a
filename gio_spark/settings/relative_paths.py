"""Relative paths of a configuration file: they follow the folder that the file is in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gio_spark.settings.run import RunSettings

_INPUTS = ("pool", "target", "held_out")
_SQLITE = "sqlite:///"
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)
# Names of stores that MLflow knows, which no folder can have.
_STORES = ("databricks", "databricks-uc", "uc")


def with_absolute_paths(data: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Settings of a file with its relative paths made absolute.

    A text that may also be a name (of a table, a schema or a model of a hub) is a path where it
    begins with a dot or something of that name is in the folder; a location also where it holds a
    slash.

    Args:
        data: Settings as they stand in the file, of any shape: what is wrong is found later.
        folder: Folder of the file.
    """
    folder = folder.resolve()  # the same from wherever the file is named
    absolute = dict(data)
    for key in _INPUTS:
        value = absolute.get(key)
        if isinstance(value, list | tuple):
            absolute[key] = [_input(one, folder) for one in value]
        elif value is not None:
            absolute[key] = _input(value, folder)
    workspace = absolute.get("workspace", RunSettings.model_fields["workspace"].default)
    absolute["workspace"] = _path(workspace, folder, or_name="." in str(workspace).strip("."))
    for key in ("embed", "embedder"):
        block = absolute.get(key)
        if isinstance(block, Mapping) and "model" in block:
            model = block["model"]
            is_here = isinstance(model, str) and (folder / model).exists()
            absolute[key] = {**block, "model": _path(model, folder) if is_here else model}
    tracking = absolute.get("tracking")
    if isinstance(tracking, Mapping):
        stores = [k for k in ("uri", "artifact_location") if k in tracking]
        absolute["tracking"] = {**tracking, **{k: _store(tracking[k], folder) for k in stores}}
    return absolute


def _input(value: Any, folder: Path) -> Any:
    if isinstance(value, Mapping) and "location" in value:
        return {**value, "location": _path(value["location"], folder, or_name=True)}
    return _path(value, folder, or_name=True)


def _store(value: Any, folder: Path) -> Any:
    if isinstance(value, str) and value.startswith(_SQLITE) and not value.startswith(_SQLITE + "/"):
        name = value.removeprefix(_SQLITE)
        return value if name.startswith(":memory:") or not name else f"{_SQLITE}{folder / name}"
    return value if value in _STORES else _path(value, folder)


def _path(value: Any, folder: Path, *, or_name: bool = False) -> Any:
    """A relative path below the folder; everything else as it is."""
    if not isinstance(value, str) or not value.strip() or _SCHEME.match(value):
        return value
    if value.startswith("`") or ".`" in value:  # a name with parts in back quotes
        return value
    if value.startswith(("~", "/", "\\")) or Path(value).is_absolute():
        return value
    if or_name and "/" not in value and not value.startswith("."):
        try:
            if not (folder / value).exists():
                return value
        except (OSError, ValueError):
            return value
    return str(folder / value)
