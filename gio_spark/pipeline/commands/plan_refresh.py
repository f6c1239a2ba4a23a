"""Forecast of a refresh: rows that have changed, stages, cost, drift so far; nothing is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from gio_spark import embed
from gio_spark.engine import bounded
from gio_spark.pipeline.refresh import ROLES, newest_run
from gio_spark.pipeline.refresh_records import DriftDecision
from gio_spark.pipeline.run_records import RunSummary
from gio_spark.pipeline.stage_runner import planned_stages
from gio_spark.pipeline.stages.changed_rows import (
    changed_rows,
    earlier_embeddings,
    rows_in_added_files,
)
from gio_spark.pipeline.stages.embed import vectors_key
from gio_spark.pipeline.stages.frozen_models import check_schema, set_frozen_models
from gio_spark.pipeline.stages.open_inputs import open_context
from gio_spark.pipeline.stages.publish_selection import REFRESH
from gio_spark.pipeline.stages.refresh_chain import Before, pin_as_read
from gio_spark.pipeline.stages.run_graph import refresh_graph

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyspark.sql import SparkSession

    from gio_spark.engine.progress import Progress
    from gio_spark.pipeline.run_context import RunContext
    from gio_spark.pipeline.run_state import RunState
    from gio_spark.settings.run import RunSettings
    from gio_spark.tables import Record, Workspace

# Stages that read all rows of the pool; those of rows go by the changed ones.
_WHOLE = {"clean": "clean", "plan": "plan", REFRESH: "select rows", "refresh metrics": "metrics"}


@dataclass(frozen=True)
class StageCost:
    """Expected cost of a stage.

    Attributes:
        name: Stage.
        rows: Rows that it goes over.
        seconds: At the speed of the recorded stages; None where none is recorded.
    """

    name: str
    rows: int
    seconds: float | None


@dataclass(frozen=True)
class PlannedRefresh:
    """Forecast of a refresh.

    Attributes:
        run_id: Run that would be refreshed.
        is_current: Whether nothing is left to do.
        pool_rows: Rows of the pool now.
        new_rows, changed_rows, gone_rows: Rows of the pool, compared with the selection's version.
        rows_to_embed: New and changed rows whose content has no vector yet.
        changed_targets: Targets at another version than the run's.
        drift: Decision on drift of the newest refresh; None where there is none.
        stages: Expected cost of the stages that are not complete.
    """

    run_id: str
    is_current: bool
    pool_rows: int
    new_rows: int = 0
    changed_rows: int = 0
    gone_rows: int = 0
    rows_to_embed: int = 0
    changed_targets: tuple[str, ...] = ()
    drift: DriftDecision | None = None
    stages: tuple[StageCost, ...] = ()

    @property
    def seconds(self) -> float:
        """Expected seconds of all stages whose speed is known."""
        return sum(stage.seconds or 0.0 for stage in self.stages)


def plan_refresh(
    settings: RunSettings, *, spark: SparkSession | None = None, progress: Progress | None = None
) -> PlannedRefresh:
    """Forecast what `refresh` would do; nothing is written.

    Args:
        settings: The settings of the run that would be refreshed.
        spark: Session.
        progress: Where to show what is going on.

    Raises:
        InputError: No finished run of these settings is in the workspace, or an input cannot be
            used.
    """
    ctx = open_context(settings, spark=spark, progress=progress, dry=True)
    base = RunSummary.of(newest_run(ctx.workspace, settings))
    ctx.run = base.run
    pinned = pin_as_read(ctx, base)
    ctx.settings = base.carried_out(settings)
    before = Before.of(ctx.workspace, base)
    drift = None if before.summary is None else before.summary.drift
    changed_targets = tuple(before.changed_targets(pinned))
    if before.is_current(pinned, settings.refresh):
        rows = base.pool_rows if before.newest is None else _pool_rows(ctx.workspace, before)
        return PlannedRefresh(base.run, True, rows, changed_targets=changed_targets, drift=drift)
    state = pinned.of_roles(*ROLES).open()
    check_schema(state.inputs["pool"], (before.summary or base).pool_schema)
    set_frozen_models(ctx, base, state)
    counts, to_embed = _changes(ctx, state, before.embeddings)
    added, changed = counts.get("added", 0), counts.get("changed", 0)
    return PlannedRefresh(
        base.run,
        False,
        state.inputs["pool"].ids,
        new_rows=added,
        changed_rows=changed,
        gone_rows=counts.get("gone", 0),
        rows_to_embed=to_embed,
        changed_targets=changed_targets,
        drift=drift,
        stages=_costs(ctx, base, state, added + changed, to_embed),
    )


def _pool_rows(ws: Workspace, before: Before) -> int:
    return ws.recorded("embed pool", before.embeddings)[-1].rows


def _changes(ctx: RunContext, state: RunState, before: str) -> tuple[dict[str, int], int]:
    """Rows of the pool by kind of change, and those of them whose content has no vector yet."""
    ws, source = ctx.workspace, state.inputs["pool"]
    embedder = state.fitted_embedder.embedder
    columns = ["id", "content_hash", "row_hash", "reason"]
    present = rows_in_added_files(source, ws.recorded("embed pool", before)[-1])
    earlier = ws.read("embeddings", before)
    if present is not None:
        earlier = earlier.join(present.select("id"), "id", "left_semi")
    else:
        present = source.rows
    now = embed.describe_rows(present, embedder, columns=source.columns).select(*columns)
    rows = changed_rows(earlier.select(*columns), now)
    newest = earlier_embeddings(ws, "embed pool", vectors_key(ctx, state, source), source)
    embedded = ws.read("embeddings", newest or before).where(F.col("reason").isNull())
    hashes = embedded.select(F.col("content_hash").alias("known_hash")).distinct()
    joined = rows.join(hashes, rows["content_hash"] == hashes["known_hash"], "left")
    is_new = F.col("known_hash").isNull() & F.col("reason").isNull()
    is_new = is_new & (F.col("change") != F.lit("gone"))
    counted = joined.groupBy("change").agg(
        F.count(F.lit(1)).alias("rows"), F.sum(is_new.cast("bigint")).alias("to_embed")
    )
    table = bounded(counted, 3, "changes").to_pylist()
    return {r["change"]: int(r["rows"]) for r in table}, sum(int(r["to_embed"]) for r in table)


def _costs(
    ctx: RunContext, base: RunSummary, state: RunState, changed: int, to_embed: int
) -> tuple[StageCost, ...]:
    """Cost of the stages that are not complete, by the speed of those that are recorded."""
    ws, settings, total = ctx.workspace, ctx.settings, state.inputs["pool"].ids
    holds = settings.refresh.budget == "hold"
    goals = ["assignments.pool", *(["scores"] if base.keys.scores else [])]
    graph = refresh_graph(settings)
    planned = planned_stages(ctx, graph, state, [*goals, *(["plan"] if holds else [])])
    changing = {"embed pool": to_embed, "assign pool": changed, "score pool": changed}
    # Those of the run count first: another run may embed or order its rows in another way.
    records = [*reversed(ws.records(base.run)), *reversed(ws.records())]
    costs = []
    for stage in planned:
        if not stage.complete and stage.name in changing:
            rows = changing[stage.name]
            speed = _speed(records, stage.name)
            costs.append(StageCost(stage.name, rows, rows / speed if speed else None))
    whole = [s.name for s in planned if not s.complete and s.name in _WHOLE]
    measured = ["refresh metrics"] if settings.gime.on_refresh else []
    for name in (*whole, REFRESH, *measured):
        seconds = _seconds(records, name) or _seconds(records, _WHOLE[name])
        scale = total / max(base.pool_rows, 1)
        costs.append(StageCost(name, total, None if seconds is None else seconds * scale))
    return tuple(costs)


def _speed(records: Sequence[Record], stage: str) -> float | None:
    """Rows per second of the first stage of a name that wrote all of its rows itself."""
    for record in records:
        wrote_all = not record.is_chunk and "base" not in record.detail
        if record.stage == stage and wrote_all and record.seconds > 0 and record.rows:
            return record.rows / record.seconds
    return None


def _seconds(records: Sequence[Record], stage: str) -> float | None:
    """Seconds of the first stage of a name."""
    return next((r.seconds for r in records if r.stage == stage and r.seconds > 0), None)
