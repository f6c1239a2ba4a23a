"""`gio-spark explain`: why rows of the pool are in a selection, or which rule left them out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyspark.sql import functions as F

from gio_spark.engine import bounded, session
from gio_spark.errors import InputError
from gio_spark.pipeline.commands.row_decisions import COLUMNS, SelectionTables, row_decisions
from gio_spark.pipeline.commands.row_output import check_format, read_rows, rows_folder, write_rows
from gio_spark.pipeline.commands.run_history import history
from gio_spark.pipeline.commands.table_rows import find_pin, open_table
from gio_spark.pipeline.refresh import newest_run
from gio_spark.pipeline.refresh_records import RefreshSummary
from gio_spark.pipeline.run_records import RunSummary
from gio_spark.pipeline.stages.publish_selection import Candidate, find_candidate, refreshes_of
from gio_spark.settings.inputs import InputSettings
from gio_spark.settings.redact import redact
from gio_spark.settings.run import RunSettings
from gio_spark.tables import PublishLog, Record, Workspace, quoted_column

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

MOST_IDS = 1_000
"""Ids of which the driver collects the explanations; those of more are written by the engine."""


@dataclass(frozen=True)
class ExplainedSelection:
    """Selection that rows are explained by.

    Attributes:
        run: Run that made the plan.
        refresh: Number of the run's newest refresh, 0 where there is none.
        table: Place of the selected rows.
        pool: Location of the pool.
        pool_version: Version of the pool that the selection was made from.
        embedder: Name of the embedder.
        embedder_revision: Its revision.
        strategy: Choice of the strategy where the run made it, else "".
        published_name: Name of the newest publish of this selection, "" where there is none.
        publish: Number of that publish, None where there is none.
        is_current: Whether readers of the name get this selection.
    """

    run: str
    refresh: int
    table: str
    pool: str
    pool_version: str
    embedder: str
    embedder_revision: str
    strategy: str
    published_name: str
    publish: int | None
    is_current: bool


@dataclass(frozen=True, eq=False)
class Explanation:
    """Explained rows.

    Attributes:
        selection: Selection that they are explained by.
        rows: One dict per id with the columns of `row_decisions.COLUMNS`, in the order of the ids;
            empty where the rows were written to `output`.
        counts: Rule -> number of ids that it decided about.
        output: Folder of the explanations, or "".
    """

    selection: ExplainedSelection
    rows: list[dict[str, Any]]
    counts: dict[str, int]
    output: str = ""

    def plain(self) -> dict[str, Any]:
        """Values fit for JSON."""
        return {
            "selection": asdict(self.selection),
            "counts": self.counts,
            "rows": self.rows,
            "output": self.output,
        }


def explain_rows(
    settings: RunSettings,
    ids: Sequence[str],
    *,
    run_id: str | None = None,
    spark: SparkSession | None = None,
) -> Explanation:
    """Explain rows of the pool by their ids.

    Args:
        settings: Of the run.
        ids: At most `MOST_IDS` ids; of equal ones the first counts.
        run_id: The run; None: the newest finished one of these settings.
        spark: Session; None: as `engine` says.

    Raises:
        InputError: There is no such run, its rows are no longer there, or the ids are too many.
    """
    unique_ids = list(dict.fromkeys(ids))
    if not unique_ids:
        raise InputError("No id to explain: give ids of rows, or --table with a column `id`.")
    if len(unique_ids) > MOST_IDS:
        raise InputError(
            f"{len(unique_ids):,} ids are more than {MOST_IDS:,}: put them into a table with a "
            "column `id`, and use --table and --output."
        )
    explained = _ExplainedRun.find(settings, run_id, spark)
    frame = explained.workspace.frame(pa.table({"id": pa.array(unique_ids, pa.string())}))
    rows = explained.decisions(frame, unique_ids)
    by_id = {row["id"]: row for row in bounded(rows, MOST_IDS, "explained ids").to_pylist()}
    return _explanation(explained.selection, [by_id[one] for one in unique_ids])


def explain_table(
    settings: RunSettings,
    table: str,
    *,
    output: str | None = None,
    file_format: str = "parquet",
    run_id: str | None = None,
    spark: SparkSession | None = None,
) -> Explanation:
    """Explain the rows of the pool whose ids a table lists.

    Args:
        settings: Of the run.
        table: Path of a Delta table, of Parquet, JSONL or CSV files, or a table's name, with a
            column `id`; null ids are left out, and of equal ids one counts.
        output: Folder that the engine writes the explanations to, as `output/rows`; None: they are
            collected, at most `MOST_IDS`, ordered by id.
        file_format: parquet or csv.
        run_id: The run; None: the newest finished one of these settings.
        spark: Session; None: as `engine` says.

    Raises:
        InputError: There is no such run or table, the output is there already, or the ids are too
            many to be collected.
    """
    check_format(file_format)
    place = "" if output is None else rows_folder(output)
    explained = _ExplainedRun.find(settings, run_id, spark)
    session_of_run = explained.workspace.spark
    source = InputSettings(location=table)
    opened = open_table(
        session_of_run, source, find_pin(session_of_run, source, "table"), {"id": "id"}, "table"
    )
    if "id" not in opened.rows.columns:
        columns = ", ".join(opened.rows.columns[:20])
        raise InputError(f"{table} has no column 'id'. It has: {columns}.")
    ids = opened.rows.select(F.col("id").cast("string").alias("id"))
    ids = ids.where(F.col("id").isNotNull()).distinct()
    if not place:
        id_list = bounded(ids, MOST_IDS, f"ids in {table} (use --output)")["id"].to_pylist()
        frame = explained.workspace.frame(pa.table({"id": pa.array(id_list, pa.string())}))
        rows = bounded(explained.decisions(frame, id_list), MOST_IDS, "explained ids").to_pylist()
        return _explanation(explained.selection, sorted(rows, key=lambda row: str(row["id"])))
    facts = {name: F.lit(value) for name, value in asdict(explained.selection).items()}
    decided = explained.decisions(ids, None).withColumns(
        {name: value for name, value in facts.items() if name not in COLUMNS}
    )
    with_types = decided.withColumn("publish", F.col("publish").cast("bigint"))
    write_rows(with_types, place, file_format)
    written = read_rows(session_of_run, place, file_format)
    counted = bounded(written.groupBy("rule").count(), 100, "rules").to_pylist()
    counts = {row["rule"]: int(row["count"]) for row in counted}
    return Explanation(explained.selection, [], dict(sorted(counts.items())), place)


def _explanation(selection: ExplainedSelection, rows: list[dict[str, Any]]) -> Explanation:
    rules = sorted(row["rule"] for row in rows)
    return Explanation(selection, rows, {rule: rules.count(rule) for rule in dict.fromkeys(rules)})


@dataclass(frozen=True)
class _ExplainedRun:
    """Run whose rows are explained, with its newest refresh."""

    workspace: Workspace
    settings: RunSettings
    selection: ExplainedSelection
    tables: SelectionTables

    @classmethod
    def find(
        cls, settings: RunSettings, run_id: str | None, spark: SparkSession | None
    ) -> _ExplainedRun:
        """Find the run and what its newest selection was made of.

        Raises:
            InputError: There is no such finished run, or its rows are no longer there.
        """
        spark = spark or session(settings.engine)
        history(spark, settings.workspace)
        workspace = Workspace(spark, settings.workspace, writable=False)
        summary = RunSummary.of(_finished_run(workspace, settings, run_id))
        candidate = find_candidate(workspace, summary.run)
        tables = _tables_of(workspace, summary, candidate)
        _check_retained(workspace, summary.run, tables.assignments)
        # Those of the newest run of the settings select the same rows as these settings.
        own = settings if run_id is None else RunSettings.model_validate(summary.settings)
        own = summary.carried_out(own)
        return cls(workspace, own, _described(workspace, summary, candidate), tables)

    def decisions(self, ids: DataFrame, id_list: Sequence[str] | None) -> DataFrame:
        """Decisions about ids; without a list of them tables are filtered by a join."""

        def filter_ids(rows: DataFrame) -> DataFrame:
            if id_list is not None:
                return rows.where(F.col(quoted_column("id")).isin(list(id_list)))
            return rows.join(ids, "id", "left_semi")

        return row_decisions(self.workspace, self.settings, self.tables, ids, filter_ids)


def _finished_run(workspace: Workspace, settings: RunSettings, run_id: str | None) -> Record:
    """Record of a finished run, the newest one of these settings by default."""
    if run_id is None:
        return newest_run(workspace, settings)
    finished = {r.run: r for r in workspace.records() if r.stage == "run"}
    if run_id not in finished:
        known = ", ".join(list(finished)[-10:]) or "none"
        raise InputError(
            f"No finished run {run_id!r} is in {workspace.location}. Finished runs: {known}."
        )
    return finished[run_id]


def _tables_of(workspace: Workspace, run: RunSummary, candidate: Candidate) -> SelectionTables:
    """Keys of the run's tables, or of its newest refresh."""
    refreshes = refreshes_of(workspace, run.run)
    keys = run.keys
    if not refreshes:
        return SelectionTables(
            candidate.table, keys.embeddings["pool"], keys.assignments["pool"], keys.scores,
            keys.quarantine, keys.removed_rows, run.plan_key,
        )  # fmt: skip
    newer = RefreshSummary.of(refreshes[-1]).keys
    return SelectionTables(
        candidate.table, newer.embeddings, newer.assignments, newer.scores, newer.quarantine,
        newer.removed_rows, newer.plan or run.plan_key,
    )  # fmt: skip


