"""Opening of inputs: checks, string ids, one row per id, and rows for the quarantine."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyspark.errors import PySparkException
from pyspark.sql import functions as F
from pyspark.sql import types as T

from gio_spark.engine import bounded, describe, map_arrow
from gio_spark.engine.content_hash import content_hashes
from gio_spark.engine.engine_errors import engine_errors
from gio_spark.errors import GioSparkError, InputError
from gio_spark.tables import delta
from gio_spark.tables.added_files import FileRows
from gio_spark.tables.column_types import check_frame_types, check_unique
from gio_spark.tables.columns import check_names, check_types, without_absent_roles
from gio_spark.tables.content_expressions import (
    OUTPUT_COLUMN,
    TEXT_COLUMN,
    TEXT_FORMAT,
    content_expression,
    sampled_unusual_roles,
    with_text_column,
)
from gio_spark.tables.duplicate_ids import free_name, split_doubles
from gio_spark.tables.footer_counts import check_footers
from gio_spark.tables.identifiers import is_remote_path, kind_of, quoted_column
from gio_spark.tables.parquet_files import parquet_rows
from gio_spark.tables.pinned_inputs import PinnedInput, pin_input
from gio_spark.tables.table_schema import selection_schema
from gio_spark.tables.text_casts import BAD, LINE
from gio_spark.tables.text_files import line_ids, read_lines

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

    from gio_spark.settings.columns import Columns
    from gio_spark.settings.inputs import InputSettings


@dataclass(frozen=True)
class Input:
    """One pinned input.

    Attributes:
        name: Its name in messages and reports (pool, target, ...).
        location: Where it was read from.
        format: delta, parquet, jsonl, csv or dataframe.
        table_id: Identity of the table; for files, their root.
        version: Version read; for files, the hash of their list.
        columns: Roles of the columns of `rows`: `text` and `output` are columns with the
            rendered text where the settings name an expression or messages.
        settings_columns: Roles of its columns as the settings name them.
        rows: `id` STRING, the input's own columns and a rendered text; one row per id.
        own_columns: The input's own column names, in order.
        schema: Their types, NOT NULL and comments.
        own_id: The input's column that became `id`, if it is a text called 'id' itself.
        bad: Rows for the quarantine (id, reason, detail), or None.
        count: Rows in the input, malformed lines left out.
        ids: Different ids that are not null: as many rows as `rows` must give.
        quarantined: Rows of `bad` without an id or with a duplicate one: count less ids.
        bytes: Size in storage, where known.
        unusual_roles: Messages of unknown roles that are not part of the text, by role, in the
            first rows.
        recheck: Raises SnapshotExpiredError where files changed since they were pinned, or another
            table has the place of the pinned one.
        with_ids: Makes rows like those of `rows`, several of an id among them, of a frame with
            the input's own columns.
        file_rows: Files some of which can be read without the others, if it has such and one row
            per id.
    """

    name: str
    location: str
    format: str
    table_id: str
    version: str
    columns: Columns
    settings_columns: Columns
    rows: DataFrame
    own_columns: tuple[str, ...]
    schema: T.StructType
    own_id: str | None
    bad: DataFrame | None
    count: int
    ids: int
    quarantined: int
    bytes: int | None
    unusual_roles: Mapping[str, int] = field(default_factory=dict)
    recheck: Callable[[], None] = field(repr=False, default=lambda: None)
    with_ids: Callable[[DataFrame], DataFrame] = field(repr=False, default=lambda rows: rows)
    file_rows: FileRows | None = field(repr=False, default=None)

    def fingerprint(self) -> str:
        """Hash of the input's version and of the roles of its columns."""
        text = f"{self.table_id}\0{self.version}\0{self.settings_columns.digest()}"
        named, read = self.settings_columns, self.columns
        if (read.text, read.output) != (named.text, named.output):
            text += f"\0rendered text {TEXT_FORMAT}"
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def any_version(self) -> str:
        """Hash of the input's table and of the roles of its columns, the same in all versions."""
        return replace(self, version="").fingerprint()

    def rows_in_files_since(self, marks: str | None) -> DataFrame | None:
        """Rows like those of `rows` in files that were added since; None where it cannot be said.

        Args:
            marks: Those of its files at an earlier version.
        """
        if self.file_rows is None or marks is None:
            return None
        added = self.file_rows.added_since(marks)
        if added is None or not added.files:
            return None
        frame = self.file_rows.rows_of(added).select(*map(quoted_column, self.own_columns))
        return self.with_ids(frame).where(F.col("id").isNotNull())

    def original_columns(self, df: DataFrame) -> list[Column]:
        """The input's own columns, under their own names, from a frame made of `rows`."""
        inner = {name: _inner_name(name, self.own_columns) for name in self.own_columns}
        if self.own_id is not None:
            inner[self.own_id] = "id"
        return [F.col(quoted_column(inner[name])).alias(name) for name in self.own_columns]


