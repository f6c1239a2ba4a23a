"""Identity, version and existence of Delta tables, on engines with and without DESCRIBE."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gio_spark.engine import capabilities
from gio_spark.engine.engine_errors import engine_errors, translated_error
from gio_spark.errors import GioSparkError, InputError, SnapshotExpiredError
from gio_spark.tables.engine_paths import engine_path, plain_path
from gio_spark.tables.identifiers import kind_of, quoted, quoted_column, quoted_path
from gio_spark.tables.spark_files import is_delta_for_spark, is_listed_by_spark

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql import types as T


@dataclass(frozen=True)
class DeltaPin:
    """One version of one Delta table."""

    table_id: str
    version: int
    bytes: int | None


def pin(spark: SparkSession, location: str, version: int | None) -> DeltaPin:
    """Find the table's id and the version to read.

    Raises:
        InputError: There is no Delta table, or no such version, or it may not be read.
        SnapshotExpiredError: A part of its log is gone.
    """
    by_sql = capabilities(spark).history
    newest = _pin_by_sql(spark, location) if by_sql else _pin_by_log(location)
    if version is None:
        return newest
    if version > newest.version:
        raise InputError(
            f"{location} has no version {version}: the newest is {newest.version}."
        ).about(location=location, version=version)
    return DeltaPin(newest.table_id, version, newest.bytes)


def sql_name(spark: SparkSession, location: str) -> str:
    """A location as SQL text names it, quoted."""
    if kind_of(location) == "table":
        return quoted(location)
    return quoted_path(engine_path(spark, location))


def _pin_by_sql(spark: SparkSession, location: str) -> DeltaPin:
    name = sql_name(spark, location)
    try:
        detail = spark.sql(f"DESCRIBE DETAIL {name}").first()
        latest = spark.sql(f"DESCRIBE HISTORY {name} LIMIT 1").first()
    except Exception as error:
        raise _cause(location, error) from error
    if detail is None or latest is None:
        raise InputError(_missing(location, None))
    return DeltaPin(str(detail["id"]), int(latest["version"]), detail["sizeInBytes"])


def _pin_by_log(location: str) -> DeltaPin:
    table = open_log(location)
    return DeltaPin(str(table.metadata().id), int(table.version()), None)


def open_log(location: str) -> Any:
    """Open a Delta table's log with delta-rs (for engines without DESCRIBE).

    Raises:
        InputError: There is no Delta table, it may not be read, or a name was given where only
            paths can be read.
    """
    from deltalake import DeltaTable
    from deltalake.exceptions import DeltaError

    if kind_of(location) == "table":
        raise InputError(
            f"{_no_file(location)}As a table's name it ends with the session on the embedded "
            "engine. Give a path, or run with engine: spark."
        ).about(location=location)
    try:
        return DeltaTable(plain_path(location))
    except (DeltaError, OSError, ValueError) as error:
        raise _cause(location, error) from error


def _cause(location: str, error: Exception) -> GioSparkError:
    """The error for a table that cannot be opened; by default, that there is no table."""
    if "Unsupported Delta table type" in str(error):
        return InputError(
            f"{location} has a column of a type that only Spark knows "
            f"({str(error).splitlines()[0][:150]}). Write the table without it, or with a cast of "
            "it (pyspark.ml.functions.vector_to_array for vectors)."
        ).about(location=location)
    ours = translated_error(error, location)
    if ours is None or ours.cause == "PATH_NOT_FOUND":
        return InputError(_missing(location, error)).about(location=location)
    return ours


def _missing(location: str, error: Exception | None) -> str:
    first = str(error).splitlines()[0][:200] if error else ""
    no_file = _no_file(location) if kind_of(location) == "table" else ""
    return (
        f"{no_file}Cannot read a Delta table at {location}. Check path, name and permissions. "
        f"{first}"
    )


def _no_file(location: str) -> str:
    """Said first of what may be meant as a file: a word with a dot is the name of a table too."""
    return f"There is no file or folder {location!r} in {Path.cwd()}. "


def add_columns(location: str, fields: list[T.StructField]) -> None:
    """Add nullable columns to a table at a path, with delta-rs (Sail has no ALTER TABLE)."""
    import pyarrow as pa
    from deltalake import Schema
    from pyspark.sql.pandas.types import to_arrow_type

    added = pa.schema([pa.field(f.name, to_arrow_type(f.dataType)) for f in fields])
    open_log(location).alter.add_columns(Schema.from_arrow(added).fields)


def comments(location: str) -> dict[str, str]:
    """Column -> comment of a table at a path, from its log; Sail's schemas leave comments out."""
    fields = json.loads(open_log(location).schema().to_json())["fields"]
    return {f["name"]: f["metadata"]["comment"] for f in fields if f["metadata"].get("comment")}


