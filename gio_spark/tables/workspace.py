"""The stage tables of a workspace: written in one commit each, found again by fingerprint."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyspark.sql import functions as F

from gio_spark.engine import bounded, capabilities
from gio_spark.errors import ConcurrentRunError, ConfigError, EngineError, WorkspaceError
from gio_spark.tables import delta
from gio_spark.tables.names import absolute, is_remote_path, kind_of, parts

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

# Tables whose rows are keyed by another column than `fingerprint`.
KEY_OF = {"selected": "gio_run"}

# Fingerprints kept per table and side: trying two settings in turn recomputes nothing twice.
KEEP = 3

# Seconds of finished work that may wait for its records: a commit for each of many small stages
# costs more than the stages.
UNRECORDED_SECONDS = 10.0

_RUNS_SCHEMA = pa.schema(
    [
        pa.field("run", pa.string()),
        pa.field("stage", pa.string()),
        pa.field("fingerprint", pa.string()),
        pa.field("table", pa.string()),
        pa.field("version", pa.int64()),
        pa.field("rows", pa.int64()),
        pa.field("seconds", pa.float64()),
        pa.field("finished", pa.timestamp("us", tz="UTC")),
        pa.field("detail", pa.string()),
    ]
)


@dataclass(frozen=True)
class Record:
    """What `runs` says of one finished stage."""

    run: str
    stage: str
    fingerprint: str
    table: str
    version: int
    rows: int
    seconds: float
    finished: datetime
    detail: dict[str, Any]


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
        self.in_catalog = _is_schema(location)
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
            _check_writable(Path(self.location))
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
            found = self.spark.catalog.tableExists(delta.sql_name(self.place(table)))
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

    def read(self, table: str, fingerprint: str, *, key: str = "fingerprint") -> DataFrame:
        """Return the rows that a stage wrote under a fingerprint."""
        df = delta.read(self.spark, self.place(table))
        if key not in df.columns:
            return df.limit(0)
        return df.where(F.col(key) == fingerprint)

    def may_hold(self, table: str, fingerprint: str) -> bool:
        """Tell, without a query where that is possible, whether a table can hold a fingerprint."""
        if self.in_catalog or not self.exists(table):
            return self.exists(table)
        key = KEY_OF.get(table, "fingerprint")
        return delta.has_partition(self.place(table), key, fingerprint)

    def read_all(self, table: str) -> DataFrame:
        """Return a whole stage table."""
        return delta.read(self.spark, self.place(table))

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
        """Replace the rows of a fingerprint in one commit and read their number back.

        Args:
            table: Stage table.
            df: Rows without bookkeeping columns.
            fingerprint: Key of the rows; becomes a column and the partition.
            run: Run that writes, for the commit's metadata.
            stage: Stage that writes, likewise.
            expected: Rows that must be there afterwards, where known.

        Returns:
            Rows written.

        Raises:
            WorkspaceError: Another number of rows came back than was expected.
            ConcurrentRunError: Another commit changed the same rows.
        """
        key = KEY_OF.get(table, "fingerprint")
        out = df.withColumn(key, F.lit(fingerprint))
        writer = (
            out.write.format("delta")
            .mode("overwrite")
            .partitionBy(key)
            .option("userMetadata", json.dumps({"run": run, "stage": stage, "key": fingerprint}))
        )
        types = _types(out)
        if self.exists(table):
            if table not in self._types:
                self._types[table] = _types(self.read_all(table))
            if self._types[table] == types:
                # One commit takes the old rows away and puts the new ones in.
                writer = writer.option("replaceWhere", f"{key} = '{fingerprint}'")
            else:
                # Rows of another shape (a pool with other columns, a newer format) make a new
                # table; what was there stays in its history.
                writer = writer.option("overwriteSchema", "true")
        self._small.pop((table, fingerprint), None)
        self._save(writer, table)
        self._known.add(table)
        self._types[table] = types
        rows = self._committed(table, key, fingerprint)
        if expected is not None and rows != expected:
            raise WorkspaceError(
                f"{self.place(table)} holds {rows:,} rows of {stage} after the write, "
                f"but {expected:,} were expected. The input may have changed while it was read; "
                "run again."
            )
        return rows

    def _committed(self, table: str, key: str, fingerprint: str) -> int:
        """Return the rows that the table holds under a fingerprint after its commit."""
        if not self.in_catalog:
            found = delta.committed_rows(self.place(table), key, fingerprint)
            if found is not None:
                return found
        return int(self.read(table, fingerprint, key=key).count())

    def _save(self, writer: Any, table: str) -> None:
        try:
            if self.in_catalog:
                writer.saveAsTable(delta.sql_name(self.place(table)))
            else:
                writer.save(self.place(table))
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
        key = KEY_OF.get(table, "fingerprint")
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

    def prune(self, table: str, keep: Sequence[str]) -> int:
        """Delete rows of fingerprints that the newest records no longer name.

        Returns:
            Number of fingerprints deleted.
        """
        if not self.exists(table):
            return 0
        key = KEY_OF.get(table, "fingerprint")
        # Nothing is old where the records name no more fingerprints than are kept.
        wanted = set(keep)
        wanted |= {r.fingerprint for r in self._newest_per_stage(table)}
        # A refresh writes rows of several tables under one fingerprint.
        wanted |= {r.fingerprint for r in self.records() if r.stage == "refresh"}
        if all(r.fingerprint in wanted for r in self.records() if r.table == table):
            return 0
        found = bounded(self.read_all(table).select(key).distinct(), 10_000, "fingerprints")[
            key
        ].to_pylist()
        old = [f for f in found if f not in wanted]
        for fingerprint in old:
            name = delta.sql_name(self.place(table))
            # A quoted name and a hash of our own: nothing from outside reaches this text.
            self.spark.sql(f"DELETE FROM {name} WHERE {key} = '{fingerprint}'")  # noqa: S608
        return len(old)

    def _newest_per_stage(self, table: str) -> list[Record]:
        per_stage: dict[str, list[Record]] = {}
        for record in sorted(self.records(), key=lambda r: r.finished, reverse=True):
            if record.table != table:
                continue
            kept = per_stage.setdefault(record.stage, [])
            if record.fingerprint not in {r.fingerprint for r in kept} and len(kept) < KEEP:
                kept.append(record)
        return [r for kept in per_stage.values() for r in kept]

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
        `flush`, or once they stand for ten seconds of work. A run that is killed in between repeats
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
        rows = [
            {**{n: getattr(r, n) for n in _RUNS_SCHEMA.names}, "detail": json.dumps(r.detail)}
            for r in self._unwritten
        ]
        last = self._unwritten[-1]
        note = json.dumps({"run": last.run, "stage": last.stage, "key": last.fingerprint})
        writer = (
            self.frame(pa.Table.from_pylist(rows, schema=_RUNS_SCHEMA))
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
            rows = bounded(self.read_all("runs"), 200_000, "records of runs").to_pylist()
            self._records = [
                Record(**{**row, "detail": json.loads(row["detail"] or "{}")}) for row in rows
            ]
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
        key = KEY_OF.get(record.table, "fingerprint")
        rows = int(self.read(record.table, fingerprint, key=key).count())
        return record if rows == record.rows else None


def _types(df: DataFrame) -> set[tuple[str, str]]:
    return {(f.name, f.dataType.simpleString()) for f in df.schema.fields}


def _is_schema(location: str) -> bool:
    """A workspace is a schema when it is a dotted plain name; a bare word is a folder."""
    return "." in location.strip(".") and kind_of(location) == "table"


def _check_writable(folder: Path) -> None:
    probe = folder / ".gio-spark-write-check"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise WorkspaceError(
            f"Cannot write to the workspace {folder}: {error.strerror}. Give another folder with "
            "workspace: PATH, or mend its permissions."
        ) from error
