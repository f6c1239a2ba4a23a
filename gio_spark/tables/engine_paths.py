"""Paths that the embedded engine misreads, replaced by symbolic links with plain names.

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
    """Absolute path of a location for the session's engine."""
    return plain_path(location) if describe(spark).kind == "embedded" else absolute(location)


def plain_path(location: str) -> str:
    """Absolute path without special characters that leads to a location."""
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
    """Folder of the links of this process."""
    return temporary_folder("gio-spark-paths-")
