"""Drift of a pool since the plan of a run, and what a refresh does about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.compute as pc

from gio_spark import quantize
from gio_spark.pipeline.refresh_records import DriftDecision, DriftFigures
from gio_spark.pipeline.run_context import RunContext
from gio_spark.pipeline.run_records import RunSummary
from gio_spark.pipeline.run_state import RunState
from gio_spark.pipeline.stages.mixture_share import histogram

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from gio_spark.settings.refresh import DriftSettings

# Log ratios are recorded in tenths.
_TENTHS = 10


def drift_figures(
    ctx: RunContext, base: RunSummary, state: RunState, changed_targets: Sequence[str]
) -> DriftFigures:
    """Drift since the plan of a run.

    New rows are those that are new or changed since the version that the pool's assignments stand
    on: the refresh before, or at most four earlier; all rows where most have changed.

    Args:
        ctx: The run.
        base: Its summary.
        state: Clusters and, where there are some, scores of the present pool.
        changed_targets: Names of the targets at another version.
    """
    plan, rows = state.frozen_plan, state.cluster_stats().rows
    before, mass = plan.table["rows"].to_numpy(), plan.table["target_mass"].to_numpy()
    shift = 0.5 * float(np.abs(rows / max(rows.sum(), 1) - before / max(before.sum(), 1)).sum())
    gone = float(mass[rows == 0].sum()) / max(float(mass.sum()), 1e-300)
    new, inertia = _inertia_of_new(ctx, state)
    centroids = ctx.workspace.read_arrow("centroids", base.keys.centroids, 1 << 20, "centroids")
    pool = centroids.filter(pc.field("side") == "pool")
    per_row = pc.sum(pool["inertia"]).as_py() / max(pc.sum(pool["rows"]).as_py(), 1)
    auc = auc_before = None
    if new and base.keys.scores and base.mixture is not None and base.mixture.target_scores:
        scores = _new_rows(ctx, "scores", state.scores)
        auc = _auc(base.mixture.target_scores, histogram(scores, bins=_TENTHS))
        auc_before = _auc(base.mixture.target_scores, base.mixture.pool_scores)
    return DriftFigures(
        changed_targets=tuple(changed_targets),
        share_shift=shift,
        lost_mass=(1.0 - plan.facts.lost_mass) * gone,
        rows=new,
        inertia_ratio=inertia / new / per_row if new and per_row > 0 else None,
        auc=auc,
        auc_before=auc_before,
    )


def decide(figures: DriftFigures, settings: DriftSettings) -> DriftDecision:
    """Decide what a refresh does: the strongest action that a figure asks for.

    Example:
        >>> from gio_spark.settings.refresh import DriftSettings
        >>> figures = DriftFigures(share_shift=0.4, lost_mass=0.0, rows=5000, inertia_ratio=1.1)
        >>> decide(figures, DriftSettings()).action
        'replan'
    """
    reasons: dict[str, list[str]] = {"stop": [], "requantize": [], "replan": []}
    if figures.changed_targets and settings.target != "keep":
        names = ", ".join(figures.changed_targets)
        reasons[settings.target].append(f"changed since the run: {names} (refresh.drift.target)")

    def judge(action: str, name: str, value: float | None, words: str) -> None:
        limit = getattr(settings, name)
        if limit is not None and value is not None and value >= limit:
            reasons[action].append(f"{words} {value:.3g} (refresh.drift.{name}: {limit:g})")

    judge("stop", "lost_mass", figures.lost_mass, "share of the target without rows any more")
    judge("replan", "share_shift", figures.share_shift, "total variation of the clusters' shares")
    if figures.rows >= settings.least_rows:
        ratio = figures.inertia_ratio
        judge("requantize", "inertia_ratio", ratio, "squared distance of new rows, relative")
        if figures.auc is not None and figures.auc_before is not None:
            shift = abs(figures.auc - figures.auc_before)
            judge("replan", "auc_shift", shift, "change of the density ratio's AUC")
    for action, texts in reasons.items():
        if texts:
            return DriftDecision.model_validate(
                {"action": action, "reasons": texts, "figures": figures}
            )
    return DriftDecision(action="keep", figures=figures)


def _new_rows(ctx: RunContext, table: str, key: str) -> DataFrame:
    """Rows of a stage that its own version brought; all where it stands on no other."""
    ws = ctx.workspace
    return ws.own_rows(table, key) if ws.base_of(table, key) else ws.read(table, key)


def _inertia_of_new(ctx: RunContext, state: RunState) -> tuple[int, float]:
    """Number of new rows, and the sum of their squared distances to their centroids."""
    rows = _new_rows(ctx, "assignments", state.assignments["pool"])
    if not rows.limit(1).count():
        return 0, 0.0
    stats = quantize.cluster_stats(rows, len(state.codebook.centroids))
    return int(stats.rows.sum()), float(stats.inertia.sum())


def _auc(positive: Mapping[int, int], negative: Mapping[int, int]) -> float | None:
    """Probability that a row of the first histogram scores above one of the second; ties half."""
    bins = sorted({*positive, *negative})
    above = np.array([positive.get(b, 0) for b in bins], np.float64)
    below = np.array([negative.get(b, 0) for b in bins], np.float64)
    if not above.sum() or not below.sum():
        return None
    wins = above @ (np.cumsum(below) - 0.5 * below)
    return float(wins / (above.sum() * below.sum()))