def _inner_name(name: str, own_names: Sequence[str]) -> str:
    """Name of an own column inside `rows`: Spark ignores case, so 'ID' would meet `id`."""
    return free_name("_own_id", own_names) if name.lower() == "id" else name


def open_input(
    spark: SparkSession,
    settings: InputSettings,
    columns: Columns,
    name: str,
    pin: PinnedInput | None = None,
) -> Input:
    """Open an input at its pin, check it, count it and separate duplicate ids.

    Raises:
        InputError: It is missing, empty, unreadable or lacks a column; the message says which.
        IdentifierError: Its name is not one.
    """
    location = settings.location
    # Common roles describe the pool; what a target or held-out set lacks of them it does without.
    optional = settings.columns is None and name != "pool"
    base = pin or pin_input(spark, settings, name)
    kind = base.format
    if kind == "delta":
        raw = delta.read(spark, location, int(base.version))
        return _finish(name, location, base, raw, columns, None, optional=optional)
    if kind == "view":
        raw = spark.read.table(delta.sql_name(spark, location))
        return _finish(name, location, base, raw, columns, None, optional=optional)
    files = base.files
    if files is None:
        raise InputError(f"{name}: the pin of {location} has no list of files.")
    if kind == "parquet":
        with _readable(name, location):
            read = parquet_rows(spark, name, location, files, columns.drop)
            _ = read.rows.schema
        opened_input = _finish(
            name,
            location,
            base,
            read.rows,
            columns,
            None,
            optional=optional,
            narrow=read.narrow,
            file_rows=read.rows_of and FileRows(files, read.reading, read.rows_of),
        )
        check_footers(name, opened_input.count, read.narrow, opened_input.columns, files)
        return opened_input
    # Columns of text formats are only known after reading, so roles are checked before the cast.
    try:
        lines = read_lines(spark, files, kind, columns, settings.csv)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    present = without_absent_roles(columns, lines.names) if optional else columns
    check_names(name, location, lines.names, present)
    raw = lines.rows
    bad = raw.where(F.col(BAD).isNotNull()).select(
        F.col(BAD).alias("reason"), F.col(LINE).alias("detail")
    )

    def good(rows: DataFrame) -> DataFrame:
        return rows.where(F.col(BAD).isNull()).drop(BAD, LINE)

    return _finish(
        name,
        location,
        base,
        good(raw),
        columns,
        _line_quarantine(bad),
        optional=optional,
        json_messages=lines.json_messages,
        file_rows=FileRows(files, lines.reading, lambda some: good(lines.rows_of(some))),
    )


def _line_quarantine(bad: DataFrame) -> DataFrame:
    def identify(batches: Iterator[pa.RecordBatch]) -> Iterator[dict[str, pa.Array]]:
        for batch in batches:
            detail = batch["detail"]
            yield {"id": line_ids(detail), "reason": batch["reason"], "detail": detail}

    return map_arrow(bad, identify, "id string, reason string, detail string")


