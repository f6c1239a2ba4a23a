"""Lists of input files: listing, pinning by marks of their content, and checks for changes."""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote

import pyarrow.fs as pafs

from gio_spark.errors import InputError, SnapshotExpiredError, WorkspaceError
from gio_spark.tables.identifiers import absolute, is_remote_path
from gio_spark.tables.spark_files import (
    files_listed_by_spark,
    is_listed_by_spark,
    without_scheme,
)

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from gio_spark.settings.inputs import Verify

_COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".zstd": "zstd", ".lz4": "lz4"}
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
_NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"


# Checksums of an object in stores, the best first: S3 and Azure the ETag; Google an MD5,
# which composed objects lack. Content-MD5 is set by a writer, and later writes may leave it.
_CHECKS = ("ETag", "md5Hash", "etag", "crc32c")
_PARALLEL_REQUESTS = 16
_PARALLEL_HASHES = 8
_BLOCK = 4 << 20
# Names of files in a message; more are counted.
_NAMED = 3


class DataFile(NamedTuple):
    """One file of an input.

    Attributes:
        path: Where its file system finds it.
        length: In bytes.
        marks: (name, value) of marks of its content: modified, changed, ETag, content, ...
    """

    path: str
    length: int
    marks: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class FileList:
    """The files of an input, in order of their paths.

    Attributes:
        root: Location that was listed.
        files: The files.
        verify: How they are pinned.
        kind: Format that settings name; "auto" where they name none.
        left_out: Paths of files of another kind, which are not read.
        spark: Session that lists and opens the files; None where each process does so itself.
        is_part: Whether other files below the root are read as well, but not here.
    """

    root: str
    files: tuple[DataFile, ...]
    verify: Verify = "listing"
    kind: str = "auto"
    left_out: tuple[str, ...] = ()
    spark: SparkSession | None = field(default=None, repr=False, compare=False)
    is_part: bool = False

    @property
    def version(self) -> str:
        """32 hex characters that change when a file comes, goes, grows or is written again."""
        digest = hashlib.sha256(self.verify.encode())
        for path, length, marks in self.files:
            digest.update(f"{path}\0{length}\0{marks}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()[:32]

    @property
    def bytes(self) -> int:
        """Total length of the files."""
        return sum(length for _, length, _ in self.files)


def compression_of(path: str) -> str | None:
    """Compression of a file by the ending of its name, as Arrow calls it."""
    return next((c for ending, c in _COMPRESSIONS.items() if path.endswith(ending)), None)


def filesystem(location: str) -> tuple[pafs.FileSystem, str]:
    """The file system of a location and its path there.

    Raises:
        InputError: There is no file system for its scheme.
    """
    if not is_remote_path(location):
        return pafs.LocalFileSystem(), absolute(location)
    try:
        return pafs.FileSystem.from_uri(location)
    except (OSError, ValueError) as error:
        raise InputError(
            f"Cannot list the files of {location}: {error}. Run with engine: spark, whose Hadoop "
            "file systems open it, or give a path that this process can open (s3://, gs://)."
        ) from error


def relative_path(root: str, path: str) -> PurePosixPath:
    """Path of a file below the location that was listed."""
    if is_remote_path(path):  # as Spark lists it
        top, path = without_scheme(root), without_scheme(path)
    else:
        _, top = filesystem(root)
    return PurePosixPath(path[len(top) :].lstrip("/"))


def partition_values(root: str, path: str) -> dict[str, str | None]:
    """Columns that the folders of a file name, as in `lang=en/part-0.jsonl`, with their values."""
    folders = relative_path(root, path).parent.parts
    parts = (folder.partition("=") for folder in folders if "=" in folder)
    return {name: None if value == _NULL_PARTITION else unquote(value) for name, _, value in parts}


def list_files(
    location: str,
    verify: Verify = "listing",
    kind: str = "auto",
    spark: SparkSession | None = None,
) -> FileList:
    """List the data files below a location; names starting with '_' or '.' are left out.

    Args:
        location: A folder or one file.
        verify: Whether files are identified by the marks of their store, or by their bytes,
            all of which are then read.
        kind: Format that settings name. Where some files have an ending of that format, the others
            (a README beside them) are left out.
        spark: Session that lists the files where this process cannot.

    Raises:
        InputError: Nothing is there, or it cannot be read.
    """
    if spark is not None and is_listed_by_spark(spark, location):
        listed_files = [
            DataFile(*one)
            for one in files_listed_by_spark(
                spark, location, MAX_FILES, by_content=verify == "content"
            )
        ]
        if not listed_files:
            raise InputError(f"Nothing found at {location}. Check the path and its permissions.")
        chosen, left_out = _of_kind(listed_files, kind)
        return FileList(location, tuple(chosen), verify, kind, tuple(left_out), spark)
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
        files = sorted(
            (item for item in infos if item.type == pafs.FileType.File and _is_data(item, path)),
            key=lambda item: item.path,
        )
        if not files:
            raise InputError(f"No files found in {location}.")
        files, left_out = _of_kind(files, kind)
        if len(files) > MAX_FILES:
            raise InputError(
                f"{location} holds {len(files):,} files, more than {MAX_FILES:,}: "
                "write them to a Delta table first."
            )
        marks = _contents(store, files) if verify == "content" else _marks(store, files)
    except OSError as error:
        raise InputError(f"Cannot read {location}: {error}") from error
    listed = (DataFile(f.path, int(f.size), m) for f, m in zip(files, marks, strict=True))
    return FileList(location, tuple(listed), verify, kind, tuple(left_out))


def _of_kind(files: list[Any], kind: str) -> tuple[list[Any], list[str]]:
    """Files of a format, all where there are none of it, and the paths of the others."""
    of_kind = [f for f in files if _kind_of(f.path) == kind]
    left_out = [f.path for f in files if _kind_of(f.path) != kind] if of_kind else []
    return of_kind or files, left_out


def _is_data(item: Any, root: str) -> bool:
    """Whether engines read a file: below no hidden name; `_name=value` is a partition."""
    below = PurePosixPath(item.path[len(root) :].lstrip("/") or item.base_name)
    return not any(
        part.startswith(".") or (part.startswith("_") and "=" not in part) for part in below.parts
    )


def _marks(store: pafs.FileSystem, files: list[Any]) -> list[tuple[tuple[str, str], ...]]:
    if isinstance(store, pafs.LocalFileSystem):
        # The change time is the file system's own: whoever writes a file and sets its time back
        # cannot set this one back.
        return [
            (("modified", str(status.st_mtime_ns)), ("changed", str(status.st_ctime_ns)))
            for status in (Path(file.path).stat() for file in files)
        ]
    # Listings of remote stores hold no checksum, so each object is asked for its own, unless the
    # store has none to give.
    checks: list[tuple[str, str] | None] = [_check(store, files[0])]
    if checks[0] is not None:
        checks += _map_parallel(lambda file: _check(store, file), files[1:], _PARALLEL_REQUESTS)
    else:
        checks += [None] * (len(files) - 1)
    return [
        (check or ("modified", str(file.mtime_ns or 0)),)
        for file, check in zip(files, checks, strict=True)
    ]


def _check(store: pafs.FileSystem, file: Any) -> tuple[str, str] | None:
    """The name and value of the best checksum that a store has of an object."""
    with store.open_input_file(file.path) as opened:
        known = opened.metadata() or {}
    texts = {_text(name): _text(value) for name, value in known.items()}
    return next(((name, texts[name]) for name in _CHECKS if texts.get(name)), None)


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _contents(store: pafs.FileSystem, files: list[Any]) -> list[tuple[tuple[str, str], ...]]:
    def content(file: Any) -> tuple[tuple[str, str], ...]:
        digest = hashlib.sha256()
        block = bytearray(min(_BLOCK, max(1, int(file.size))))
        view = memoryview(block)
        with store.open_input_stream(file.path, compression=None) as stream:
            while length := stream.readinto(block):
                digest.update(view[:length])
        return (("content", digest.hexdigest()),)

    return _map_parallel(content, files, min(_PARALLEL_HASHES, os.cpu_count() or 1))


def _map_parallel(call: Callable[[Any], Any], files: list[Any], threads: int) -> list[Any]:
    with ThreadPoolExecutor(threads, "gio-spark-files") as pool:
        return list(pool.map(call, files))


def check_unchanged(before: FileList) -> None:
    """Raise where files changed since they were listed.

    Raises:
        SnapshotExpiredError: With how many files came, went or were written again, the first of
            them by name, and the marks that differ.
    """
    way_out = "Run again when nothing writes there, or read from a Delta table, which is pinned."
    try:
        now = list_files(before.root, before.verify, before.kind, before.spark)
    except InputError as error:
        raise SnapshotExpiredError(
            f"The files of {before.root} cannot be listed any more, so they may have changed "
            f"during the run: {error}",
            location=before.root,
            path=before.root,
        ) from error
    if now.files == before.files:
        return
    old, new = ({file.path: file for file in one.files} for one in (before, now))
    groups = {
        "written again": [
            (path, _differing(old[path], new[path]))
            for path in old
            if path in new and new[path] != old[path]
        ],
        "added": [(path, "") for path in new if path not in old],
        "gone": [(path, "") for path in old if path not in new],
    }
    what = ", ".join(_group(kind, files) for kind, files in groups.items() if files)
    raise SnapshotExpiredError(
        f"The files of {before.root} changed during the run: {what}. {way_out}",
        location=before.root,
        path=next(files[0][0] for files in groups.values() if files),
    )


def _differing(old: DataFile, new: DataFile) -> str:
    """Names of the marks that differ between two states of a file: length, modified, ETag, ..."""
    marks = {name for name, _ in set(old.marks) ^ set(new.marks)}
    order = [name for name, _ in (*old.marks, *new.marks)]
    names = [name for name in dict.fromkeys(order) if name in marks]
    return ", ".join(["length", *names] if old.length != new.length else names)


def _group(kind: str, files: list[tuple[str, str]]) -> str:
    named = [f"{path} ({what})" if what else path for path, what in files[:_NAMED]]
    more = ["..."] if len(files) > _NAMED else []
    return f"{len(files):,} {kind} [{', '.join(named + more)}]"


def _kind_of(path: str) -> str:
    """Format by the ending of a file's name, else its name."""
    pure = PurePosixPath(path)
    suffixes = [s for s in pure.suffixes if s not in _COMPRESSIONS]
    return _SUFFIXES.get(suffixes[-1].lower() if suffixes else "", pure.name)


def format_of(files: FileList) -> str:
    """Format of the files, by their names.

    Raises:
        InputError: They are of no known format, or of several.
    """
    kinds = set()
    for path, _, _ in files.files:
        kinds.add(_kind_of(path))
    if len(kinds) == 1 and kinds <= set(_SUFFIXES.values()):
        return kinds.pop()
    kinds_text = ", ".join(sorted(kinds)[:5])
    raise InputError(
        f"Cannot tell the format of {files.root} from its files ({kinds_text}). Set format to "
        "delta, parquet, jsonl or csv, or give a folder with files of one kind."
    )


def check_writable(folder: Path, *, create: bool) -> None:
    """Make a folder where there is none, and write to it; or only look whether that can be done.

    Raises:
        WorkspaceError: It cannot be written.
    """
    try:
        if create:
            folder.mkdir(parents=True, exist_ok=True)
            # A name of its own: several processes may open one workspace at once.
            with tempfile.TemporaryFile(dir=folder):
                pass
            return
        nearest = next(place for place in (folder, *folder.parents) if place.exists())
        if not nearest.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if not os.access(nearest, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise WorkspaceError(
            f"Cannot write to the workspace {folder}: {error.strerror}. Give another folder with "
            "workspace: PATH, or mend its permissions."
        ) from error