def read(spark: SparkSession, location: str, version: int | None = None) -> DataFrame:
    """Read a Delta table, at a version if one is given.

    Raises:
        SnapshotExpiredError: The version is not there, or no longer.
        InputError: The table may not be read.
    """
    named = kind_of(location) == "table"
    reader = spark.read if named else spark.read.format("delta")
    if version is not None:
        reader = reader.option("versionAsOf", version)
    with engine_errors(location=location, version=version):
        df = reader.table(quoted(location)) if named else reader.load(engine_path(spark, location))
        if version is not None:
            _ = df.schema  # Spark Connect looks for the version only now
    return df


def is_readable_otherwise(spark: SparkSession, location: str) -> bool:
    """Whether a name is a view or another table that has no Delta version of its own."""
    if kind_of(location) != "table" or not capabilities(spark).history:
        return False
    name = sql_name(spark, location)
    if not spark.catalog.tableExists(name):
        return False
    try:
        detail = spark.sql(f"DESCRIBE DETAIL {name}").first()
    except Exception:  # noqa: BLE001 - each engine has an error of its own for a view
        return True
    return detail is None or detail["format"] != "delta"


# Commits looked back for one's own; a longer log than this is read by the engine instead.
_LOOK_BACK = 20
_LOG_BYTES = 64 << 20


def committed_rows(location: str, place: Mapping[str, str]) -> int | None:
    """Number of rows that the newest commit of a partition added, from the table's log.

    The log is the commit itself, so nothing is scanned.

    Args:
        location: Path of the table.
        place: Partition column -> its value.

    Returns:
        Rows, or None where the log does not say (another writer's format, a log too long).
    """
    file_stats = _newest_stats(location, place)
    if file_stats is None or any("numRecords" not in stats for stats in file_stats):
        return None
    return sum(int(stats["numRecords"]) for stats in file_stats)


def has_commit(spark: SparkSession, location: str, token: str) -> bool:
    """Whether one of the newest commits of a table at a path has a token in its metadata."""
    if is_listed_by_spark(spark, location):
        history = spark.sql(f"DESCRIBE HISTORY {sql_name(spark, location)} LIMIT {_LOOK_BACK}")
        return any(token in (row["userMetadata"] or "") for row in history.collect())
    return _newest_stats(location, {"attempt": token}, files=False) is not None


def committed_values(location: str, place: Mapping[str, str], column: str) -> int | None:
    """Number of those rows that have a value in a column; see `committed_rows`."""
    file_stats = _newest_stats(location, place)
    if file_stats is None or any(
        "numRecords" not in stats or column not in stats.get("nullCount", {})
        for stats in file_stats
    ):
        return None
    return sum(int(stats["numRecords"]) - int(stats["nullCount"][column]) for stats in file_stats)


def _newest_stats(
    location: str, place: Mapping[str, str], *, files: bool = True
) -> list[dict[str, Any]] | None:
    """The statistics of the files that the newest commit of a partition added."""
    import pyarrow.fs as pafs

    from gio_spark.tables.file_list import filesystem

    store, path = filesystem(location)
    newest = _newest_in_log(location)
    for version in range(newest, max(-1, newest - _LOOK_BACK), -1):
        name = f"{path}/_delta_log/{version:020d}.json"
        info = store.get_file_info(name)
        if info.type != pafs.FileType.File or info.size > _LOG_BYTES:
            return None
        with store.open_input_stream(name) as stream:
            actions = [json.loads(line) for line in stream.read().splitlines() if line.strip()]
        note = next((a["commitInfo"].get("userMetadata") for a in actions if "commitInfo" in a), "")
        if not all(value in (note or "") for value in place.values()):
            continue
        if not files:
            return []
        # Files of other partitions may have been written in the same commit.
        adds = [a["add"] for a in actions if "add" in a]
        if files and any(k not in a["partitionValues"] for a in adds for k in place):
            return None  # the table's names are mapped to others
        partition_files = [
            a for a in adds if all(a["partitionValues"].get(k) == v for k, v in place.items())
        ]
        return [json.loads(add.get("stats") or "{}") for add in partition_files]
    return None


def newest_version(spark: SparkSession, location: str) -> int:
    """The newest version of a Delta table at a path, from the names in its log."""
    if is_listed_by_spark(spark, location):
        return _pin_by_sql(spark, location).version
    return _newest_in_log(location)


def _newest_in_log(location: str) -> int:
    import pyarrow.fs as pafs

    from gio_spark.tables.file_list import filesystem

    store, path = filesystem(location)
    infos = store.get_file_info(pafs.FileSelector(path + "/_delta_log"))
    commits = [i.base_name[:-5] for i in infos if i.base_name.endswith(".json")]
    numbers = [int(name) for name in commits if name.isdigit()]
    if not numbers:
        raise InputError(_missing(location, None))
    return max(numbers)


