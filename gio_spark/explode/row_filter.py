"""Threshold of each cluster, and the rows above it: the selected ids of a plan."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from gio_spark.engine import bounded, broadcast_arrays, hash53, map_arrow
from gio_spark.errors import InputError
from gio_spark.explode.exact_thresholds import (
    MAX_HISTOGRAM_ENTRIES,
    Histogram,
    Refinement,
    Thresholds,
    find_thresholds,
    merge_histograms,
)
from gio_spark.explode.rank_keys import (
    REQUIRED_KEY,
    TAKE_ALL,
    TAKE_NONE,
    TIE_ALL,
    IntArray,
    passes_threshold,
    rank_keys,
    share_thresholds,
)
from gio_spark.explode.row_copies import (
    COPIES_SCHEMA,
    copies_arrays,
    copies_of_rows,
    extra_rows,
    has_copies,
)
from gio_spark.explode.selection_reasons import REQUIRED_REASON, append_ratio, reasons
from gio_spark.settings.explode import ExplodeSettings

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

log = logging.getLogger(__name__)

_BATCH_ROWS = 65_536
_MERGE_EVERY = 64
_SELECTED_SCHEMA = "id string, cluster int, reason string, log_ratio float"
_HISTOGRAM_SCHEMA = "cluster bigint, bin bigint, rows bigint, low bigint, high bigint"
_CANDIDATE_SCHEMA = "cluster bigint, key bigint, tie bigint"
_KEY_SCHEMA = "id string, cluster int, rank_key bigint, tie bigint"


def rank_salt(seed: int) -> str:
    """Salt of the hash that orders rows inside a cluster."""
    return f"gio.explode.rank:{seed}"


def tie_salt(seed: int) -> str:
    """Salt of the hash that decides between rows of equal key."""
    return f"gio.explode.tie:{seed}"


@dataclass(frozen=True)
class _Rule:
    """Settings that a worker needs to compute rank keys.

    Attributes:
        name: Within-cluster rule.
        temperature: Scale of the Gumbel noise.
        biased: Whether rows have a score bias (column `pull`).
        has_required: Whether some rows are required (column `pinned`).
    """

    name: str
    temperature: float
    biased: bool = False
    has_required: bool = False

    def keys(self, batch: pa.RecordBatch) -> tuple[IntArray, IntArray, IntArray]:
        """Cluster, rank key and tie of the rows of a batch, each int64 (n,)."""
        cluster = batch.column("cluster").to_numpy(zero_copy_only=False).astype(np.int64)
        hashes = batch.column("gio_hash").to_numpy(zero_copy_only=False)
        ties = batch.column("gio_tie").to_numpy(zero_copy_only=False)
        ratio = None
        if self.name == "density_ratio":
            column = batch.column("log_ratio").cast(pa.float64())
            ratio = column.to_numpy(zero_copy_only=False)
        score_bias = None
        if self.biased:
            score_bias = batch.column("pull").cast(pa.float64()).to_numpy(zero_copy_only=False)
        keys = rank_keys(
            self.name, hashes, ratio, temperature=self.temperature, score_bias=score_bias
        )
        if self.has_required:
            required = batch.column("pinned").to_numpy(zero_copy_only=False)
            keys = np.where(required, REQUIRED_KEY, keys)
        return cluster, keys, ties


def _rule(assignments: DataFrame, settings: ExplodeSettings) -> _Rule:
    if settings.within_cluster == "density_ratio" and "log_ratio" not in assignments.columns:
        raise InputError(
            "within_cluster is density_ratio but the assignments carry no column log_ratio: score "
            "the rows first (gio_spark.explode.score), or use within_cluster: exact_count."
        )
    names = assignments.columns
    return _Rule(settings.within_cluster, settings.temperature, "pull" in names, "pinned" in names)


def _hash_assignments(assignments: DataFrame, seed: int, *columns: str) -> DataFrame:
    from pyspark.sql import functions as F

    passed_columns = [
        c for c in (*columns, "log_ratio", "pull", "pinned") if c in assignments.columns
    ]
    # Rows without a cluster are in quarantine and no candidates.
    return assignments.where(F.col("cluster").isNotNull()).select(
        "cluster",
        *passed_columns,
        hash53("id", rank_salt(seed)).alias("gio_hash"),
        hash53("id", tie_salt(seed)).alias("gio_tie"),
    )


def with_thresholds(
    assignments: DataFrame, plan: pd.DataFrame, *, settings: ExplodeSettings, seed: int = 0
) -> pd.DataFrame:
    """Plan with columns `threshold` and `tie`, which decide for every row whether it is selected.

    A row of cluster c is selected when its key is above `threshold`, or equal to it with a tie hash
    of at least `tie`. With `hash_share` and no score bias the threshold follows from take / rows,
    and the count is met on average. Otherwise a few passes over the assignments determine the
    threshold that selects exactly `take` rows (all rows, if the cluster has fewer). Where the plan
    has a column `copies`, `extra_threshold` and `extra_tie` decide in the same way which of the
    selected rows have one copy more than the others (`row_copies`).

    Args:
        assignments: id, cluster and, for `density_ratio`, log_ratio; only rows of the pool. The
            score bias in a column `pull` (double) is added to the score of each row; required
            rows, where a column `pinned` (boolean) is true, come first in their cluster.
        plan: cluster, rows, take (whole numbers unless `hash_share`); copies, where rows repeat.
        settings: Settings of the explode stage.
        seed: Seed of the run.

    Raises:
        InputError: If the plan lacks a column, has a cluster twice or takes fractions of rows.
    """
    plan = _checked_plan(plan)
    threshold, tie = _thresholds(
        assignments, plan, plan["take"].to_numpy(np.float64), settings, seed
    )
    plan = plan.assign(threshold=threshold, tie=tie)
    if has_copies(plan):
        threshold, tie = _thresholds(assignments, plan, extra_rows(plan), settings, seed)
        plan = plan.assign(extra_threshold=threshold, extra_tie=tie)
    return plan


def _thresholds(
    assignments: DataFrame,
    plan: pd.DataFrame,
    take: npt.NDArray[np.float64],
    settings: ExplodeSettings,
    seed: int,
) -> tuple[IntArray, IntArray]:
    """Threshold and tie of each cluster of the plan that select `take` rows of it."""
    rule = _rule(assignments, settings)
    cluster = plan["cluster"].to_numpy(np.int64)
    all_ties = np.full(len(plan), TIE_ALL, dtype=np.int64)
    if rule.name == "hash_share" and not rule.biased:
        return share_thresholds(take, plan["rows"].to_numpy(np.float64)), all_ties
    if not take.any():
        return np.full(len(plan), TAKE_NONE, dtype=np.int64), all_ties
    take_of_cluster, rows_of_cluster = np.zeros((2, int(cluster.max()) + 1 if cluster.size else 1))
    take_of_cluster[cluster] = take
    rows_of_cluster[cluster] = plan["rows"].to_numpy(np.float64)
    result = _exact_thresholds(
        _hash_assignments(assignments, seed), rule, take_of_cluster, rows_of_cluster
    )
    short_clusters = np.flatnonzero(result.selected_rows[cluster] < take)
    if short_clusters.size:
        log.warning(
            "explode clusters=%d hold fewer rows than the plan takes: all of theirs are kept",
            short_clusters.size,
        )
    return result.threshold[cluster], result.tie[cluster]


def _exact_thresholds(
    assignments: DataFrame, rule: _Rule, take: npt.NDArray[np.float64], rows: npt.ArrayLike
) -> Thresholds:
    from pyspark.sql import functions as F

    spark = assignments.sparkSession

    def count(state: Refinement) -> Histogram:
        histograms = map_arrow(
            assignments,
            _count_batches(broadcast_arrays(spark, state.arrays()).load, rule),
            _HISTOGRAM_SCHEMA,
            batch_rows=_BATCH_ROWS,
        )
        merged = histograms.groupBy("cluster", "bin").agg(
            F.sum("rows").alias("rows"), F.min("low").alias("low"), F.max("high").alias("high")
        )
        table = bounded(
            merged, max(MAX_HISTOGRAM_ENTRIES, 4 * take.size), "the histogram of rank keys"
        )
        return Histogram(
            *(table[name].to_numpy().astype(np.int64) for name in Histogram.__annotations__)
        )

    def fetch(state: Refinement, limit: int) -> tuple[IntArray, IntArray, IntArray] | None:
        candidates = map_arrow(
            assignments,
            _select_candidates(broadcast_arrays(spark, state.arrays()).load, rule),
            _CANDIDATE_SCHEMA,
            batch_rows=_BATCH_ROWS,
        )
        table = bounded(candidates.limit(limit + 1), limit + 1, "the rows next to a threshold")
        if table.num_rows > limit:
            return None
        cluster, keys, ties = (table[name].to_numpy() for name in ("cluster", "key", "tie"))
        return cluster, keys, ties

    return find_thresholds(take, count, fetch, rows=rows)


def _count_batches(
    load: Callable[[], dict[str, Any]], rule: _Rule
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[dict[str, Any]]]:
    def count_batches(batches: Iterator[pa.RecordBatch]) -> Iterator[dict[str, Any]]:
        state = Refinement(**load())
        histograms: list[Histogram] = []
        for batch in batches:
            histograms.append(state.count(*_in_plan(state.active.size, rule.keys(batch))))
            if len(histograms) >= _MERGE_EVERY:
                histograms = [merge_histograms(histograms)]
        histogram = merge_histograms(histograms)
        yield {name: getattr(histogram, name) for name in Histogram.__annotations__}

    return count_batches


def _select_candidates(
    load: Callable[[], dict[str, Any]], rule: _Rule
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[dict[str, Any]]]:
    def select_candidates(batches: Iterator[pa.RecordBatch]) -> Iterator[dict[str, Any]]:
        state = Refinement(**load())
        for batch in batches:
            cluster, keys, ties = _in_plan(state.active.size, rule.keys(batch))
            positions, _ = state.candidates(cluster, keys, ties)
            yield {"cluster": cluster[positions], "key": keys[positions], "tie": ties[positions]}

    return select_candidates


def _in_plan(
    clusters: int, rows: tuple[IntArray, IntArray, IntArray]
) -> tuple[IntArray, IntArray, IntArray]:
    """Rows of clusters in the plan; other clusters have an allocation of 0."""
    cluster, keys, ties = rows
    known = (cluster >= 0) & (cluster < clusters)
    if known.all():
        return rows
    return cluster[known], keys[known], ties[known]


def selected_ids(
    assignments: DataFrame, plan: pd.DataFrame, *, settings: ExplodeSettings, seed: int = 0
) -> DataFrame:
    """Ids of the selected rows, with columns id, cluster, reason and log_ratio.

    Where the plan has copies, also with repeat (copies of the row) and weight (the mean copies of
    its cluster's rows in the fractional optimum).

    One map without an exchange; the plan, a few numbers per cluster, is broadcast. The same call
    with a stored plan applies its thresholds to rows that came later.

    Args:
        assignments: id, cluster and, for `density_ratio`, log_ratio; `pull` and `pinned`, if the
            thresholds were computed with them.
        plan: Plan with `threshold` and `tie` from `with_thresholds`; the reason names the target
            mass of the cluster if the plan has a column `target_mass`.
        settings: Settings that the thresholds were computed with.
        seed: Seed that the thresholds were computed with.

    Raises:
        InputError: If the plan has no thresholds.
    """
    plan = _checked_plan(plan)
    if "threshold" not in plan or "tie" not in plan:
        raise InputError(
            "The plan has no thresholds: call gio_spark.explode.with_thresholds first."
        )
    rule = _rule(assignments, settings)
    cluster_count = int(plan["cluster"].max()) + 1 if len(plan) else 1
    cluster = plan["cluster"].to_numpy(np.int64)
    threshold = np.full(cluster_count, TAKE_NONE, dtype=np.int64)
    tie = np.full(cluster_count, TIE_ALL, dtype=np.int64)
    threshold[cluster] = plan["threshold"].to_numpy(np.int64)
    tie[cluster] = plan["tie"].to_numpy(np.int64)
    reason_of_cluster = np.zeros(cluster_count, dtype=object)
    reason_of_cluster[:] = ""
    reason_of_cluster[cluster] = reasons(plan, settings, biased=rule.biased)
    reason_bytes = np.frombuffer("\n".join(reason_of_cluster).encode(), dtype=np.uint8).copy()
    broadcast = broadcast_arrays(
        assignments.sparkSession,
        {
            "threshold": threshold,
            "tie": tie,
            "reasons": reason_bytes,
            **copies_arrays(plan, cluster_count),
        },
    )
    return map_arrow(
        _hash_assignments(assignments, seed, "id"),
        _select_batches(broadcast.load, rule),
        f"{_SELECTED_SCHEMA}, {COPIES_SCHEMA}" if has_copies(plan) else _SELECTED_SCHEMA,
        batch_rows=_BATCH_ROWS,
    )


def _select_batches(
    load: Callable[[], dict[str, Any]], rule: _Rule
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[dict[str, Any]]]:
    def select_batches(batches: Iterator[pa.RecordBatch]) -> Iterator[dict[str, Any]]:
        arrays = load()
        threshold, tie = arrays["threshold"], arrays["tie"]
        reason_texts = pa.array(bytes(arrays["reasons"]).decode().split("\n"))
        for batch in batches:
            cluster, keys, ties = rule.keys(batch)
            known = (cluster >= 0) & (cluster < threshold.size)
            known_cluster = np.where(known, cluster, 0)
            positions = np.flatnonzero(
                known & passes_threshold(keys, ties, threshold[known_cluster], tie[known_cluster])
            )
            if not positions.size:
                continue
            rows = batch.take(pa.array(positions))
            ratio = (
                rows.column("log_ratio").cast(pa.float32())
                if "log_ratio" in rows.schema.names
                else pa.nulls(positions.size, pa.float32())
            )
            reason = reason_texts.take(pa.array(cluster[positions]))
            if rule.name == "density_ratio":
                reason = append_ratio(reason, ratio)
            if rule.has_required:
                required = pa.array(keys[positions] == REQUIRED_KEY)
                reason = pc.if_else(required, REQUIRED_REASON, reason)
            yield {
                "id": rows.column("id"),
                "cluster": cluster[positions].astype(np.int32),
                "reason": reason,
                "log_ratio": ratio,
                **copies_of_rows(arrays, cluster[positions], keys[positions], ties[positions]),
            }

    return select_batches


def row_keys(assignments: DataFrame, *, settings: ExplodeSettings, seed: int = 0) -> DataFrame:
    """Rank key and tie of rows, as `selected_ids` compares them with the thresholds of a plan.

    Args:
        assignments: As for `selected_ids`.
        settings: Settings that the thresholds were computed with.
        seed: Seed that the thresholds were computed with.

    Returns:
        id, cluster, rank_key and tie of the rows that have a cluster.
    """
    rule = _rule(assignments, settings)

    def key_batches(batches: Iterator[pa.RecordBatch]) -> Iterator[dict[str, Any]]:
        for batch in batches:
            cluster, keys, ties = rule.keys(batch)
            yield {
                "id": batch.column("id"),
                "cluster": cluster.astype(np.int32),
                "rank_key": keys,
                "tie": ties,
            }

    return map_arrow(
        _hash_assignments(assignments, seed, "id"), key_batches, _KEY_SCHEMA, batch_rows=_BATCH_ROWS
    )


def _checked_plan(plan: pd.DataFrame) -> pd.DataFrame:
    missing = [c for c in ("cluster", "rows", "take") if c not in plan]
    if missing:
        raise InputError(f"The plan lacks the columns {', '.join(missing)}.")
    if plan["cluster"].duplicated().any():
        raise InputError("The plan names a cluster twice: one row per cluster is needed.")
    if len(plan) and plan["cluster"].min() < 0:
        raise InputError("The plan has negative cluster numbers.")
    return plan


__all__ = [
    "TAKE_ALL",
    "TAKE_NONE",
    "rank_salt",
    "row_keys",
    "selected_ids",
    "tie_salt",
    "with_thresholds",
]
