"""Log of stage records: the table `runs`, read once, with the records that wait to be written."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gio_spark.engine import bounded
from gio_spark.errors import WorkspaceError
from gio_spark.tables import delta
from gio_spark.tables.stage_records import (
    ATTEMPT,
    SCHEMA,
    Record,
    from_table,
    new_token,
    to_table,
)
from gio_spark.tables.stage_store import StageStore, earlier_layout

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame

# Seconds of finished work that may wait for its records: a commit for each of many small stages
# costs more than the stages.
UNRECORDED_SECONDS = 20.0

# A local folder has no atomic commit that Spark's and other writers share: an append may be lost
# to another one of the same moment, which is noticed when it is read back, and done again.
_LOST_APPENDS = 3


class RecordLog:
    """Records of finished stages in a workspace.

    Args:
        store: Tables of the workspace.
        frame: Conversion of an Arrow table to a frame.
    """

    def __init__(self, store: StageStore, frame: Callable[[pa.Table], DataFrame]) -> None:
        self._store = store
        self._frame = frame
        # Read once; records that this process adds are appended.
        self._records: list[Record] | None = None
        self._unwritten: list[Record] = []
        # (table, key) -> newest record that names its rows.
        self._by_rows: dict[tuple[str, str], Record] = {}

    def add(self, record: Record, *, later: bool) -> None:
        """Add a record; with `later` it may wait to be written with others."""
        self.records().append(record)
        self._index_rows(record)
        self._unwritten.append(record)
        if not later or sum(r.seconds for r in self._unwritten) >= UNRECORDED_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write the unwritten records in one commit."""
        unwritten, self._unwritten = self._unwritten, []
        if not unwritten:
            return
        note = {"run": unwritten[-1].run, "stage": unwritten[-1].stage, ATTEMPT: new_token()}
        for _ in range(_LOST_APPENDS):
            self._store.append_again("runs", self._frame(to_table(unwritten)), note=note)
            # A record that is written twice is read once.
            if self._store.in_catalog or delta.has_commit(
                self._store.spark, self._store.place("runs"), note[ATTEMPT]
            ):
                return

    def reload(self) -> None:
        """Read the records again at the next use, with those of other processes."""
        self._records = None

    def records(self, run: str | None = None) -> list[Record]:
        """Records of finished stages, oldest first."""
        if self._records is None:
            stored = self._stored_records() if self._store.exists("runs") else []
            known = {r.record for r in stored}
            both = [*stored, *(r for r in self._unwritten if r.record not in known)]
            self._records = sorted(both, key=lambda r: (r.finished, r.stage))
            self._by_rows = {}
            for record in self._records:
                self._index_rows(record)
        return self._records if run is None else [r for r in self._records if r.run == run]

    def of_rows(self, table: str, key: str) -> Record | None:
        """Newest record that names the rows of a key in a table, or None."""
        self.records()
        return self._by_rows.get((table, key))

    def _index_rows(self, record: Record) -> None:
        if not record.is_chunk:
            for table, keys in record.attempts.items():
                self._by_rows |= {(table, key): record for key in keys}

    def _stored_records(self) -> list[Record]:
        """Records in the table `runs`.

        Raises:
            WorkspaceError: An earlier version of gio_spark wrote them, in another layout.
        """
        rows = self._store.read("runs")
        if not set(SCHEMA.names) <= set(rows.columns):
            raise WorkspaceError(earlier_layout(self._store.location))
        return from_table(bounded(rows.select(*SCHEMA.names), 200_000, "records of runs"))

    def recorded(self, stage: str, fingerprint: str) -> list[Record]:
        """Records of a complete stage, oldest first; its rows are not checked."""
        return [r for r in self.records() if r.stage == stage and r.fingerprint == fingerprint]
