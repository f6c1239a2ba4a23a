"""JSONL and CSV files, parsed on workers; a malformed line becomes a row of quarantine.

Engines infer types and treat malformed lines differently (one of them fails the whole read on one
bad line). Here values are read as text, cast by their column's role, and a line that cannot be read
becomes a row of its own with the reason, for the quarantine.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from gio_spark.engine import bounded, map_arrow
from gio_spark.engine.content_hash import content_hashes
from gio_spark.errors import InputError
from gio_spark.tables.content_paths import is_chat_json
from gio_spark.tables.csv_files import (
    CsvDialect,
    csv_tables,
    has_backslash_escapes,
    header_of,
)
from gio_spark.tables.file_list import FileList, compression_of, filesystem, partition_values
from gio_spark.tables.json_types import (
    JsonParser,
    JsonType,
    array_rows,
    arrow_type,
    as_text,
    common_type,
    parsed_object,
    type_of_value,
)
from gio_spark.tables.spark_files import contents_read_by_spark, literal_path
from gio_spark.tables.text_casts import BAD, LINE, type_of, typed

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from gio_spark.settings.columns import Columns
    from gio_spark.settings.inputs import CsvSettings

_CHUNK = 32 << 20
_BLOCK = 4 << 20
_MAX_COLUMNS = 2_000
_MAX_TYPES = 200_000


@dataclass(frozen=True)
class LineRows:
    """Rows of text files.

    Attributes:
        rows: The files' columns, `_malformed` and `_line`.
        rows_of: Makes the same of some of the files.
        reading: Their types and dialect.
        names: The files' own columns.
        json_messages: Whether the column of the text is a string that holds messages as JSON, since
            their values have no common type.
    """

    rows: DataFrame
    rows_of: Callable[[FileList], DataFrame]
    reading: str
    names: list[str]
    json_messages: bool


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
) -> LineRows:
    """Read JSONL or CSV files.

    Returns:
        Rows with the files' columns, typed by role (a text that is a list of messages as what it
        is), otherwise of JSONL by the values of all lines and of CSV as strings.

    Raises:
        InputError: A file cannot be read, or there are no columns, or too many.
    """
    if not files.bytes:
        raise InputError(f"{files.root} is empty: no line in it.")
    work = _work(spark, files, kind)
    root = files.root
    file_columns = _columns_of_files(work, root, kind, csv)
    names = sorted(set(file_columns.types) - set(columns.drop))
    clash = [name for name in names if name.lower() in (BAD, LINE)]
    if clash:
        raise InputError(
            f"{root} has a column named {clash[0]!r}, a name that the reader of text files uses. "
            f"Rename it, or leave it out: columns.drop: [{clash[0]}]."
        )
    of_roles = {name: type_of(name, columns) for name in names}
    has_messages = columns.text in names and is_chat_json(file_columns.types[columns.text])
    types = {
        name: arrow_type(file_columns.types[name])
        if role_type == pa.string()
        and (name not in (columns.text, columns.output) or is_chat_json(file_columns.types[name]))
        else role_type
        for name, role_type in of_roles.items()
    }
    schema = pa.schema([*types.items(), pa.field(BAD, pa.string()), pa.field(LINE, pa.string())])

    def read(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
        for piece in _pieces(batches):
            with _readable(piece.path):
                for part in _parse(root, kind, piece, schema, file_columns.dialect, of_roles):
                    yield typed(part, schema)

    def rows_of(some: FileList) -> DataFrame:
        return map_arrow(_work(spark, some, kind), read, schema, batch_rows=1)

    return LineRows(
        map_arrow(work, read, schema, batch_rows=1),
        rows_of,
        f"{schema} {file_columns.dialect}",
        names,
        has_messages and types[str(columns.text)] == pa.string(),
    )


class _Piece(NamedTuple):
    """A part of a file, or a whole one with its bytes."""

    path: str
    start: int
    stop: int
    content: bytes | None = None


def _work(spark: SparkSession, files: FileList, kind: str) -> DataFrame:
    """Pieces of files, a row each; where Spark alone opens them, whole files with their bytes."""
    if files.spark is not None:
        if files.is_part:
            return contents_read_by_spark(spark, [literal_path(file.path) for file in files.files])
        return contents_read_by_spark(spark, files.root, files.left_out)
    pieces = chunks(files, splittable=kind == "jsonl")
    table = pa.table(
        {
            "path": [p for p, _, _ in pieces],
            "start": pa.array([s for _, s, _ in pieces], pa.int64()),
            "stop": pa.array([e for _, _, e in pieces], pa.int64()),
        }
    )
    return spark.createDataFrame(table).repartition(max(1, min(len(pieces), 1024)))


def _pieces(batches: Iterator[pa.RecordBatch]) -> Iterator[_Piece]:
    for batch in batches:
        for row in batch.to_pylist():
            content = row.get("content")
            if content is None:
                yield _Piece(row["path"], row["start"], row["stop"])
            elif content:
                yield _Piece(row["path"], 0, len(content), content)


@contextmanager
def _readable(path: str) -> Iterator[None]:
    """Re-raise the errors of a broken file (cut archive, another format) as one clear error."""
    try:
        yield
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(
            f"Cannot read {path}: {error}. Is the file whole, and of the kind that its name or "
            "the setting format says?"
        ) from error


@dataclass(frozen=True)
class _FileColumns:
    """Columns of all files with their types (of CSV files, texts), and the dialect of CSV files."""

    types: dict[str, JsonType]
    dialect: CsvDialect


def _columns_of_files(work: DataFrame, root: str, kind: str, csv: CsvSettings) -> _FileColumns:
    """Find the columns of all files, in one pass over them."""
    dialect = CsvDialect(csv)

    def look(batches: Iterator[pa.RecordBatch]) -> Iterator[dict[str, Any]]:
        types: dict[str, JsonType] = {}
        backslashes = False
        for piece in _pieces(batches):
            path = piece.path
            with _readable(path):
                if kind == "csv":
                    with _open(root, piece) as stream:
                        types |= dict.fromkeys(header_of(stream, path, dialect), "string")
                    if dialect.is_open and not backslashes:
                        with _open(root, piece) as stream:
                            backslashes = has_backslash_escapes(stream, path, dialect)
                else:
                    for values, _, _ in _json_rows(root, piece):
                        for name, value in values.items():
                            one = type_of_value(value)
                            types[name] = common_type([types[name], one]) if name in types else one
                types |= dict.fromkeys(partition_values(root, path), "string")
        yield {
            "name": list(types),
            "type": [json.dumps(one) for one in types.values()],
            "backslashes": [backslashes] * len(types),
        }

    schema = "name string, type string, backslashes boolean"
    rows = map_arrow(work, look, schema, batch_rows=1).distinct()
    table = bounded(rows, _MAX_TYPES, f"types of columns in {root}")
    types: dict[str, JsonType] = {}
    for row in table.to_pylist():
        one = json.loads(row["type"])
        types[row["name"]] = common_type([types.get(row["name"]), one])
    if not types:
        raise InputError(
            f"No columns found in {root}: is it {kind}?"
            + (' A line of JSONL is one object, {"id": ..., "text": ...}.' * (kind == "jsonl"))
        )
    if len(types) > _MAX_COLUMNS:
        raise InputError(f"{root} has {len(types):,} columns, more than {_MAX_COLUMNS:,}.")
    # One file with proof speaks for all: they were written together.
    return _FileColumns(types, CsvDialect(csv, backslashes=any(table["backslashes"].to_pylist())))


def _parse(
    root: str,
    kind: str,
    piece: _Piece,
    schema: pa.Schema,
    dialect: CsvDialect,
    of_roles: Mapping[str, pa.DataType],
) -> Iterator[pa.Table]:
    """Tables of a piece of a file: columns of roles as texts, others of JSONL by their type."""
    names = list(of_roles)
    path = piece.path
    values = partition_values(root, path)
    if kind == "jsonl":
        as_types = {
            name: schema.field(name).type if of_roles[name] == pa.string() else pa.string()
            for name in names
        }
        tables = _json_tables(root, piece, as_types)
    else:
        with _open(root, piece) as stream:
            header = header_of(stream, path, dialect)
        tables = _csv_rows(root, piece, dialect, header, names)
    for table in tables:
        for name, value in values.items():
            if name not in of_roles:
                continue
            column = pa.array([value] * table.num_rows, pa.string())
            table = table.set_column(table.schema.get_field_index(name), name, column)
        yield table


def _csv_rows(
    root: str, piece: _Piece, dialect: CsvDialect, header: list[str], names: list[str]
) -> Iterator[pa.Table]:
    with _open(root, piece) as stream:
        yield from csv_tables(stream, piece.path, dialect, header, names)


def _open(root: str, piece: _Piece) -> Any:
    path, compression = piece.path, compression_of(piece.path)
    if piece.content is not None:
        buffer = pa.py_buffer(piece.content)
        return pa.input_stream(buffer, compression=compression)  # type: ignore[attr-defined]
    store, _ = filesystem(root)
    try:
        return store.open_input_stream(path, compression=compression)
    except OSError as error:
        raise InputError(f"Cannot read {path}: {error}") from error


# ---- JSONL -------------------------------------------------------------------------------------


def _json_lines(root: str, piece: _Piece) -> Iterator[bytes]:
    """Yield the lines that begin inside [start, stop), whichever chunk they end in."""
    path, start, stop, content = piece
    compressed = compression_of(path) is not None
    is_whole = compressed or content is not None
    try:
        stream = _open(root, piece) if is_whole else filesystem(root)[0].open_input_file(path)
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


def _json_rows(root: str, piece: _Piece) -> Iterator[tuple[dict[str, Any], str | None, str | None]]:
    """Objects of a piece of a file; of a malformed line, the reason and the line instead."""
    if _is_array(root, piece):
        # One JSON array cannot be cut: whoever has its beginning reads it all.
        if piece.start == 0:
            with _open(root, piece) as stream:
                yield from array_rows(stream, piece.path)
        return
    parser = JsonParser()
    for raw in _json_lines(root, piece):
        line = raw.strip()
        if not line:
            continue
        values, reason = parsed_object(parser, line)
        yield values, reason, None if reason is None else line.decode("utf-8", "replace")


def _is_array(root: str, piece: _Piece) -> bool:
    """Whether a file is one JSON array instead of lines."""
    with _open(root, piece) as stream:
        return bool(stream.read(1 << 12).removeprefix(codecs.BOM_UTF8).lstrip()[:1] == b"[")


def _json_tables(
    root: str, piece: _Piece, types: Mapping[str, pa.DataType], rows: int = 8192
) -> Iterator[pa.Table]:
    fields = [*types.items(), (BAD, pa.string()), (LINE, pa.string())]
    columns: dict[str, list[Any]] = {name: [] for name, _ in fields}
    for values, reason, line in _json_rows(root, piece):
        for name, kind in types.items():
            value = values.get(name)
            columns[name].append(as_text(value) if kind == pa.string() else value)
        columns[BAD].append(reason)
        columns[LINE].append(line)
        if len(columns[BAD]) == rows:
            yield pa.table({name: pa.array(columns[name], kind) for name, kind in fields})
            columns = {name: [] for name in columns}
    if columns[BAD]:
        yield pa.table({name: pa.array(columns[name], kind) for name, kind in fields})


def line_ids(lines: pa.Array) -> pa.Array:
    """Ids of malformed lines for the quarantine table: a hash of the line."""
    return pc.binary_join_element_wise("line-", content_hashes([lines]), "")
