"""CSV files in blocks of complete rows, in the dialect of the settings or of the files.

Arrow parses each block. It is given whole rows, found by where quoted fields begin and end, so that
no field and no line ending inside one meets the border of a block. Quotes inside quoted fields are
doubled (RFC 4180); where files escape them by backslashes, as Spark writes them, their quoted
fields are rewritten first.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from gio_spark.errors import InputError
from gio_spark.tables.text_casts import BAD, LINE

if TYPE_CHECKING:
    from gio_spark.settings.inputs import CsvSettings

_BLOCK = 4 << 20
# Arrow takes no larger block; no row of a file may be longer.
_MOST_BYTES = (1 << 31) - 2
_SEPARATORS = {"tab": "\t"}


class CsvDialect:
    """Dialect of CSV files: separator, quotes and escapes.

    Args:
        settings: Of the user; open ones are determined from each file.
        backslashes: Whether quotes inside quoted fields are escaped by backslashes, where settings
            leave it open; see `has_backslash_escapes`.
    """

    def __init__(self, settings: CsvSettings, *, backslashes: bool = False) -> None:
        """Store the settings; a dialect has plain values, so that it can be sent to workers."""
        self._settings = settings
        self.backslashes = settings.escape == "backslash" or (
            settings.escape == "auto" and backslashes
        )

    def __repr__(self) -> str:
        """All that decides how files are read."""
        return f"{self._settings!r} backslashes={self.backslashes}"

    @property
    def is_open(self) -> bool:
        """Whether the escape of quotes is determined from the files."""
        return self._settings.escape == "auto"

    @property
    def encoding(self) -> str:
        """Encoding of the files, as Python calls it."""
        return self._settings.encoding

    def separator(self, path: str) -> str:
        """Separator of a file's fields; that of `.tsv` files is a tab unless settings say else."""
        chosen = self._settings.separator
        if chosen is not None:
            return _SEPARATORS.get(chosen, chosen)
        return "\t" if ".tsv" in path.lower() else ","

    def parse_options(self, path: str, on_bad_row: Any) -> pacsv.ParseOptions:
        """Options of Arrow's parser for a file whose quotes are doubled."""
        return pacsv.ParseOptions(
            delimiter=self.separator(path),
            quote_char=self._settings.quote or False,
            newlines_in_values=True,
            invalid_row_handler=on_bad_row,
        )

    def quoted_field(self, path: str) -> re.Pattern[bytes] | None:
        """Pattern of a quoted field, one that the end of the text cuts included."""
        if not self._settings.quote:
            return None
        q, s = (re.escape(c.encode()) for c in (self._settings.quote, self.separator(path)))
        escaped = rb"|\\." if self.backslashes else b""
        plain = rb"[^" + q + (rb"\\" if self.backslashes else b"") + rb"]*"
        body = plain + rb"(?:(?:" + q + q + escaped + rb")" + plain + rb")*"
        begin = rb"(?:(?<=[\r\n" + s + rb"])|\A)" + q
        # The end of a block may cut a field, and an escape in it.
        return re.compile(begin + body + rb"(?:" + q + rb"|\\?\Z)", re.DOTALL)

    def doubled(self, rows: bytes, pattern: re.Pattern[bytes]) -> bytes:
        """Rewrite quoted fields whose quotes are escaped by backslashes: quotes are doubled."""
        quote = self._settings.quote.encode()

        def unescape(escape: re.Match[bytes]) -> bytes:
            character = escape.group(1)
            if character == quote:
                return quote + quote
            return b"\\" if character == b"\\" else escape.group(0)

        def rewrite(field: re.Match[bytes]) -> bytes:
            text = field.group(0)
            return _ESCAPE.sub(unescape, text) if b"\\" in text else text

        return pattern.sub(rewrite, rows)


_ESCAPE = re.compile(rb"\\(.)", re.S)


def has_backslash_escapes(stream: Any, path: str, dialect: CsvDialect) -> bool:
    """Whether a file has a quote after a backslash that ends no field: only an escape can be so.

    A quote that is not doubled ends a quoted field, and only a separator or the end of the row may
    follow it.
    """
    separator = re.escape(dialect.separator(path).encode())
    proof = re.compile(rb'[^\\]\\(?:\\\\)*"[^"\r\n' + separator + rb"]")
    rest = b""
    for block in _decoded_blocks(stream, path, dialect):
        if proof.search(rest + block):
            return True
        rest = block[-64:]
    return False


def header_of(stream: Any, path: str, dialect: CsvDialect) -> list[str]:
    """Names of the columns, from the first row.

    Raises:
        InputError: It cannot be read, or names a column twice.
    """
    first = next(_row_blocks(stream, path, dialect), b"")
    options = pacsv.ReadOptions(block_size=max(1, len(first)) + 1, use_threads=False)
    try:
        table = pacsv.read_csv(
            pa.BufferReader(first),
            read_options=options,
            parse_options=dialect.parse_options(path, lambda _: "skip"),
            convert_options=pacsv.ConvertOptions(strings_can_be_null=False),
        )
    except pa.ArrowInvalid as error:
        raise InputError(f"Cannot read the header of {path}: {error}") from error
    names = list(table.column_names)
    if len(set(names)) != len(names):
        raise InputError(f"The header of {path} names a column twice: {names}")
    return names


