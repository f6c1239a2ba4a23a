"""From a plan over clusters to the kept ids: a map over the skinny assignments table."""

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
    CELLS,
    Histogram,
    Refinement,
    Thresholds,
    find_thresholds,
    merge,
)
from gio_spark.explode.rank_keys import (
    PINNED,
    TAKE_ALL,
    TAKE_NONE,
    TIE_ALL,
    IntArray,
    keep,
    rank_keys,
    share_thresholds,
)
from gio_spark.settings.explode import ExplodeSettings

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

log = logging.getLogger(__name__)

_BATCH_ROWS = 65_536
_MERGE_EVERY = 64
PINNED_REASON = "holds an extreme of the pool's times, always kept"
_KEPT_SCHEMA = "id string, cluster int, reason string, log_ratio float"
_HISTOGRAM_SCHEMA = "cluster bigint, bin bigint, rows bigint, low bigint, high bigint"
_CANDIDATE_SCHEMA = "cluster bigint, key bigint, tie bigint"


def rank_salt(seed: int) -> str:
    """Return the salt of the hash that orders rows inside a cluster."""
    return f"gio.explode.rank:{seed}"


def tie_salt(seed: int) -> str:
    """Return the salt of the hash that decides between rows of equal key."""
    return f"gio.explode.tie:{seed}"


@dataclass(frozen=True)
class _Rule:
    """The part of the settings that a worker needs to compute keys."""

    name: str
    temperature: float
    pulled: bool = False
    pinned: bool = False

    def keys(self, batch: pa.RecordBatch) -> tuple[IntArray, IntArray, IntArray]:
        """Return cluster, key and tie of a batch, each int64 (n,)."""
        cluster = batch.column("cluster").to_numpy(zero_copy_only=False).astype(np.int64)
        hashes = batch.column("gio_hash").to_numpy(zero_copy_only=False)
        ties = batch.column("gio_tie").to_numpy(zero_copy_only=False)
        ratio = None
        if self.name == "density_ratio":
            column = batch.column("log_ratio").cast(pa.float64())
            ratio = column.to_numpy(zero_copy_only=False)
        pull = None
        if self.pulled:
            pull = batch.column("pull").cast(pa.float64()).to_numpy(zero_copy_only=False)
        keys = rank_keys(self.name, hashes, ratio, temperature=self.temperature, pull=pull)
        if self.pinned:
            pinned = batch.column("pinned").to_numpy(zero_copy_only=False)
            keys = np.where(pinned, PINNED, keys)
        return cluster, keys, ties


def _rule(assignments: DataFrame, settings: ExplodeSettings) -> _Rule:
    if settings.within_cluster == "density_ratio" and "log_ratio" not in assignments.columns:
        raise InputError(
            "within_cluster is density_ratio but the assignments carry no column log_ratio: score "
            "the rows first (gio_spark.explode.score), or use within_cluster: exact_count."
        )
    names = assignments.columns
    return _Rule(settings.within_cluster, settings.temperature, "pull" in names, "pinned" in names)


def _hashed(assignments: DataFrame, seed: int, *more: str) -> DataFrame:
    from pyspark.sql import functions as F

    extra = [c for c in (*more, "log_ratio", "pull", "pinned") if c in assignments.columns]
    # Rows without a cluster were unusable; they are no candidates.
    return assignments.where(F.col("cluster").isNotNull()).select(
        "cluster",
        *extra,
        hash53("id", rank_salt(seed)).alias("gio_hash"),
        hash53("id", tie_salt(seed)).alias("gio_tie"),
    )


def with_thresholds(
    assignments: DataFrame, plan: pd.DataFrame, *, settings: ExplodeSettings, seed: int = 0
) -> pd.DataFrame:
    """Return the plan with columns `threshold` and `tie`, which settle every row's fate.

    A row of cluster c is kept when its key is above `threshold`, or equal to it and its tie hash
    at least `tie`. With `hash_share` and no pull the threshold follows from take / rows and the
    count is met on average; otherwise a few passes over the assignments find the one that keeps
    exactly `take` rows (all rows, where the cluster has fewer).

    Args:
        assignments: id, cluster and, for `density_ratio`, log_ratio; only rows of the pool. A
            column `pull` (double) is added to each row's score; rows where a column `pinned`
            (boolean) is true come first in their cluster.
        plan: cluster, rows, take (whole numbers unless `hash_share`).
        settings: Of the explode stage.
        seed: Seed of the run.

    Raises:
        InputError: If the plan lacks a column, names a cluster twice or takes part rows.
    """
    plan = _checked(plan)
    rule = _rule(assignments, settings)
    cluster = plan["cluster"].to_numpy(np.int64)
    take = plan["take"].to_numpy(np.float64)
    if rule.name == "hash_share" and not rule.pulled:
        found = share_thresholds(take, plan["rows"].to_numpy(np.float64))
        return plan.assign(threshold=found, tie=np.full(len(plan), TIE_ALL, dtype=np.int64))
    dense, there = np.zeros((2, int(cluster.max()) + 1 if cluster.size else 1))
    dense[cluster] = take
    there[cluster] = plan["rows"].to_numpy(np.float64)
    result = _exact(_hashed(assignments, seed), rule, dense, there)
    short = np.flatnonzero(result.kept[cluster] < take)
    if short.size:
        log.warning(
            "explode clusters=%d hold fewer rows than the plan takes: all of theirs are kept",
            short.size,
        )
    return plan.assign(threshold=result.threshold[cluster], tie=result.tie[cluster])