def _check_retained(workspace: Workspace, run: str, assignments: str) -> None:
    """Refuse a run whose rows retention has deleted.

    Raises:
        InputError: They are not there.
    """
    stages = [
        r.stage
        for r in workspace.records()
        if r.fingerprint == assignments and r.table == "assignments"
    ]
    if not stages or workspace.complete(stages[-1], assignments) is None:
        raise InputError(
            f"The assignments of {run} are no longer in {workspace.location}: retention.runs says "
            "of how many runs they are kept. Run again, or explain a newer run."
        )


def _described(workspace: Workspace, run: RunSummary, candidate: Candidate) -> ExplainedSelection:
    """Facts of the selection, and the newest publish that holds it."""
    log = PublishLog(workspace)
    events = [
        (event is published[-1], event.at, event)
        for published in log.by_name().values()
        for event in published
        if event.table == candidate.table
    ]
    is_current, _, event = max(events, key=lambda e: e[:2]) if events else (False, None, None)
    return ExplainedSelection(
        run=run.run,
        refresh=candidate.number,
        table=workspace.place(candidate.table),
        pool=redact(run.inputs["pool"]),
        pool_version=candidate.input_version,
        embedder=run.embedder[0],
        embedder_revision=run.embedder[1],
        strategy="" if run.strategy is None else run.strategy.line,
        published_name=event.name if event else "",
        publish=event.number if event else None,
        is_current=is_current,
    )
