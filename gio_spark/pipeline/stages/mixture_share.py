"""Stage mixture share: share of the pool that can have the target's distribution."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from pyspark.sql import functions as F

from gio_spark import explode, gio
from gio_spark.engine import bounded, hash53
from gio_spark.errors import EmptySelectionError
from gio_spark.pipeline.run_context import RunContext
from gio_spark.pipeline.run_records import AutomaticBudget, MixtureFacts
from gio_spark.pipeline.run_state import RunState
from gio_spark.pipeline.stage_runner import Stage, Step
from gio_spark.pipeline.stages.cluster import mass_of
from gio_spark.pipeline.stages.density_ratio import content_of
from gio_spark.pipeline.stages.embed import vectors_of
from gio_spark.settings.budget import parse_budget

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyspark.sql import DataFrame

    from gio_spark.engine.progress import Stage as StageProgress

# Log ratios are binned to hundredths: far finer than they are known.
_BIN = 100
_MAX_BINS = 100_000


def mixture_share_stage(targets: Sequence[str]) -> Stage:
    """Estimate the share of the pool that can have the target's distribution, and judge it.

    Args:
        targets: Names of the targets.
    """
    return Stage(
        "mixture share",
        _estimate,
        inputs=("ratio_model", "scores", *(f"embeddings.{name}" for name in targets)),
        reads=("cluster_stats", "datasets"),
        outputs=("mixture",),
    )


def _estimate(step: Step, state: RunState) -> None:
    """Set the estimate; warn or stop where the pool holds next to nothing like the target.

    Raises:
        EmptySelectionError: It is below `select.least_mixture`, and `select.on_low_mixture` says
            to stop.
    """

    def make(_: StageProgress) -> tuple[int, dict[str, Any]]:
        pool, target = _pool_and_target(step.ctx, state)
        share = _share_of(pool, target)
        facts = MixtureFacts(
            share=share.kappa,
            pool_share=share.pool_share,
            target_share=share.target_share,
            pool_scores=_in_tenths(pool),
            target_scores=_in_tenths(target),
        )
        return state.pool_rows, facts.plain()

    record = step.record(make)
    state.mixture = MixtureFacts.model_validate(record.detail)
    _judge(step.ctx, state)


def _judge(ctx: RunContext, state: RunState) -> None:
    select, budget = ctx.settings.select, parse_budget(ctx.settings.budget)
    stats = state.cluster_stats()
    if budget.unit == "auto":  # takes these rows alone, and says so where there are none
        return
    pool_amount = float(stats.tokens.sum() if budget.unit == "tokens" else stats.rows.sum())
    requested_share = (
        budget.amount / pool_amount if budget.unit in ("rows", "tokens") else budget.amount
    )
    match = state.mixture.share / min(max(requested_share, 1e-12), 1.0)
    if match >= select.least_mixture:
        return
    rows = state.mixture.share * float(stats.rows.sum())
    text = (
        f"Hardly a row of the pool is like the target: about {rows:,.0f} of its "
        f"{int(stats.rows.sum()):,} rows can have the target's distribution, {min(match, 1):.2%} "
        f"of the budget (select.least_mixture is {select.least_mixture:.2%})."
    )
    remedy = (
        "See that target and pool are the same kind of data (language, format, columns); the "
        "selection is the part of the pool nearest to a target that it does not hold."
    )
    if select.on_low_mixture == "stop":
        raise EmptySelectionError(f"{text} {remedy}")
    ctx.warn("pool unlike target", text, remedy)


def mixture_share(ctx: RunContext, state: RunState) -> gio.MixtureShare:
    """Mixture proportion from the cross-fitted ratios of all pool and target rows."""
    return _share_of(*_pool_and_target(ctx, state))


def _pool_and_target(ctx: RunContext, state: RunState) -> tuple[dict[int, int], dict[int, int]]:
    """Histograms of the log ratios of pool and targets: log ratio in hundredths -> rows."""
    ratio = state.ratio_model
    pool = histogram(ctx.workspace.read("scores", state.scores))
    model = explode.RatioModel.from_arrays(ratio.arrays)
    target: dict[int, int] = {}
    for one in state.datasets.targets:
        content = content_of(ctx, state, one.name, ratio.facts.kind)
        scored = explode.score(content, model, content="content", keep=())
        for value, count in histogram(scored).items():
            target[value] = target.get(value, 0) + count
    return pool, target


def _share_of(pool: dict[int, int], target: dict[int, int]) -> gio.MixtureShare:
    return gio.mixture_share(
        *(np.array(sorted(h), np.float64) / _BIN for h in (pool, target)),
        pool_counts=np.array([pool[v] for v in sorted(pool)], np.float64),
        target_counts=np.array([target[v] for v in sorted(target)], np.float64),
    )


def automatic_budget(ctx: RunContext, state: RunState) -> AutomaticBudget:
    """Figures that the budget `auto` is made from: the mixture share and the held-out curve.

    The curve is of quotas shaped by one half of the target and judged by the other.
    """
    curve = _curve(ctx, state)
    return AutomaticBudget(
        kappa=state.mixture.share,
        heldout_budget=curve.chosen,
        curve=(curve.budgets.tolist(), curve.cross_entropy.tolist(), curve.standard_error.tolist()),
    )


def _in_tenths(hundredths: dict[int, int]) -> dict[int, int]:
    """Coarser histogram, small enough for a record."""
    counts: dict[int, int] = {}
    for value, rows in sorted(hundredths.items()):
        counts[round(value / 10)] = counts.get(round(value / 10), 0) + rows
    return counts


def histogram(rows: DataFrame, *, bins: int = _BIN) -> dict[int, int]:
    """Log ratio of rows, in bins of one part in so many, -> rows."""
    binned = rows.where(F.col("log_ratio").isNotNull()).select(
        F.round(F.col("log_ratio").cast("double") * bins).cast("bigint").alias("bin")
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
