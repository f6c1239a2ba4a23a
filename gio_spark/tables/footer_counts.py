"""Rows of Parquet files by their footers, beside the rows that an engine reads of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import functions as F

from gio_spark.engine import bounded
from gio_spark.errors import InputError
from gio_spark.tables.identifiers import is_remote_path, quoted_column

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from gio_spark.settings.columns import Columns
    from gio_spark.tables.file_list import FileList

_FOOTERS = 64


def check_footers(name: str, count: int, raw: DataFrame, columns: Columns, files: FileList) -> None:
    """Refuse Parquet files of which the engine read more or fewer rows than their footers say.

    An engine that is set to ignore corrupt or missing files leaves out their rows in silence.

    Args:
        name: Of the input, for messages.
        count: Rows that were read.
        raw: The rows.
        columns: Roles of their columns.
        files: The files.

    Raises:
        InputError: The numbers differ.
    """
    footers = _footer_rows(files)
    if footers is None or (
        None not in footers.values() and sum(n or 0 for n in footers.values()) == count
    ):
        return
    odd = [path for path, rows in footers.items() if rows is None and not _is_encrypted(path)]
    if None in footers.values() and not odd:
        return  # rows of encrypted footers are unknown
    read = {} if odd else _rows_by_file(raw, columns)
    odd = odd or [path for path, rows in footers.items() if read and read.get(path, 0) != rows]
    which = ", ".join(odd[:3]) + (f" and {len(odd) - 3:,} more" if len(odd) > 3 else "")
    rows = sum(n or 0 for n in footers.values())
    raise InputError(
        f"{name}: {files.root}: the engine read "
        f"{count:,} rows, and the footers of the files say {rows:,}. "
        f"Files that differ or cannot be read: {which or 'not known'}. Renew or leave "
        "out broken files; Spark also passes over files "
        "beside partition folders (name=value): move those."
    )


def _rows_by_file(raw: DataFrame, columns: Columns) -> dict[str, int]:
    """Rows that the engine reads of each file; empty where it does not give file names."""
    # A bare count would be answered from the footers, so the columns of the first pass are read.
    named = [columns.id] if columns.id is not None else columns.content()
    read = [column for column in named if column in raw.columns] or raw.columns[:1]
    hashed = F.max(F.hash(*[F.col(quoted_column(c)) for c in read]))
    try:
        per_file = raw.groupBy(F.col("_metadata.file_path").alias("path"))
        counted = per_file.agg(F.count(F.lit(1)).alias("count"), hashed.alias("hash"))
        rows = bounded(counted, 1_000, "files").to_pylist()
    except Exception:  # noqa: BLE001 - the embedded engine has no such column
        return {}
    return {unquote(urlsplit(row["path"]).path): int(row["count"]) for row in rows}


def _footer_rows(files: FileList) -> dict[str, int | None] | None:
    """Rows of each Parquet file by its footer; None for many or remote files.

    Returns:
        Path -> rows, or None where the footer cannot be read; or None.
    """
    if files.spark or is_remote_path(files.root) or len(files.files) > _FOOTERS:
        return None
    rows: dict[str, int | None] = {}
    for path, length, _ in files.files:
        try:
            rows[path] = pq.read_metadata(path).num_rows if length else 0
        except (pa.ArrowException, OSError):
            rows[path] = None
    return rows


def _is_encrypted(path: str) -> bool:
    """Whether a Parquet file's footer is encrypted, so that only the engine may read it."""
    try:
        with Path(path).open("rb") as file:
            return file.read(4) == b"PARE"
    except OSError:
        return False