def _exact(
    hashed: DataFrame, rule: _Rule, take: npt.NDArray[np.float64], rows: npt.ArrayLike
) -> Thresholds:
    from pyspark.sql import functions as F

    spark = hashed.sparkSession

    def count(state: Refinement) -> Histogram:
        parts = map_arrow(
            hashed,
            _counting(broadcast_arrays(spark, state.arrays()).load, rule),
            _HISTOGRAM_SCHEMA,
            batch_rows=_BATCH_ROWS,
        )
        merged = parts.groupBy("cluster", "bin").agg(
            F.sum("rows").alias("rows"), F.min("low").alias("low"), F.max("high").alias("high")
        )
        table = bounded(merged, max(CELLS, 4 * take.size), "the histogram of rank keys")
        return Histogram(*(table[n].to_numpy().astype(np.int64) for n in Histogram.__annotations__))

    def fetch(state: Refinement, limit: int) -> tuple[IntArray, IntArray, IntArray] | None:
        near = map_arrow(
            hashed,
            _selecting(broadcast_arrays(spark, state.arrays()).load, rule),
            _CANDIDATE_SCHEMA,
            batch_rows=_BATCH_ROWS,
        )
        table = bounded(near.limit(limit + 1), limit + 1, "the rows next to a threshold")
        if table.num_rows > limit:
            return None
        cluster, keys, ties = (table[n].to_numpy() for n in ("cluster", "key", "tie"))
        return cluster, keys, ties

    return find_thresholds(take, count, fetch, rows=rows)


def _counting(
    load: Callable[[], dict[str, Any]], rule: _Rule
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[dict[str, Any]]]:
    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[dict[str, Any]]:
        state = Refinement(**load())
        held: list[Histogram] = []
        for batch in batches:
            held.append(state.count(*_within(state.active.size, rule.keys(batch))))
            if len(held) >= _MERGE_EVERY:
                held = [merge(held)]
        total = merge(held)
        yield {n: getattr(total, n) for n in Histogram.__annotations__}

    return run


def _selecting(
    load: Callable[[], dict[str, Any]], rule: _Rule
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[dict[str, Any]]]:
    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[dict[str, Any]]:
        state = Refinement(**load())
        for batch in batches:
            cluster, keys, ties = _within(state.active.size, rule.keys(batch))
            at, _ = state.candidates(cluster, keys, ties)
            yield {"cluster": cluster[at], "key": keys[at], "tie": ties[at]}

    return run


def _within(
    clusters: int, rows: tuple[IntArray, IntArray, IntArray]
) -> tuple[IntArray, IntArray, IntArray]:
    """Leave out rows of clusters that the plan does not know: nothing of them is taken."""
    cluster, keys, ties = rows
    known = (cluster >= 0) & (cluster < clusters)
    if known.all():
        return rows
    return cluster[known], keys[known], ties[known]


