"""JSONL and CSV read by this package's own map, so that every engine reads the same rows.

Engines infer types and treat malformed lines differently (one of them fails the whole read on one
bad line). Here values are read as text, cast by their column's role, and a line that cannot be read
becomes a row of its own with the reason, to be put aside.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc

from gio_spark.engine import bounded, map_arrow
from gio_spark.engine.content_hash import content_hashes
from gio_spark.errors import InputError
from gio_spark.tables.casts import BAD, LINE, type_of, typed
from gio_spark.tables.csv_files import (
    CsvDialect,
    csv_tables,
    has_backslash_escapes,
    header_of,
)
from gio_spark.tables.files import FileList, compression_of, filesystem

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from gio_spark.settings.columns import Columns
    from gio_spark.settings.inputs import CsvSettings

_CHUNK = 32 << 20
_BLOCK = 4 << 20
_MAX_COLUMNS = 2_000
_NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"


def chunks(files: FileList, *, splittable: bool) -> list[tuple[str, int, int]]:
    """Cut files into (path, start, stop) pieces of about 32 MB; compressed ones stay whole."""
    pieces = []
    for path, length, _ in files.files:
        compressed = compression_of(path) is not None
        step = length if compressed or not splittable else _CHUNK
        pieces += [(path, s, min(s + step, length)) for s in range(0, length, max(step, 1))]
    return pieces


def read_lines(
    spark: SparkSession, files: FileList, kind: str, columns: Columns, csv: CsvSettings
) -> tuple[DataFrame, list[str]]:
    """Read JSONL or CSV files.

    Returns:
        Rows with the files' columns (typed by role, otherwise strings) and the columns
        `_malformed` and `_line`; and the files' own column names.

    Raises:
        InputError: A file cannot be read, or there are no columns, or too many.
    """
    if not files.bytes:
        raise InputError(f"{files.root} is empty: no line in it.")
    pieces = chunks(files, splittable=kind == "jsonl")
    table = pa.table(
        {
            "path": [p for p, _, _ in pieces],
            "start": pa.array([s for _, s, _ in pieces], pa.int64()),
            "stop": pa.array([e for _, _, e in pieces], pa.int64()),
        }
    )
    work = spark.createDataFrame(table).repartition(max(1, min(len(pieces), 1024)))
    root = files.root
    names, dialect = _column_names(work, root, kind, CsvDialect(csv), csv)
    schema = pa.schema(
        [pa.field(name, type_of(name, columns)) for name in names]
        + [pa.field(BAD, pa.string()), pa.field(LINE, pa.string())]
    )

    def read(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
        for piece in _pieces(batches):
            with _readable(piece[0]):
                for part in _parse(root, kind, piece, names, dialect):
                    yield typed(part, schema)

    return map_arrow(work, read, schema, batch_rows=1), names


def _pieces(batches: Iterator[pa.RecordBatch]) -> Iterator[tuple[str, int, int]]:
    for batch in batches:
        for row in batch.to_pylist():
            yield row["path"], row["start"], row["stop"]


@contextmanager
def _readable(path: str) -> Iterator[None]:
    """Turn what a broken file raises (half an archive, another format) into one clear error."""
    try:
        yield
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(
            f"Cannot read {path}: {error}. Is the file whole, and of the kind that its name or "
            "the setting format says?"
        ) from error


def _column_names(
    work: DataFrame, root: str, kind: str, dialect: CsvDialect, csv: CsvSettings
) -> tuple[list[str], CsvDialect]:
    """Names of all columns; of CSV files, also whether quotes are escaped by backslashes."""

    def keys(batches: Iterator[pa.RecordBatch]) -> Iterator[dict[str, Any]]:
        seen: set[str] = set()
        backslashes = False
        for piece in _pieces(batches):
            with _readable(piece[0]):
                if kind == "csv":
                    with _open(root, piece[0]) as stream:
                        seen.update(header_of(stream, piece[0], dialect))
                    if dialect.is_open and not backslashes:
                        with _open(root, piece[0]) as stream:
                            backslashes = has_backslash_escapes(stream, piece[0], dialect)
                else:
                    for values, _, _ in _json_rows(root, piece):
                        seen.update(values)
                seen.update(partition_values(root, piece[0]))
        names = sorted(seen)
        yield {"name": names, "backslashes": [backslashes] * len(names)}

    rows = map_arrow(work, keys, "name string, backslashes boolean", batch_rows=1).distinct()
    table = bounded(rows, 2 * _MAX_COLUMNS, f"column names in {root}")
    names = sorted(set(table["name"].to_pylist()))
    if not names:
        raise InputError(
            f"No columns found in {root}: is it {kind}? A line of JSONL is one object, "
            '{"id": ..., "text": ...}; one JSON array over the whole file is no JSONL.'
            if kind == "jsonl"
            else f"No columns found in {root}: is it {kind}?"
        )
    clash = [n for n in names if n in (BAD, LINE)]
    if clash:
        raise InputError(f"{root} has a column named {clash[0]!r}, which is reserved.")
    # One file with proof speaks for all: they were written together.
    return names, CsvDialect(csv, backslashes=any(table["backslashes"].to_pylist()))


def _parse(
    root: str, kind: str, piece: tuple[str, int, int], names: list[str], dialect: CsvDialect
) -> Iterator[pa.Table]:
    path = piece[0]
    values = partition_values(root, path)
    for table in _tables_of_file(root, kind, piece, names, dialect):
        for name, value in values.items():
            column = pa.array([value] * table.num_rows, pa.string())
            table = table.set_column(table.schema.get_field_index(name), name, column)
        yield table


def partition_values(root: str, path: str) -> dict[str, str | None]:
    """Columns that the folders of a file name, as in `lang=en/part-0.jsonl`, with their values."""
    _, top = filesystem(root)
    folders = PurePosixPath(path[len(top) :].lstrip("/")).parent.parts
    parts = (folder.partition("=") for folder in folders if "=" in folder)
    return {name: None if value == _NULL_PARTITION else unquote(value) for name, _, value in parts}


def _tables_of_file(
    root: str, kind: str, piece: tuple[str, int, int], names: list[str], dialect: CsvDialect
) -> Iterator[pa.Table]:
    if kind == "jsonl":
        yield from _json_tables(root, piece, names)
        return
    path = piece[0]
    with _open(root, path) as stream:
        header = header_of(stream, path, dialect)
    with _open(root, path) as stream:
        yield from csv_tables(stream, path, dialect, header, names)


def _open(root: str, path: str) -> Any:
    store, _ = filesystem(root)
    try:
        return store.open_input_stream(path, compression=compression_of(path))
    except OSError as error:
        raise InputError(f"Cannot read {path}: {error}") from error


# ---- JSONL -------------------------------------------------------------------------------------


def _json_lines(root: str, piece: tuple[str, int, int]) -> Iterator[bytes]:
    """Yield the lines that begin inside [start, stop), whichever chunk they end in."""
    path, start, stop = piece
    store, _ = filesystem(root)
    compressed = compression_of(path) is not None
    try:
        stream = _open(root, path) if compressed else store.open_input_file(path)
    except OSError as error:
        raise InputError(f"Cannot read {path}: {error}") from error
    with stream:
        rest = b""
        position = 0
        if not compressed and start > 0:
            stream.seek(start - 1)  # one byte back: a line that begins exactly at start is ours
            position = start - 1
            skipping = True
        else:
            skipping = False
        while True:
            block = stream.read(_BLOCK)
            if not block:
                break
            pieces = (rest + block).split(b"\n")
            rest = pieces.pop()
            for line in pieces:
                begins = position
                position += len(line) + 1
                if skipping:
                    skipping = False
                    continue
                if not compressed and begins >= stop:
                    return
                yield line
        if rest and not skipping and (compressed or position < stop):
            yield rest


def _json_rows(
    root: str, piece: tuple[str, int, int]
) -> Iterator[tuple[dict[str, Any], str | None, str | None]]:
    for raw in _json_lines(root, piece):
        line = raw.strip()
        if not line:
            continue
        try:
            value = json.loads(line)
            if not isinstance(value, dict):
                raise ValueError("not an object")
        except (ValueError, RecursionError) as error:
            reason = f"malformed line: {str(error)[:80]}"
            yield {}, reason, line.decode("utf-8", "replace")
            continue
        yield value, None, None


def _as_text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _json_tables(
    root: str, piece: tuple[str, int, int], names: list[str], rows: int = 8192
) -> Iterator[pa.Table]:
    held: dict[str, list[Any]] = {name: [] for name in [*names, BAD, LINE]}
    for values, reason, line in _json_rows(root, piece):
        for name in names:
            held[name].append(_as_text(values.get(name)))
        held[BAD].append(reason)
        held[LINE].append(line)
        if len(held[BAD]) == rows:
            yield _strings(held)
            held = {name: [] for name in held}
    if held[BAD]:
        yield _strings(held)


def _strings(columns: dict[str, list[Any]]) -> pa.Table:
    def array(values: list[Any]) -> pa.Array:
        try:
            return pa.array(values, pa.string())
        except (UnicodeEncodeError, pa.ArrowInvalid):  # lone surrogates in \u escapes
            fixed = [v if v is None else v.encode("utf-8", "replace").decode() for v in values]
            return pa.array(fixed, pa.string())

    return pa.table({name: array(values) for name, values in columns.items()})


def line_ids(lines: pa.Array) -> pa.Array:
    """Return ids of malformed lines for the quarantine table: a hash of what was read."""
    return pc.binary_join_element_wise("line-", content_hashes([lines]), "")
