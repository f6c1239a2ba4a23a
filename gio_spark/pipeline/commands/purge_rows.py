"""Purge of rows: forecast, deletion in every place of a workspace, and proof that they are gone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from gio_spark.engine import session
from gio_spark.errors import ConcurrentRunError, InputError, WorkspaceError
from gio_spark.pipeline.commands.purge_ids import PurgeRequest, present_rows, requested_ids
from gio_spark.pipeline.commands.purge_models import purge_models
from gio_spark.pipeline.commands.purge_pages import PageExamples, PurgedPages
from gio_spark.pipeline.commands.run_history import history
from gio_spark.pipeline.run_context import fingerprint
from gio_spark.pipeline.run_records import RunSummary
from gio_spark.pipeline.stages.register_plan import registered_versions
from gio_spark.settings.run import RunSettings
from gio_spark.tables import PublishLog, StageClaims, Workspace, frame_digest
from gio_spark.tables.purge_deletion import (
    AffectedTable,
    RowTable,
    clear_details,
    count_affected,
    delete_rows,
    erase_old_files,
    row_tables,
)
from gio_spark.tables.purge_list import ID_HASH, PURGE, PurgeList, id_hash, only_hashed
from gio_spark.tables.purge_proof import TableProof, count_details, prove_tables
from gio_spark.tables.purge_records import lower_counts
from gio_spark.tables.stage_records import new_token
from gio_spark.tables.workspace import SNAPSHOT

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

PURGED = "purged"
"""Stage of the record of a purge that was completed."""


@dataclass(frozen=True)
class AffectedPublish:
    """A publish whose rows are to be purged in part.

    Attributes:
        name: Published name.
        number: Number of the publish.
        run: Run whose selection it is.
        state: current, pinned, both, or "".
        table: Table of the selection.
        rows: Rows that it loses.
    """

    name: str
    number: int
    run: str
    state: str
    table: str
    rows: int


@dataclass(frozen=True)
class PurgeForecast:
    """Places that hold rows to be purged; nothing has been changed.

    Attributes:
        ids: Ids that are requested.
        listed: Ids purged from the workspace before, which are searched for as well.
        tables: Tables that hold such rows.
        publishes: Publishes that lose rows.
        details: Details in quarantine that name such a row.
        models: Vectors of such rows in centroids and samples of models.
        pages: Pages of reports and tracked runs that show such rows.
        dropped_snapshots: Snapshots without a known column of ids, which are dropped.
        still_in: Input -> such rows that it still has; later runs leave them out.
        unsearched: Tables to which the condition could not be applied.
        unread: Messages about inputs that could not be read.
        registered: Versions of registered models, where models hold such vectors: the versions
            stay as they are.
    """

    ids: int
    listed: int
    tables: tuple[AffectedTable, ...]
    publishes: tuple[AffectedPublish, ...]
    details: int
    models: int
    pages: tuple[PageExamples, ...]
    dropped_snapshots: tuple[str, ...]
    still_in: Mapping[str, int]
    unsearched: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    registered: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        """Rows of all tables together."""
        return sum(table.rows for table in self.tables)

    @property
    def pinned(self) -> tuple[AffectedPublish, ...]:
        """Pinned publishes that lose rows."""
        return tuple(p for p in self.publishes if "pinned" in p.state)

    def plain(self) -> dict[str, Any]:
        """Values fit for JSON."""
        return {**asdict(self), "rows": self.rows}


@dataclass(frozen=True)
class Purge:
    """Result of a purge.

    Attributes:
        forecast: Rows before the purge.
        did_work: Whether rows were purged; False for a forecast alone.
        proof: Search of every table afterwards; empty for a forecast alone.
        pages: Pages that were searched afterwards.
    """

    forecast: PurgeForecast
    did_work: bool
    proof: tuple[TableProof, ...] = ()
    pages: int = 0


def purge_rows(
    settings: RunSettings,
    request: PurgeRequest,
    *,
    confirmed: bool = False,
    include_pinned: bool = False,
    spark: SparkSession | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Purge:
    """Purge rows from a workspace for good, or forecast it.

    A purge that was interrupted is completed by the next one, whatever that one asks for.

    Args:
        settings: Of the runs of the workspace.
        request: Which rows.
        confirmed: Whether rows are purged; else only the forecast is made.
        include_pinned: Whether pinned publishes lose rows too.
        spark: Session; None: as `engine` says.
        say: Receives a line for each step.

    Raises:
        InputError: The request cannot be used, or a pinned publish holds such rows.
        ConcurrentRunError: A run is writing to the workspace.
        WorkspaceError: Rows are still there afterwards.
    """
    spark = spark or session(settings.engine)
    history(spark, settings.workspace)
    workspace = Workspace(spark, settings.workspace, writable=confirmed)
    if not confirmed:
        return Purge(_Purge.prepare(workspace, settings, request, say).forecast, did_work=False)
    claims = StageClaims(workspace, settings.concurrency, say)
    key = fingerprint(PURGE)
    with claims.hold(key, run=PURGE, stage=PURGE, finished=workspace.reload, release=True):
        busy = claims.active(besides=key)
        if busy:
            raise ConcurrentRunError(
                f"{busy[0].line(workspace.location)}. A purge deletes files that it reads or "
                "writes: purge when it has finished."
            )
        purge = _Purge.prepare(workspace, settings, request, say)
        if purge.forecast.pinned and not include_pinned:
            names = ", ".join(f"{p.name}@{p.number}" for p in purge.forecast.pinned)
            raise InputError(
                f"Pinned publishes hold rows to be purged: {names}. Nothing was changed. They "
                "lose the rows with --include-pinned, or unpin them: `gio-spark pin NAME N "
                "--remove`."
            )
        return purge.carry_out()


@dataclass(frozen=True)
class _Purge:
    """One purge: the rows, the places that hold them, and the steps."""

    workspace: Workspace
    settings: RunSettings
    new_hashes: pa.Table
    hashes: DataFrame
    present: Mapping[str, DataFrame]
    snapshot_ids: Mapping[str, str]
    pages: PurgedPages
    forecast: PurgeForecast
    say: Callable[[str], None]

    @classmethod
    def prepare(
        cls,
        workspace: Workspace,
        settings: RunSettings,
        request: PurgeRequest,
        say: Callable[[str], None],
    ) -> _Purge:
        """Find the rows, and every place that holds them."""
        say("forecast")
        present, unread = present_rows(workspace, settings, request)
        snapshot_ids, unknown = _snapshot_ids(workspace, settings)
        requested = requested_ids(workspace, settings, request, present, snapshot_ids)
        # A frame stands in the workspace: it loses the rows itself.
        stored = {workspace.place(name) for name in (*snapshot_ids, *unknown)}
        locations = {name: one.location for name, one in settings.datasets().items()}
        outside = {n: rows for n, rows in present.items() if locations[n] not in stored}
        purged = PurgeList(workspace)
        hashes = workspace.frame(requested.hashes)
        listed = 0
        if purged.exists:
            listed = int(purged.hashes().count())
            hashes = hashes.unionByName(purged.hashes()).distinct()
        tables = [count_affected(workspace, t, hashes) for t in row_tables(workspace, snapshot_ids)]
        affected = tuple(t for t in tables if t.rows)
        pages = PurgedPages(workspace, settings, hashes)
        models = purge_models(workspace, hashes, change=False)
        forecast = PurgeForecast(
            ids=requested.hashes.num_rows,
            listed=listed,
            tables=affected,
            publishes=_affected_publishes(workspace, affected),
            details=count_details(workspace, hashes),
            models=models,
            pages=tuple(pages.examples()),
            dropped_snapshots=unknown,
            still_in={
                locations[name]: int(only_hashed(rows.select("id"), "id", hashes).count())
                for name, rows in outside.items()
            },
            unsearched=requested.unsearched,
            unread=unread,
            registered=registered_versions(workspace) if models else (),
        )
        return cls(
            workspace,
            settings,
            requested.hashes,
            hashes,
            outside,
            snapshot_ids,
            pages,
            forecast,
            say,
        )

    def carry_out(self) -> Purge:
        """List the ids, then delete the rows; each step leaves what is done already as it is."""
        workspace, purged = self.workspace, PurgeList(self.workspace)
        if not self.new_hashes.num_rows and not purged.exists:
            return Purge(self.forecast, did_work=False)
        token = new_token()
        self.say("list of purged ids")
        # Inputs without the rows are others: this is known before a run can leave the rows out.
        self._record_inputs(token)
        # From here on later runs leave the rows out, and another purge completes this one.
        purged.add(self.new_hashes, token)
        hashes = purged.hashes()
        tables = row_tables(workspace, self.snapshot_ids)
        self.say("row counts of records")
        lower_counts(workspace, tables, hashes)
        self.say("models")
        purge_models(workspace, hashes, change=True)
        self.say("pages")
        self.pages.remove()
        clear_details(workspace, hashes)
        for snapshot in self.forecast.dropped_snapshots:
            workspace.store.drop(snapshot)
        for table in tables:
            if count_affected(workspace, table, hashes).rows:
                self.say(table.name)
                delete_rows(workspace, table, hashes)
        self.say("old files")
        erase_old_files(workspace, tables)
        self.say("proof")
        proof = self._prove(tables, hashes)
        workspace.record(
            run="", stage=PURGED, fingerprint=token, table="", rows=self.forecast.rows,
            seconds=0.0, only=(), detail={"ids": self.new_hashes.num_rows},
        )  # fmt: skip
        return Purge(self.forecast, True, tuple(proof), self.pages.count)

    def _record_inputs(self, token: str) -> None:
        """Record which inputs still have purged rows; without them, each is another input."""
        still_in = {}
        for name, rows_now in self.present.items():
            location = self.settings.datasets()[name].location
            ids = only_hashed(rows_now.select("id"), "id", self.hashes)
            there = ids.select(id_hash("id").alias(ID_HASH)).distinct()
            rows = int(there.count())
            still_in[location] = {
                "rows": rows, "digest": frame_digest(there)[:12] if rows else "",
            }  # fmt: skip
        self.workspace.record(
            run="", stage=PURGE, fingerprint=token, table="", rows=self.new_hashes.num_rows,
            seconds=0.0, only=(), detail={"still_in": still_in},
        )  # fmt: skip

    def _prove(self, tables: list[RowTable], hashes: DataFrame) -> list[TableProof]:
        """Decode what is left.

        Raises:
            WorkspaceError: A purged row is still there.
        """
        proof = prove_tables(self.workspace, tables, hashes)
        problems = [f"{p.table}: {p.purged:,} rows" for p in proof if p.purged]
        details = count_details(self.workspace, hashes)
        problems += [f"quarantine: {details:,} details"] if details else []
        vectors = purge_models(self.workspace, hashes, change=False)
        problems += [f"models: {vectors:,} vectors"] if vectors else []
        problems += [f"{one.place}: {one.rows:,} examples" for one in self.pages.examples()]
        if problems:
            raise WorkspaceError(
                f"Purged rows are still in {self.workspace.location}: {'; '.join(problems)}. "
                "Another process may have written them. Run the purge again when nothing writes."
            )
        return proof


def _snapshot_ids(
    workspace: Workspace, settings: RunSettings
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Snapshot -> its column of ids, and snapshots of which no run tells it."""
    columns: dict[str, str | None] = {}
    for record in workspace.records():
        if record.stage != "run":
            continue
        summary = RunSummary.of(record)
        run_settings = RunSettings.model_validate(summary.settings)
        for name, one in run_settings.datasets().items():
            place = summary.inputs.get(name, "")
            columns[place] = (one.columns or run_settings.columns).id
    ids, unknown = {}, []
    for snapshot in workspace.store.names(SNAPSHOT):
        if not workspace.exists(snapshot):
            continue
        column = columns.get(workspace.place(snapshot), settings.pool_columns().id)
        if column is not None and column in workspace.read_table(snapshot).columns:
            ids[snapshot] = column
        else:
            unknown.append(snapshot)
    return ids, tuple(unknown)


def _affected_publishes(
    workspace: Workspace, tables: tuple[AffectedTable, ...]
) -> tuple[AffectedPublish, ...]:
    rows = {t.table: t.rows for t in tables}
    log = PublishLog(workspace)
    pinned = log.pinned()
    publishes = []
    for name, published in log.by_name().items():
        for event in published:
            if event.table not in rows:
                continue
            states = ["current"] if event is published[-1] else []
            states += ["pinned"] if (name, event.number) in pinned else []
            publishes.append(
                AffectedPublish(
                    name, event.number, event.run, ", ".join(states), event.table,
                    rows[event.table],
                )
            )  # fmt: skip
    return tuple(publishes)