def is_delta(spark: SparkSession, location: str) -> bool:
    """Whether a path holds a Delta log with a commit or a checkpoint in it.

    A first write that was killed leaves a log without either, which is no table yet.
    """
    if is_listed_by_spark(spark, location):
        return is_delta_for_spark(spark, sql_name(spark, location), location)
    import pyarrow.fs as pafs

    from gio_spark.tables.file_list import filesystem

    store, path = filesystem(location)
    log = path + "/_delta_log"
    # Most tables still have their first commit, so that no log need be listed.
    if store.get_file_info(f"{log}/{0:020d}.json").size:
        return True
    infos = store.get_file_info(pafs.FileSelector(log, allow_not_found=True))
    return any(info.size and _is_commit(info.base_name) for info in infos)


def _is_commit(name: str) -> bool:
    """Whether a name in a log is that of a commit or of a checkpoint."""
    number, _, kind = name.partition(".")
    return number.isdigit() and (kind == "json" or kind.startswith("checkpoint."))


def folder_in_the_way(error: Exception) -> str | None:
    """The folder for which a catalog refused to make a table, None for another error."""
    get_condition = getattr(error, "getCondition", None)
    if get_condition is None or not str(get_condition()).startswith(
        "DELTA_CREATE_TABLE_WITH_NON_EMPTY_LOCATION"
    ):
        return None
    named: dict[str, str] = error.getMessageParameters() or {}  # type: ignore[attr-defined]
    return named.get("tableLocation")


def has_log(spark: SparkSession, location: str) -> bool:
    """Whether a path holds the folder of a Delta log, with or without a commit in it."""
    if is_listed_by_spark(spark, location):
        return is_delta(spark, location)
    import pyarrow.fs as pafs

    from gio_spark.tables.file_list import filesystem

    store, path = filesystem(location)
    return bool(store.get_file_info(path + "/_delta_log").type == pafs.FileType.Directory)


def delete_rows(spark: SparkSession, location: str) -> None:
    """Delete all rows of a table; the name is quoted."""
    with engine_errors(location=location):
        spark.sql(f"DELETE FROM {sql_name(spark, location)}").collect()  # noqa: S608


def insert_where_free(
    spark: SparkSession,
    location: str,
    rows: DataFrame,
    keys: tuple[str, ...],
    columns: Sequence[str],
) -> None:
    """Add rows whose keys no row has, in one commit that conflicts with others of its kind.

    An append conflicts with nothing; a merge has read what it compares with, so of two writers of
    one key one is refused.

    Args:
        spark: The session.
        location: Path or name of the table.
        rows: Rows to add; few.
        keys: Columns that identify a row; compared as they are.
        columns: All columns.

    Raises:
        ConcurrentRunError: Another writer committed at the same time; nothing was added.
    """
    from uuid import uuid4

    # Bound parameters do not work with Delta; a view of one's own has a name of our making.
    view = f"gio_spark_{uuid4().hex}"
    rows.createOrReplaceTempView(view)
    same = " AND ".join(f"t.{quoted_column(k)} = s.{quoted_column(k)}" for k in keys)
    names = ", ".join(quoted_column(c) for c in columns)
    values = ", ".join(f"s.{quoted_column(c)}" for c in columns)
    try:
        with engine_errors(location=location):
            # Names are quoted, and the view's is our own.
            merge = f"MERGE INTO {sql_name(spark, location)} t USING {view} s ON {same} "
            merge += f"WHEN NOT MATCHED THEN INSERT ({names}) VALUES ({values})"  # noqa: S608
            spark.sql(merge).collect()
    finally:
        spark.catalog.dropTempView(view)


def check_same(spark: SparkSession, location: str, pinned: DeltaPin) -> None:
    """Raise where a table is gone, another one has its name, or it lost the pinned version.

    Raises:
        SnapshotExpiredError: With both ids or versions.
    """
    way_out = "Run again: the present table is another input."
    try:
        now = pin(spark, location, None)
    except InputError as error:
        raise SnapshotExpiredError(
            f"The Delta table {location} is gone since version {pinned.version} of it was pinned: "
            f"{error}",
            location=location,
            path=location,
        ) from error
    if now.table_id != pinned.table_id:
        what = f"was made again during the run: its id was {pinned.table_id} and is {now.table_id}"
    elif now.version < pinned.version:
        what = (
            f"was put back during the run: version {pinned.version} was pinned, and the newest is "
            f"{now.version}"
        )
    else:
        return
    raise SnapshotExpiredError(
        f"The Delta table {location} {what}. {way_out}", location=location, path=location
    )
