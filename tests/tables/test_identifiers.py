"""Names of tables: parts, plain or in back quotes, are quoted and never pasted."""

from __future__ import annotations

from pathlib import Path

import pytest

from gio_spark.errors import IdentifierError
from gio_spark.settings.load import merge
from gio_spark.settings.relative_paths import with_absolute_paths
from gio_spark.tables.identifiers import is_schema, kind_of, parts, quoted

NAMES = {
    "t": ["t"],
    "main.gio.t": ["main", "gio", "t"],
    "`raw-data`.`2024`.t": ["raw-data", "2024", "t"],
    "`a.b`": ["a.b"],
    "main.`a/b`.`c d`": ["main", "a/b", "c d"],
    "`tick``s`.t": ["tick`s", "t"],
    "`x; DROP TABLE y`": ["x; DROP TABLE y"],
}


@pytest.mark.parametrize("name", NAMES)
def test_names_have_parts_that_are_quoted_again(name):
    assert kind_of(name) == "table" and parts(name) == NAMES[name]
    assert quoted(name) == ".".join("`" + part.replace("`", "``") + "`" for part in NAMES[name])
    assert parts(quoted(name)) == NAMES[name]


@pytest.mark.parametrize(
    "name",
    [
        "`open.t",
        "``",
        "`a`b",
        "`a`; DROP TABLE x",
        "a`b`.c",
        "`a`.",
        "a.b.c.d",
        "`a\n`.t",
        "2024.t",
    ],
)
def test_what_is_no_name_is_refused(name):
    with pytest.raises(IdentifierError):
        kind_of(name)


@pytest.mark.parametrize("path", ["/data/`x`.t", "./`x`", "a/`b`"])
def test_paths_with_back_quotes_are_paths(path):
    assert kind_of(path) == "path"


def test_a_workspace_in_back_quotes_is_a_schema():
    assert is_schema("`raw-data`") and is_schema("main.`2024`") and not is_schema("folder")


def test_names_in_back_quotes_are_taken_from_overrides_and_files_as_they_are():
    name = "`raw-data`.`a/b`.t"
    assert merge({}, [f"pool={name}"]) == {"pool": name}
    data = {"pool": name, "target": [{"location": name}], "workspace": "main.`a/b`"}
    assert with_absolute_paths(data, Path("/folder")) == data
