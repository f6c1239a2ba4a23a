"""The stage tables of a workspace: written in one commit each, found again by fingerprint."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyspark.sql import functions as F

from gio_spark.engine import Behind, bounded
from gio_spark.tables import delta
from gio_spark.tables.chunks import CHUNK, WHOLE, Chunk, check_rows
from gio_spark.tables.partitions import in_places, key_of
from gio_spark.tables.records import Record, from_table, to_table
from gio_spark.tables.store import StageStore

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

# Seconds of finished work that may wait for its records: a commit for each of many small stages
# costs more than the stages.
UNRECORDED_SECONDS = 20.0

# Version of a table in a record whose rows are being committed.
_UNDER_WAY = -2


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
        self._store = StageStore(spark, location)
        self.in_catalog, self.location = self._store.in_catalog, self._store.location
        # Read once: what this process adds is kept beside it.
        self._records: list[Record] | None = None
        self._unwritten: list[Record] = []
        # Small tables that this process wrote are not read back.
        self._small: dict[tuple[str, str], pa.Table] = {}
        self._behind = Behind(spark)

    # -- where -----------------------------------------------------------------------------------

    def place(self, table: str) -> str:
        """Return the path or name of a stage table."""
        return self._store.place(table)

    def exists(self, table: str) -> bool:
        """Tell whether a stage table has been made."""
        return self._behind.has(table) or self._store.exists(table)

    def version(self, table: str) -> int:
        """Return the newest version of a stage table, -1 where it was never made."""
        return self._settled(table).version(table)

    def takes_chunks(self, table: str) -> bool:
        """Tell whether a table has the column of chunks; one made before there were any has not."""
        return self._store.takes_chunks(table)

    def _settled(self, table: str) -> StageStore:
        """Return the store, once nothing that was written to the table is under way."""
        self._behind.settle(table)
        return self._store

    # -- data ------------------------------------------------------------------------------------

    def read(
        self, table: str, fingerprint: str, *, key: str = "fingerprint", chunk: Chunk = WHOLE
    ) -> DataFrame:
        """Return the rows that a stage wrote under a fingerprint, or one chunk of them."""
        df = self._settled(table).read(table)
        if key not in df.columns:
            return df.limit(0)
        rows = df.where(F.col(key) == fingerprint)
        if chunk.of > 1:
            own = CHUNK in df.columns and self.chunks(table, fingerprint) == chunk.of
            rows = rows.where(F.col(CHUNK) == chunk.label) if own else chunk.rows(rows)
        return rows.drop(CHUNK)

    def labelled(self, table: str, fingerprint: str) -> DataFrame:
        """Return the rows of a fingerprint with the chunk that each was written in."""
        return self._settled(table).read(table).where(F.col("fingerprint") == fingerprint)

    def chunks(self, table: str, fingerprint: str) -> int:
        """Return in how many chunks the rows of a complete stage were written."""
        found = [r for r in self.records() if r.table == table and r.fingerprint == fingerprint]
        return int(found[-1].detail.get("chunks", 1)) if found else 1

    def may_hold(self, table: str, fingerprint: str) -> bool:
        """Tell, without a query where that is possible, whether a table can hold a fingerprint."""
        if self.in_catalog or not self.exists(table):
            return self.exists(table)
        self._behind.settle(table)
        return delta.has_partition(self.place(table), key_of(table), fingerprint)

    def read_all(self, table: str) -> DataFrame:
        """Return a whole stage table."""
        return self._settled(table).read(table).drop(CHUNK)

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
        self._behind.settle(table)
        self._small.pop((table, fingerprint), None)
        place = self._place_of(table, fingerprint, chunk)
        where = place if not alone else {key_of(table): fingerprint}
        note = {**place, "run": run, "stage": stage, "key": fingerprint}
        return self._write(table, df, place, where, note, expected)

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
        self._behind.settle(table)
        places = {name: self._place_of(table, name, WHOLE) for name in frames}
        joined = in_places([(df, places[name]) for name, df in frames.items()])
        columns = tuple(next(iter(places.values())))
        note = {"run": run, "stage": stage, "places": list(places.values())}
        wheres = [{key_of(table): name} for name in frames]
        self._store.commit(table, joined, wheres, columns, note)
        rows = {}
        for name, place in places.items():
            self._small.pop((table, name), None)
            rows[name] = self._store.rows_in(table, place)
            check_rows(self.place(table), stage, rows[name], expected.get(name))
        return rows

    def _place_of(self, table: str, fingerprint: str, chunk: Chunk) -> dict[str, str]:
        place = {key_of(table): fingerprint}
        return {**place, CHUNK: chunk.label} if self.takes_chunks(table) else place

    def _write(
        self,
        table: str,
        df: DataFrame,
        place: dict[str, str],
        where: dict[str, str],
        note: dict[str, str],
        expected: int | None,
    ) -> int:
        self._store.commit(table, in_places([(df, place)]), [where], tuple(place), note)
        rows = self._store.rows_in(table, place)
        check_rows(self.place(table), note["stage"], rows, expected)
        return rows

    def write_arrow(
        self,
        table: str,
        rows: pa.Table,
        *,
        fingerprint: str,
        run: str,
        stage: str,
        later: bool = False,
    ) -> int:
        """Write a small table from the driver; see `write`.

        With `later`, the commit is made beside what the caller does next, after those that were
        begun before it. Whoever reads the table through this workspace waits for it; the caller
        promises to `flush`, which raises what went wrong.
        """
        place = self._place_of(table, fingerprint, WHOLE)
        note = {**place, "run": run, "stage": stage, "key": fingerprint}

        def write() -> None:
            self._write(table, self.frame(rows), place, place, note, rows.num_rows)

        self._behind.begin(table, write)
        if not later:
            self._behind.settle(table)
        self._small[table, fingerprint] = rows
        return rows.num_rows

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
        self._settled(table).overwrite(table, df)

    def frame(self, rows: pa.Table) -> DataFrame:
        """Return a small Arrow table as a frame of one part (an empty one keeps its types)."""
        if rows.num_rows == 0:
            from pyspark.sql.pandas.types import from_arrow_schema

            return self.spark.createDataFrame([], from_arrow_schema(rows.schema))
        return self.spark.createDataFrame(rows).coalesce(1)

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
        made = Record(
            run=run,
            stage=stage,
            fingerprint=fingerprint,
            table=table,
            # Of a commit under way the version is known afterwards; see `_dated`.
            version=_UNDER_WAY if self._behind.has(table) else self._store.version(table),
            rows=rows,
            seconds=seconds,
            finished=datetime.fromtimestamp(time.time(), tz=timezone.utc),
            detail=detail or {},
        )
        self._records = [*self.records(), made]
        self._unwritten.append(made)
        if not later:
            self.flush()
        elif sum(r.seconds for r in self._unwritten) >= UNRECORDED_SECONDS:
            self._write_records()
        return made

    def flush(self) -> None:
        """Write the records that are still to be written, in one commit, after all other writes.

        Raises:
            WorkspaceError: A write that was begun before had failed; likewise what else it raised.
        """
        self._write_records()
        self._behind.settle()
        if self._records is not None:
            self._records = [self._dated(r) for r in self._records]

    def _dated(self, record: Record) -> Record:
        """Return a record with the version of its table, where its commit was under way before."""
        if record.version != _UNDER_WAY:
            return record
        return replace(record, version=self._store.version(record.table))

    def _write_records(self) -> None:
        made, self._unwritten = self._unwritten, []
        if not made:
            return
        note = {"run": made[-1].run, "stage": made[-1].stage, "key": made[-1].fingerprint}

        def write() -> None:
            full = to_table([self._dated(r) for r in made])
            self._store.append("runs", self.frame(full), note)

        self._behind.begin("runs", write)

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
