"""Names of tables and paths: classification, checks and quoting."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from gio_spark.errors import IdentifierError

_PART = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:/", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def kind_of(location: str) -> Literal["path", "table"]:
    """Kind of a location: a path, or the name of a table.

    A path holds a slash, starts with a dot, or exists; anything else must be a name of one to
    three plain parts.

    Raises:
        IdentifierError: It is neither.
    """
    if _CONTROL.search(location):
        raise IdentifierError(f"The location {location!r} holds control characters.")
    if "/" in location or "\\" in location or location.startswith((".", "~")):
        return "path"
    if _SCHEME.match(location) or Path(location).exists():
        return "path"
    parts(location)
    return "table"


def is_schema(location: str) -> bool:
    """Whether a workspace is a schema: a dotted plain name; a bare word is a folder."""
    return "." in location.strip(".") and kind_of(location) == "table"


def parts(name: str) -> list[str]:
    """Split a table or schema name into its checked parts.

    Raises:
        IdentifierError: A part is not a plain identifier, or there are more than three.
    """
    split = name.split(".")
    if len(split) > 3 or not all(_PART.fullmatch(part) for part in split):
        raise IdentifierError(
            f"{name!r} is neither an existing path nor a table's name. A name has one to three "
            "parts of letters, digits and underscores (catalog.schema.table), without quotes, "
            "blanks or semicolons; a path holds a slash."
        )
    return split


def quoted(name: str) -> str:
    """Quote a checked name for SQL text."""
    return ".".join(f"`{part}`" for part in parts(name))


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
