"""Read settings from YAML, Python and the command line, with messages that help."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from gio_spark.errors import ConfigError
from gio_spark.settings.relative_paths import with_absolute_paths
from gio_spark.settings.run import SHORTHANDS, RunSettings


class _Once(yaml.SafeLoader):
    """Refuses a key that stands twice in one block: YAML would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys: set[str] = set()
        for key, _ in node.value:
            if key.value in keys and key.tag != "tag:yaml.org,2002:merge":
                line = key.start_mark.line + 1
                raise yaml.YAMLError(
                    f"the key {key.value!r} stands there twice, again in line {line}"
                )
            keys.add(str(key.value))
        return super().construct_mapping(node, deep)


def load(path: str | Path, overrides: Iterable[str] = ()) -> RunSettings:
    """Read a YAML file and apply `key=value` overrides (`quantize.k=500`).

    Relative paths in the file follow its folder, those of overrides the current folder.

    Raises:
        ConfigError: The file cannot be read or a setting is wrong; the message names where.
    """
    file = Path(path)
    try:
        data = yaml.load(file.read_text(encoding="utf-8"), Loader=_Once)  # noqa: S506 - a safe one
    except OSError as error:
        raise ConfigError(
            f"Cannot read the configuration {file}: {error.strerror}. "
            "`gio-spark init` writes a commented example."
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not valid YAML: {error}.") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{file} must hold keys and values (pool: ..., target: ..., ...).")
    merged = merge(with_absolute_paths(data, file.parent), overrides)
    if merged.get("name") is None:
        # "curate.yml" -> curate; characters that a name cannot have are replaced.
        merged["name"] = re.sub(r"[^A-Za-z0-9_.-]", "-", file.stem).lstrip("_.-")[:100] or None
    return build(merged, where=str(file))


def merge(data: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Apply `key=value` texts to nested settings; values are read as YAML."""
    merged: dict[str, Any] = {k: dict(v) if isinstance(v, dict) else v for k, v in data.items()}
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"Cannot read the override {text!r}: write key=value.")
        *parents, last = key.strip().split(".")
        if len(parents) == 0 and last in SHORTHANDS:
            stage, field = SHORTHANDS[last]
            block = merged.get(stage)
            if isinstance(block, dict) and field in block:
                block.pop(field)
        for short, (stage, field) in SHORTHANDS.items():
            # The long form of a setting that the file gives by its short name.
            if parents[:1] == [stage] and short in merged:
                value_of = merged.pop(short)
                block = value_of if isinstance(value_of, dict) else {field: value_of}
                merged[stage] = {**(merged.get(stage) or {}), **block}
        node = merged
        for parent in parents:
            child = node.get(parent)
            if isinstance(child, str) and parent in ("pool", "target"):
                child = {"location": child}
            if child is None or not isinstance(child, dict):
                child = {} if child is None else child
            if not isinstance(child, dict):
                raise ConfigError(f"Cannot set {key!r}: {parent!r} holds {child!r}, not a block.")
            node[parent] = dict(child)
            node = node[parent]
        try:
            # YAML has no use for a back quote, which names of tables begin with.
            node[last] = value if value.startswith("`") else yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigError(f"Cannot read the value of the override {text!r}: {error}") from error
    return merged


def build(data: Mapping[str, Any], *, where: str = "the settings") -> RunSettings:
    """Validate settings.

    Raises:
        ConfigError: With one line per problem; an unknown key names the nearest known one.
    """
    try:
        return RunSettings.model_validate(dict(data))
    except ValidationError as error:
        lines = [_explain(dict(item)) for item in error.errors(include_url=False)]
        text = "\n".join(f"  - {line}" for line in lines)
        raise ConfigError(f"{len(lines)} problem(s) in {where}:\n{text}") from None


def _explain(error: dict[str, Any]) -> str:
    path = [str(part) for part in error["loc"]]
    where = ".".join(path)
    if error["type"] == "extra_forbidden":
        known = _known_keys(path[:-1])
        near = difflib.get_close_matches(path[-1], known, n=1, cutoff=0.5)
        hint = f"did you mean '{near[0]}'?" if near else f"known keys: {', '.join(known)}."
        return f"unknown key '{where}': {hint}"
    if error["type"] == "missing":
        return f"'{where}' is missing."
    message = str(error["msg"]).removeprefix("Value error, ")
    if not where:  # of several settings: the message names them
        return message
    return f"'{where}': {message} (got {error.get('input')!r})"


def _known_keys(path: list[str]) -> list[str]:
    model: type[BaseModel] = RunSettings
    for part in path:
        field = model.model_fields.get(part)
        if field is None:
            continue
        inner_model = _model_in(field.annotation)
        if inner_model is not None:
            model = inner_model
    return sorted([*model.model_fields, *(SHORTHANDS if model is RunSettings else ())])


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        inner_model = _model_in(inner)
        if inner_model is not None:
            return inner_model
    return None
