"""Context of a run: session, settings, tables, progress, tracker; a complete stage is skipped here.

`RunContext.stage` does the work of a stage, unless the workspace records it as complete.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from gio_spark.engine.progress import Progress
from gio_spark.engine.progress import Stage as StageProgress
from gio_spark.report.report_data import RunWarning, StageSummary
from gio_spark.tables import Chunk, Record, StageClaims, Workspace, write_chunks
from gio_spark.tracking import TrackedStage, Tracker

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession

    from gio_spark.settings.run import RunSettings

# Raised when what a stage writes changes meaning, so that old rows are not taken for new ones.
FORMAT = 1

MakeRows = Callable[[StageProgress], tuple[int, dict[str, Any]]]
"""Work of a stage: gives the rows that it wrote, and facts for its record."""


def fingerprint(stage: str, *parts: Any) -> str:
    """Hash a stage's name, format, settings and inputs to 32 hex characters."""
    text = json.dumps([FORMAT, stage, *parts], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass
class RunContext:
    """One run under way.

    Attributes:
        spark: Session.
        settings: Of the run.
        workspace: Its tables.
        run: Id of the run, made from settings and pinned inputs.
        progress: Display of the progress.
        tracker: Tracker of the run.
        stages: Summaries of the stages so far.
        warnings: Warnings for the user.
        started: When it began.
        gather: Whether records of short stages are written together; the run then flushes them.
    """

    spark: SparkSession
    settings: RunSettings
    workspace: Workspace
    run: str
    progress: Progress
    tracker: Tracker
    stages: list[StageSummary] = field(default_factory=list)
    warnings: list[RunWarning] = field(default_factory=list)
    started: datetime = field(default_factory=lambda: datetime.now(timezone.utc))
    gather: bool = False

    def stage(
        self,
        name: str,
        key: str,
        table: str,
        make: MakeRows,
        *,
        rows: int | None = None,
        fitted_on: int | None = None,
        claim: bool = False,
    ) -> Record:
        """Run a stage, unless a complete record of the same fingerprint is there.

        Args:
            name: Stage.
            key: Its fingerprint.
            table: Stage table that it writes, or "" if it writes none.
            make: Does the work; gives the rows written and details for the record, of which `table`
                names the table where it is made by the stage itself.
            rows: Rows it goes over, for progress.
            fitted_on: Rows that a model is fitted on, shown instead of the arrays written. Where
                it is not known, no number of rows is shown of a model.
            claim: Whether the stage is long enough to claim it, so that a second run that needs
                the same waits for it.
        """
        record = self.workspace.complete(name, key)
        skipped = record is not None
        with self.progress.stage(name, rows, spark=self.spark) as progress:
            if record is None and claim:
                with self._claims.hold(
                    key, run=self.run, stage=name, finished=lambda: self._finished(name, key)
                ) as by_another:
                    record, skipped = by_another, by_another is not None
                    if record is None:
                        record = self._make(name, key, table, make, progress)
            elif record is None:
                record = self._make(name, key, table, make, progress)
            if skipped:
                self.workspace.record_reuse(record, self.run)
                progress.skip("already complete")
            else:
                progress.done(rows=_rows_shown(record, table, fitted_on))
        summary = StageSummary(
            name=name,
            seconds=0.0 if skipped else record.seconds,
            rows=_rows_shown(record, table, fitted_on),
            skipped=skipped,
            note="" if skipped else progress.note,
        )
        self.stages.append(summary)
        self.tracker.stage(
            TrackedStage(
                name=name, seconds=summary.seconds, rows=summary.rows, skipped=summary.skipped
            )
        )
        return record

    @property
    def did_work(self) -> bool:
        """Whether a stage was done that was not complete already."""
        return any(not stage.skipped for stage in self.stages)

    def stage_lines(self) -> tuple[tuple[str, float, int | None, bool], ...]:
        """Name, seconds, rows, and whether it was complete already, of each stage so far."""
        return tuple((s.name, round(s.seconds, 2), s.rows, s.skipped) for s in self.stages)

    @property
    def _claims(self) -> StageClaims:
        return StageClaims(self.workspace, self.settings.concurrency, self.progress.say)

    def _finished(self, name: str, key: str) -> Record | None:
        """Look whether another run has completed a stage in the meantime."""
        self.workspace.reload()
        return self.workspace.complete(name, key)

    def _make(
        self,
        name: str,
        key: str,
        table: str,
        make: MakeRows,
        progress: StageProgress,
    ) -> Record:
        """Do the work of a stage and record it."""
        began = time.monotonic()
        try:
            written, detail = make(progress)
        except BaseException:
            # No record of another stage may name what this one has left.
            self.workspace.abandon()
            raise
        return self.workspace.record(
            run=self.run,
            stage=name,
            fingerprint=key,
            table=str(detail.pop("table", table)),
            rows=written,
            seconds=time.monotonic() - began,
            detail=detail,
            later=self.gather,
        )

    def recorded(self, stage: str, key: str) -> bool:
        """Whether a record says that a stage is complete; its rows are not looked at."""
        return bool(self.workspace.recorded(stage, key))

    def write_small(self, table: str, rows: pa.Table, *, key: str, stage: str) -> int:
        """Write a small table from the driver; gives its rows. See `Workspace.write_arrow`."""
        return self.workspace.write_arrow(table, rows, fingerprint=key, run=self.run, stage=stage)

    def write_chunks(
        self,
        progress: StageProgress,
        table: str,
        make: Callable[[Chunk], DataFrame],
        *,
        count: int,
        key: str,
        stage: str,
        expected: int | None = None,
    ) -> int:
        """Write a stage's rows, in chunks where they are many; gives their number.

        A stage that was killed goes on with its first chunk that is not complete; see
        `tables.write_chunks` for the arguments.
        """

        def report_chunk(chunk: Chunk, rows_written: int) -> None:
            progress.reached(rows_written)
            progress.say(f"chunk {chunk.number} of {chunk.of}")

        with progress.counting():
            return write_chunks(
                self.workspace,
                table,
                make,
                count=count,
                fingerprint=key,
                run=self.run,
                stage=stage,
                expected=expected,
                on_chunk=report_chunk,
            )

    def warn(self, name: str, text: str, action: str) -> None:
        """Add a warning, unless the run has it already."""
        if all(c.name != name or c.text != text for c in self.warnings):
            self.warnings.append(RunWarning(name=name, text=text, action=action))


def _rows_shown(record: Record, table: str, fitted_on: int | None) -> int | None:
    """Rows of a stage for display; the arrays of a model are no rows."""
    return record.rows if fitted_on is None and table != "models" else fitted_on
