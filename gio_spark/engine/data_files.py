"""Data files that an engine's error speaks of: their plain path, and what a look at them says."""

from __future__ import annotations

import json
import re
from pathlib import Path

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:/", re.IGNORECASE)

# An error's message is worth so many files, and so many bytes of them, and no more.
_MOST_FILES = 10_000
_MOST_BYTES = 1 << 30
_MOST_COMMITS = 1_000


def plain(path: str, location: str | None = None) -> str:
    """Return a file's path as people write it: without `file:`, absolute, without our links."""
    path = re.sub(r"^file:(?://)?(?=/)", "", path.strip().strip("'\""), flags=re.IGNORECASE)
    if _SCHEME.match(path):
        return path
    is_local = location is not None and not _SCHEME.match(location)
    if not path.startswith("/") and (is_local or Path("/" + path).parent.is_dir()):
        # The embedded engine leaves the first slash out.
        path = "/" + path
    return str(Path(path).resolve()) if "/gio-spark-paths-" in path else path


def removed_in(path: str | None) -> int | None:
    """Return the version that took a file out of its Delta table; None: still in it, or unknown."""
    if path is None or _SCHEME.match(path):
        return None
    file = Path(path)
    try:
        table = next((p for p in file.parents if (p / "_delta_log").is_dir()), None)
        if table is None:
            return None
        commits = sorted((table / "_delta_log").glob("[0-9]*.json"), reverse=True)
        for commit in commits[:_MOST_COMMITS]:
            for line in commit.read_text(encoding="utf-8").splitlines():
                if file.name not in line:
                    continue
                action = json.loads(line)
                if "remove" in action:
                    return int(commit.stem)
                if "add" in action:
                    return None
    except (OSError, ValueError):
        return None
    return None


def first_broken(location: str) -> str | None:
    """Return the first Parquet file below a local path that cannot be read, None: all can."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if _SCHEME.match(location):
        return None
    root = Path(location)
    try:
        files = [root] if root.is_file() else sorted(root.rglob("*.parquet"))[:_MOST_FILES]
    except OSError:
        return None
    for read_rows in (False, True):
        left = _MOST_BYTES
        for file in files:
            try:
                opened = pq.ParquetFile(file)
                left -= file.stat().st_size
                if read_rows and left > 0:
                    for _ in opened.iter_batches():
                        pass
            except (pa.ArrowException, OSError):
                return str(file)
    return None
