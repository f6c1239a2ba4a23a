"""`gio-spark gate`: the verdict on a run's selection, beside other ways of selecting as much."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pyspark.sql import functions as F

from gio_spark import explode, gime, gio
from gio_spark.engine import bounded, session
from gio_spark.engine.progress import Progress
from gio_spark.errors import ConfigError, InputError
from gio_spark.gime.gate import SET_LIKE
from gio_spark.pipeline.commands.proxy_scores import proxy_scores, told
from gio_spark.pipeline.constraints.enforce import judge, thresholds_for
from gio_spark.pipeline.constraints.gate_verdict import as_facts, checks_table, gate_facts
from gio_spark.pipeline.publishing import find_candidate, refreshes_of
from gio_spark.pipeline.refresh import _newest_run as newest_run
from gio_spark.pipeline.run_rows import Ground
from gio_spark.pipeline.stage_runner import fingerprint
from gio_spark.pipeline.stages import open_inputs
from gio_spark.pipeline.stages.measure import beside, counted, measured
from gio_spark.report.gate import render_gate
from gio_spark.tables import Record, Workspace
from gio_spark.tables.local_files import local_folder, report_folder
from gio_spark.tracking import tracker

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pyspark.sql import DataFrame, SparkSession

    from gio_spark.settings.run import RunSettings

# Ways of selecting as many rows, in the order in which they are shown.
WAYS = ("pool", "random", "stratified", "gime", "gio", "both")


@dataclass(frozen=True, eq=False)
class Gated:
    """What the gate says.

    Attributes:
        run_id: The run judged.
        passed: Whether every threshold is met.
        verdict: `why`, `checks`, `notes`, `tries`, as plain values.
        checks: One row per threshold: metric, value, bound, upper, direction, kind, passed, best.
        ways: One row per metric: unit, direction, and a column for each way of selecting; None
            where only the stored verdict was asked for.
        passes: Way -> whether it would pass.
        page: Path of the HTML page, or None.
        scores: What a proxy model learns from each way (`proxy_scores`), where there are labels.
    """

    run_id: str
    passed: bool
    verdict: Mapping[str, Any]
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
    spark = spark or session(settings.engine)
    progress = progress or Progress()
    workspace = Workspace(spark, settings.workspace)
    record = _record(workspace, settings, run_id)
    facts = gate_facts(workspace, record)
    if facts is None:
        raise ConfigError(
            f"The run {record.run} holds no thresholds, so there is nothing to judge. Set "
            "gime.level (0.95) or gime.accepted_loss for automatic ones, or gime.thresholds by "
            "hand, and run again."
        )
    if not compare:
        stored = _stored(workspace, record)
        checks = checks_table(stored)
        if checks is None:
            raise InputError(f"The run {record.run} has left no verdict; run without --stored.")
        return Gated(record.run, bool(stored["passed"]), stored, checks)
    with progress.stage("gate", spark=spark) as shown:
        figures, count, scores = _measure_ways(spark, workspace, settings, record, facts)
        shown.done(rows=count)
    groups = {name: gime.robust(figures, name) for name in set(figures["group"])}
    random = groups["random"]
    verdict = judge(facts, {"selected": groups["both"], "random": random})
    bounds = {t.metric: t for t in thresholds_for(facts, random)}
    passes = {
        way: gime.judge(groups[way], list(bounds.values())).passed
        for way in WAYS
        if way in groups and way != "pool"
    }
    plain = as_facts(verdict) or {}
    plain["notes"] = [*plain["notes"], *facts.get("notes", [])]
    checks = checks_table(plain)
    if checks is None:
        raise InputError("There is no verdict.")
    checks["best"] = [bounds[m].best for m in checks["metric"]]
    ways = _wide(figures)
    page = render_gate(
        checks, ways, report_folder(workspace, record.run) / "gate",
        verdict=plain, passes=passes, scores=scores,
        facts={
            "run": record.run,
            "judged (UTC)": f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M:%S}",
            "thresholds": _source(facts),
            "rows selected": f"{count:,}",
            "workspace": workspace.location,
        },
    )  # fmt: skip
    key = fingerprint("gate", record.run, settings.gime.model_dump(mode="json"), count)
    learnt = {} if scores is None else told(scores)
    workspace.record(
        run=record.run, stage="gate", fingerprint=key, table="", rows=count, seconds=0.0,
        detail={**plain, "passes": passes, "scores": learnt},
    )  # fmt: skip
    _track(settings, workspace, record.run, plain, ways, page, learnt)
    return Gated(record.run, verdict.passed, plain, checks, ways, passes, page, scores)


def _record(workspace: Workspace, settings: RunSettings, run_id: str | None) -> Record:
    if run_id is None:
        return newest_run(workspace, settings)
    found = [r for r in workspace.records(run_id) if r.stage == "run"]
    if not found:
        known = sorted({r.run for r in workspace.records() if r.stage == "run"})
        raise InputError(
            f"No finished run {run_id!r} is in {workspace.location}. "
            f"Known: {', '.join(known[-10:]) or 'none'}."
        )
    return found[-1]


def _stored(workspace: Workspace, record: Record) -> dict[str, Any]:
    """Return the newest verdict of a run: its own, or that of its last refresh or gate."""
    for refresh in reversed(refreshes_of(workspace, record.run)):
        measured_rows = workspace.recorded("refresh metrics", refresh.fingerprint)
        if measured_rows and measured_rows[-1].detail.get("gate"):
            return dict(measured_rows[-1].detail["gate"])
    return record.detail.get("gate") or {}


def _source(facts: Mapping[str, Any]) -> str:
    kinds = {t["kind"] for t in facts["thresholds"]}
    level = facts.get("level")
    said = [] if level is None else [f"automatic, for {level:.0%} of full performance"]
    if "by hand" in kinds:
        said.append("by hand")
    return " and ".join(said) or "none"


# ---- ways --------------------------------------------------------------------------------------


def _measure_ways(
    spark: SparkSession,
    workspace: Workspace,
    settings: RunSettings,
    record: Record,
    facts: Mapping[str, Any],
) -> tuple[pd.DataFrame, int, pd.DataFrame | None]:
    """Measure the selection, and other ways of selecting as many rows, in one pass.

    The other ways choose inside cells by hash alone.
    """
    refreshes = refreshes_of(workspace, record.run)
    ground = Ground.of_record(
        workspace, settings, record, refreshes[-1].detail["keys"] if refreshes else None
    )
    if ground.owns:
        resolved = open_inputs.pin_views(spark, workspace, settings)
        inputs = open_inputs.open_all(spark, resolved, open_inputs.pin_all(spark, resolved))
        ground = ground.with_inputs(inputs)
    selected = workspace.read_table(find_candidate(workspace, record.run).table)
    ids = selected.select(F.col("gio_id").alias("id"))
    count = int(ids.count())
    if count == 0:
        raise InputError(f"The run {record.run} has no selected rows left to judge.")
    sizes = _sizes(ground)
    rows = ground.rows("pool").select("id", "cluster")
    others = {}
    takes = _takes(workspace, ground, record, facts, sizes, count)
    for name, take in takes.items():
        by_hash = settings.explode.model_copy(update={"within_cluster": "hash_share"})
        table = pd.DataFrame({"cluster": np.arange(len(sizes)), "rows": sizes, "take": take})
        table = explode.with_thresholds(rows, table, settings=by_hash, seed=settings.seed)
        others[name] = explode.kept(rows, table, settings=by_hash, seed=settings.seed).select("id")
    found = [_of_part(part, ids, others) for part in ground.parts()]
    scores = proxy_scores(spark, ground, ids, takes, sizes)
    return pd.concat(found, ignore_index=True), count, scores


def _of_part(ground: Ground, selected: DataFrame, others: Mapping[str, DataFrame]) -> pd.DataFrame:
    """Measure all ways on the rows of a part of the pool; the pool itself without vectors."""
    whole = ground.rows("pool", vectors=ground.vectors)
    drawn = beside(ground, whole, selected, *counted(ground, selected))
    frames = {"both": drawn["selected"], "random": drawn["random"]}
    frames |= {name: whole.join(kept, "id", "left_semi") for name, kept in others.items()}
    frozen = ground.constants(vectors=ground.vectors)
    target = ground.target_states(frozen, vectors=ground.vectors)
    found = measured(ground, frames, constants=frozen, target=target, by=False)
    skinny = ground.constants(vectors=False)
    known = ground.target_states(skinny, vectors=False)
    pool = {"pool": ground.rows("pool")}
    first = measured(ground, pool, constants=skinny, target=known, by=False)
    return pa.concat_tables([first, found]).to_pandas()


def _sizes(ground: Ground) -> NDArray[np.int64]:
    counted = ground.rows("pool").groupBy("cluster").agg(F.count(F.lit(1)).alias("n"))
    table = bounded(counted, 1 << 20, "cells")
    sizes = np.zeros(len(ground.centroids), np.int64)
    sizes[table["cluster"].to_numpy()] = table["n"].to_numpy()
    return sizes


def _takes(
    workspace: Workspace,
    ground: Ground,
    record: Record,
    facts: Mapping[str, Any],
    sizes: NDArray[np.int64],
    budget: int,
) -> dict[str, NDArray[np.int64]]:
    """Return rows per cell: stratified random, by metrics alone, by the budgeted KL alone."""
    plan = bounded(workspace.read("plan", record.detail["plan_key"]), 1 << 20, "clusters")
    table = plan.to_pandas().sort_values("cluster")
    law = table["target_mass"].to_numpy(float)
    none = np.zeros_like(sizes)
    pool = sizes / sizes.sum()
    takes = {"stratified": gime.bounded_kl(pool, none, sizes, budget)}
    wanted = {t["metric"] for t in facts["thresholds"]}
    aim = pool
    if wanted & {"mismatch", "coverage"}:
        aim = _target_share(ground, len(sizes))
    elif wanted & set(SET_LIKE):
        aim = np.sqrt(pool) / np.sqrt(pool).sum()
    bounds = [gime.Threshold(**t) for t in facts["thresholds"]]
    least, most = gime.cell_limits(bounds, gime.Cells(sizes, aim), budget)
    takes["gime"] = gime.bounded_kl(aim, least, most, budget)
    if law.sum() > 0:
        reach = int(sizes[law > 0].sum())
        takes["gio"] = (
            gio.integer_plan(law / law.sum(), sizes, budget)
            if reach >= budget
            else gime.bounded_kl(law / law.sum(), none, sizes, budget)
        )
    return takes


def _target_share(ground: Ground, cells: int) -> NDArray[np.float64]:
    counted = ground.targets().groupBy("cluster").agg(F.count(F.lit(1)).alias("n"))
    table = bounded(counted, 1 << 20, "cells of the target")
    share = np.zeros(cells)
    share[table["cluster"].to_numpy()] = table["n"].to_numpy()
    return share / share.sum()


def _wide(figures: pd.DataFrame) -> pd.DataFrame:
    """Return one row per metric with the robust value of every way."""
    robust = figures[figures["form"] == "robust"]
    first = robust[robust["group"] == "both"].set_index("metric")
    table = first[["unit", "direction"]].copy()
    for way in WAYS:
        values = robust[robust["group"] == way].set_index("metric")["value"]
        if len(values):
            table[way] = values.astype(float)
    return table.reset_index()


def _track(
    settings: RunSettings,
    workspace: Workspace,
    run: str,
    verdict: Mapping[str, Any],
    ways: pd.DataFrame,
    page: Path,
    scores: Mapping[str, float],
) -> None:
    watch = tracker(settings.tracking, local_folder(workspace) / "tracking")
    watch.check()
    watch.start(f"gate of {run}", {"gio.run": run, "gio.command": "gate"})
    numbers = {"gate/passed": float(verdict["passed"])}
    for row in ways.to_dict("records"):
        for way in WAYS:
            value = row.get(way)
            if value is not None and np.isfinite(value):
                numbers[f"gime/{way}/{row['metric']}"] = float(value)
    numbers |= {f"gate/score/{way}": score for way, score in scores.items() if np.isfinite(score)}
    watch.metrics(numbers)
    watch.tags({"gio.gate": "passed" if verdict["passed"] else "failed",
                "gio.gate.why": str(verdict["why"])})  # fmt: skip
    watch.artifact(page.parent, "gate")
    watch.end("FINISHED")
