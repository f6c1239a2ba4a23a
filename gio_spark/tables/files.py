"""Lists of input files: found, pinned by path, length and time, and checked again later."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from gio_spark.errors import InputError, SnapshotExpiredError, WorkspaceError
from gio_spark.tables.names import absolute, is_remote_path

_COMPRESSED = (".gz", ".bz2", ".zst", ".lz4")
_SUFFIXES = {
    ".parquet": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
}
# A listing travels to the driver; corpora of more files than this belong in a Delta table.
MAX_FILES = 200_000
_FOOTERS = 64
_FILE_COST = 4 << 20  # spark.sql.files.openCostInBytes


@dataclass(frozen=True)
class FileList:
    """The files of an input, in order of their paths.

    Attributes:
        root: Location that was listed.
        files: (path, length in bytes, modification time in ns) of each.
    """

    root: str
    files: tuple[tuple[str, int, int], ...]

    @property
    def version(self) -> str:
        """32 hex characters that change when a file comes, goes, grows or is written again."""
        digest = hashlib.sha256()
        for path, length, time in self.files:
            digest.update(f"{path}\0{length}\0{time}\n".encode())
        return digest.hexdigest()[:32]

    @property
    def bytes(self) -> int:
        """Total length of the files."""
        return sum(length for _, length, _ in self.files)


def filesystem(location: str) -> tuple[pafs.FileSystem, str]:
    """Return the file system of a location and its path there.

    Raises:
        InputError: There is no file system for its scheme.
    """
    if not is_remote_path(location):
        return pafs.LocalFileSystem(), absolute(location)
    try:
        return pafs.FileSystem.from_uri(location)
    except (OSError, ValueError) as error:
        raise InputError(
            f"Cannot list the files of {location}: {error}. Give a Delta or Parquet table by its "
            "catalog name, or a path that this process can open."
        ) from error


def list_files(location: str) -> FileList:
    """List the data files below a location; names starting with '_' or '.' are left out.

    Raises:
        InputError: Nothing is there, or it cannot be read.
    """
    store, path = filesystem(location)
    try:
        info = store.get_file_info(path)
        if info.type == pafs.FileType.NotFound:
            raise InputError(
                f"Nothing found at {location}. Check the path; a table is given by its name."
            )
        infos: Iterable[Any] = [info]
        if info.type == pafs.FileType.Directory:
            infos = store.get_file_info(pafs.FileSelector(path, recursive=True))
    except OSError as error:
        raise InputError(f"Cannot read {location}: {error}") from error
    found = []
    for item in infos:
        if item.type != pafs.FileType.File:
            continue
        below = PurePosixPath(item.path[len(path) :].lstrip("/") or item.base_name)
        if any(part.startswith(("_", ".")) for part in below.parts):
            continue
        found.append((item.path, int(item.size), int(item.mtime_ns or 0)))
    if not found:
        raise InputError(f"No files found in {location}.")
    if len(found) > MAX_FILES:
        raise InputError(
            f"{location} holds {len(found):,} files, more than {MAX_FILES:,}: "
            "write them to a Delta table first."
        )
    return FileList(location, tuple(sorted(found)))


def fullest_share(files: FileList, tasks: int) -> float | None:
    """Return the share of the rows that the fullest of Spark's tasks over Parquet files gets.

    Spark cuts files by bytes into as many pieces as there are cores, and reads a row group in the
    piece that its middle lies in.

    Args:
        files: Parquet files.
        tasks: Cores.

    Returns:
        A share, or None where it is not known: of many or of remote files no footer is read.
    """
    if is_remote_path(files.root) or len(files.files) > _FOOTERS:
        return None
    cut = max(_FILE_COST, (files.bytes + len(files.files) * _FILE_COST) / tasks)
    rows: Counter[tuple[str, int]] = Counter()
    try:
        for path, length, _ in files.files:
            found = pq.read_metadata(path)
            groups = [found.row_group(i) for i in range(found.num_row_groups)]
            starts = [g.column(0).dictionary_page_offset or g.column(0).data_page_offset
                      for g in groups]  # fmt: skip
            for group, start, end in zip(groups, starts, [*starts[1:], length], strict=True):
                rows[path, int((start + end) / 2 // cut)] += group.num_rows
    except (pa.ArrowException, OSError):
        return None  # whoever reads the file says what is wrong with it
    return max(rows.values(), default=0) / max(1, rows.total())


def check_unchanged(before: FileList) -> None:
    """Raise where files changed since they were listed.

    Raises:
        SnapshotExpiredError: With the first file that differs.
    """
    now = list_files(before.root)
    if now.files == before.files:
        return
    differing = sorted(set(now.files) ^ set(before.files))
    raise SnapshotExpiredError(
        f"The files of {before.root} changed during the run (first: {differing[0][0]}). "
        "Run again when nothing writes there, or read from a Delta table, which is pinned."
    )


def format_of(files: FileList) -> str:
    """Tell the format from the files' names.

    Raises:
        InputError: They are of no known format, or of several.
    """
    kinds = set()
    for path, _, _ in files.files:
        pure = PurePosixPath(path)
        suffixes = [s for s in pure.suffixes if s not in _COMPRESSED]
        kinds.add(_SUFFIXES.get(suffixes[-1].lower() if suffixes else "", pure.name))
    if len(kinds) == 1 and kinds <= set(_SUFFIXES.values()):
        return kinds.pop()
    shown = ", ".join(sorted(kinds)[:5])
    raise InputError(
        f"Cannot tell the format of {files.root} from its files ({shown}). Set format to delta, "
        "parquet, jsonl or csv, or give a folder with files of one kind."
    )


def check_writable(folder: Path) -> None:
    """Make a folder where there is none, and write to it.

    Raises:
        WorkspaceError: It cannot be written.
    """
    probe = folder / ".gio-spark-write-check"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise WorkspaceError(
            f"Cannot write to the workspace {folder}: {error.strerror}. Give another folder with "
            "workspace: PATH, or mend its permissions."
        ) from error
