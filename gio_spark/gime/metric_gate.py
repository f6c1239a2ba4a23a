"""Gate: a verdict on a selection's metrics, and quota reallocated until the thresholds are met.

Set-like metrics (scope, variety, coverage) and histogram metrics (mismatch) are enforced by quotas
over the codebook, never by row scores; additive and mean metrics by the means of the clusters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from gio_spark.errors import InputError
from gio_spark.gime.metric_thresholds import ADDITIVE
from gio_spark.gime.quota_reallocation import QuotaLimits, reallocate

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gio_spark.gime.metric_thresholds import Threshold

SET_METRICS = ("scope", "variety", "coverage")
# Largest share of the budget that is reallocated at once.
_WIDEST = 0.3


@dataclass(frozen=True)
class ThresholdCheck:
    """Result of one threshold.

    Attributes:
        metric: Name.
        value: Value of the selection, or None.
        bound: Bound (the lower one of a band).
        upper: Upper bound of a band, or None.
        direction: "more" or "less".
        kind: Kind of the threshold.
        passed: Whether it is met.
        why: The result in a sentence.
    """

    metric: str
    value: float | None
    bound: float
    upper: float | None
    direction: str
    kind: str
    passed: bool
    why: str


@dataclass(frozen=True)
class Verdict:
    """Verdict of the gate.

    Attributes:
        passed: Whether every threshold is met.
        checks: One result per threshold.
        notes: Failure signs, each in a sentence.
        tries: Number of reallocations of quota before this verdict.
    """

    passed: bool
    checks: tuple[ThresholdCheck, ...]
    notes: tuple[str, ...] = ()
    tries: int = 0

    @property
    def why(self) -> str:
        """Every failed threshold in one line each; a plain sentence if all passed."""
        failed = [c.why for c in self.checks if not c.passed]
        if failed:
            return "\n".join(failed)
        if not self.checks:
            return "No threshold is set: no metric was found worth pursuing, and none is by hand."
        return f"All {len(self.checks)} thresholds are met."

    def table(self) -> pd.DataFrame:
        """Results of the thresholds as a table, one row each."""
        return pd.DataFrame([vars(c) for c in self.checks])


def robust_values(figures: pd.DataFrame, group: str) -> dict[str, float]:
    """Metric -> robust value of one group of a `metrics` table.

    Raises:
        InputError: There is no such group.
    """
    group_rows = figures[(figures["group"] == group) & (figures["form"] == "robust")]
    if group_rows.empty:
        raise InputError(f"No group {group!r}; there are {sorted(set(figures['group']))}.")
    return {
        m: v for m, v in zip(group_rows["metric"], group_rows["value"], strict=True) if pd.notna(v)
    }


def judge(
    values: Mapping[str, float],
    thresholds: Sequence[Threshold],
    *,
    score: float | None = None,
    full_score: float | None = None,
    repeats: Sequence[float] = (),
) -> Verdict:
    """Judge the metrics of a selection by thresholds.

    Args:
        values: Metric -> value of the selection (`robust_values`, or `Sample.metrics`).
        thresholds: Thresholds that the selection must meet.
        score: Score of a model trained on the selection, where there is one.
        full_score: Score of a model trained on the full pool.
        repeats: Scores of repeated selections with other seeds.

    Example:
        >>> from gio_spark.gime import Threshold
        >>> threshold = Threshold("scope", 0.8, "more", "by hand", 0.5, worst=0.2, best=1.0)
        >>> judge({"scope": 0.9}, [threshold]).passed
        True
        >>> print(judge({"scope": 0.7}, [threshold]).why)
        scope: 0.7, but at least 0.8 is asked for; the best seen at this budget is 1.
    """
    checks = tuple(_check(t, values.get(t.metric)) for t in thresholds)
    return Verdict(
        all(c.passed for c in checks), checks, _failure_signs(checks, score, full_score, repeats)
    )


def _check(threshold: Threshold, value: float | None) -> ThresholdCheck:
    passed = threshold.met(value)
    sign = "at most" if threshold.direction == "less" else "at least"
    requirement = f"{sign} {threshold.bound:.6g}"
    if threshold.upper is not None:
        requirement = f"{threshold.bound:.6g} to {threshold.upper:.6g}"
    if value is None:
        why = (
            f"{threshold.metric}: no value, {requirement} is asked for; give the columns it needs."
        )
    elif passed:
        why = f"{threshold.metric}: {value:.6g}, {requirement} asked for."
    else:
        why = (
            f"{threshold.metric}: {value:.6g}, but {requirement} is asked for; the best seen at "
            f"this budget is {threshold.best:.6g}."
        )
    return ThresholdCheck(
        threshold.metric,
        value,
        threshold.bound,
        threshold.upper,
        threshold.direction,
        threshold.kind,
        passed,
        why,
    )


def _failure_signs(
    checks: Sequence[ThresholdCheck],
    score: float | None,
    full_score: float | None,
    repeats: Sequence[float],
) -> tuple[str, ...]:
    notes = []
    if score is not None and full_score and score < 0.95 * full_score:
        notes.append(
            f"The selection trains to {score / full_score:.1%} of the full pool: a metric of high "
            "sensitivity is probably missing from the profile, or the budget is too small."
        )
    if checks and not any(c.passed for c in checks):
        notes.append("No threshold passes at all: they are probably not attainable at this budget.")
    if len(repeats) > 2:
        mean = float(np.mean(repeats))
        spread = float(np.std(repeats, ddof=1))
        if mean and spread > 0.02 * abs(mean):
            notes.append(
                f"Repeated selections vary by {spread / abs(mean):.1%}: the thresholds of "
                "moderate metrics are probably too loose."
            )
    return tuple(notes)


@dataclass(frozen=True, eq=False)
class ClusterStats:
    """Statistics of each cluster of the codebook.

    Attributes:
        sizes: Rows of the pool per cluster, (K,).
        target: The target's mass per cluster, (K,), sum 1; None without a target.
        means: Additive or mean metric -> mean contribution of a row per cluster, (K,).
        limits: Limits of a reallocation; None: the number of rows.
        parts: Source -> statistics of its rows alone, for metrics `source/metric`; their sizes may
            be those of a sample.
    """

    sizes: NDArray[np.int64]
    target: NDArray[np.float64] | None = None
    means: Mapping[str, NDArray[np.float64]] | None = None
    limits: QuotaLimits | None = None
    parts: Mapping[str, ClusterStats] = field(default_factory=dict)

    def of(
        self, metric: str, take: NDArray[np.int64]
    ) -> tuple[ClusterStats, str, NDArray[Any], NDArray[np.float64]]:
        """Statistics that a metric reads, its name without source, and the allocation in them.

        The last array is the number of rows of the entire pool per row of those statistics.
        """
        source, _, name = metric.rpartition("/")
        source_stats = self.parts.get(source)
        if source_stats is None:
            return self, metric, take, np.ones(self.sizes.size)
        share = source_stats.sizes / max(float(source_stats.sizes.sum()), 1.0)
        pool_share = self.sizes / max(float(self.sizes.sum()), 1.0)
        source_fraction = np.divide(
            share, pool_share, out=np.zeros(share.size), where=pool_share > 0
        )
        rows_per_source_row = np.divide(
            1.0, source_fraction, out=np.zeros(share.size), where=source_fraction > 0
        )
        return source_stats, name, take * source_fraction, rows_per_source_row


def urgency(
    metric: str, direction: str, take: NDArray[Any], clusters: ClusterStats
) -> NDArray[Any]:
    """Benefit of a further row of each cluster for a metric, (K,).

    Scope and variety: clusters with the fewest selected rows rank first. Coverage and mismatch:
    clusters where the target has more mass than the selection. Others: the mean of the cluster.
    """
    budget = max(float(take.sum()), 1.0)
    means = (clusters.means or {}).get(metric)
    if metric in ("coverage", "mismatch") and clusters.target is not None:
        return clusters.target - take / budget
    if means is not None:
        return np.asarray(-means if direction == "less" else means, np.float64)
    has_rows = clusters.sizes > 0
    return np.where(has_rows, 1.0 / has_rows.sum() - take / budget, -np.inf)


def reallocate_quota(
    take: NDArray[np.int64],
    metric: str,
    direction: str,
    clusters: ClusterStats,
    *,
    share: float = 0.02,
    keep_one: bool = False,
) -> NDArray[np.int64]:
    """Reallocate a share of the budget to the clusters that help a metric most.

    Args:
        take: Allocation per cluster, (K,), or per cluster and source, (K, S).
        metric: The failing metric.
        direction: "more" or "less".
        clusters: Sizes, target mass, means, limits.
        share: Share of the budget to reallocate.
        keep_one: Whether no cluster is emptied; always so for a set-like metric.

    Returns:
        New allocation: at most the size of each cluster, within the limits, and for a budget in
        rows with the same sum.
    """
    take = np.asarray(take, np.int64)
    counts = take if take.ndim == 1 else take.sum(axis=1)
    limits = clusters.limits or QuotaLimits.of_rows(clusters.sizes, int(take.sum()))
    metric_clusters, name, metric_take, rows_per_source_row = clusters.of(metric, counts)
    need = np.where(
        metric_clusters.sizes > 0, urgency(name, direction, metric_take, metric_clusters), -np.inf
    )
    follows_target = name in ("coverage", "mismatch") and metric_clusters.target is not None
    is_evening = name in ("scope", "variety") and (metric_clusters.means or {}).get(name) is None
    most = None
    if follows_target or is_evening:
        # No cluster gains more than the share that it lacks.
        most = np.ceil(np.maximum(need, 0) * metric_take.sum() * rows_per_source_row).astype(
            np.int64
        )
    rows = take.reshape(len(take), -1)
    # In tokens a row makes room only for a row of as many tokens: at least two are given up.
    least = float(limits.cost.max()) * (1 if (limits.cost == 1).all() else 2)
    amount = max(share * float(limits.spent(rows).sum()), least)
    # A set-like metric would not improve if entire clusters were emptied.
    keep_one = keep_one or name in SET_METRICS
    changed = reallocate(rows, need, amount, limits, most=most, keep_one=keep_one)
    return changed.reshape(take.shape)


def meet_thresholds(
    take: NDArray[np.int64],
    clusters: ClusterStats,
    thresholds: Sequence[Threshold],
    measure: Callable[[NDArray[np.int64]], Mapping[str, float]],
    *,
    tries: int = 20,
    share: float = 0.02,
) -> tuple[NDArray[np.int64], Verdict]:
    """Reallocate quota between clusters until all thresholds are met, or no step helps any more.

    Args:
        take: Allocation per cluster, (K,), or per cluster and source, (K, S).
        clusters: Sizes, target mass, means, limits.
        thresholds: Thresholds that the selection must meet.
        measure: Function from an allocation to its metrics.
        tries: Largest number of reallocations.
        share: Share of the budget per step; halved when a step makes the metrics worse.

    Returns:
        The best allocation and its verdict; its `why` names the thresholds that are not met, with
        the best values reached.
    """
    best = np.asarray(take, np.int64)
    values = measure(best)
    verdict = judge(values, thresholds)
    attempts = 0
    # A cluster emptied for one metric would be missing for another.
    keep_one = any(t.metric.rpartition("/")[2] in SET_METRICS for t in thresholds)
    exhausted: set[str] = set()
    step = dict.fromkeys((t.metric for t in thresholds), share)
    while not verdict.passed and attempts < tries:
        failed = [c for c in verdict.checks if not c.passed and c.metric not in exhausted]
        if not failed:
            break
        worst = max(failed, key=lambda c: _distance(thresholds, c))
        changed = reallocate_quota(
            best,
            worst.metric,
            worst.direction,
            clusters,
            share=step[worst.metric],
            keep_one=keep_one,
        )
        attempts += 1
        changed_values = measure(changed)
        distance, changed_distance = (
            threshold_distance(values, thresholds),
            threshold_distance(changed_values, thresholds),
        )
        if not np.array_equal(changed, best) and changed_distance < distance:
            best, values = changed, changed_values
            verdict = judge(values, thresholds)
        elif changed_distance == distance and step[worst.metric] < _WIDEST:
            # Too small a step to change the metrics, on a sample or on one source of several.
            step[worst.metric] *= 2
        elif step[worst.metric] < share / 4 or changed_distance == distance:
            exhausted.add(worst.metric)
        else:
            step[worst.metric] /= 2
    checks = tuple(
        c
        if c.passed
        else replace(c, why=f"{c.why} Moving quota between cells reached {c.value:.6g}.")
        if c.value is not None
        else c
        for c in verdict.checks
    )
    return best, replace(verdict, checks=checks, tries=attempts)


def _distance(thresholds: Sequence[Threshold], check: ThresholdCheck) -> float:
    threshold = next(t for t in thresholds if t.metric == check.metric)
    return _shortfall(threshold, check.value)


def _shortfall(threshold: Threshold, value: float | None) -> float:
    """Distance of a value from its threshold, in units of the attainable range."""
    if threshold.met(value):
        return 0.0
    if value is None or not np.isfinite(value):
        return 1e6
    attainable_range = abs(threshold.best - threshold.worst) or max(abs(threshold.bound), 1e-12)
    ends = [threshold.bound] + ([] if threshold.upper is None else [threshold.upper])
    return min(abs(value - end) for end in ends) / attainable_range


def threshold_distance(values: Mapping[str, float], thresholds: Sequence[Threshold]) -> float:
    """Sum of the distances of values from their thresholds; 0 where all are met."""
    return sum(_shortfall(t, values.get(t.metric)) for t in thresholds)


def cluster_bounds(
    thresholds: Sequence[Threshold], clusters: ClusterStats, budget: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Least and most rows per cluster under the thresholds, for the budgeted KL.

    Scope needs one row in each of enough clusters (those with the most target mass, or the
    largest); a mean or additive metric of high sensitivity closes the clusters that are worse than
    the bound by more than the attainable range, where the other clusters can still meet the budget.

    Args:
        thresholds: Thresholds that the selection must meet.
        clusters: Sizes, target mass, means.
        budget: Rows to select.

    Returns:
        least, most: int64, (K,); least <= most <= sizes.
    """
    least = np.zeros(clusters.sizes.size, np.int64)
    most = np.asarray(clusters.sizes, np.int64).copy()
    for threshold in thresholds:
        means = (clusters.means or {}).get(threshold.metric)
        if threshold.metric == "scope" and threshold.bound <= 1:
            cluster_count = min(int(np.ceil(threshold.bound * clusters.sizes.size)), budget)
            weight = clusters.sizes if clusters.target is None else clusters.target
            order = np.lexsort((-clusters.sizes, -np.asarray(weight, np.float64)))
            selected = [c for c in order if most[c] > 0][:cluster_count]
            least[selected] = np.maximum(least[selected], 1)
        elif means is not None and threshold.kind == "high":
            attainable_range = abs(threshold.best - threshold.worst)
            if threshold.metric in ADDITIVE:
                means = means * budget
            is_closed = (
                means > threshold.bound + attainable_range
                if threshold.direction == "less"
                else means < threshold.bound - attainable_range
            )
            is_closed &= least == 0
            if int(most[~is_closed].sum()) >= budget:
                most[is_closed] = 0
    return np.minimum(least, most), most
