"""`gio-spark run`: all stages in order; what is complete is not done again."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from gio_spark.engine import ahead, describe, session
from gio_spark.engine.progress import Progress
from gio_spark.errors import ConfigError
from gio_spark.pipeline.constraints import enforce, gate_verdict, sensitivity_runs
from gio_spark.pipeline.publishing import (
    SELECT,
    Publication,
    audit_and_publish,
    selection_of_run,
)
from gio_spark.pipeline.stage_runner import Context
from gio_spark.pipeline.stages import (
    clean,
    cluster,
    density_ratio,
    embed,
    measure,
    open_inputs,
    plan,
)
from gio_spark.pipeline.stages.report_inputs import Seen, look, look_before, report_data
from gio_spark.settings.load import build
from gio_spark.settings.run import RunSettings, parse_budget
from gio_spark.tables import STAGE_TABLES, Record, Workspace, try_to_prune
from gio_spark.tables.local_files import local_folder, report_folder
from gio_spark.tracking import TrackedInput, tracker

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from gio_spark.embed import Embedder

log = logging.getLogger(__name__)

# Stages in order; `until` names one of them.
STAGES = ("embed", "quantize", "select", "explode", "metrics", "report")


@dataclass(frozen=True)
class Curation:
    """What a run gave.

    Attributes:
        selected: The rows that this run selected, published or not: the pool's own columns and
            gio_id, gio_cluster, gio_reason, gio_log_ratio, gio_input_version, gio_run.
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


def curate(
    pool: Any,
    target: Any,
    budget: int | float | str = 0.1,
    *,
    workspace: str | Path = "gio-workspace",
    spark: SparkSession | None = None,
    **settings: Any,
) -> Curation:
    """Choose the rows of a pool that are worth training on for a target.

    Args:
        pool: Path, table name, mapping of input settings, or a Spark or pandas DataFrame.
        target: The same, or a list of those with shares.
        budget: Rows (int), a share (float below 1), "200M tokens", or "auto".
        workspace: Folder, or `catalog.schema`, of all tables.
        spark: Session; none: found or started as `engine` says.
        settings: Any other setting of a run: columns, embedder, clusters, objective,
            within_cluster, seed, engine, ... (see `gio-spark init`).

    Returns:
        The selected rows, the plan, the report and where everything is.

    Raises:
        GioSparkError: With one clear message; see gio_spark.errors.
    """
    engine = settings.get("engine", "auto")
    spark = spark or session(engine)
    tables = Workspace(spark, str(workspace))
    data = {
        **settings,
        "pool": open_inputs.as_location(spark, tables, pool, "pool"),
        "target": open_inputs.as_location(spark, tables, target, "target"),
        **(
            {"held_out": open_inputs.as_location(spark, tables, settings["held_out"], "held-out")}
            if "held_out" in settings
            else {}
        ),
        "budget": budget,
        "workspace": str(workspace),
    }
    return run(build(data, where="the call of curate"), spark=spark)


def run(
    settings: RunSettings,
    *,
    spark: SparkSession | None = None,
    progress: Progress | None = None,
    until: str | None = None,
) -> Curation:
    """Run all stages, or those up to `until`, and return what came of it.

    The run is named by its settings and pinned inputs: the same again finds everything complete.

    Raises:
        GioSparkError: With one clear message.
    """
    if until is not None and until not in (*STAGES, sensitivity_runs.STAGE):
        raise ConfigError(f"Unknown stage {until!r}: use one of {', '.join(STAGES)}.")
    spark = spark or session(settings.engine)
    started = datetime.now(timezone.utc)
    progress = progress or Progress()
    progress.say(describe(spark).line())
    workspace = Workspace(spark, settings.workspace)
    watch = tracker(settings.tracking, local_folder(workspace) / "tracking")
    watch.check()
    resolved = open_inputs.pin_views(spark, workspace, settings)
    pins = open_inputs.pin_all(spark, resolved)
    draft = Context(spark, settings, workspace, "", progress, watch)
    embedder = embed.make_embedder(draft)
    run_id = open_inputs.run_id(settings, pins, json.dumps(embed.embedder_name(embedder)))
    finished = workspace.complete("run", run_id)
    if finished is not None and until != sensitivity_runs.STAGE and _still_there(workspace, run_id):
        progress.say(f"{run_id}: nothing to do, all stages are complete.")
        curation = _load(workspace, finished, did_work=False)
        publication = _publish(workspace, settings, finished, progress)
        return replace(curation, publication=publication)
    ctx = Context(spark, settings, workspace, run_id, progress, watch, gather=True)
    inputs = open_inputs.open_all(spark, resolved, pins)
    watch.start(
        settings.tracking.run_name or run_id,
        {"gio.run": run_id, "gio.engine": describe(spark).line()},
    )
    status = "FAILED"
    try:
        try:
            curation = _stages(ctx, inputs, embedder, started, until)
        finally:
            workspace.flush()
        status = "FINISHED"
    finally:
        outcome = watch.end(status)
        if outcome.problem:
            progress.say(f"tracking: {outcome.problem}")
    progress.summary()
    return curation


