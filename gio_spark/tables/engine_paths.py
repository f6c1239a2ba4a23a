"""Paths that the embedded engine misreads, given to it by another name.

Sail 0.7 (and in part delta-rs) percent-encodes a blank, `#`, `%` or `ü` in the path of a Delta
table (`my data` becomes the folder `my%20data`) and takes `*`, `?` and `[` for patterns: it writes
where no other reader looks and finds nothing that another wrote. A symbolic link with a plain name
leads it right.
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from gio_spark.engine import describe
from gio_spark.process import temporary_folder
from gio_spark.tables.identifiers import absolute, is_remote_path

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_PLAIN = re.compile(r"[A-Za-z0-9_./+,=@:-]*")


def engine_path(spark: SparkSession, location: str) -> str:
    """The absolute path under which the session's engine finds what is at a location."""
    return plain_path(location) if describe(spark).kind == "embedded" else absolute(location)


def plain_path(location: str) -> str:
    """An absolute path without odd characters that leads to a location."""
    path = absolute(location)
    if is_remote_path(path) or _PLAIN.fullmatch(path):
        return path
    absolute_path = Path(path)
    # The link stands for the deepest folder with an odd name; what lies below is reached by it.
    odd = max(i for i, part in enumerate(absolute_path.parts) if not _PLAIN.fullmatch(part))
    target = Path(*absolute_path.parts[: odd + 1])
    link = _links() / hashlib.sha256(str(target).encode()).hexdigest()[:16]
    if not link.is_symlink():
        link.symlink_to(target)
    return str(link.joinpath(*absolute_path.parts[odd + 1 :]))


@lru_cache(maxsize=1)
def _links() -> Path:
    """This process's folder of links."""
    return temporary_folder("gio-spark-paths-")
