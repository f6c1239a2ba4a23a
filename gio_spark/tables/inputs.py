"""Open pool and target: found, pinned, checked, with string ids and without doubles."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pyarrow as pa
from pyspark.sql import functions as F

from gio_spark.engine import bounded, map_arrow, row_hash
from gio_spark.engine.engine_errors import engine_errors
from gio_spark.engine.hashing import content_hashes
from gio_spark.errors import GioSparkError, InputError
from gio_spark.tables import delta
from gio_spark.tables.aliases import engine_path
from gio_spark.tables.casts import BAD, LINE
from gio_spark.tables.columns import check_names, check_types
from gio_spark.tables.files import (
    FileList,
    check_unchanged,
    format_of,
    fullest_share,
    list_files,
)
from gio_spark.tables.lines import line_ids, read_lines
from gio_spark.tables.names import absolute, kind_of, quoted_column

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

    from gio_spark.settings.columns import Columns
    from gio_spark.settings.inputs import InputSettings

_OWN_ID = "_own_id"


@dataclass(frozen=True)
class Input:
    """One pinned input.

    Attributes:
        name: What it is called in messages and reports (pool, target, ...).
        location: Where it was read from.
        format: delta, parquet, jsonl, csv or dataframe.
        table_id: Identity of the table; for files, their root.
        version: Version read; for files, the hash of their list.
        columns: Roles of its columns.
        rows: `id` STRING and the input's own columns; one row per id.
        own_columns: The input's own column names, in order.
        own_id: The input's column that became `id`, if its name is 'id' itself.
        bad: Rows put aside already (id, reason, detail), or None.
        count: Rows in the input.
        bytes: Size in storage, where known.
        recheck: Raises SnapshotExpiredError where files changed since they were pinned.
        fullest_share: Cores -> share of the rows that one of them would read; None: not known.
    """

    name: str
    location: str
    format: str
    table_id: str
    version: str
    columns: Columns
    rows: DataFrame
    own_columns: tuple[str, ...]
    own_id: str | None
    bad: DataFrame | None
    count: int
    bytes: int | None
    recheck: Callable[[], None] = field(repr=False, default=lambda: None)
    fullest_share: Callable[[int], float | None] = field(repr=False, default=lambda _: None)

    def fingerprint(self) -> str:
        """Hash of what was read and how its columns are understood."""
        text = f"{self.table_id}\0{self.version}\0{self.columns.digest()}"
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def own(self, df: DataFrame) -> list[Column]:
        """Return the input's own columns, under their own names, from a frame made of `rows`."""
        return [
            F.col("id" if name == self.own_id else _inner_name(name)).alias(name)
            for name in self.own_columns
        ]


def _inner_name(name: str) -> str:
    """Name of an own column inside `rows`: Spark ignores case, so 'ID' would meet `id`."""
    return _OWN_ID if name.lower() == "id" else quoted_column(name)


@dataclass(frozen=True)
class Pin:
    """Which version of which input is read; finding it reads no row.

    Attributes:
        format: delta, parquet, jsonl or csv.
        table_id: Identity of the table; for files, their root.
        version: Version; for files, the hash of their list.
        bytes: Size in storage, where known.
        files: The list of files, unless it is a Delta table.
    """

    format: str
    table_id: str
    version: str
    bytes: int | None
    files: FileList | None = None

    def recheck(self) -> None:
        """Raise SnapshotExpiredError where files changed since they were pinned."""
        if self.files is not None:
            check_unchanged(self.files)

    def fullest_share(self, tasks: int) -> float | None:
        """Return how much of the input one task of so many reads; see `files.fullest_share`."""
        known = self.format == "parquet" and self.files is not None
        return fullest_share(self.files, tasks) if known and self.files else None


def pin_input(spark: SparkSession, settings: InputSettings, name: str) -> Pin:
    """Find an input and pin its version.

    Raises:
        InputError: It is missing or cannot be listed.
        IdentifierError: Its name is not one.
    """
    try:
        return _pin(spark, settings)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error


def _pin(spark: SparkSession, settings: InputSettings) -> Pin:
    kind: str = settings.format
    location = settings.location
    if (
        kind_of(location) == "table"
        or kind == "delta"
        or (kind == "auto" and delta.is_delta(location))
    ):
        found = delta.pin(spark, location, settings.version)
        return Pin("delta", found.table_id, str(found.version), found.bytes)
    if settings.version is not None:
        raise InputError(
            f"{location} is no Delta table, so it has no version {settings.version}. "
            "Files are pinned by their list."
        )
    files = list_files(location)
    kind = format_of(files) if kind == "auto" else kind
    return Pin(kind, absolute(location), files.version, files.bytes, files)