def _stages(
    ctx: Context, inputs: dict[str, Any], embedder: Any, started: datetime, until: str | None
) -> Curation:
    ctx.tracker.params(ctx.settings.model_dump(mode="json"))
    ctx.tracker.inputs(
        TrackedInput(
            name=name,
            location=one.location,
            format=one.format,
            version=one.version,
            context=name.rstrip("-0123456789"),
        )
        for name, one in inputs.items()
    )
    fitted, fit_key = embed.fit_embedder(ctx, embedder, inputs["pool"])
    by_ratio = ctx.settings.explode.within_cluster == "density_ratio"
    rates = by_ratio or parse_budget(ctx.settings.budget)[0] == "auto"
    cleans, learns = clean.wanted(ctx), until == sensitivity_runs.STAGE
    at_once = rates and not (cleans or learns or until in ("embed", "quantize"))
    begun = None
    if at_once and density_ratio.content_kind(ctx) == "text":
        begun = density_ratio.begin(ctx, embed.to_embed(ctx, fitted, inputs))
    embedded = embed.embed_sides(ctx, fitted, inputs)
    lengths = ahead(ctx.spark, lambda: embed.lengths_of(ctx, fitted, embedded))
    sides = embed.set_aside(ctx, embedded)
    dimension = embed.one_dimension(lengths())
    if until == "embed":
        return _partial(ctx)
    if at_once and begun is None:
        begun = density_ratio.begin(ctx, sides)
    book = cluster.quantise(ctx, sides, dimension)
    if until == "quantize":
        return _partial(ctx)
    if cleans:
        sides, book = clean.clean(ctx, sides, book)
    if learns:
        learnt = sensitivity_runs.learn(ctx, sides, book)
        partial = _partial(ctx)
        partial.summary[sensitivity_runs.STAGE] = learnt.key
        return partial
    masses = ahead(ctx.spark, lambda: plan.masses(ctx, sides, book))
    rated = (
        density_ratio.score(ctx, sides, book, begun or density_ratio.begin(ctx, sides))
        if rates
        else None
    )
    steering = enforce.in_force(ctx, sides, book)
    reports = until in (None, "report")
    before = look_before(ctx, sides) if reports else None
    chosen = plan.plan(ctx, sides, book, rated, steering, masses)
    if until == "select":
        return _partial(ctx, chosen)
    selected, rows = plan.select_rows(ctx, sides, book, chosen)
    if until == "explode":
        return _partial(ctx, chosen, selected)
    seen = look(ctx, sides, book, chosen, selected, rows, before) if before else None
    metrics = measure.measure(ctx, sides, book, selected, rows)
    if seen is None:
        return _partial(ctx, chosen, selected)
    return _finish(
        ctx, sides, book, chosen, selected, rows, metrics, seen, started, embedder, fit_key
    )


def _finish(
    ctx: Context,
    sides: dict[str, embed.Side],
    book: cluster.Codebook,
    chosen: plan.Chosen,
    selected: DataFrame,
    rows: int,
    metrics: pd.DataFrame,
    seen: Seen,
    started: datetime,
    embedder: Embedder,
    fit_key: str,
) -> Curation:
    """Render the report, record the run, prune row tables that no recent run uses."""
    from gio_spark.report.render import render

    began = datetime.now(timezone.utc)
    verdict = gate_verdict.verdict_of(chosen.facts.get("gate"), metrics)
    gate_verdict.tell(ctx, verdict)
    judged = gate_verdict.as_facts(verdict)
    with ctx.progress.stage("report") as shown:
        data = report_data(
            ctx, sides, book, chosen, seen, rows, metrics, started, embedder.revision
        )
        if judged is not None:
            data = replace(data, verdict=judged["why"], gate=gate_verdict.checks_table(judged))
        folder = report_folder(ctx.workspace, ctx.run)
        page = render(data, folder)
        shown.done(str(page))
    facts = chosen.facts
    summary = {
        "run": ctx.run,
        "name": ctx.settings.published_name(),
        "engine": describe(ctx.spark).line(),
        "embedder": [embedder.name, embedder.revision],
        "sides": {n: s.usable for n, s in sides.items()},
        "pool_rows": sides["pool"].usable,
        "target_rows": sum(s.usable for s in embed.targets_of(sides)),
        "selected_rows": rows,
        "clusters": len(book.centroids),
        "budget": str(ctx.settings.budget),
        "spent": facts["spent"],
        "unit": facts["unit"],
        "objective": facts["objective"],
        "within_cluster": ctx.settings.explode.within_cluster,
        "divergences": facts["divergences"],
        "lost_mass": facts["lost_mass"],
        "certificate": facts["certificate"],
        "binding": facts["binding"],
        "auto": facts["auto"],
        "gate": judged,
        "quarantine": {n: s.bad for n, s in sides.items()},
        "versions": {n: s.source.version for n, s in sides.items()},
        "table_id": sides["pool"].source.table_id,
        "schema": sides["pool"].source.schema.jsonValue(),
        "inputs": {n: s.source.location for n, s in sides.items()},
        "cautions": [[c.name, c.text, c.action] for c in ctx.cautions],
        "stages": [[s.name, round(s.seconds, 2), s.rows, s.skipped] for s in ctx.stages],
        "report": str(page),
        "plan_key": chosen.key,
        "keys": {
            "embeddings": {n: s.key for n, s in sides.items()},
            "embed_fit": fit_key,
            "fit": book.key,
            "centroids": book.published,
            "assignments": book.assignments,
            "scores": chosen.ratio.key if chosen.ratio else "",
            "ratio": chosen.ratio.model_key if chosen.ratio else "",
        },
        "settings": ctx.settings.model_dump(mode="json"),
        "identity": open_inputs.identity(ctx.settings),
        "started": started.isoformat(),
        "seconds": (datetime.now(timezone.utc) - started).total_seconds(),
    }
    _track(ctx, summary, chosen, page)
    record = ctx.workspace.record(
        run=ctx.run,
        stage="run",
        fingerprint=ctx.run,
        table="",
        rows=rows,
        seconds=(datetime.now(timezone.utc) - began).total_seconds(),
        detail=summary,
    )
    curation = _load(ctx.workspace, record, did_work=any(not s.skipped for s in ctx.stages))
    publication = _publish(ctx.workspace, ctx.settings, record, ctx.progress)
    number = publication.number
    ctx.tracker.tags({"gio.published": f"{publication.name} {number}" if number else "no"})
    problem = try_to_prune(ctx.workspace, ctx.settings.retention)
    if problem:
        ctx.progress.say(f"retention: {problem}")
    return replace(curation, publication=publication)