def _finish(
    name: str,
    location: str,
    base: PinnedInput,
    raw: DataFrame,
    columns: Columns,
    bad: DataFrame | None,
    *,
    optional: bool,
    json_messages: bool = False,
    narrow: DataFrame | None = None,
    file_rows: FileRows | None = None,
) -> Input:
    # Not by drop(): it takes quoted names for those of other columns.
    present = [column for column in raw.columns if column not in columns.drop]
    raw = raw.select(*map(quoted_column, present)) if len(present) < len(raw.columns) else raw
    schema = raw.schema
    check_unique(name, location, schema.names)
    check_frame_types(name, location, schema)
    where, settings_columns = f"{name}: {location}", columns
    if optional:
        columns = without_absent_roles(columns, schema.names)
    check_names(name, location, schema.names, columns)
    text = content_expression(where, schema, columns, json_messages=json_messages)
    roles_of_messages: dict[str, int] = {}
    own_rows, own_names = raw, tuple(schema.names)
    text_column = free_name(TEXT_COLUMN, own_names)
    if text is not None:
        if text.has_messages:
            with _readable(name, location):
                roles_of_messages = sampled_unusual_roles(raw, text)
        columns = columns.model_copy(update={"text": text_column})
        raw = with_text_column(raw, text_column, text)
    output = content_expression(where, schema, columns, role="output")
    output_column = free_name(OUTPUT_COLUMN, raw.columns)
    if output is not None:
        columns = columns.model_copy(update={"output": output_column})
        raw = with_text_column(raw, output_column, output)
    check_types(name, location, raw.schema, columns)
    # A key of another type than text stays beside its text, as the column that it was.
    own_id = None
    if columns.id is not None and columns.id.lower() == "id":
        own_id = columns.id if isinstance(schema[columns.id].dataType, T.StringType) else None

    def with_ids(frame: DataFrame) -> DataFrame:
        if text is not None:
            frame = with_text_column(frame, text_column, text)
        if output is not None:
            frame = with_text_column(frame, output_column, output)
        return _with_id(frame, columns, own_id)

    rows = with_ids(own_rows)
    # One pass over the ids counts all rows, those without an id, and those with a duplicate one.
    keyed = rows if narrow is None or columns.id is None else _ids(narrow, columns.id)
    per_id = keyed.groupBy("id").agg(F.count(F.lit(1)).alias("n"))
    known = F.col("id").isNotNull()
    counted = per_id.agg(
        F.sum("n").alias("rows"),
        F.sum(F.when(known, F.col("n"))).alias("identified"),
        F.count(F.when(known, F.lit(1))).alias("ids"),
        F.max(F.when(known, F.col("n"))).alias("most"),
    )
    with _readable(name, location):
        sums = bounded(counted, 1, "one count").to_pylist()[0]
    count, identified = int(sums["rows"] or 0), int(sums["identified"] or 0)
    ids = int(sums["ids"] or 0)
    if count == 0:
        raise InputError(f"{name}: {location} holds no rows{_why_none(bad)}.")
    if identified == 0:
        raise InputError(
            f"{name}: column {columns.id!r} of {location} is null in all {count:,} rows. Name "
            "another column in columns.id, or none: then a hash of the content is the id."
        )
    if identified < count:
        nameless = rows.where(F.col("id").isNull()).select(
            "id", F.lit("null id").alias("reason"), F.lit(None).cast("string").alias("detail")
        )
        bad = nameless if bad is None else bad.unionByName(nameless)
        rows = rows.where(F.col("id").isNotNull())
    opened_input = Input(
        name=name,
        location=location,
        format=base.format,
        table_id=base.table_id,
        version=base.version,
        columns=columns,
        settings_columns=settings_columns,
        rows=rows,
        own_columns=own_names,
        schema=_own_schema(raw.sparkSession, schema, base, location),
        own_id=own_id,
        bad=bad,
        count=count,
        ids=ids,
        quarantined=count - ids,
        bytes=base.bytes,
        unusual_roles=roles_of_messages,
        recheck=base.recheck,
        with_ids=with_ids,
        file_rows=file_rows,
    )
    return opened_input if sums["most"] == 1 else _without_doubles(opened_input)


