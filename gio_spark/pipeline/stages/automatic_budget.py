"""The budget `auto`: how much of the pool can have the target's own law."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from pyspark.sql import functions as F

from gio_spark import explode, gio
from gio_spark.engine import bounded, hash53
from gio_spark.pipeline.run_context import RunContext
from gio_spark.pipeline.run_records import AutomaticBudget
from gio_spark.pipeline.run_state import RunState
from gio_spark.pipeline.stages.cluster import mass_of
from gio_spark.pipeline.stages.density_ratio import content_of
from gio_spark.pipeline.stages.embed import vectors_of

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

# Log ratios are binned to hundredths: far finer than they are known.
_BIN = 100
_MAX_BINS = 100_000


def automatic_budget(ctx: RunContext, state: RunState) -> AutomaticBudget:
    """Find what the budget `auto` is made from: kappa and the held-out curve's budget.

    kappa comes from the cross-fitted ratios of all pool and target rows; the curve from quotas
    shaped by one half of the target and judged by the other.
    """
    ratio = state.ratio_model
    pool = _histogram(ctx.workspace.read("scores", state.scores))
    model = explode.RatioModel.from_arrays(ratio.arrays)
    target: dict[int, int] = {}
    for one in state.datasets.targets:
        content = content_of(ctx, state, one.name, ratio.facts.kind)
        scored = explode.score(content, model, content="content", keep=())
        for value, count in _histogram(scored).items():
            target[value] = target.get(value, 0) + count
    share = gio.mixture_share(
        *(np.array(sorted(h), np.float64) / _BIN for h in (pool, target)),
        pool_counts=np.array([pool[v] for v in sorted(pool)], np.float64),
        target_counts=np.array([target[v] for v in sorted(target)], np.float64),
    )
    curve = _curve(ctx, state)
    return AutomaticBudget(
        kappa=share.kappa,
        heldout_budget=curve.chosen,
        curve=(curve.budgets.tolist(), curve.cross_entropy.tolist(), curve.standard_error.tolist()),
    )


def _histogram(rows: DataFrame) -> dict[int, int]:
    binned = rows.where(F.col("log_ratio").isNotNull()).select(
        F.round(F.col("log_ratio").cast("double") * _BIN).cast("bigint").alias("bin")
    )
    counted = bounded(binned.groupBy("bin").count(), _MAX_BINS, "bins of the log ratio")
    return dict(zip(counted["bin"].to_pylist(), counted["count"].to_pylist(), strict=True))


def _curve(ctx: RunContext, state: RunState) -> gio.HeldoutCurve:
    half = hash53("id", f"auto-halves-{ctx.settings.seed}") % 2
    masses, counts = [], np.zeros(len(state.codebook.centroids))
    for one in state.datasets.targets:
        rows = vectors_of(ctx, one).where(half == 0)
        masses.append(mass_of(ctx, state, one, weight=None, rows=rows))
        others = ctx.workspace.read("assignments", state.assignments[one.name]).where(half == 1)
        table = bounded(others.groupBy("cluster").count(), len(counts), "rows per cluster")
        counts[table["cluster"].to_numpy()] += table["count"].to_numpy()
    if any(m.rows == 0 for m in masses):
        return gio.HeldoutCurve(np.zeros(0), np.zeros(0), np.zeros(0), 0.0)
    mass, _ = gio.mix_targets(masses, [t.share for t in ctx.settings.target])
    return gio.heldout_curve(mass, counts, state.cluster_stats().rows)