def _publish(
    workspace: Workspace, settings: RunSettings, record: Record, progress: Progress
) -> Publication:
    """Audit the selection of a finished run and publish it, or find that this was done."""
    candidate = selection_of_run(workspace, record.run)
    verdict = record.detail["gate"]
    problems = []
    if verdict is not None and not verdict["passed"]:
        problems.append("the gate fails: " + verdict["why"].replace("\n", " "))
    return audit_and_publish(workspace, settings, candidate, problems, progress.say)


def _track(ctx: Context, summary: dict[str, Any], chosen: plan.Chosen, page: Path) -> None:
    numbers = {
        "selected_rows": summary["selected_rows"],
        "pool_rows": summary["pool_rows"],
        "clusters": summary["clusters"],
        "lost_mass": summary["lost_mass"],
        **{f"divergence_{k}": v for k, v in summary["divergences"].items()},
    }
    if chosen.ratio is not None:
        numbers["ratio_auc"] = chosen.ratio.facts["auc"]
    ctx.tracker.metrics({k: float(v) for k, v in numbers.items()})
    order = chosen.plan[chosen.plan["order"] >= 0].sort_values("order")
    ctx.tracker.path(
        "divergence", order["divergence_after"].tolist(), [int(n) for n in order["take"].cumsum()]
    )
    plan = page.parent / "plan.csv"
    chosen.plan.to_csv(plan, index=False)
    ctx.tracker.artifact(page.parent, "report")


def _still_there(workspace: Workspace, run_id: str) -> bool:
    return workspace.complete(SELECT, run_id) is not None


def _load(workspace: Workspace, record: Record, *, did_work: bool) -> Curation:
    summary = record.detail
    page = Path(summary["report"])
    selected = selection_of_run(workspace, record.run).table
    plan = workspace.read_arrow("plan", summary["plan_key"], 1 << 20, "clusters of the plan")
    return Curation(
        selected=workspace.read_table(selected),
        plan=plan.to_pandas().sort_values("cluster", ignore_index=True),
        summary=summary,
        report=page if page.exists() else None,
        run_id=record.run,
        tables={**_places(workspace), "selected": workspace.place(selected)},
        did_work=did_work,
    )


def _places(workspace: Workspace) -> dict[str, str]:
    return {t: workspace.place(t) for t in STAGE_TABLES if workspace.exists(t)}


def _partial(
    ctx: Context, chosen: plan.Chosen | None = None, selected: DataFrame | None = None
) -> Curation:
    """Return what a run that stops early has so far; `selected` has no rows before explode."""
    empty = pd.DataFrame()
    places = _places(ctx.workspace)
    if selected is not None:
        table = selection_of_run(ctx.workspace, ctx.run).table
        places["selected"] = ctx.workspace.place(table)
    return Curation(
        selected=ctx.spark.createDataFrame([], "gio_id string") if selected is None else selected,
        plan=chosen.plan if chosen else empty,
        summary={
            "run": ctx.run,
            "stages": [[s.name, s.seconds, s.rows, s.skipped] for s in ctx.stages],
        },
        report=None,
        run_id=ctx.run,
        tables=places,
        did_work=any(not s.skipped for s in ctx.stages),
    )