def _own_schema(
    spark: SparkSession, schema: T.StructType, base: PinnedInput, location: str
) -> T.StructType:
    # The embedded engine's schemas leave comments out; a remote log is not opened for them.
    in_log = describe(spark).kind == "embedded" and not is_remote_path(location)
    is_table = base.format == "delta" and kind_of(location) == "path"
    return selection_schema(schema, delta.comments(location) if in_log and is_table else {})


@contextmanager
def _readable(name: str, location: str) -> Iterator[None]:
    """Re-raise engine errors with the name of the input that they concern."""
    try:
        with engine_errors(location=location):
            yield
    except GioSparkError as error:
        if error.cause is not None:
            error.args = (f"{name}: {error}",)
        raise
    except PySparkException as error:
        first = next(iter(str(error).splitlines()), "")[:300]
        raise InputError(f"{name}: {location} cannot be read: {first}").about(
            location=location
        ) from error


def _why_none(bad: DataFrame | None) -> str:
    """Text with the reasons why no row remains, the most frequent first."""
    if bad is None:
        return ""
    counted = bounded(bad.groupBy("reason").count(), 10_000, "reasons").to_pylist()
    most = sorted(counted, key=lambda r: (-r["count"], r["reason"]))[:3]
    reasons_text = ", ".join(f"{r['count']:,} {r['reason']}" for r in most)
    return f" that can be read ({reasons_text})" if reasons_text else ""


def _with_id(df: DataFrame, columns: Columns, own_id: str | None) -> DataFrame:
    """Rows with `id` as the settings name it, or as a hash of the content."""
    if own_id is not None:
        # The embedded engine takes a column for NOT NULL here, unless it is cast.
        as_text = F.col(quoted_column(own_id)).cast("string")
        others = [F.col(quoted_column(c)) for c in df.columns if c != own_id]
        return df.select(as_text.alias("id"), *others)
    inner = _with_inner_names(df)
    if columns.id is None:
        return _with_content_id(inner, columns)
    key = F.col(quoted_column(_inner_name(columns.id, df.columns)))
    return inner.withColumn("id", key.cast("string"))


def _ids(df: DataFrame, column: str) -> DataFrame:
    return df.select(F.col(quoted_column(column)).cast("string").alias("id"))


def _with_inner_names(df: DataFrame) -> DataFrame:
    for column in [name for name in df.columns if name.lower() == "id"]:
        df = df.withColumnRenamed(column, _inner_name(column, df.columns))
    return df


def _with_content_id(df: DataFrame, columns: Columns) -> DataFrame:
    """Add `id`: 128 bits of SHA-256 of the content columns."""
    content = list(columns.content())
    schema = _arrow_schema(df).append(pa.field("id", pa.string()))

    def add(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
        for batch in batches:
            table = pa.Table.from_batches([batch])
            yield table.append_column("id", content_hashes([table[c] for c in content]))

    return map_arrow(df, add, schema)


def _arrow_schema(df: DataFrame) -> pa.Schema:
    from pyspark.sql.pandas.types import to_arrow_schema

    # Spark 4.2 must be told the time zone; in earlier versions it is UTC.
    parameters = inspect.signature(to_arrow_schema).parameters
    zone: dict[str, Any] = {"timezone": "UTC"} if "timezone" in parameters else {}
    return to_arrow_schema(df.schema, **zone)


def _without_doubles(opened_input: Input) -> Input:
    """Keep one row per id; the others go to quarantine."""
    rows, others = split_doubles(opened_input.rows)
    reason = "duplicate id" if opened_input.columns.id is not None else "copy of another row"
    extra = others.select(
        "id", F.lit(reason).alias("reason"), F.lit(None).cast("string").alias("detail")
    )
    bad = extra if opened_input.bad is None else opened_input.bad.unionByName(extra)
    # Which row of an id stays depends on all files.
    return replace(opened_input, rows=rows, bad=bad, file_rows=None)
