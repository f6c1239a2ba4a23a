"""The documentation and the package agree on the public names."""

from __future__ import annotations

import importlib
import importlib.util
import re
from pathlib import Path

import pytest
from pydantic import BaseModel

import gio_spark
from gio_spark.settings.run import RunSettings

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NAME = r"[A-Za-z_][A-Za-z0-9_]*"


def exists(dotted: str) -> bool:
    """Whether a dotted name is a module of the package, or an attribute of one."""
    module, attributes = dotted, []
    while module:
        try:
            value = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if not module.startswith(error.name or "?"):
                raise
            module, _, last = module.rpartition(".")
            attributes.insert(0, last)
            continue
        for attribute in attributes:
            if not hasattr(value, attribute):
                return False
            value = getattr(value, attribute)
        return True
    return False


def imported(text: str) -> dict[str, str]:
    """Names that `from gio_spark... import a, b as c` binds, with the dotted name of each."""
    names = {}
    pattern = rf"from (gio_spark(?:\.{NAME})*) import (?:\(([^)]*)\)|([^\n#`]+))"
    for module, block, line in re.findall(pattern, text):
        for part in (block or line).split(","):
            words = part.split()
            if words and re.fullmatch(NAME, words[0]):
                names[words[-1]] = f"{module}.{words[0]}"
    return names


def is_setting(path: str) -> bool:
    """Whether a dotted name begins with one of a run's settings."""
    model: object = RunSettings
    for part in path.split("."):
        fields = model.model_fields if isinstance(model, type) else {}
        if part not in fields:
            return False
        model = fields[part].annotation
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            return True
    return True


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_names_that_a_page_uses_exist(page: Path):
    text = page.read_text(encoding="utf-8")
    bound = imported(text)
    used = set(bound.values())
    used |= set(re.findall(rf"\bgio_spark(?:\.{NAME})+", text))
    unknown = {dotted for dotted in used if not exists(dotted)}
    for alias, dotted in bound.items():
        module = importlib.util.find_spec(dotted) if dotted.count(".") == 1 else None
        if module is None:
            continue
        # `gime.level` is a setting and `gime.states(...)` a function: both are written alike.
        for name, call in re.findall(rf"(?<![\w./-]){alias}\.({NAME})(\(?)", text):
            if not hasattr(importlib.import_module(dotted), name) and (
                call or not is_setting(f"{alias}.{name}")
            ):
                unknown.add(f"{dotted}.{name}")
    assert unknown == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_a_page_names_exist(page: Path):
    text = page.read_text(encoding="utf-8")
    paths = re.findall(r"\b((?:gio_spark|jobs|tools|benchmarks|deploy)/[\w./-]+\.\w+)", text)
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_names_in_the_guide_for_developers_exist():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    code = " ".join(re.findall(r"`([^`\n]+)`", text))
    used = set(re.findall(rf"\b(?:engine|tables|pipeline)(?:\.{NAME})+", code))
    assert {name for name in used if not exists(f"gio_spark.{name}")} == set()
    files = re.findall(r"`((?:pipeline|stages|constraints|commands)/\w+)(?:\.py)?`", text)
    roots = (ROOT / "gio_spark", ROOT / "gio_spark" / "pipeline")
    assert [f for f in files if not any((root / f"{f}.py").exists() for root in roots)] == []


def test_every_public_name_is_described():
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    missing = [name for name in gio_spark.__all__ if not re.search(rf"`{name}\b", text)]
    assert missing == [], "describe these in README.md or docs/"


def test_every_public_name_can_be_imported():
    assert [name for name in gio_spark.__all__ if not hasattr(gio_spark, name)] == []


def test_a_name_that_is_not_there_is_noticed():
    assert exists("gio_spark.gio.select") and not exists("gio_spark.gio.no_such_name")
    assert not exists("gio_spark.no_such_module.name")
    assert is_setting("gime.level") and not is_setting("gime.no_such_setting")
    assert imported("from gio_spark.gio import (\n  select,\n  register as r,\n)") == {
        "select": "gio_spark.gio.select",
        "r": "gio_spark.gio.register",
    }
