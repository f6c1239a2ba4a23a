"""JSONL and CSV read by this package's own map, so that every engine reads the same rows.

Engines infer types and treat malformed lines differently (one of them fails the whole read on one
bad line). Here values are read as text, cast by their column's role, and a line that cannot be read
becomes a row of its own with the reason, to be put aside.
"""

from __future__ import annotations

import codecs
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from gio_spark.engine import bounded, map_arrow
from gio_spark.engine.content_hash import content_hashes
from gio_spark.errors import InputError
from gio_spark.tables.casts import BAD, LINE, type_of, typed
from gio_spark.tables.files import FileList, filesystem

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from gio_spark.settings.columns import Columns

_CHUNK = 32 << 20
_BLOCK = 4 << 20
_MAX_COLUMNS = 2_000


def chunks(files: FileList, *, splittable: bool) -> list[tuple[str, int, int]]:
    """Cut files into (path, start, stop) pieces of about 32 MB; compressed ones stay whole."""
    pieces = []
    for path, length, _ in files.files:
        compressed = path.endswith((".gz", ".bz2", ".zst", ".lz4"))
        step = length if compressed or not splittable else _CHUNK
        pieces += [(path, s, min(s + step, length)) for s in range(0, length, max(step, 1))]
    return pieces


def read_lines(
    spark: SparkSession, files: FileList, kind: str, columns: Columns
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
    names = _column_names(work, root, kind)
    schema = pa.schema(
        [pa.field(name, type_of(name, columns)) for name in names]
        + [pa.field(BAD, pa.string()), pa.field(LINE, pa.string())]
    )

    def read(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
        for piece in _pieces(batches):
            with _readable(piece[0]):
                for part in _parse(root, kind, piece, names):
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


def _column_names(work: DataFrame, root: str, kind: str) -> list[str]:
    def keys(batches: Iterator[pa.RecordBatch]) -> Iterator[dict[str, Any]]:
        seen: set[str] = set()
        for piece in _pieces(batches):
            with _readable(piece[0]):
                if kind == "csv":
                    seen.update(_header(root, piece[0]))
                    continue
                for values, _, _ in _json_rows(root, piece):
                    seen.update(values)
        yield {"name": sorted(seen)}

    found = map_arrow(work, keys, "name string", batch_rows=1).distinct()
    names = sorted(bounded(found, _MAX_COLUMNS, f"column names in {root}")["name"].to_pylist())
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
    return names


def _parse(
    root: str, kind: str, piece: tuple[str, int, int], names: list[str]
) -> Iterator[pa.Table]:
    return _json_tables(root, piece, names) if kind == "jsonl" else _csv_tables(root, piece, names)


def _open(root: str, path: str) -> Any:
    store, _ = filesystem(root)
    try:
        return store.open_input_stream(path)  # decompresses by the name's ending
    except OSError as error:
        raise InputError(f"Cannot read {path}: {error}") from error


# ---- JSONL -------------------------------------------------------------------------------------


def _json_lines(root: str, piece: tuple[str, int, int]) -> Iterator[bytes]:
    """Yield the lines that begin inside [start, stop), whichever chunk they end in."""
    path, start, stop = piece
    store, _ = filesystem(root)
    compressed = path.endswith((".gz", ".bz2", ".zst", ".lz4"))
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


# ---- CSV ---------------------------------------------------------------------------------------


def _delimiter(path: str) -> str:
    return "\t" if ".tsv" in path.lower() else ","


def _header(root: str, path: str) -> list[str]:
    options = pacsv.ReadOptions(block_size=_BLOCK)
    parse = pacsv.ParseOptions(
        delimiter=_delimiter(path), newlines_in_values=True, invalid_row_handler=lambda _: "skip"
    )
    try:
        with (
            _open(root, path) as stream,
            io.BufferedReader(_Recoded(stream)) as readable,
            pacsv.open_csv(readable, read_options=options, parse_options=parse) as reader,
        ):
            names = list(reader.schema.names)
    except pa.ArrowInvalid as error:
        raise InputError(f"Cannot read the header of {path}: {error}") from error
    if len(set(names)) != len(names):
        raise InputError(f"The header of {path} names a column twice: {names}")
    return names


class _Recoded(io.RawIOBase):
    """A stream whose bytes that are not UTF-8 read as U+FFFD."""

    def __init__(self, stream: Any) -> None:
        super().__init__()
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._held:
            block = self._stream.read(_BLOCK)
            self._held = self._decoder.decode(block, final=not block).encode()
            if not block:
                break
        count = min(len(buffer), len(self._held))
        buffer[:count], self._held = self._held[:count], self._held[count:]
        return count


def _is_utf8(root: str, path: str) -> bool:
    """Tell whether a whole file is UTF-8: Arrow's parser dies on a bad row that is not."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    with _open(root, path) as stream:
        try:
            while block := stream.read(_BLOCK):
                decoder.decode(block)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return False
    return True


def _csv_tables(root: str, piece: tuple[str, int, int], names: list[str]) -> Iterator[pa.Table]:
    path = piece[0]
    bad: list[tuple[str, str]] = []

    def set_aside(row: Any) -> str:
        reason = f"malformed line: {row.actual_columns} values for {row.expected_columns} columns"
        bad.append((reason, (row.text or "")))
        return "skip"

    header = _header(root, path)
    clean = _is_utf8(root, path)
    stream = _open(root, path)
    reader = pacsv.open_csv(
        stream if clean else io.BufferedReader(_Recoded(stream)),
        # One thread: the order of blocks does not matter, oversubscribed cores would.
        read_options=pacsv.ReadOptions(block_size=_BLOCK, use_threads=False),
        parse_options=pacsv.ParseOptions(
            delimiter=_delimiter(path), newlines_in_values=True, invalid_row_handler=set_aside
        ),
        convert_options=pacsv.ConvertOptions(
            column_types=dict.fromkeys(header, pa.binary()), strings_can_be_null=False
        ),
    )
    with reader:
        for batch in reader:
            yield _decoded(pa.Table.from_batches([batch]), names, clean=clean)
    if bad:
        blank = pa.nulls(len(bad), pa.string())
        columns: dict[str, Any] = dict.fromkeys(names, blank)
        columns[BAD] = pa.array([r for r, _ in bad], pa.string())
        columns[LINE] = pa.array([t for _, t in bad], pa.string())
        yield pa.table(columns)


def _decoded(table: pa.Table, names: list[str], *, clean: bool) -> pa.Table:
    """Return text columns, with a reason where the line held bytes that are not UTF-8."""
    columns: dict[str, Any] = {}
    broken = np.zeros(table.num_rows, bool)
    for name in names:
        if name not in table.column_names:
            columns[name] = pa.nulls(table.num_rows, pa.string())
            continue
        columns[name] = table[name].cast(pa.string())
        if not clean:
            broken |= np.asarray(pc.match_substring(columns[name], "\ufffd"), dtype=bool)
    reason = pa.scalar("malformed line: not UTF-8", pa.string())
    columns[BAD] = pc.if_else(pa.array(broken), reason, pa.scalar(None, pa.string()))
    columns[LINE] = pa.nulls(table.num_rows, pa.string())
    return pa.table(columns)


def line_ids(lines: pa.Array) -> pa.Array:
    """Return ids of malformed lines for the quarantine table: a hash of what was read."""
    return pc.binary_join_element_wise("line-", content_hashes([lines]), "")
