"""Stage tables of a workspace: rows with the key of a stage and the token of an attempt."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyspark.sql import functions as F

from gio_spark.engine import bounded
from gio_spark.errors import ConcurrentRunError, WorkspaceError
from gio_spark.tables import delta
from gio_spark.tables.hash_chunks import WHOLE, Chunk, check_rows
from gio_spark.tables.identifiers import quoted_column
from gio_spark.tables.record_log import RecordLog
from gio_spark.tables.stage_records import ATTEMPT, KEY, Base, Record, new_token
from gio_spark.tables.stage_store import TRIES, StageStore

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql import types as T

STAGE_TABLES = (
    "embeddings",
    "models",
    "centroids",
    "assignments",
    "scores",
    "plan",
    "replaced",
    "quarantine",
    "metrics",
    "metric_states",
    "metric_series",
    "sensitivity",
    "sensitivity_runs",
    "evaluations",
    "publishes",
    "purged",
    "claims",
    "runs",
)

SELECTION = "selection_"
"""How names of tables begin that hold the selected rows of one run or refresh."""
SNAPSHOT = "snapshot_"
"""How names of tables begin that hold a frame or a view as it was read once."""


class Workspace:
    """All tables that runs write, in a folder or in a schema of a catalog.

    Rows are only added, under the key of their stage and the token of the attempt; which attempts
    are valid is decided by records. So correctness needs no lock: rows that another writer adds at
    the same time are never read as those of this one.

    Args:
        spark: The session.
        location: A folder, or `catalog.schema` (Spark only).
        writable: Whether the folder is made where it is missing, and must take files.

    Raises:
        EngineError: A schema was given on the embedded engine.
        WorkspaceError: The folder cannot be written.
    """

    def __init__(self, spark: SparkSession, location: str, *, writable: bool = True) -> None:
        self.spark = spark
        self.store = StageStore(spark, location, writable=writable)
        self.in_catalog, self.location = self.store.in_catalog, self.store.location
        self._log = RecordLog(self.store, self.frame)
        # (table, key) -> tokens of attempts that this process wrote or found complete.
        self._attempts: dict[tuple[str, str], list[str]] = {}
        # Those of them that no record names yet.
        self._unnamed: set[tuple[str, str]] = set()
        # Small tables that this process wrote are not read back.
        self._small: dict[tuple[str, str], pa.Table] = {}

    # -- where -----------------------------------------------------------------------------------

    def place(self, table: str) -> str:
        """Path or name of a table."""
        return self.store.place(table)

    def exists(self, table: str) -> bool:
        """Whether a table has been made."""
        return self.store.exists(table)

    def version(self, table: str) -> int:
        """Newest version of a table, -1 where it was never made."""
        return self.store.version(table)

    # -- reading ---------------------------------------------------------------------------------

    def read(self, table: str, key: str, *, chunk: Chunk = WHOLE) -> DataFrame:
        """Rows of a stage, or one chunk of them: those it wrote, and the valid ones of its base.

        Raises:
            WorkspaceError: The table was never made.
        """
        own_rows = self._own_rows(table, key, chunk)
        base = self.base_of(table, key)
        if base is None:
            return own_rows
        hidden = self._own_rows("replaced", base.hidden, WHOLE).select(F.col("id").alias("_hidden"))
        rows = self.read(table, base.key, chunk=chunk)
        # An anti join that broadcasts the small table and streams the large one, on every engine.
        beside = F.broadcast(hidden).join(rows, hidden["_hidden"] == rows["id"], "right_outer")
        counting = beside.where(F.col("_hidden").isNull()).drop("_hidden")
        return counting.withColumn(KEY, F.lit(key)).unionByName(own_rows)

    def own_rows(self, table: str, key: str, *, chunk: Chunk = WHOLE) -> DataFrame:
        """Rows that a stage wrote itself, without those of its base."""
        return self._own_rows(table, key, chunk)

    def _own_rows(self, table: str, key: str, chunk: Chunk) -> DataFrame:
        if not self.exists(table):
            raise WorkspaceError(
                f"{self.place(table)} was never written, or is gone. Run `gio-spark run` again."
            )
        tokens = self._tokens(table, key)
        rows = self.store.read(table).where(F.col(KEY) == key)
        if chunk.of > 1 and len(tokens) == chunk.of:
            return rows.where(F.col(ATTEMPT) == tokens[chunk.number - 1]).drop(ATTEMPT)
        return chunk.rows(rows.where(_is_one_of(ATTEMPT, tokens)).drop(ATTEMPT))

    def read_keys(self, table: str, keys: Iterable[str]) -> DataFrame:
        """Rows that several stages wrote themselves; the column `fingerprint` names the stage."""
        tokens = [token for key in dict.fromkeys(keys) for token in self._tokens(table, key)]
        return self.store.read(table).where(_is_one_of(ATTEMPT, tokens)).drop(ATTEMPT)

    def keys(self, table: str) -> list[str]:
        """Keys of all stages whose rows in a table are named by a record."""
        named = [k for r in self.records() for k in r.attempts.get(table, {}) if not r.is_chunk]
        return list(dict.fromkeys([*named, *(k for t, k in self._attempts if t == table)]))

    def holds(self, table: str, key: str) -> bool:
        """Whether a record names rows of a stage in a table; they are not counted."""
        return bool(self._tokens(table, key))

    def attempts(self, table: str, key: str) -> list[str]:
        """Tokens of the attempts whose rows are read as a stage's own, one for each chunk."""
        return list(self._tokens(table, key))

    def base_of(self, table: str, key: str) -> Base | None:
        """Earlier rows that a stage's rows are added to, or None."""
        record = self._log.of_rows(table, key)
        return None if record is None else record.base(table)

    def stages_below(self, table: str, key: str) -> list[str]:
        """Keys of the stages whose rows a stage's own are added to, the lowest one last."""
        base = self.base_of(table, key)
        return [] if base is None else [base.key, *self.stages_below(table, base.key)]

    def _tokens(self, table: str, key: str) -> list[str]:
        if (table, key) not in self._attempts:
            record = self._log.of_rows(table, key)
            if record is not None:
                self._adopt(record)
        return self._attempts.get((table, key), [])

    def _adopt(self, record: Record) -> None:
        """Read, from now on, the rows that a record names."""
        for table, keys in record.attempts.items():
            for key, tokens in keys.items():
                if self._attempts.get((table, key)) != list(tokens):
                    self._small.pop((table, key), None)
                self._attempts[table, key] = list(tokens)

    # -- writing ---------------------------------------------------------------------------------

    def write(
        self,
        table: str,
        df: DataFrame,
        *,
        fingerprint: str,
        run: str,
        stage: str,
        expected: int | None = None,
    ) -> int:
        """Add the rows of a stage in one commit and count them.

        From then on this process reads them under the key; other processes do once a
        record names them.

        Args:
            table: Stage table.
            df: Rows without bookkeeping columns.
            fingerprint: Key of the stage; becomes a column and a partition.
            run: Run that writes, for the commit's metadata.
            stage: Stage that writes, likewise.
            expected: Rows that must be there afterwards, where known.

        Returns:
            Rows written.

        Raises:
            WorkspaceError: Another number of rows came back than was expected.
        """
        rows, token = self.write_chunk(
            table, df, fingerprint=fingerprint, run=run, stage=stage, expected=expected
        )
        self.name_attempts(table, fingerprint, [token])
        return rows

    def write_chunk(
        self,
        table: str,
        df: DataFrame,
        *,
        fingerprint: str,
        run: str,
        stage: str,
        chunk: Chunk = WHOLE,
        expected: int | None = None,
    ) -> tuple[int, str]:
        """Add rows in one commit; returns their number and the token that they carry."""
        for attempt in range(TRIES):
            # Each try has its own token: rows of a failed one are never read.
            token = new_token()
            partition = {KEY: fingerprint, ATTEMPT: token}
            note = {**partition, "run": run, "stage": stage, "chunk": chunk.label}
            tagged = df.withColumns({name: F.lit(value) for name, value in partition.items()})
            last = attempt == TRIES - 1
            try:
                self.store.append(table, tagged, partition_by=(KEY, ATTEMPT), note=note)
            except ConcurrentRunError:
                if last:
                    raise
                continue
            rows = self.store.committed_rows(table, partition)
            if (
                rows or not expected or attempt
            ):  # work that gives no row is not done again and again
                check_rows(self.place(table), stage, rows, expected)
                return rows, token
        raise AssertionError("the last try ends above")

    def attempt_rows(self, table: str, tokens: list[str]) -> dict[str, int]:
        """Token -> rows that a table holds of an attempt."""
        rows = self.store.read(table).where(_is_one_of(ATTEMPT, tokens))
        counted = bounded(rows.groupBy(ATTEMPT).count(), len(tokens), "attempts").to_pylist()
        return {row[ATTEMPT]: int(row["count"]) for row in counted}

    def name_attempts(self, table: str, key: str, tokens: list[str]) -> None:
        """Set the attempts whose rows are those of a stage, to be named by its record."""
        self._small.pop((table, key), None)
        self._attempts[table, key] = tokens
        self._unnamed.add((table, key))

    def abandon(self) -> None:
        """Discard the attempts since the last record: the stage that wrote them has failed."""
        for place in self._unnamed:
            self._attempts.pop(place, None)
            self._small.pop(place, None)
        self._unnamed.clear()

    def write_arrow(
        self, table: str, rows: pa.Table, *, fingerprint: str, run: str, stage: str
    ) -> int:
        """Write a small table from the driver; see `write`."""
        count = self.write(
            table,
            self.frame(rows),
            fingerprint=fingerprint,
            run=run,
            stage=stage,
            expected=rows.num_rows,
        )
        self._small[table, fingerprint] = rows
        return count

    def read_arrow(self, table: str, fingerprint: str, limit: int, what: str) -> pa.Table:
        """Rows of a small table, without the bookkeeping columns and in any order.

        Raises:
            InputError: There are more than `limit`; `what` names them in the message.
        """
        self._tokens(table, fingerprint)
        if (table, fingerprint) not in self._small:
            rows = bounded(self.read(table, fingerprint).drop(KEY), limit, what)
            self._small[table, fingerprint] = rows
        return self._small[table, fingerprint]

    def write_selection(
        self, rows: DataFrame, schema: T.StructType, *, run: str, expected: int
    ) -> tuple[str, int]:
        """Write the rows of a selection as a new table, and count them.

        Args:
            rows: With the columns of the schema.
            schema: Names, types, NOT NULL and comments of the table.
            run: Run whose selection it is.
            expected: Rows that must be there afterwards.

        Returns:
            Name of the table, which no other attempt has, and its rows.

        Raises:
            WorkspaceError: Another number of rows came back than was expected.
        """
        table = f"{SELECTION}{run.removeprefix('run-')}_{new_token()}"
        self.store.create(table, schema)
        note = {"run": run, "table": table}
        self.store.append(table, rows.select(*map(quoted_column, schema.names)), note=note)
        count = int(self.store.read(table).count())
        check_rows(self.place(table), "select rows", count, expected)
        return table, count

    def write_snapshot(self, df: DataFrame) -> str:
        """Write a frame as a new table; returns the table's name."""
        table = f"{SNAPSHOT}{new_token()}"
        self.store.append(table, df, note={"table": table})
        return table

    def read_table(self, table: str) -> DataFrame:
        """All rows of a table that is a selection or a snapshot."""
        return self.store.read(table)

    def frame(self, rows: pa.Table) -> DataFrame:
        """A small Arrow table as a frame of one part (an empty one keeps its types)."""
        if rows.num_rows == 0:
            from pyspark.sql.pandas.types import from_arrow_schema

            schema = from_arrow_schema(rows.schema, prefer_timestamp_ntz=True)
            return self.spark.createDataFrame([], schema)
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
        only: Iterable[tuple[str, str]] | None = None,
    ) -> Record:
        """Record that a stage is complete, after its rows were committed.

        With `later`, records are gathered and written together: by the next one without it, by
        `flush`, or once they stand for twenty seconds of work. A run killed in between repeats
        no more than that; the caller promises to flush.

        Args:
            run: Run that did it.
            stage: Name of the stage.
            fingerprint: Key of its rows.
            table: Table that holds them, or "".
            rows: Rows of the stage.
            seconds: Its duration.
            detail: Facts, plain values; `base` names earlier rows that count as well.
            later: Whether the record may wait.
            only: (table, key) of rows that it names; None: all that no record names yet.
        """
        named = set(self._unnamed if only is None else only)
        attempts: dict[str, dict[str, list[str]]] = {}
        for at, key in sorted(named):
            attempts.setdefault(at, {})[key] = self._attempts[at, key]
        record = Record(
            run=run,
            stage=stage,
            fingerprint=fingerprint,
            table=table,
            version=self.store.version(table),
            rows=rows,
            seconds=seconds,
            finished=datetime.now(timezone.utc),
            detail=detail or {},
            attempts=attempts,
        )
        self._unnamed -= named
        self._log.add(record, later=later)
        return record

    def record_reuse(self, record: Record, run: str) -> None:
        """Record that a run reads rows of another one, so that they are retained for both.

        The record is written with the next one.
        """
        if all(r.run != run for r in self.recorded(record.stage, record.fingerprint)):
            now = datetime.now(timezone.utc)
            again = replace(record, run=run, seconds=0.0, finished=now, record=new_token())
            self._log.add(again, later=True)

    def flush(self) -> None:
        """Write the unwritten records in one commit."""
        self._log.flush()

    def reload(self) -> None:
        """Read the records again at the next use, with those of other processes."""
        self._log.reload()

    def records(self, run: str | None = None) -> list[Record]:
        """Records of finished stages, oldest first."""
        return self._log.records(run)

    def recorded(self, stage: str, fingerprint: str) -> list[Record]:
        """Records of a complete stage, oldest first; its rows are not checked."""
        return self._log.recorded(stage, fingerprint)

    def complete(self, stage: str, fingerprint: str) -> Record | None:
        """Record of a complete stage whose rows still exist, or None.

        Of several attempts that were recorded, any one whose rows are there will do: the same key
        stands for the same rows.
        """
        for record in reversed(self.recorded(stage, fingerprint)):
            if not record.table or record.rows == 0:
                self._adopt(record)
                return record
            if not self.exists(record.table):
                continue
            if record.table.startswith(SELECTION):
                rows = int(self.store.read(record.table).count())
            else:
                self._adopt(record)
                rows = int(self.read(record.table, fingerprint).count())
            if rows == record.rows:
                return record
        return None


def _is_one_of(column: str, values: list[str]) -> Any:
    return F.col(column).isin(values) if values else F.lit(False)


def count_values(workspace: Workspace, table: str, key: str, column: str) -> int | None:
    """Number of a stage's rows in which a column has a value, from the log, without a scan.

    None where the log does not give it: in a catalog, of rows in chunks, or of rows on a base.
    """
    tokens = workspace.attempts(table, key)
    is_single_attempt = len(tokens) == 1 and workspace.base_of(table, key) is None
    if workspace.in_catalog or not is_single_attempt:
        return None
    partition: Mapping[str, str] = {KEY: key, ATTEMPT: tokens[0]}
    return delta.committed_values(workspace.place(table), partition, column)