def kept(
    assignments: DataFrame, plan: pd.DataFrame, *, settings: ExplodeSettings, seed: int = 0
) -> DataFrame:
    """Return the kept rows: id, cluster, reason, log_ratio.

    One map pass without an exchange; the plan, a few numbers per cluster, is shipped. The same
    call with a stored plan serves rows that came later (frozen thresholds).

    Args:
        assignments: id, cluster and, for `density_ratio`, log_ratio; `pull` and `pinned`, if the
            thresholds were made with them.
        plan: With `threshold` and `tie` from `with_thresholds`; `target_mass` is used in the
            reason when it is there.
        settings: The settings that the thresholds were made with.
        seed: The seed that the thresholds were made with.

    Raises:
        InputError: If the plan has no thresholds.
    """
    plan = _checked(plan)
    if "threshold" not in plan or "tie" not in plan:
        raise InputError(
            "The plan has no thresholds: call gio_spark.explode.with_thresholds first."
        )
    rule = _rule(assignments, settings)
    size = int(plan["cluster"].max()) + 1 if len(plan) else 1
    at = plan["cluster"].to_numpy(np.int64)
    threshold = np.full(size, TAKE_NONE, dtype=np.int64)
    tie = np.full(size, TIE_ALL, dtype=np.int64)
    threshold[at] = plan["threshold"].to_numpy(np.int64)
    tie[at] = plan["tie"].to_numpy(np.int64)
    text = np.zeros(size, dtype=object)
    text[:] = ""
    text[at] = reasons(plan, settings, pulled=rule.pulled)
    blob = np.frombuffer("\n".join(text).encode(), dtype=np.uint8).copy()
    handle = broadcast_arrays(
        assignments.sparkSession, {"threshold": threshold, "tie": tie, "reasons": blob}
    )
    return map_arrow(
        _hashed(assignments, seed, "id"),
        _keeping(handle.load, rule),
        _KEPT_SCHEMA,
        batch_rows=_BATCH_ROWS,
    )


def _keeping(
    load: Callable[[], dict[str, Any]], rule: _Rule
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[dict[str, Any]]]:
    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[dict[str, Any]]:
        arrays = load()
        threshold, tie = arrays["threshold"], arrays["tie"]
        texts = pa.array(bytes(arrays["reasons"]).decode().split("\n"))
        for batch in batches:
            cluster, keys, ties = rule.keys(batch)
            known = (cluster >= 0) & (cluster < threshold.size)
            own = np.where(known, cluster, 0)
            at = np.flatnonzero(known & keep(keys, ties, threshold[own], tie[own]))
            if not at.size:
                continue
            rows = batch.take(pa.array(at))
            ratio = (
                rows.column("log_ratio").cast(pa.float32())
                if "log_ratio" in rows.schema.names
                else pa.nulls(at.size, pa.float32())
            )
            reason = texts.take(pa.array(cluster[at]))
            if rule.name == "density_ratio":
                reason = _with_ratio(reason, ratio)
            if rule.pinned:
                pinned = pa.array(keys[at] == PINNED)
                reason = pc.if_else(pinned, PINNED_REASON, reason)
            yield {
                "id": rows.column("id"),
                "cluster": cluster[at].astype(np.int32),
                "reason": reason,
                "log_ratio": ratio,
            }

    return run


def _with_ratio(reason: pa.Array, ratio: pa.Array) -> pa.Array:
    known = pc.fill_null(ratio.cast(pa.float64()), 0.0)
    # One step of negative zero would print as -0.0.
    shown = pc.cast(pc.add(pc.round(known, ndigits=2), 0.0), pa.string())
    return pc.binary_join_element_wise(reason, pa.scalar("; log density ratio "), shown, "")


def reasons(plan: pd.DataFrame, settings: ExplodeSettings, *, pulled: bool = False) -> list[str]:
    """Return one sentence per cluster of the plan that says why its rows are taken."""
    how = {
        "hash_share": "drawn at random" if pulled else "drawn at random (about this many)",
        "exact_count": "drawn at random",
        "density_ratio": "those most like the target"
        if settings.temperature == 0
        else "mostly those most like the target",
    }[settings.within_cluster]
    if pulled:
        how += ", pulled towards the metrics that are held"
    has_mass = "target_mass" in plan and float(plan["target_mass"].sum()) > 0
    total = float(plan["target_mass"].sum()) if has_mass else 1.0
    mass = plan["target_mass"].to_numpy(np.float64) / total if has_mass else np.zeros(len(plan))
    out = []
    for cluster, rows, take, share in zip(
        plan["cluster"], plan["rows"], plan["take"], mass, strict=True
    ):
        what = f"cluster {int(cluster)}"
        if has_mass:
            what += f" holds {100 * share:.3g} % of the target"
        count = int(np.rint(take))
        taken = f"all {int(rows):,} rows" if count >= rows else f"{count:,} of {int(rows):,} rows"
        out.append(f"{what}: {taken} taken" + ("" if count >= rows else f", {how}"))
    return out


def _checked(plan: pd.DataFrame) -> pd.DataFrame:
    missing = [c for c in ("cluster", "rows", "take") if c not in plan]
    if missing:
        raise InputError(f"The plan lacks the columns {', '.join(missing)}.")
    if plan["cluster"].duplicated().any():
        raise InputError("The plan names a cluster twice: one row per cluster is needed.")
    if len(plan) and plan["cluster"].min() < 0:
        raise InputError("The plan has negative cluster numbers.")
    return plan


__all__ = ["TAKE_ALL", "TAKE_NONE", "kept", "rank_salt", "reasons", "tie_salt", "with_thresholds"]
