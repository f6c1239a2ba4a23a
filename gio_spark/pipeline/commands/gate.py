"""`gio-spark gate`: verdict on a run's selection, compared with other ways of selecting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa
from pyspark.sql import functions as F

from gio_spark import explode, gime, gio
from gio_spark.engine import bounded
from gio_spark.errors import ConfigError, InputError, NoVerdictError
from gio_spark.gime.metric_gate import SET_METRICS
from gio_spark.pipeline.commands.proxy_scores import proxy_scores, score_values
from gio_spark.pipeline.constraints.enforce import judge, thresholds_for
from gio_spark.pipeline.constraints.gate_verdict import as_facts, checks_table, gate_facts
from gio_spark.pipeline.refresh import newest_run
from gio_spark.pipeline.refresh_records import RefreshSummary
from gio_spark.pipeline.run_context import RunContext, fingerprint
from gio_spark.pipeline.run_records import GateFacts, RunSummary, VerdictFacts
from gio_spark.pipeline.run_rows import RunRows
from gio_spark.pipeline.stages.metric_series import STAGE as REFRESH_METRICS
from gio_spark.pipeline.stages.metric_series import recorded_verdict
from gio_spark.pipeline.stages.open_inputs import open_context, pin_inputs, tracked
from gio_spark.pipeline.stages.plan import load_plan
from gio_spark.pipeline.stages.publish_selection import find_candidate, refreshes_of
from gio_spark.report.gate_page import render_gate
from gio_spark.tables import Record, Workspace
from gio_spark.tables.output_folders import report_folder

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pyspark.sql import DataFrame, SparkSession

    from gio_spark.engine.progress import Progress
    from gio_spark.settings.run import RunSettings

# Ways of selecting as many rows, in the order in which they are shown.
WAYS = ("pool", "random", "stratified", "gime", "gio", "both")


@dataclass(frozen=True, eq=False)
class Gated:
    """Verdict of the gate.

    Attributes:
        run_id: The run judged.
        passed: Whether every threshold is met.
        verdict: Why, each check, and notes.
        checks: One row per threshold: metric, value, bound, upper, direction, kind, passed, best.
        ways: One row per metric: unit, direction, and a column for each way of selecting; None
            where only the stored verdict was asked for.
        passes: Way -> whether it would pass.
        page: Path of the HTML page, or None.
        scores: What a proxy model learns from each way (`proxy_scores`), where there are labels.
    """

    run_id: str
    passed: bool
    verdict: VerdictFacts
    checks: pd.DataFrame
    ways: pd.DataFrame | None = None
    passes: Mapping[str, bool] | None = None
    page: Path | None = None
    scores: pd.DataFrame | None = None


def gate(
    settings: RunSettings,
    *,
    run_id: str | None = None,
    compare: bool = True,
    spark: SparkSession | None = None,
    progress: Progress | None = None,
) -> Gated:
    """Judge the selection of a run as it is now, its refreshes included.

    Args:
        settings: Of the run.
        run_id: The run; None: the newest finished one of these settings.
        compare: Measure the rows again, beside other ways of selecting as many; False gives the
            verdict that the run or its last refresh left.
        spark: Session.
        progress: Display.

    Raises:
        InputError: There is no such finished run.
        ConfigError: The run holds no thresholds.
    """
    ctx = open_context(settings, spark=spark, progress=progress)
    workspace = ctx.workspace
    run = RunSummary.of(_record(workspace, settings, run_id))
    ctx.run = run.run
    facts = gate_facts(workspace, run.plan_key)
    if facts is None:
        raise ConfigError(
            f"The run {run.run} holds no thresholds, so there is nothing to judge. Set "
            "gime.level (0.95) or gime.accepted_loss for automatic ones, or gime.thresholds by "
            "hand, and run again."
        )
    if not compare:
        stored = _stored(workspace, run)
        if stored is None:
            raise InputError(f"The run {run.run} has left no verdict; run without --stored.")
        return Gated(run.run, stored.passed, stored, checks_table(stored))
    with ctx.progress.stage("gate", spark=ctx.spark) as stage_progress:
        figures, count, scores, no_scores = _measure_ways(ctx, run, facts)
        stage_progress.done(rows=count)
    groups = {name: gime.robust_values(figures, name) for name in set(figures["group"])}
    random = groups["random"]
    verdict = judge(facts, {"selected": groups["both"], "random": random})
    bounds = {t.metric: t for t in thresholds_for(facts, random)}
    passes = {
        way: gime.judge(groups[way], list(bounds.values())).passed
        for way in WAYS
        if way in groups and way != "pool"
    }
    judged = as_facts(verdict)
    notes = (*judged.notes, *facts.notes, *([no_scores] if no_scores else []))
    judged = judged.model_copy(update={"notes": notes})
    checks = checks_table(judged)
    checks["best"] = [bounds[m].best for m in checks["metric"]]
    ways = _wide(figures)
    page = render_gate(
        checks, ways, report_folder(workspace, run.run) / "gate",
        verdict=judged.plain(), passes=passes, scores=scores,
        facts={
            "run": run.run,
            "judged (UTC)": f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M:%S}",
            "thresholds": _source(facts),
            "rows selected": f"{count:,}",
            "workspace": workspace.location,
        },
    )  # fmt: skip
    key = fingerprint("gate", run.run, settings.gime.model_dump(mode="json"), count)
    score_by_way = {} if scores is None else score_values(scores)
    workspace.record(
        run=run.run, stage="gate", fingerprint=key, table="", rows=count, seconds=0.0,
        detail={**judged.plain(), "passes": passes, "scores": score_by_way},
    )  # fmt: skip
    _track(ctx, judged, ways, page, score_by_way)
    return Gated(run.run, verdict.passed, judged, checks, ways, passes, page, scores)


def _record(workspace: Workspace, settings: RunSettings, run_id: str | None) -> Record:
    if run_id is None:
        return newest_run(workspace, settings)
    run_records = [r for r in workspace.records(run_id) if r.stage == "run"]
    if not run_records:
        known = sorted({r.run for r in workspace.records() if r.stage == "run"})
        raise InputError(
            f"No finished run {run_id!r} is in {workspace.location}. "
            f"Known: {', '.join(known[-10:]) or 'none'}."
        )
    return run_records[-1]


def _stored(workspace: Workspace, run: RunSummary) -> VerdictFacts | None:
    """Newest verdict of a run: its own, or that of its last refresh."""
    for refresh in reversed(refreshes_of(workspace, run.run)):
        measured_rows = workspace.recorded(REFRESH_METRICS, refresh.fingerprint)
        verdict = recorded_verdict(measured_rows[-1]) if measured_rows else None
        if verdict is not None:
            return verdict
    return run.gate


def _source(facts: GateFacts) -> str:
    kinds = {t.kind for t in facts.thresholds}
    kinds_text = (
        [] if facts.level is None else [f"automatic, for {facts.level:.0%} of full performance"]
    )
    if "by hand" in kinds:
        kinds_text.append("by hand")
    return " and ".join(kinds_text) or "none"


# ---- ways --------------------------------------------------------------------------------------


def _measure_ways(
    ctx: RunContext, run: RunSummary, facts: GateFacts
) -> tuple[pd.DataFrame, int, pd.DataFrame | None, str]:
    """Measure the selection, and other ways of selecting as many rows, in one pass.

    The other ways choose inside clusters by hash alone.

    Returns:
        Figures, rows of the selection, what models learn from each way, and why that is not known.
    """
    workspace, settings = ctx.workspace, ctx.settings
    refreshes = refreshes_of(workspace, run.run)
    refreshed = RefreshSummary.of(refreshes[-1]).keys if refreshes else None
    run_rows = RunRows.of_summary(workspace, settings, run, refreshed)
    if run_rows.reads_user_columns:
        run_rows = run_rows.with_inputs(pin_inputs(ctx).open().inputs)
    selected = workspace.read_table(find_candidate(workspace, run.run).table)
    ids = selected.select(F.col("gio_id").alias("id"))
    count = int(ids.count())
    if count == 0:
        raise InputError(f"The run {run.run} has no selected rows left to judge.")
    sizes = _sizes(run_rows)
    rows = run_rows.rows("pool").select("id", "cluster")
    others = {}
    takes = _takes(run_rows, run, facts, sizes, count)
    for name, take in takes.items():
        by_hash = settings.explode.model_copy(update={"within_cluster": "hash_share"})
        table = pd.DataFrame({"cluster": np.arange(len(sizes)), "rows": sizes, "take": take})
        table = explode.with_thresholds(rows, table, settings=by_hash, seed=settings.seed)
        others[name] = explode.selected_ids(
            rows, table, settings=by_hash, seed=settings.seed
        ).select("id")
    tables = [_of_part(part, ids, others) for part in run_rows.parts()]
    scores, no_scores = None, ""
    try:
        scores = proxy_scores(ctx.spark, run_rows, ids, takes, sizes)
    except NoVerdictError as error:
        no_scores = str(error)
    return pd.concat(tables, ignore_index=True), count, scores, no_scores


def _of_part(
    run_rows: RunRows, selected: DataFrame, others: Mapping[str, DataFrame]
) -> pd.DataFrame:
    """Measure all ways on the rows of a part of the pool; the pool itself without vectors."""
    pool_rows = run_rows.rows("pool", vectors=run_rows.vectors)
    frames_by_group = run_rows.selected_and_random(
        pool_rows, selected, *run_rows.count_selected(selected)
    )
    frames = {"both": frames_by_group["selected"], "random": frames_by_group["random"]}
    frames |= {name: pool_rows.join(way_ids, "id", "left_semi") for name, way_ids in others.items()}
    frozen = run_rows.constants(vectors=run_rows.vectors)
    target = run_rows.target_states(frozen, vectors=run_rows.vectors)
    compared = run_rows.measure(frames, constants=frozen, target=target, by=False)
    skinny = run_rows.constants(vectors=False)
    known = run_rows.target_states(skinny, vectors=False)
    pool = {"pool": run_rows.rows("pool")}
    first = run_rows.measure(pool, constants=skinny, target=known, by=False)
    return pa.concat_tables([first, compared]).to_pandas()


def _sizes(run_rows: RunRows) -> NDArray[np.int64]:
    counted = run_rows.rows("pool").groupBy("cluster").agg(F.count(F.lit(1)).alias("n"))
    table = bounded(counted, 1 << 20, "cells")
    sizes = np.zeros(len(run_rows.centroids), np.int64)
    sizes[table["cluster"].to_numpy()] = table["n"].to_numpy()
    return sizes


def _takes(
    run_rows: RunRows,
    run: RunSummary,
    facts: GateFacts,
    sizes: NDArray[np.int64],
    budget: int,
) -> dict[str, NDArray[np.int64]]:
    """Rows per cluster: stratified random, by metrics alone, by the budgeted KL alone."""
    target_mass = load_plan(run_rows.workspace, run.plan_key).table["target_mass"].to_numpy(float)
    none = np.zeros_like(sizes)
    pool = sizes / sizes.sum()
    takes = {"stratified": gime.bounded_kl(pool, none, sizes, budget)}
    threshold_metrics = {t.metric for t in facts.thresholds}
    target_distribution = pool
    if threshold_metrics & {"mismatch", "coverage"}:
        target_distribution = _target_share(run_rows, len(sizes))
    elif threshold_metrics & set(SET_METRICS):
        target_distribution = np.sqrt(pool) / np.sqrt(pool).sum()
    least, most = gime.cluster_bounds(
        list(facts.thresholds), gime.ClusterStats(sizes, target_distribution), budget
    )
    takes["gime"] = gime.bounded_kl(target_distribution, least, most, budget)
    if target_mass.sum() > 0:
        reach = int(sizes[target_mass > 0].sum())
        takes["gio"] = (
            gio.integer_plan(target_mass / target_mass.sum(), sizes, budget)
            if reach >= budget
            else gime.bounded_kl(target_mass / target_mass.sum(), none, sizes, budget)
        )
    return takes


def _target_share(run_rows: RunRows, clusters: int) -> NDArray[np.float64]:
    counted = run_rows.targets().groupBy("cluster").agg(F.count(F.lit(1)).alias("n"))
    table = bounded(counted, 1 << 20, "cells of the target")
    share = np.zeros(clusters)
    share[table["cluster"].to_numpy()] = table["n"].to_numpy()
    return share / share.sum()


def _wide(figures: pd.DataFrame) -> pd.DataFrame:
    """One row per metric with the robust value of every way."""
    robust = figures[figures["form"] == "robust"]
    first = robust[robust["group"] == "both"].set_index("metric")
    table = first[["unit", "direction"]].copy()
    for way in WAYS:
        values = robust[robust["group"] == way].set_index("metric")["value"]
        if len(values):
            table[way] = values.astype(float)
    return table.reset_index()


def _track(
    ctx: RunContext,
    verdict: VerdictFacts,
    ways: pd.DataFrame,
    page: Path,
    scores: Mapping[str, float],
) -> None:
    numbers = {"gate/passed": float(verdict.passed)}
    for row in ways.to_dict("records"):
        for way in WAYS:
            value = row.get(way)
            if value is not None and np.isfinite(value):
                numbers[f"gime/{way}/{row['metric']}"] = float(value)
    numbers |= {f"gate/score/{way}": score for way, score in scores.items() if np.isfinite(score)}
    with tracked(ctx, f"gate of {ctx.run}", {"gio.command": "gate"}):
        ctx.tracker.metrics(numbers)
        ctx.tracker.tags({"gio.gate": "passed" if verdict.passed else "failed",
                          "gio.gate.why": verdict.why})  # fmt: skip
        ctx.tracker.artifact(page.parent, "gate")
