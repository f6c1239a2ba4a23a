"""`gio-spark run`: all stages in order; complete stages are skipped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from typing_extensions import Unpack

from gio_spark.engine import describe, session
from gio_spark.engine.progress import Progress
from gio_spark.errors import ConfigError
from gio_spark.pipeline.run_context import RunContext
from gio_spark.pipeline.run_records import RunKeys, RunSummary
from gio_spark.pipeline.run_state import RunState
from gio_spark.pipeline.stage_runner import PlannedStage, planned_stages, run_stages
from gio_spark.pipeline.stages.frozen_models import set_codebook, set_frozen_embedder
from gio_spark.pipeline.stages.input_checks import tokens_in_words
from gio_spark.pipeline.stages.input_snapshots import as_location
from gio_spark.pipeline.stages.lineage_event import type_names, write_lineage
from gio_spark.pipeline.stages.open_inputs import (
    PinnedInputs,
    identity,
    open_context,
    opened_run,
    pin_inputs,
    requested,
)
from gio_spark.pipeline.stages.plan import load_plan
from gio_spark.pipeline.stages.publish_selection import (
    Publication,
    audit_and_publish,
    selection_of_run,
)
from gio_spark.pipeline.stages.register_plan import register_plan
from gio_spark.pipeline.stages.run_graph import PARTS, run_graph
from gio_spark.pipeline.stages.select_rows import SELECT
from gio_spark.report.text_format import clusters_text
from gio_spark.settings.budget import parse_budget
from gio_spark.settings.keywords import RunKeywords
from gio_spark.settings.load import build
from gio_spark.settings.run import RunSettings
from gio_spark.tables import STAGE_TABLES, Record, Workspace, try_to_prune

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

# Parts in order; `until` names one of them.
STAGES = tuple(PARTS)
_BEFORE_STRATEGY = (PARTS["embed"], PARTS["quantize"])


@dataclass(frozen=True, repr=False)
class Curation:
    """Result of a run.

    Attributes:
        selected: The rows that this run selected, published or not: the pool's own columns and
            gio_id, gio_cluster, gio_reason, gio_log_ratio, gio_input_version, gio_run; where rows
            repeat (`select.repeat`) also gio_repeat and gio_weight.
        plan: One row per cluster: rows, take, target_mass, order, divergence_after, threshold.
        summary: Figures of the run, plain values.
        report: Path of the HTML report; None where none was written.
        run_id: Id of the run.
        tables: Stage table -> place.
        did_work: False when everything was complete already.
        publication: Under which name and number the selection was published, or why it was not;
            None where the run stopped before.
    """

    selected: DataFrame
    plan: pd.DataFrame
    summary: dict[str, Any]
    report: Path | None
    run_id: str
    tables: dict[str, str]
    did_work: bool = field(default=True)
    publication: Publication | None = None

    def lines(self) -> list[tuple[str, str]]:
        """Result of the run, as pairs of a word and a text."""
        if "selected_rows" not in self.summary:
            return [("run", self.run_id), ("state", "stopped before the report")]
        summary = RunSummary.model_validate(self.summary)
        selection, random, pool = (summary.divergences[n] for n in ("selection", "random", "pool"))
        publication = self.publication
        published = (
            "no"
            if publication is None or not publication.number
            else f"{publication.name} {publication.number}"
        )
        distance = f"{selection:.4g} nats (random rows {random:.4g}, pool {pool:.4g})"
        return [
            ("run", self.run_id),
            ("selected", f"{summary.selected_rows:,} of {summary.pool_rows:,} rows"),
            *([("with repeats", f"{summary.copies:,} rows")] if summary.copies is not None else []),
            ("target", f"{summary.target_rows:,} rows"),
            ("clusters", clusters_text(summary.clusters, summary.clusters_selected, "")),
            *([("strategy", summary.strategy.line)] if summary.strategy else []),
            ("divergence from the target", distance),
            *((f"warning, {name}", f"{text} {advice}") for name, text, advice in summary.cautions),
            ("published", published),
            ("table", self.tables["selected"]),
            ("report", "none" if self.report is None else str(self.report)),
        ]

    def __str__(self) -> str:
        """A short summary for a terminal."""
        return "\n".join(f"{word}: {text}" for word, text in self.lines())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """The same as a table, for notebooks."""
        rows = (f"<tr><th>{escape(a)}</th><td>{escape(b)}</td></tr>" for a, b in self.lines())
        return f"<table>{''.join(rows)}</table>"


def curate(
    pool: Any,
    target: Any,
    budget: int | float | str = 0.1,
    *,
    workspace: str | Path = "gio-workspace",
    spark: SparkSession | None = None,
    settings: RunSettings | Mapping[str, Any] | None = None,
    **keywords: Unpack[RunKeywords],
) -> Curation:
    """Choose the rows of a pool that are worth training on for a target.

    Args:
        pool: Path, table name, mapping of input settings, or a Spark or pandas DataFrame.
        target: The same, or a list of those with shares.
        budget: Rows (int), a share (float below 1), "200M tokens", or "auto".
        workspace: Folder, or `catalog.schema`, of all tables.
        spark: Session; none: found or started as `engine` says.
        settings: Settings to begin with, as those of a configuration file; the other arguments
            and keywords go before them.
        keywords: Any other setting of a run: columns, embedder, clusters, objective,
            within_cluster, seed, engine, ... (see `gio-spark init`).

    Returns:
        The selected rows, the plan, the report and where everything is.

    Raises:
        GioSparkError: With one clear message; see gio_spark.errors.
    """
    if isinstance(settings, RunSettings):
        settings = settings.model_dump(exclude_unset=True)
    others: dict[str, Any] = {**(settings or {}), **keywords}
    spark = spark or session(others.get("engine", "auto"))
    tables = Workspace(spark, str(workspace))
    columns = others.get("columns")
    data = {
        **others,
        "pool": as_location(spark, tables, pool, "pool", columns),
        "target": as_location(spark, tables, target, "target", columns),
        "budget": budget,
        "workspace": str(workspace),
    }
    if "held_out" in others:
        data["held_out"] = as_location(spark, tables, others["held_out"], "held-out", columns)
    return run(build(data, where="the call of curate"), spark=spark)


def run(
    settings: RunSettings,
    *,
    spark: SparkSession | None = None,
    progress: Progress | None = None,
    until: str | None = None,
) -> Curation:
    """Run all stages, or those up to the end of a part, and return the result.

    The run is named by its settings and pinned inputs: the same again finds everything complete.

    Args:
        settings: Of the run.
        spark: Session; none: as `engine` says.
        progress: Where people see what is going on.
        until: Part of the run to stop after: embed, quantize, select, explode, metrics or report.

    Raises:
        GioSparkError: With one clear message.
    """
    goal = PARTS["report"] if until is None else PARTS.get(until)
    if goal is None:
        raise ConfigError(f"Unknown stage {until!r}: use one of {', '.join(STAGES)}.")
    ctx = open_context(settings, spark=spark, progress=progress)
    return _run(ctx, pin_inputs(ctx), goal)


def run_on_codebook(
    ctx: RunContext, pinned: PinnedInputs, base: RunSummary, *, fit_again: bool
) -> Curation:
    """Run all stages with the embedder and the codebook of a finished run.

    Args:
        ctx: A new context.
        pinned: The present inputs.
        base: Summary of the finished run.
        fit_again: Whether the codebook is fitted again, from its centroids.

    Rows of earlier runs are left to the caller to prune, who may compare with them.
    """
    action = "requantize" if fit_again else "replan"
    pinned = replace(
        pinned, ctx=ctx, basis={"run": base.run, "fit": base.keys.fit, "action": action}
    )

    def prepare(state: RunState) -> None:
        set_frozen_embedder(ctx, base, state)
        set_codebook(ctx, base, state, warm=fit_again)

    return _run(ctx, pinned, PARTS["report"], prepare, warm=fit_again, prune=False)


def _run(
    ctx: RunContext,
    pinned: PinnedInputs,
    goal: str,
    prepare: Callable[[RunState], None] | None = None,
    *,
    warm: bool = False,
    prune: bool = True,
) -> Curation:
    """Run the stages that lead to a goal, unless the run is finished."""
    ctx.run = pinned.run_id
    finished = _finished(ctx)
    if finished is not None:
        ctx.progress.say(f"{ctx.run}: nothing to do, all stages are complete.")
        publication = _publish(ctx, finished)
        register_plan(ctx, RunSummary.of(finished), publication, is_tracked=False)
        return _curation(ctx, finished, publication, did_work=False)
    ctx.gather = True
    with opened_run(ctx, pinned, {"gio.engine": describe(ctx.spark).line()}) as state:
        if prepare is not None:
            prepare(state)
        if ctx.settings.select.strategy == "auto" and goal not in _BEFORE_STRATEGY:
            run_stages(ctx, run_graph(ctx.settings, warm=warm), state, ["strategy"])
            ctx.settings = state.strategy.applied_to(ctx.settings)
        run_stages(ctx, run_graph(ctx.settings, warm=warm), state, [goal])
        is_whole = goal == PARTS["report"]
        curation = _record_run(ctx, state, prune=prune) if is_whole else _partial(ctx, state)
    ctx.progress.summary()
    return curation


def plan_run(
    settings: RunSettings, *, spark: SparkSession | None = None, progress: Progress | None = None
) -> list[PlannedStage]:
    """Stages of a run, and which of them are complete; nothing is run."""
    ctx = open_context(settings, spark=spark, progress=progress, dry=True)
    pinned = pin_inputs(ctx)
    ctx.run = pinned.run_id
    state = pinned.open()
    stages = []
    if settings.select.strategy == "auto":
        stages = _planned_choice(ctx, state)
    known = {stage.name for stage in stages}
    following = planned_stages(ctx, run_graph(ctx.settings), state, [PARTS["report"]])
    stages += [stage for stage in following if stage.name not in known]
    if _finished(ctx) is not None:  # the report has no record of its own
        return [replace(stage, complete=True) for stage in stages]
    return stages


def _planned_choice(ctx: RunContext, state: RunState) -> list[PlannedStage]:
    """Stages up to the choice of a strategy; where it is recorded, the settings follow it."""
    stages = planned_stages(ctx, run_graph(ctx.settings), state, ["strategy"])
    if not state.has("strategy"):
        return stages
    ctx.settings = state.strategy.applied_to(ctx.settings)
    return [*stages[:-1], replace(stages[-1], note=state.strategy.line)]


def _finished(ctx: RunContext) -> Record | None:
    """Record of this run, where it is finished and its selection exists."""
    finished = ctx.workspace.complete("run", ctx.run)
    selection_exists = finished is not None and ctx.workspace.complete(SELECT, ctx.run) is not None
    return finished if selection_exists else None


def _record_run(ctx: RunContext, state: RunState, *, prune: bool) -> Curation:
    """Record a finished run, publish its selection, and prune tables that no recent run uses."""
    summary = _summary(ctx, state)
    selection = state.selection
    write_lineage(ctx.workspace, summary, table=selection.table, rows=selection.count, refresh=None)
    _track(ctx, state, summary)
    record = ctx.workspace.record(
        run=ctx.run,
        stage="run",
        fingerprint=ctx.run,
        table="",
        rows=summary.selected_rows,
        seconds=summary.seconds,
        detail=summary.plain(),
    )
    publication = _publish(ctx, record)
    number = publication.number
    ctx.tracker.tags({"gio.published": f"{publication.name} {number}" if number else "no"})
    register_plan(ctx, summary, publication, is_tracked=True)
    problem = try_to_prune(ctx.workspace, ctx.settings.retention) if prune else ""
    if problem:
        ctx.progress.say(f"retention: {problem}")
    return _curation(ctx, record, publication, did_work=ctx.did_work)


def _summary(ctx: RunContext, state: RunState) -> RunSummary:
    """Summary of a run for its record."""
    facts, pool, embedder = state.plan.facts, state.inputs["pool"], state.embedder
    usable = {one.name: one.usable for one in state.datasets}
    return RunSummary(
        run=ctx.run,
        name=ctx.settings.published_name(),
        engine=describe(ctx.spark).line(),
        embedder=(embedder.name, embedder.revision),
        sides={**usable, "pool": state.pool_rows},
        pool_rows=state.pool_rows,
        target_rows=state.datasets.target_rows,
        selected_rows=state.selection.count,
        clusters=len(state.codebook.centroids),
        clusters_selected=int((state.plan.table["take"] > 0).sum()),
        budget=str(ctx.settings.budget),
        budget_in_words=(
            parse_budget(ctx.settings.budget).in_words(state.inputs["pool"].count)
            + tokens_in_words(ctx.settings)
        ),
        spent=state.selection.spent,
        copies=state.selection.copies,
        unit=facts.unit,
        objective=facts.objective,
        within_cluster=ctx.settings.explode.within_cluster,
        divergences=facts.divergences,
        lost_mass=facts.lost_mass,
        certificate=facts.certificate,
        binding=facts.binding,
        auto=facts.auto,
        mixture=state.get("mixture"),
        gate=state.verdict,
        quarantine=state.quarantined,
        versions={name: one.version for name, one in state.inputs.items()},
        table_id=pool.table_id,
        table_ids={name: one.table_id for name, one in state.inputs.items()},
        pool_schema=pool.schema.jsonValue(),
        inputs={name: one.location for name, one in state.inputs.items()},
        columns={name: type_names(one.schema) for name, one in state.inputs.items()},
        cautions=tuple((c.name, c.text, c.action) for c in ctx.warnings),
        stages=ctx.stage_lines(),
        report=str(state.report),
        plan_key=state.plan.key,
        keys=RunKeys(
            embeddings={one.name: one.key for one in state.datasets},
            embed_fit=state.fitted_embedder.key,
            fit=state.codebook.key,
            centroids=state.centroids,
            assignments=state.assignments,
            scores=state.get("scores") or "",
            ratio=state.ratio_model.key if state.has("ratio_model") else "",
            quarantine=state.keys["datasets"],
            removed_rows=state.get("removed_rows") or "",
        ),
        basis=state.basis,
        strategy=state.get("strategy"),
        settings=requested(ctx.settings).model_dump(mode="json"),
        identity=identity(ctx.settings),
        started=ctx.started.isoformat(),
        seconds=(datetime.now(timezone.utc) - ctx.started).total_seconds(),
    )


def _publish(ctx: RunContext, record: Record) -> Publication:
    """Audit the selection of a finished run and publish it, or find that this was done."""
    candidate = selection_of_run(ctx.workspace, record.run)
    verdict = RunSummary.of(record).gate
    problems = []
    if verdict is not None and not verdict.passed:
        problems.append("the gate fails: " + verdict.why.replace("\n", " "))
    return audit_and_publish(ctx.workspace, ctx.settings, candidate, problems, ctx.progress.say)


def _track(ctx: RunContext, state: RunState, summary: RunSummary) -> None:
    numbers = {
        "selected_rows": summary.selected_rows,
        "pool_rows": summary.pool_rows,
        "clusters": summary.clusters,
        "lost_mass": summary.lost_mass,
        **{f"divergence_{k}": v for k, v in summary.divergences.items()},
    }
    if summary.copies is not None:
        numbers["selected_copies"] = summary.copies
    if state.has("ratio_model"):
        numbers["ratio_auc"] = state.ratio_model.facts.auc
    ctx.tracker.metrics({k: float(v) for k, v in numbers.items()})
    table = state.plan.table
    order = table[table["order"] >= 0].sort_values("order")
    ctx.tracker.path(
        "divergence",
        order["divergence_after"].tolist(),
        [int(n) for n in state.plan.trained_rows[order.index].cumsum()],
    )
    table.to_csv(state.report.parent / "plan.csv", index=False)
    ctx.tracker.artifact(state.report.parent, "report")


def _curation(
    ctx: RunContext, record: Record, publication: Publication, *, did_work: bool
) -> Curation:
    """Outcome of a finished run."""
    workspace, summary = ctx.workspace, RunSummary.of(record)
    selected = selection_of_run(workspace, record.run).table
    page = Path(summary.report)
    return Curation(
        selected=workspace.read_table(selected),
        plan=load_plan(workspace, summary.plan_key).table,
        summary=record.detail,
        report=page if page.exists() else None,
        run_id=record.run,
        tables={**_places(workspace), "selected": workspace.place(selected)},
        did_work=did_work,
        publication=publication,
    )


def _places(workspace: Workspace) -> dict[str, str]:
    return {t: workspace.place(t) for t in STAGE_TABLES if workspace.exists(t)}


def _partial(ctx: RunContext, state: RunState) -> Curation:
    """Outcome of a run that stopped early; `selected` has no rows before explode."""
    places = _places(ctx.workspace)
    if state.has("selection"):
        places["selected"] = ctx.workspace.place(state.selection.table)
        selected = state.selection.rows
    else:
        selected = ctx.spark.createDataFrame([], "gio_id string")
    return Curation(
        selected=selected,
        plan=state.plan.table if state.has("plan") else pd.DataFrame(),
        summary={"run": ctx.run, "stages": [list(line) for line in ctx.stage_lines()]},
        report=None,
        run_id=ctx.run,
        tables=places,
        did_work=ctx.did_work,
    )
