"""Rows of each cluster that may be taken where rows repeat: those within reach of the ratio.

A repeated row of the target's kind is worth more than a new one of another kind, so that rows
repeat before others of their cluster are taken. Where a density ratio is fitted, the ratio inside
the cluster decides: the log ratio of a row less that of its cluster (log of the target's share over
the pool's). A row is within reach where this is at least what 95 % of the target's own rows have.
The ratio of the cluster is taken off because quotas follow it already; otherwise all rows of the
target's rarer clusters would count as out of reach.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from pyspark.sql import functions as F

from gio_spark import explode
from gio_spark.engine import bounded
from gio_spark.pipeline.run_context import RunContext, fingerprint
from gio_spark.pipeline.run_state import RunState
from gio_spark.pipeline.stages.density_ratio import content_of
from gio_spark.tables.model_arrays import load_arrays, save_arrays

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pyspark.sql import DataFrame

TARGET_SHARE_BELOW = 0.05
"""Share of the target's rows that lies below the limit."""
# Ratios inside a cluster are binned to hundredths: far finer than they are known.
_BIN = 100
_MAX_BINS = 100_000


def plan_fresh_rows(
    ctx: RunContext, state: RunState, target_mass: NDArray, plan_key: str
) -> NDArray:
    """Rows of each cluster within reach of the ratio, (K,) int64; the limit is stored with a plan.

    At least one row of each cluster with rows counts, the one with the largest key. Without a
    ratio, and in clusters without target mass (which only a replay share lets in), all rows count.

    Args:
        ctx: The run.
        state: Clusters, assignments and, for the density ratio, scores.
        target_mass: (K,) mass of the target.
        plan_key: Key of the plan that the rows are counted for.
    """
    if ctx.settings.explode.within_cluster != "density_ratio":
        return np.asarray(state.cluster_stats().rows, np.int64)
    limit = _limit(ctx, state, _cluster_ratios(ctx, state, target_mass))
    arrays = {"target_mass": target_mass, "limit": np.array([limit], np.int64)}
    save_arrays(ctx.workspace, "ratio_reach", arrays, key=_reach_key(plan_key), run=ctx.run)
    return _count_within(ctx, state, target_mass, limit)


def held_fresh_rows(ctx: RunContext, state: RunState, plan_key: str) -> NDArray:
    """Rows of each cluster of the present pool within reach of the ratio, by a plan's limit."""
    if ctx.settings.explode.within_cluster != "density_ratio":
        return np.asarray(state.cluster_stats().rows, np.int64)
    reach = load_arrays(ctx.workspace, _reach_key(plan_key))
    return _count_within(ctx, state, reach["target_mass"], int(reach["limit"][0]))


def _reach_key(plan_key: str) -> str:
    return fingerprint("ratio reach", plan_key)


def _in_target(state: RunState, target_mass: NDArray) -> NDArray:
    return np.asarray((target_mass > 0) & (np.asarray(state.cluster_stats().rows) > 0))


def _cluster_ratios(ctx: RunContext, state: RunState, target_mass: NDArray) -> DataFrame:
    """Log of the target's share over the pool's, of the clusters with rows of both."""
    rows, in_target = np.asarray(state.cluster_stats().rows), _in_target(state, target_mass)
    share = target_mass[in_target] / target_mass[in_target].sum()
    offsets = np.log(share) - np.log(rows[in_target] / rows.sum())
    clusters = pa.array(np.flatnonzero(in_target), pa.int32())
    return F.broadcast(ctx.workspace.frame(pa.table({"cluster": clusters, "offset": offsets})))


def _count_within(ctx: RunContext, state: RunState, target_mass: NDArray, limit: int) -> NDArray:
    rows = np.asarray(state.cluster_stats().rows, np.int64)
    in_target = _in_target(state, target_mass)
    cluster_ratios = _cluster_ratios(ctx, state, target_mass)
    scored = ctx.workspace.read("scores", state.scores).select("cluster", "log_ratio")
    within = _with_ratio_inside(scored, cluster_ratios).where(F.col("bin") >= F.lit(limit))
    table = bounded(within.groupBy("cluster").count(), len(rows), "rows within reach")
    fresh = np.where(in_target, np.minimum(rows, 1), rows)
    fresh[table["cluster"].to_numpy()] = table["count"].to_numpy()
    return np.asarray(fresh)


def _limit(ctx: RunContext, state: RunState, cluster_ratios: DataFrame) -> int:
    """Bin that 95 % of the rows of all targets reach; the least of all bins without any."""
    ratio = state.ratio_model
    model = explode.RatioModel.from_arrays(ratio.arrays)
    counts: dict[int, int] = {}
    for one in state.datasets.targets:
        content = content_of(ctx, state, one.name, ratio.facts.kind)
        scores = explode.score(content, model, content="content", keep=())
        clusters = ctx.workspace.read("assignments", state.assignments[one.name])
        scored = clusters.select("id", "cluster").join(scores, "id").select("cluster", "log_ratio")
        binned = _with_ratio_inside(scored.where(F.col("log_ratio").isNotNull()), cluster_ratios)
        table = bounded(binned.groupBy("bin").count(), _MAX_BINS, "bins of the log ratio")
        for value, count in zip(table["bin"].to_pylist(), table["count"].to_pylist(), strict=True):
            counts[value] = counts.get(value, 0) + count
    if not counts:
        return int(np.iinfo(np.int64).min)
    bins = np.array(sorted(counts))
    below = np.cumsum([counts[value] for value in bins]) / sum(counts.values())
    return int(bins[np.searchsorted(below, TARGET_SHARE_BELOW, side="right")])


def _with_ratio_inside(rows: DataFrame, cluster_ratios: DataFrame) -> DataFrame:
    """Cluster and bin of the log ratio inside the cluster, of rows in the target's clusters."""
    inside = (F.col("log_ratio").cast("double") - F.col("offset")) * F.lit(_BIN)
    return rows.join(cluster_ratios, "cluster").select(
        "cluster", F.floor(inside).cast("bigint").alias("bin")
    )
