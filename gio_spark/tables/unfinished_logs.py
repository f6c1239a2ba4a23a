"""Remains of a first write that was cut short, in the log of a Delta table."""

from __future__ import annotations

import re
from pathlib import Path

from gio_spark.tables.stage_records import new_token

_COMMIT = re.compile(r"\d{20}\.json")
_CHECKSUM = re.compile(r"\.\d{20}\.json\.crc")


def clear_log(log: Path) -> None:
    """Remove empty commits, and checksums without a commit, from a log without a commit.

    Engines read the former as a table without a schema, and take the latter for a commit of
    another writer. Nothing else is touched: what a writer that was killed has left looks like what
    one that lives is about to commit.
    """
    names = {file.name for file in log.iterdir()} if log.is_dir() else set()
    for name in sorted(names):
        if _CHECKSUM.fullmatch(name) and name[1:-4] not in names:
            (log / name).unlink(missing_ok=True)
        elif _COMMIT.fullmatch(name) and _is_empty(log / name):
            # Moved first, and put back where another writer has committed in this moment.
            moved_file = log / f".{name}.{new_token()}.tmp"
            try:
                (log / name).rename(moved_file)
            except FileNotFoundError:  # another writer has cleared it
                continue
            if moved_file.stat().st_size:
                (log / name).hardlink_to(moved_file)
            moved_file.unlink()


def _is_empty(file: Path) -> bool:
    try:
        return file.stat().st_size == 0
    except FileNotFoundError:
        return False
