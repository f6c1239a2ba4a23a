"""Delta tables of a workspace: locations, creation, layout and appends."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyspark.sql import functions as F
from pyspark.sql import types as T

from gio_spark.engine import capabilities, describe
from gio_spark.engine.capabilities import is_connect
from gio_spark.engine.engine_errors import engine_errors
from gio_spark.errors import ConcurrentRunError, ConfigError, EngineError, WorkspaceError
from gio_spark.tables import delta
from gio_spark.tables.engine_paths import engine_path, plain_path
from gio_spark.tables.file_list import MAX_FILES, check_writable, filesystem, relative_path
from gio_spark.tables.identifiers import (
    absolute,
    is_remote_path,
    is_schema,
    parts,
    quoted,
)
from gio_spark.tables.spark_files import files_listed_by_spark, is_listed_by_spark
from gio_spark.tables.table_properties import (
    assignments,
    name_mapping,
    selection_properties,
    stage_properties,
)
from gio_spark.tables.table_schema import (
    column_ddl,
    column_types,
    delta_schema_json,
    has_plain_names,
    without_collation,
)
from gio_spark.tables.unfinished_logs import clear_log

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

# Digits of vectors and hashes are noise: Snappy takes one percent of them away, and a fortieth of
# the processor time of a whole run to put in and out again.
_INCOMPRESSIBLE = ("embeddings",)


# Files and folders of a Delta table in the making, as partitions of ours are named.
_LEFT_BY_A_WRITE = re.compile(r"_delta_log$|_temporary$|(fingerprint|attempt|name)=|\.?part-")

# Two writers that make or widen a table at once: one of them must try again.
TRIES = 6


class StageStore:
    """Delta tables of a workspace: locations, layouts, appends.

    Rows of stage tables are only ever added, so that no writer can take away or change what
    another one has written, and two of them at once do not conflict.

    Args:
        spark: The session.
        location: A folder, or `catalog.schema` (Spark only).
        writable: Whether the folder is made where it is missing, and must take files.

    Raises:
        EngineError: A schema was given on the embedded engine.
        WorkspaceError: The folder cannot be written.
    """

    def __init__(self, spark: SparkSession, location: str, *, writable: bool = True) -> None:
        self.spark, self.writable = spark, writable
        self.in_catalog = is_schema(location)
        if self.in_catalog and not capabilities(spark).persistent_catalog:
            raise EngineError(
                f"The workspace {location!r} is a schema, and names of tables end with the "
                "session on the embedded engine. Give a folder, or run with engine: spark."
            )
        if self.in_catalog and len(parts(location)) > 2:
            raise ConfigError(
                f"The workspace {location!r} must be catalog.schema or a folder (with a slash)."
            )
        self.location = location if self.in_catalog else absolute(location)
        self._embedded = describe(spark).kind == "embedded"
        self.by_spark = not self.in_catalog and is_listed_by_spark(spark, self.location)
        if writable:
            self.check_place(create=True)
        self._schema_folder: str | None = None
        self._known: set[str] = set()
        self._columns: dict[str, dict[str, T.DataType]] = {}

    def check_place(self, *, create: bool = False) -> None:
        """Raise where a folder cannot be written.

        Args:
            create: Whether it is made where it is missing; else nothing is written.

        Raises:
            WorkspaceError: It cannot be written.
        """
        if not (self.in_catalog or is_remote_path(self.location) or self.by_spark):
            check_writable(Path(self.location), create=create)

    def place(self, table: str) -> str:
        """Path or name of a table."""
        return f"{self.location}.{table}" if self.in_catalog else f"{self.location}/{table}"

    def exists(self, table: str, *, look: bool = False) -> bool:
        """Whether a table has a commit; a first write that was killed leaves a log without one.

        With `look`, a table that was there before is looked for again.
        """
        if table in self._known and not look:
            return True
        if self.in_catalog:
            exists = self.spark.catalog.tableExists(delta.sql_name(self.spark, self.place(table)))
        else:
            exists = delta.is_delta(self.spark, self.place(table))
        if exists:
            self._known.add(table)
        return exists

    def version(self, table: str) -> int:
        """Newest version of a table, -1 where it was never made."""
        if not table or not self.exists(table):
            return -1
        if not self.in_catalog:
            return delta.newest_version(self.spark, self.place(table))
        return delta.pin(self.spark, self.place(table), None).version

    def read(self, table: str) -> DataFrame:
        """All rows of a table, as it is now."""
        return delta.read(self.spark, self.place(table))

    def append(
        self,
        table: str,
        rows: DataFrame,
        *,
        partition_by: tuple[str, ...] = (),
        note: Mapping[str, Any],
    ) -> None:
        """Add rows to a table in one commit; the table is made, and widened, where it has to be.

        Args:
            table: Name of the table.
            rows: With all columns of the partition.
            partition_by: Partition columns of a new table.
            note: For the commit's metadata.

        Raises:
            ConcurrentRunError: Another writer made or widened the table at the same time.
            WorkspaceError: A column is there with another type, or the place cannot be written.
        """
        try:
            self._append(table, rows, partition_by, note)
        except ConcurrentRunError:
            # Another writer made or widened the table; appends themselves do not conflict.
            self._known.discard(table)
            self._columns.pop(table, None)
            raise

    def append_again(
        self,
        table: str,
        rows: DataFrame,
        *,
        partition_by: tuple[str, ...] = (),
        note: Mapping[str, Any],
    ) -> None:
        """Append rows that may be stored twice; repeated while other writers conflict.

        An engine may report a conflict after its own commit, so that whoever tries again must read
        a row once however often it was written, or give the rows another token.
        """
        for _ in range(TRIES - 1):
            try:
                return self.append(table, rows, partition_by=partition_by, note=note)
            except ConcurrentRunError:
                continue
        return self.append(table, rows, partition_by=partition_by, note=note)

    def _append(
        self, table: str, rows: DataFrame, partition_by: tuple[str, ...], note: Mapping[str, Any]
    ) -> None:
        exists = self.exists(table) or self._clear_unfinished_write(table)
        if exists:
            self._check_layout(table, partition_by)
            rows = self._with_all_columns(table, rows)
        writer = self._plain(rows).write.format("delta").mode("append")
        if table in _INCOMPRESSIBLE and not self._embedded:
            writer = writer.option("compression", "uncompressed")
        if not exists:
            properties = stage_properties(table, rows.schema, embedded=self._embedded)
            writer = writer.options(**properties)
        if partition_by:
            writer = writer.partitionBy(*partition_by)
        self._save(writer.option("userMetadata", json.dumps(note)), table)

    def overwrite(self, table: str, rows: DataFrame, note: Mapping[str, Any]) -> None:
        """Replace all rows of a table, whatever their columns, in one commit."""
        if self.in_catalog and not self.exists(table):
            self._clear_unfinished_write(table)
        writer = self._plain(rows).write.format("delta").mode("overwrite")
        writer = writer.option("overwriteSchema", "true")
        if not self.exists(table):
            properties = stage_properties(table, rows.schema, embedded=self._embedded)
            writer = writer.options(**properties)
        else:
            self._map_names(table, rows.schema)
        self._save(writer.option("userMetadata", json.dumps(note)), table)

    def create(self, table: str, schema: T.StructType) -> None:
        """Make an empty table that keeps NOT NULL and comments, which a written frame loses.

        Its log will hold least and greatest values of numbers and times, and none of texts.
        """
        place = self.place(table)
        properties = selection_properties(schema, embedded=self._embedded)
        with engine_errors(location=place):
            if self._embedded:
                from deltalake import DeltaTable, Schema

                DeltaTable.create(
                    plain_path(place),
                    schema=Schema.from_json(delta_schema_json(schema)),
                    configuration=properties,
                )
            else:
                name = delta.sql_name(self.spark, place)
                self.spark.sql(
                    f"CREATE TABLE {name} ({column_ddl(schema)}) USING DELTA "
                    f"TBLPROPERTIES ({assignments(properties)})"
                )
        self._known.add(table)

    def show_as_view(self, view: str, table: str) -> None:
        """Create or replace a view of a catalog that shows the rows of a table."""
        of = delta.sql_name(self.spark, self.place(table))
        name = delta.sql_name(self.spark, self.place(view))
        # Both names were checked and quoted.
        self.spark.sql(f"CREATE OR REPLACE VIEW {name} AS SELECT * FROM {of}")  # noqa: S608

    def drop(self, table: str) -> None:
        """Drop a table with its files; where Spark alone opens them, its rows are deleted."""
        place = self.place(table)
        self._known.discard(table)
        self._columns.pop(table, None)
        if self.in_catalog:
            self.spark.sql(f"DROP TABLE IF EXISTS {delta.sql_name(self.spark, place)}")
        elif self.by_spark:
            # No API of Spark deletes a folder; VACUUM takes the files away in time.
            delta.delete_rows(self.spark, place)
        else:
            import pyarrow.fs as pafs

            store, path = filesystem(place)
            if store.get_file_info(path).type == pafs.FileType.Directory:
                store.delete_dir(path)

    def names(self, prefix: str) -> list[str]:
        """Names of the tables that begin with a prefix, in order, half-made ones included."""
        if self.in_catalog:
            schema = quoted(self.location)
            listed = self.spark.sql(f"SHOW TABLES IN {schema} LIKE '{prefix}*'").limit(100_000)
            return sorted(row["tableName"] for row in listed.collect() if not row["isTemporary"])
        if self.by_spark:
            files = files_listed_by_spark(self.spark, self.location, MAX_FILES, names="*.parquet")
            folders = {relative_path(self.location, path).parts[0] for path, _, _ in files}
            return sorted(name for name in folders if name.startswith(prefix))
        import pyarrow.fs as pafs

        store, path = filesystem(self.location)
        folders = store.get_file_info(pafs.FileSelector(path, allow_not_found=True))
        return sorted(f.base_name for f in folders if f.base_name.startswith(prefix))

    def committed_rows(self, table: str, partition: Mapping[str, str]) -> int:
        """Rows that a partition holds after an append to it: from the log, or else counted."""
        if not self.in_catalog and not self.by_spark:
            rows = delta.committed_rows(self.place(table), partition)
            if rows is not None:
                return rows
        df = self.read(table)
        for column, value in partition.items():
            df = df.where(F.col(column) == value)
        return int(df.count())

    def _clear_unfinished_write(self, table: str) -> bool:
        """Remove the remains of an unfinished first write from a log.

        Returns:
            Whether the table turned out to be whole, and only its catalog did not know of it.
        """
        place = self.place(table)
        if self.in_catalog:
            folder = self._folder_of_schema()
            return folder is not None and self._take_over(f"{folder}/{table}", table)
        if is_remote_path(place):
            return False
        clear_log(Path(place) / "_delta_log")
        return False

    def _folder_of_schema(self) -> str | None:
        """Folder of this machine in which a catalog makes the tables of the schema, or None."""
        if self._schema_folder is None:
            listed = self.spark.sql(f"DESCRIBE SCHEMA {quoted(self.location)}").collect()
            named = {str(row[0]).lower(): str(row[1]) for row in listed}
            self._schema_folder = named.get("location", "")
        local = self._schema_folder.startswith(("file:", "/"))
        return absolute(self._schema_folder) if local else None

    def _take_over(self, folder: str, table: str) -> bool:
        """Register an existing folder where a catalog is to create a table.

        A writer that was killed after its first commit and before the catalog knew of it has left
        a whole table, which is named to the catalog; one that was killed earlier has left files
        that nobody reads. They stay: a writer that lives has such files as well.

        Returns:
            Whether the table is whole.

        Raises:
            WorkspaceError: The folder holds something else.
        """
        import pyarrow.fs as pafs

        place = self.place(table)
        store, path = filesystem(folder)
        left = store.get_file_info(pafs.FileSelector(path, allow_not_found=True))
        if not left:
            return False
        if delta.is_delta(self.spark, folder):
            self.spark.catalog.createTable(
                delta.sql_name(self.spark, place), path=folder, source="delta"
            )
            self._known.add(table)
            return True
        foreign = [info.base_name for info in left if not _LEFT_BY_A_WRITE.match(info.base_name)]
        if foreign:
            raise WorkspaceError(
                f"{place} cannot be made: {folder} is not empty and no Delta table (it holds "
                f"{foreign[0]}). Move it away, or give another workspace."
            )
        # Delta makes a table beside other files where there is a log, be it an empty one.
        store.create_dir(f"{path}/_delta_log")
        if not is_remote_path(folder):
            clear_log(Path(path) / "_delta_log")
        return False

    def _check_layout(self, table: str, partition_by: tuple[str, ...]) -> None:
        """Refuse a table of a workspace that an earlier version of gio_spark wrote.

        Raises:
            WorkspaceError: It lacks a column of the partition.
        """
        if table not in self._columns:
            self._columns[table] = column_types(self.read(table).schema)
        if not set(partition_by) <= set(self._columns[table]):
            raise WorkspaceError(earlier_layout(self.location))

    def _with_all_columns(self, table: str, rows: DataFrame) -> DataFrame:
        """Widen a table by the columns of rows that it lacks, and rows by those that they lack.

        Raises:
            WorkspaceError: A column is there with another type.
        """
        stored, written = self._columns[table], column_types(rows.schema)
        for name in sorted(set(stored) & set(written)):
            before, now = stored[name].simpleString(), written[name].simpleString()
            if before != now:
                raise WorkspaceError(
                    f"{self.place(table)} holds column {name!r} as {before}, but this version of "
                    f"gio_spark writes {now}. Give another workspace."
                )
        added = [f for f in rows.schema.fields if f.name not in stored]
        if added:
            self._add_columns(table, added)
        missing = {n: F.lit(None).cast(t) for n, t in stored.items() if n not in written}
        return rows.withColumns(missing) if missing else rows

    def _add_columns(self, table: str, fields: list[T.StructField]) -> None:
        place = self.place(table)
        with engine_errors(location=place):
            if self._embedded:
                delta.add_columns(place, fields)
            else:
                schema = T.StructType(fields)
                columns = column_ddl(schema, not_null=False)
                name = delta.sql_name(self.spark, place)
                self._map_names(table, schema)
                self.spark.sql(f"ALTER TABLE {name} ADD COLUMNS ({columns})")
        self._columns.pop(table)

    def _map_names(self, table: str, added: T.StructType) -> None:
        """Let a table take names of columns that it does not take yet."""
        properties = name_mapping(added, embedded=self._embedded)
        if properties and has_plain_names(self.read(table).schema):
            name = delta.sql_name(self.spark, self.place(table))
            self.spark.sql(f"ALTER TABLE {name} SET TBLPROPERTIES ({assignments(properties)})")

    def _plain(self, rows: DataFrame) -> DataFrame:
        """Rows with types that every reader of Delta knows."""
        by_client = is_connect(self.spark) and not self._embedded
        return without_collation(rows) if by_client else rows

    def _save(self, writer: Any, table: str) -> None:
        place = self.place(table)
        with engine_errors(location=place):
            if self.in_catalog:
                self._save_in_catalog(writer, table)
            else:
                writer.save(engine_path(self.spark, place))
        self._known.add(table)

    def _save_in_catalog(self, writer: Any, table: str) -> None:
        try:
            writer.saveAsTable(delta.sql_name(self.spark, self.place(table)))
        except Exception as error:
            folder = delta.folder_in_the_way(error)
            if folder is None:
                raise
            self._take_over(folder, table)
            raise ConcurrentRunError(
                f"Files stood where {self.place(table)} was to be made. Run again."
            ) from error


def earlier_layout(location: str) -> str:
    """Message for a workspace in a layout that is no longer supported."""
    return (
        f"The workspace {location} was written by an earlier version of gio_spark, in a layout "
        "that this one does not read. Give another workspace; the tables of this one stay as they "
        "are, and `selected` holds its selections."
    )
