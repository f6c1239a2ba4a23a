"""Open pool and target: found, pinned, checked, with string ids and without doubles."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pyarrow as pa
from pyspark.sql import functions as F
from pyspark.sql import types as T

from gio_spark.engine import bounded, map_arrow, row_hash
from gio_spark.engine.hashing import content_hashes
from gio_spark.errors import InputError
from gio_spark.tables import delta
from gio_spark.tables.aliases import engine_path
from gio_spark.tables.files import FileList, check_unchanged, format_of, list_files
from gio_spark.tables.lines import BAD, LINE, line_ids, read_lines
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


def pin_input(spark: SparkSession, settings: InputSettings, name: str) -> Pin:
    """Find an input and pin its version.

    Raises:
        InputError: It is missing or cannot be listed.
        IdentifierError: Its name is not one.
    """
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
            f"{name}: {location} is no Delta table, so it has no version {settings.version}. "
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
        try:
            raw = spark.read.parquet(engine_path(spark, location))
            _ = raw.schema
        except Exception as error:
            first = str(error).splitlines()[0][:200]
            raise InputError(f"{name}: cannot read Parquet files at {location}: {first}") from error
        return _finish(name, location, base, raw, columns, None)
    # Columns of text formats are only known after reading, so roles are checked before the cast.
    raw, own = read_lines(spark, files, kind, columns)
    _check_names(name, location, own, columns)
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
    _check_names(name, location, schema.names, columns)
    _check_types(name, location, schema, columns)
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
    found = bounded(counted, 1, "one count").to_pylist()[0]
    count, identified = int(found["rows"] or 0), int(found["ids"] or 0)
    if count == 0:
        raise InputError(f"{name}: {location} holds no rows that can be read.")
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
    )
    return made if found["most"] == 1 else _without_doubles(made)


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


def _check_names(name: str, location: str, present: list[str], columns: Columns) -> None:
    """Raise one error that names every missing column and the nearest present one."""
    wanted = {**{f"columns.{r}": c for r, c in columns.named().items()}}
    wanted |= {f"columns.numeric[{i}]": c for i, c in enumerate(columns.numeric)}
    wanted |= {f"columns.categorical[{i}]": c for i, c in enumerate(columns.categorical)}
    problems = []
    for role, column in wanted.items():
        if column in present:
            continue
        near = difflib.get_close_matches(column, present, n=1, cutoff=0.5)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        problems.append(f"{role} = {column!r}{hint}")
    if problems:
        shown = ", ".join(present[:20]) + (", ..." if len(present) > 20 else "")
        raise InputError(
            f"{name}: {location} lacks the column(s) {'; '.join(problems)}. It has: {shown}."
        )
    if not columns.content():
        raise InputError(
            f"{name}: no content column is set. Set one of columns.text, columns.vector, "
            f"columns.image, columns.numeric or columns.categorical. It has: {', '.join(present)}."
        )


_NUMBERS = (
    T.ByteType,
    T.ShortType,
    T.IntegerType,
    T.LongType,
    T.FloatType,
    T.DoubleType,
    T.DecimalType,
)
_WHOLE = (T.ByteType, T.ShortType, T.IntegerType, T.LongType)


def _check_types(name: str, location: str, schema: T.StructType, columns: Columns) -> None:
    """Raise where a column's type cannot play its role."""
    types = {f.name: f.dataType for f in schema.fields}

    def need(role: str, column: str | None, ok: bool, wanted: str) -> None:
        if column is not None and not ok:
            raise InputError(
                f"{name}: column {column!r} of {location} is {types[column].simpleString()}, "
                f"but columns.{role} must be {wanted}."
            )

    def of(column: str | None, kinds: tuple[type, ...]) -> bool:
        return column is None or isinstance(types[column], kinds)

    need(
        "id",
        columns.id,
        of(columns.id, (T.StringType, *_WHOLE)),
        "a string or an integer (engines print floats and decimals differently)",
    )
    need("text", columns.text, of(columns.text, (T.StringType,)), "a string")
    for role in ("event_time", "ingest_time"):
        column = getattr(columns, role)
        need(
            role,
            column,
            of(column, (T.TimestampType, T.TimestampNTZType, T.DateType)),
            "a timestamp or a date",
        )
    for role in ("quality", "tokens"):
        column = getattr(columns, role)
        need(role, column, of(column, _NUMBERS), "a number")
    for column in columns.numeric:
        need("numeric", column, of(column, (*_NUMBERS, T.BooleanType)), "a number")
    for role in ("vector", "image"):
        column = getattr(columns, role)
        ok = (
            column is None
            or isinstance(types[column], T.BinaryType)
            or (
                isinstance(types[column], T.ArrayType)
                and isinstance(types[column].elementType, _NUMBERS)  # type: ignore[attr-defined]
            )
        )
        need(role, column, ok, "binary or an array of numbers")


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