def open_input(
    spark: SparkSession,
    settings: InputSettings,
    columns: Columns,
    name: str,
    pin: Pin | None = None,
) -> Input:
    """Open an input at its pin, check it, count it and set doubled ids apart.

    Raises:
        InputError: It is missing, empty, unreadable or lacks a column; the message says which.
        IdentifierError: Its name is not one.
    """
    location = settings.location
    base = pin or pin_input(spark, settings, name)
    kind = base.format
    if kind == "delta":
        raw = delta.read(spark, location, int(base.version))
        return _finish(name, location, base, raw, columns, None)
    files = base.files
    if files is None:
        raise InputError(f"{name}: the pin of {location} has no list of files.")
    if kind == "parquet":
        with _readable(name, location):
            raw = spark.read.parquet(engine_path(spark, location))
            _ = raw.schema
        return _finish(name, location, base, raw, columns, None)
    # Columns of text formats are only known after reading, so roles are checked before the cast.
    try:
        raw, own = read_lines(spark, files, kind, columns)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    check_names(name, location, own, columns)
    bad = raw.where(F.col(BAD).isNotNull()).select(
        F.col(BAD).alias("reason"), F.col(LINE).alias("detail")
    )
    return _finish(
        name,
        location,
        base,
        raw.where(F.col(BAD).isNull()).drop(BAD, LINE),
        columns,
        _line_quarantine(bad),
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
    base: Pin,
    raw: DataFrame,
    columns: Columns,
    bad: DataFrame | None,
) -> Input:
    schema = raw.schema
    check_names(name, location, schema.names, columns)
    check_types(name, location, schema, columns)
    own = tuple(schema.names)
    clash = [c for c in own if c.lower() == "id"]
    own_id = None
    rows = raw
    if columns.id is not None:
        as_text = F.col(quoted_column(columns.id)).cast("string")
        if columns.id.lower() == "id":
            own_id = columns.id
            others = [c for c in own if c != columns.id]
            rows = raw.select(as_text.alias("id"), *[F.col(quoted_column(c)) for c in others])
        else:
            rows = _rename_clash(raw, clash).withColumn("id", as_text)
    else:
        rows = _with_content_id(_rename_clash(raw, clash), columns)
    # One pass over the ids tells how many rows there are, without an id, and with a doubled one.
    per_id = rows.groupBy("id").agg(F.count(F.lit(1)).alias("n"))
    known = F.col("id").isNotNull()
    counted = per_id.agg(
        F.sum("n").alias("rows"),
        F.sum(F.when(known, F.col("n"))).alias("ids"),
        F.max(F.when(known, F.col("n"))).alias("most"),
    )
    with _readable(name, location):
        found = bounded(counted, 1, "one count").to_pylist()[0]
    count, identified = int(found["rows"] or 0), int(found["ids"] or 0)
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
    made = Input(
        name=name,
        location=location,
        format=base.format,
        table_id=base.table_id,
        version=base.version,
        columns=columns,
        rows=rows,
        own_columns=own,
        own_id=own_id,
        bad=bad,
        count=count,
        bytes=base.bytes,
        recheck=base.recheck,
        fullest_share=base.fullest_share,
    )
    return made if found["most"] == 1 else _without_doubles(made)


@contextmanager
def _readable(name: str, location: str) -> Iterator[None]:
    """Say of which input it is what an engine says of files, versions and columns."""
    try:
        with engine_errors(location=location):
            yield
    except GioSparkError as error:
        if error.cause is not None:
            error.args = (f"{name}: {error}",)
        raise


def _why_none(bad: DataFrame | None) -> str:
    """Say for what reasons no row was left, the most frequent first."""
    if bad is None:
        return ""
    counted = bounded(bad.groupBy("reason").count(), 10_000, "reasons").to_pylist()
    most = sorted(counted, key=lambda r: (-r["count"], r["reason"]))[:3]
    told = ", ".join(f"{r['count']:,} {r['reason']}" for r in most)
    return f" that can be read ({told})" if told else ""


def _rename_clash(df: DataFrame, clash: list[str]) -> DataFrame:
    for column in clash:
        df = df.withColumnRenamed(column, _OWN_ID)
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

    return to_arrow_schema(df.schema)


def _without_doubles(made: Input) -> Input:
    """Keep one row per id; the others go to quarantine."""
    doubled = made.rows.groupBy("id").count().where("count > 1 AND id IS NOT NULL")
    # Only rows with a doubled id are shuffled. Which one stays depends on content alone: the one
    # with the smallest hash of all its columns; rows with equal hashes are equal.
    from pyspark.sql import Window

    names = [c for c in made.rows.columns if c != "id"]
    key = row_hash(made.rows, *[F.col(quoted_column(c)) for c in names]) if names else F.lit(0)
    doubles = made.rows.join(doubled.select("id"), "id", "left_semi").withColumn("_key", key)
    order = Window.partitionBy("id").orderBy("_key")
    ranked = doubles.withColumn("_rank", F.row_number().over(order))
    singles = made.rows.join(doubled.select("id"), "id", "left_anti")
    kept = singles.select("id", *[F.col(quoted_column(c)) for c in names]).unionByName(
        ranked.where("_rank = 1").select("id", *[F.col(quoted_column(c)) for c in names])
    )
    reason = "duplicate id" if made.columns.id is not None else "copy of another row"
    extra = ranked.where("_rank > 1").select(
        "id", F.lit(reason).alias("reason"), F.lit(None).cast("string").alias("detail")
    )
    bad = extra if made.bad is None else made.bad.unionByName(extra)
    return replace(made, rows=kept, bad=bad)


def frame_digest(df: DataFrame) -> str:
    """Return a hash of a frame's rows, whatever their order, to name its snapshot."""
    key = row_hash(df, *[F.col(quoted_column(c)) for c in df.columns])
    parts = df.select(
        F.count(F.lit(1)).alias("n"),
        F.sum(F.shiftrightunsigned(key, 33)).alias("high"),
        F.sum(key.bitwiseAND(F.lit((1 << 31) - 1))).alias("low"),
        F.bit_xor(key).alias("xor"),
    )
    row = bounded(parts, 1, "the snapshot's digest").to_pylist()[0]
    text = f"{row}\0{df.schema.simpleString()}"
    return hashlib.sha256(text.encode()).hexdigest()[:32]
