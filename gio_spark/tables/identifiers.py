"""Names of tables and paths: classification, checks and quoting."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from gio_spark.errors import IdentifierError

_PART = r"[A-Za-z_][A-Za-z0-9_]*|`(?:[^`]|``)+`"
_PARTS = re.compile(rf"({_PART})(?:\.({_PART}))?(?:\.({_PART}))?")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:/", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def kind_of(location: str) -> Literal["path", "table"]:
    """Kind of a location: a path, or the name of a table.

    A path holds a slash, starts with a dot, or exists; anything else must be a name of one to
    three parts, plain or in back quotes. What has a part in back quotes is a name.

    Raises:
        IdentifierError: It is neither.
    """
    if _CONTROL.search(location):
        raise IdentifierError(f"The location {location!r} holds control characters.")
    if "`" in location and _PARTS.fullmatch(location):
        return "table"
    if "/" in location or "\\" in location or location.startswith((".", "~")):
        return "path"
    if _SCHEME.match(location) or Path(location).exists():
        return "path"
    parts(location)
    return "table"


def is_schema(location: str) -> bool:
    """Whether a workspace is a schema: a dotted or quoted name; a bare word is a folder."""
    may_be_name = "." in location.strip(".") or location.startswith("`")
    return may_be_name and kind_of(location) == "table"


def parts(name: str) -> list[str]:
    """Split a table or schema name into its checked parts, without their back quotes.

    Raises:
        IdentifierError: A part is neither plain nor in back quotes, or there are more than three.

    Example:
        >>> parts("`raw-data`.`2024`.t")
        ['raw-data', '2024', 't']
    """
    match = _PARTS.fullmatch(name)
    if match is None:
        raise IdentifierError(
            f"{name!r} is neither an existing path nor a table's name. A name has one to three "
            "parts of letters, digits and underscores (catalog.schema.table), without blanks or "
            "semicolons; other parts stand in back quotes (`raw-data`.t). A path holds a slash."
        )
    return [
        part[1:-1].replace("``", "`") if part.startswith("`") else part
        for part in match.groups()
        if part is not None
    ]


def quoted(name: str) -> str:
    """Quote a checked name for SQL text."""
    return ".".join(map(quoted_column, parts(name)))


def quoted_path(path: str) -> str:
    """Quote a Delta path for SQL text: delta.`path`."""
    return "delta.`" + path.replace("`", "``") + "`"


def quoted_column(name: str) -> str:
    """Quote a column name, whatever it holds, for `F.col` and SQL text."""
    return "`" + name.replace("`", "``") + "`"


def is_remote_path(path: str) -> bool:
    """Whether a path names a storage scheme (s3://, abfss://, dbfs:/ and so on)."""
    return bool(_SCHEME.match(path)) and not path.lower().startswith("file:")


def absolute(path: str) -> str:
    """A local path as an absolute one; remote ones stay as they are."""
    if is_remote_path(path):
        return path.rstrip("/")
    if path.lower().startswith("file:"):
        path = re.sub(r"^file:(//)?", "", path, flags=re.IGNORECASE)
    return str(Path(path).expanduser().absolute())
