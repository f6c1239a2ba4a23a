"""The stage tables of a workspace: written in one commit each, found again by fingerprint."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyspark.sql import functions as F

from gio_spark.engine import bounded, capabilities
from gio_spark.engine.told import worker_errors
from gio_spark.errors import ConcurrentRunError, ConfigError, EngineError
from gio_spark.tables import delta
from gio_spark.tables.aliases import engine_path
from gio_spark.tables.chunks import CHUNK, WHOLE, Chunk, check_rows
from gio_spark.tables.files import check_writable
from gio_spark.tables.names import absolute, is_remote_path, is_schema, parts
from gio_spark.tables.partitions import Place, column_types, in_places, key_of, predicate
from gio_spark.tables.records import Record, from_table, to_table

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

STAGE_TABLES = (
    "embeddings",
    "models",
    "centroids",
    "assignments",
    "scores",
    "plan",
    "selected",
    "quarantine",
    "metrics",
    "metric_states",
    "metric_series",
    "sensitivity",
    "sensitivity_runs",
    "evaluations",
    "runs",
)

# Tables of long stages, which may be written in chunks (see `write_chunks`).
CHUNKED = ("embeddings", "assignments", "scores")

# Seconds of finished work that may wait for its records: a commit for each of many small stages
# costs more than the stages.
UNRECORDED_SECONDS = 20.0


class Workspace:
    """All tables that runs write, in a folder or in a schema of a catalog.

    Args:
        spark: The session.
        location: A folder, or `catalog.schema` (Spark only).

    Raises:
        EngineError: A schema was given on the embedded engine.
        WorkspaceError: The folder cannot be written.
    """

    def __init__(self, spark: SparkSession, location: str) -> None:
        self.spark = spark
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
        if not self.in_catalog and not is_remote_path(self.location):
            check_writable(Path(self.location))
        self._known: set[str] = set()
        self._types: dict[str, set[tuple[str, str]]] = {}
        # Read once: what this process adds is kept beside it.
        self._records: list[Record] | None = None
        self._unwritten: list[Record] = []
        # Small tables that this process wrote are not read back.
        self._small: dict[tuple[str, str], pa.Table] = {}

    # -- where -----------------------------------------------------------------------------------

    def place(self, table: str) -> str:
        """Return the path or name of a stage table."""
        return f"{self.location}.{table}" if self.in_catalog else f"{self.location}/{table}"

    def exists(self, table: str) -> bool:
        """Tell whether a stage table has been made."""
        if table in self._known:
            return True
        if self.in_catalog:
            found = self.spark.catalog.tableExists(delta.sql_name(self.spark, self.place(table)))
        else:
            found = delta.is_delta(self.place(table))
        if found:
            self._known.add(table)
        return found

    def version(self, table: str) -> int:
        """Return the newest version of a stage table."""
        if not self.in_catalog:
            return delta.newest_version(self.place(table))
        return delta.pin(self.spark, self.place(table), None).version

    # -- data ------------------------------------------------------------------------------------

    def read(
        self, table: str, fingerprint: str, *, key: str = "fingerprint", chunk: Chunk = WHOLE
    ) -> DataFrame:
        """Return the rows that a stage wrote under a fingerprint, or one chunk of them."""
        df = delta.read(self.spark, self.place(table))
        if key not in df.columns:
            return df.limit(0)
        rows = df.where(F.col(key) == fingerprint)
        if chunk.of > 1:
            own = CHUNK in df.columns and self.chunks(table, fingerprint) == chunk.of
            rows = rows.where(F.col(CHUNK) == chunk.label) if own else chunk.rows(rows)
        return rows.drop(CHUNK)

    def labelled(self, table: str, fingerprint: str) -> DataFrame:
        """Return the rows of a fingerprint with the chunk that each was written in."""
        return delta.read(self.spark, self.place(table)).where(F.col("fingerprint") == fingerprint)

    def chunks(self, table: str, fingerprint: str) -> int:
        """Return in how many chunks the rows of a complete stage were written."""
        found = [r for r in self.records() if r.table == table and r.fingerprint == fingerprint]
        return int(found[-1].detail.get("chunks", 1)) if found else 1

    def may_hold(self, table: str, fingerprint: str) -> bool:
        """Tell, without a query where that is possible, whether a table can hold a fingerprint."""
        if self.in_catalog or not self.exists(table):
            return self.exists(table)
        key = key_of(table)
        return delta.has_partition(self.place(table), key, fingerprint)

    def read_all(self, table: str) -> DataFrame:
        """Return a whole stage table."""
        return delta.read(self.spark, self.place(table)).drop(CHUNK)

    def write(
        self,
        table: str,
        df: DataFrame,
        *,
        fingerprint: str,
        run: str,
        stage: str,
        expected: int | None = None,
        chunk: Chunk = WHOLE,
        alone: bool = True,
    ) -> int:
        """Replace the rows of a fingerprint, or a chunk of them, in one commit and count them.

        Args:
            table: Stage table.
            df: Rows without bookkeeping columns.
            fingerprint: Key of the rows; becomes a column and the partition.
            run: Run that writes, for the commit's metadata.
            stage: Stage that writes, likewise.
            expected: Rows that must be there afterwards, where known.
            chunk: Which part of the stage's rows these are.
            alone: Whether rows of other chunks are taken away as well.

        Returns:
            Rows written.

        Raises:
            WorkspaceError: Another number of rows came back than was expected.
            ConcurrentRunError: Another commit changed the same rows.
        """
        place = self._place_of(table, fingerprint, chunk)
        where = place if not alone else {key_of(table): fingerprint}
        note = {**place, "run": run, "stage": stage, "key": fingerprint}
        self._commit(table, in_places([(df, place)]), [where], tuple(place), note)
        self._small.pop((table, fingerprint), None)
        rows = self._committed(table, place)
        check_rows(self.place(table), stage, rows, expected)
        return rows

    def write_together(
        self,
        table: str,
        frames: Mapping[str, DataFrame],
        *,
        run: str,
        stage: str,
        expected: Mapping[str, int | None],
    ) -> dict[str, int]:
        """Replace the rows of several fingerprints in one commit, and count those of each.

        Args:
            table: Stage table.
            frames: Fingerprint -> rows without bookkeeping columns, all of the same columns.
            run: Run that writes, for the commit's metadata.
            stage: Stage that writes, likewise.
            expected: Fingerprint -> rows that must be there afterwards, where known.

        Raises:
            WorkspaceError: Another number of rows came back than was expected.
            ConcurrentRunError: Another commit changed the same rows.
        """
        places = {name: self._place_of(table, name, WHOLE) for name in frames}
        joined = in_places([(df, places[name]) for name, df in frames.items()])
        columns = tuple(next(iter(places.values())))
        note = {"run": run, "stage": stage, "places": list(places.values())}
        wheres = [{key_of(table): name} for name in frames]
        self._commit(table, joined, wheres, columns, note)
        rows = {}
        for name, place in places.items():
            self._small.pop((table, name), None)
            rows[name] = self._committed(table, place)
            check_rows(self.place(table), stage, rows[name], expected.get(name))
        return rows

    def _place_of(self, table: str, fingerprint: str, chunk: Chunk) -> dict[str, str]:
        place = {key_of(table): fingerprint}
        return {**place, CHUNK: chunk.label} if self.takes_chunks(table) else place

    def _commit(
        self,
        table: str,
        out: DataFrame,
        replaced: Sequence[Place],
        columns: Sequence[str],
        note: Mapping[str, Any],
    ) -> None:
        """Write rows in place of those in the given partitions, in one commit."""
        writer = (
            out.write.format("delta")
            .mode("overwrite")
            .partitionBy(*columns)
            .option("userMetadata", json.dumps(note))
        )
        types = column_types(out)
        if self.exists(table):
            if self._stored_types(table) == types:
                # One commit takes the old rows away and puts the new ones in.
                writer = writer.option("replaceWhere", predicate(replaced))
            else:
                # Rows of another shape (a pool with other columns, a newer format) make a new
                # table; what was there stays in its history.
                writer = writer.option("overwriteSchema", "true")
        self._save(writer, table)
        self._known.add(table)
        self._types[table] = types

    def takes_chunks(self, table: str) -> bool:
        """Tell whether a table has the column of chunks; one made before there were any has not."""
        if table not in CHUNKED:
            return False
        return not self.exists(table) or any(n == CHUNK for n, _ in self._stored_types(table))

    def _stored_types(self, table: str) -> set[tuple[str, str]]:
        if table not in self._types:
            self._types[table] = column_types(delta.read(self.spark, self.place(table)))
        return self._types[table]

    def _committed(self, table: str, place: dict[str, str]) -> int:
        """Return the rows that the table holds in a partition after its commit."""
        if not self.in_catalog:
            found = delta.committed_rows(self.place(table), place)
            if found is not None:
                return found
        df = delta.read(self.spark, self.place(table))
        for column, value in place.items():
            df = df.where(F.col(column) == value)
        return int(df.count())

    def _save(self, writer: Any, table: str) -> None:
        try:
            with worker_errors():
                if self.in_catalog:
                    writer.saveAsTable(delta.sql_name(self.spark, self.place(table)))
                else:
                    writer.save(engine_path(self.spark, self.place(table)))
        except Exception as error:
            text = str(error)
            if "Concurrent" in text or "concurrent" in text:
                raise ConcurrentRunError(
                    f"Another run wrote {self.place(table)} at the same time. Run again; what is "
                    "complete is not computed twice."
                ) from error
            raise

    def write_arrow(self, table: str, rows: pa.Table, **keys: Any) -> int:
        """Write a small table from the driver; see `write`."""
        written = self.write(table, self.frame(rows), expected=rows.num_rows, **keys)
        self._small[table, keys["fingerprint"]] = rows
        return written

    def read_arrow(self, table: str, fingerprint: str, limit: int, what: str) -> pa.Table:
        """Return the rows of a small table, without the bookkeeping column and in any order.

        Raises:
            InputError: There are more than `limit`; `what` names them in the message.
        """
        key = key_of(table)
        if (table, fingerprint) not in self._small:
            rows = bounded(self.read(table, fingerprint, key=key), limit, what)
            self._small[table, fingerprint] = rows.drop_columns([key])
        return self._small[table, fingerprint]

    def write_plain(self, table: str, df: DataFrame) -> None:
        """Write a frame as it is, once, as a table of its own (snapshots)."""
        self._save(df.write.format("delta").mode("overwrite"), table)
        self._known.add(table)

    def frame(self, rows: pa.Table) -> DataFrame:
        """Return a small Arrow table as a frame (an empty one keeps its types)."""
        if rows.num_rows == 0:
            from pyspark.sql.pandas.types import from_arrow_schema

            return self.spark.createDataFrame([], from_arrow_schema(rows.schema))
        return self.spark.createDataFrame(rows)

    # -- records ---------------------------------------------------------------------------------

    def record(
        self,
        *,
        run: str,
        stage: str,
        fingerprint: str,
        table: str,
        rows: int,
        seconds: float,
        detail: dict[str, Any] | None = None,
        later: bool = False,
    ) -> Record:
        """Write that a stage is complete, after its rows were committed.

        With `later`, records are gathered and written together: by the next one without it, by
        `flush`, or once they stand for twenty seconds of work. A run killed in between repeats
        no more than that; the caller promises to flush.
        """
        version = self.version(table) if table and self.exists(table) else -1
        made = Record(
            run=run,
            stage=stage,
            fingerprint=fingerprint,
            table=table,
            version=version,
            rows=rows,
            seconds=seconds,
            finished=datetime.fromtimestamp(time.time(), tz=timezone.utc),
            detail=detail or {},
        )
        self._records = [*self.records(), made]
        self._unwritten.append(made)
        if not later or sum(r.seconds for r in self._unwritten) >= UNRECORDED_SECONDS:
            self.flush()
        return made

    def flush(self) -> None:
        """Write the records that are still to be written, in one commit."""
        if not self._unwritten:
            return
        last = self._unwritten[-1]
        note = json.dumps({"run": last.run, "stage": last.stage, "key": last.fingerprint})
        writer = (
            self.frame(to_table(self._unwritten))
            .write.format("delta")
            .mode("append")
            .option("userMetadata", note)
        )
        self._save(writer, "runs")
        self._known.add("runs")
        self._unwritten = []

    def records(self, run: str | None = None) -> list[Record]:
        """Return the records of finished stages, oldest first."""
        if self._records is None:
            if not self.exists("runs"):
                return []
            self._records = from_table(bounded(self.read_all("runs"), 200_000, "records of runs"))
        own = [r for r in self._records if run is None or r.run == run]
        return sorted(own, key=lambda r: (r.finished, r.stage))

    def complete(self, stage: str, fingerprint: str) -> Record | None:
        """Return the record of a complete stage whose rows are still there, if there is one."""
        matching = [r for r in self.records() if r.stage == stage and r.fingerprint == fingerprint]
        if not matching:
            return None
        record = matching[-1]
        if not record.table or record.rows == 0:
            return record
        if not self.exists(record.table):
            return None
        key = key_of(record.table)
        rows = int(self.read(record.table, fingerprint, key=key).count())
        return record if rows == record.rows else None