def csv_tables(
    stream: Any, path: str, dialect: CsvDialect, header: list[str], names: list[str]
) -> Iterator[pa.Table]:
    """Rows of a file as texts, with the reason where a line cannot be read.

    Args:
        stream: Of the file's bytes.
        path: Its path.
        dialect: Of the files.
        header: Its own columns.
        names: Columns of all files.
    """
    bad: list[tuple[str, str]] = []

    def quarantine(row: Any) -> str:
        reason = f"malformed line: {row.actual_columns} values for {row.expected_columns} columns"
        bad.append((reason, row.text or ""))
        return "skip"

    for number, block in enumerate(_row_blocks(stream, path, dialect)):
        table = pacsv.read_csv(
            pa.BufferReader(block),
            # One thread: the order of blocks does not matter, oversubscribed cores would.
            read_options=pacsv.ReadOptions(
                # The first row of the first block is the header.
                column_names=header if number else None,
                block_size=len(block) + 1,
                use_threads=False,
            ),
            parse_options=dialect.parse_options(path, quarantine),
            convert_options=pacsv.ConvertOptions(
                column_types=dict.fromkeys(header, pa.string()), strings_can_be_null=False
            ),
        )
        if table.num_rows:
            yield _with_reasons(table, names, dialect.encoding)
    if bad:
        columns: dict[str, Any] = dict.fromkeys(names, pa.nulls(len(bad), pa.string()))
        columns[BAD] = pa.array([reason for reason, _ in bad], pa.string())
        columns[LINE] = pa.array([text for _, text in bad], pa.string())
        yield pa.table(columns)


def _with_reasons(table: pa.Table, names: list[str], encoding: str) -> pa.Table:
    """Columns of all files, with a reason where a line held bytes that are not of the encoding."""
    columns: dict[str, Any] = {}
    broken = np.zeros(table.num_rows, bool)
    for name in names:
        if name in table.column_names:
            columns[name] = table[name]
            broken |= np.asarray(pc.match_substring(table[name], _BROKEN), dtype=bool)
        else:
            columns[name] = pa.nulls(table.num_rows, pa.string())
    if broken.any():
        for name in table.column_names:
            columns[name] = pc.replace_substring(columns[name], _BROKEN, "\ufffd")
    reason = pa.scalar(f"malformed line: not {encoding.upper()}", pa.string())
    columns[BAD] = pc.if_else(pa.array(broken), reason, pa.scalar(None, pa.string()))
    columns[LINE] = pa.nulls(table.num_rows, pa.string())
    return pa.table(columns)


# Stands for bytes that are not of the encoding until their row is known: a private character of
# Unicode, so that a file's own replacement characters are left alone.
_BROKEN = "\U0010fffd\ufffd"
_ESCAPED_BYTES = re.compile("[\udc80-\udcff]+")


def _decoded_blocks(stream: Any, path: str, dialect: CsvDialect) -> Iterator[bytes]:
    """Bytes of a file in UTF-8, without a byte order mark.

    Raises:
        InputError: The encoding is not known, or the file is UTF-16 and settings say else.
    """
    try:
        decoder = codecs.getincrementaldecoder(dialect.encoding)("surrogateescape")
    except LookupError as error:
        raise InputError(
            f"csv.encoding: no encoding is called {dialect.encoding!r}; utf-8, latin-1, cp1252, "
            "utf-16 and others that Python knows are."
        ) from error
    first = True
    while True:
        block = stream.read(_BLOCK)
        if first and block[:2] in (b"\xff\xfe", b"\xfe\xff") and "16" not in dialect.encoding:
            raise InputError(f"{path} is UTF-16: set csv.encoding: utf-16 for this input.")
        text = decoder.decode(bytes(block), final=not block)
        text = text.removeprefix("\ufeff") if first else text
        try:
            yield text.encode()
        except UnicodeEncodeError:
            yield _ESCAPED_BYTES.sub(_BROKEN, text).encode("utf-8", "replace")
        first = False
        if not block:
            return


def _row_blocks(stream: Any, path: str, dialect: CsvDialect) -> Iterator[bytes]:
    """Bytes of a file in pieces of whole rows, their quotes doubled.

    Raises:
        InputError: A row is too long: a quote that is never closed makes one of all that follows.
    """
    pattern = dialect.quoted_field(path)
    rest = b""
    min_bytes = _BLOCK
    for block in _decoded_blocks(stream, path, dialect):
        rest += block
        if len(rest) < min_bytes and block:
            continue
        end = len(rest) if not block else _end_of_rows(rest, pattern)
        if end == 0 and block:
            # No row ends here: look again when there is twice as much.
            min_bytes = 2 * len(rest)
            if min_bytes > _MOST_BYTES:
                raise InputError(
                    f"{path}: no row ends within {len(rest):,} bytes. A quote may be open: set "
                    "csv.quote and csv.escape to what the file has."
                )
            continue
        rows, rest, min_bytes = rest[:end], rest[end:], _BLOCK
        if rows.strip(b"\r\n"):
            yield dialect.doubled(rows, pattern) if dialect.backslashes and pattern else rows


def _end_of_rows(text: bytes, pattern: re.Pattern[bytes] | None) -> int:
    """End of the last complete row of a text; 0 where there is none."""
    # A carriage return at the very end may be half of a line ending.
    stop = len(text) - 1 if text.endswith(b"\r") else len(text)
    if pattern is None:
        return max(text.rfind(b"\n", 0, stop), text.rfind(b"\r", 0, stop)) + 1
    end, position = 0, 0
    for field in pattern.finditer(text):
        last = max(
            text.rfind(b"\n", position, field.start()), text.rfind(b"\r", position, field.start())
        )
        end = max(end, last + 1)
        position = field.end()
    last = max(text.rfind(b"\n", position, stop), text.rfind(b"\r", position, stop))
    return max(end, last + 1)
