"""Selection by metrics: rows per cluster under the thresholds, the best rows inside clusters.

It combines with the budgeted KL of gio: thresholds become least and most rows per cluster, and the
budgeted KL is solved within these bounds, so that one plan satisfies both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gio_spark.errors import BudgetError
from gio_spark.gime.accumulators import DAY
from gio_spark.gime.metric_gate import ClusterStats, Verdict, cluster_bounds, meet_thresholds
from gio_spark.kernels.rounding import largest_remainders

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gio_spark.gime.metric_thresholds import Threshold
    from gio_spark.gime.tilted_subsets import Sample


@dataclass(frozen=True, eq=False)
class MetricSelection:
    """Rows selected by metrics.

    Attributes:
        rows: Their indices in the sample, sorted.
        take: Rows per cluster.
        verdict: The gate's verdict on them.
    """

    rows: NDArray[np.intp]
    take: NDArray[np.int64]
    verdict: Verdict


def bounded_kl(
    target: NDArray[np.float64],
    least: NDArray[np.int64],
    most: NDArray[np.int64],
    budget: int,
) -> NDArray[np.int64]:
    """Rows per cluster that minimize the KL from the target distribution within bounds.

    Minimize KL(target || rows / budget) with least <= rows <= most and sum(rows) = budget. The
    optimum is rows_c = clip(lambda * target_c, least_c, most_c) (the KL is separable and convex, so
    the multipliers of the bounds act per cluster); lambda by bisection, then whole rows by largest
    remainder. Where the target's clusters have too few rows for the budget, the other clusters give
    the difference in proportion to their room.

    Args:
        target: (K,) target distribution.
        least: (K,) int64 lower bounds.
        most: (K,) int64 upper bounds.
        budget: Rows to select.

    Returns:
        (K,) int64 with sum `budget`.

    Raises:
        BudgetError: The bounds do not allow the budget.

    Example:
        >>> target, least = np.array([0.7, 0.3, 0.0]), np.array([0, 0, 5])
        >>> bounded_kl(target, least, np.array([40, 100, 100]), 100)
        array([40, 55,  5])
    """
    if not least.sum() <= budget <= most.sum():
        raise BudgetError(
            f"A budget of {budget} rows does not lie between the {int(least.sum())} and "
            f"{int(most.sum())} rows that the thresholds allow.",
            float(most.sum()),
        )
    p = np.asarray(target, np.float64)
    reachable = int(np.where(p > 0, most, least).sum())
    if reachable <= budget:
        rows = np.where(p > 0, most, least).astype(np.float64)
        room = (most - rows).clip(0)
        if room.sum() > 0:
            rows = rows + room * (budget - reachable) / room.sum()
    else:
        low, high = 0.0, float(budget) / max(float(p[p > 0].min()), 1e-300)
        for _ in range(200):
            middle = (low + high) / 2
            if np.clip(middle * p, least, most).sum() < budget:
                low = middle
            else:
                high = middle
        rows = np.clip(high * p, least, most)
    return _round_rows(rows, least, most, budget)


@dataclass(frozen=True, eq=False)
class MeanLimit:
    """A bound on the mean of a row's contribution to a metric.

    Attributes:
        means: Mean contribution per cluster, (K,).
        bound: Bound on the mean over all rows selected.
        direction: "less": at most the bound; "more": at least.
    """

    means: NDArray[np.float64]
    bound: float
    direction: str

    @property
    def excess(self) -> NDArray[np.float64]:
        """Excess of a row of each cluster over the bound, (K,), scaled to at most one."""
        sign = 1.0 if self.direction == "less" else -1.0
        difference = sign * (np.asarray(self.means, np.float64) - self.bound)
        scale = float(np.abs(difference).max())
        return difference / scale if scale > 0 else difference


def limited_kl(
    target: NDArray[np.float64],
    least: NDArray[np.int64],
    most: NDArray[np.int64],
    budget: int,
    limits: Sequence[MeanLimit] = (),
) -> NDArray[np.int64]:
    """Rows per cluster that minimize the KL under bounds per cluster and bounds on means.

    With multipliers nu of the budget and mu_k >= 0 of the mean limits, the optimum is
    rows_c = clip(target_c / (nu + sum_k mu_k a_kc), least_c, most_c), a_k the excess of limit k
    per row: the program is convex, and the total excess of limit k falls with mu_k. The mu_k come
    from bisection, one after the other, until none changes; then whole rows by largest remainder,
    so that a limit can be off by less than one row's excess. A limit that no plan can meet is met
    as far as possible.

    Args:
        target: (K,) target distribution.
        least: (K,) int64 lower bounds.
        most: (K,) int64 upper bounds.
        budget: Rows to select.
        limits: Bounds on means of the selected rows.

    Returns:
        (K,) int64 with sum `budget`.

    Raises:
        BudgetError: The bounds do not allow the budget.

    Example:
        >>> target, most = np.array([0.5, 0.5]), np.array([100, 100])
        >>> limit = MeanLimit(np.array([1.0, 3.0]), 1.5, "less")
        >>> limited_kl(target, np.array([0, 0]), most, 40, [limit])
        array([30, 10])
    """
    unlimited = bounded_kl(target, least, most, budget)
    excess = [one.excess for one in limits]
    if not any(float(unlimited @ a) > 0 for a in excess):
        return unlimited
    p = np.asarray(target, np.float64)
    if not int(least.sum()) < budget < int(np.where(p > 0, most, least).sum()):
        return unlimited
    price = np.zeros(len(excess))
    matrix = np.stack(excess)

    def rows_at(mu: NDArray[np.float64]) -> NDArray[np.float64]:
        penalty = mu @ matrix
        low, high = -float(penalty.max()) - 1.0, float(p.sum()) - float(penalty.min()) + 1.0
        for _ in range(80):
            nu = (low + high) / 2
            if _clipped_rows(p, nu + penalty, least, most).sum() > budget:
                low = nu
            else:
                high = nu
        return _clipped_rows(p, high + penalty, least, most)

    for _ in range(8):
        previous = price.copy()
        for index, a in enumerate(excess):
            low, high = 0.0, 1e-9
            price[index] = 0.0
            if float(rows_at(price) @ a) <= 0:
                continue
            # The scale of a price is that of a share per row; it grows until the limit holds.
            while high < 1e6:
                price[index] = high
                if float(rows_at(price) @ a) <= 0:
                    break
                high *= 8
            for _ in range(40):
                price[index] = (low + high) / 2
                if float(rows_at(price) @ a) > 0:
                    low = price[index]
                else:
                    high = price[index]
            price[index] = high
        if np.allclose(previous, price, rtol=1e-3, atol=0):
            break
    return _round_rows(rows_at(price), least, most, budget)


def _clipped_rows(
    p: NDArray[np.float64],
    price: NDArray[np.float64],
    least: NDArray[np.int64],
    most: NDArray[np.int64],
) -> NDArray[np.float64]:
    with np.errstate(divide="ignore", invalid="ignore"):
        unbounded = np.where(price > 0, p / price, np.where(p > 0, np.inf, 0.0))
    return np.clip(np.where(p > 0, unbounded, 0.0), least, most)


def _round_rows(
    rows: NDArray[np.float64], least: NDArray[np.int64], most: NDArray[np.int64], budget: int
) -> NDArray[np.int64]:
    """Round to whole rows by largest remainder, within the bounds."""
    return largest_remainders(rows, budget, least=least, most=most)


def row_scores(sample: Sample) -> dict[str, NDArray[np.float64]]:
    """Metric -> contribution of each row, for metrics that are sums or means over rows.

    Scope, variety, coverage and mismatch have none: they belong to sets of rows.
    """
    rows = sample.rows
    scores: dict[str, NDArray[np.float64]] = {}

    def filled(role: str) -> NDArray[np.float64]:
        column = rows[role]
        median = float(np.median(column.valid_values())) if column.valid.any() else 0.0
        return np.where(column.valid, column.values, median).astype(np.float64)

    if "tokens" in rows:
        scores["volume"] = np.where(rows["tokens"].valid, rows["tokens"].values, 0).astype(float)
    if "distance" in rows:
        scores["granularity"] = filled("distance")
    if "quality" in rows:
        scores["distortion"] = 1.0 - filled("quality")
    if "event_time" in rows and "ingest_time" in rows:
        scores["delay"] = (filled("ingest_time") - filled("event_time")) / DAY
    fields = [role for role in rows.columns if ":" in role]
    if fields and "distortion" not in scores:
        missing_share = np.stack([~rows[role].valid for role in fields]).mean(axis=0)
        scores["distortion"] = missing_share
        if "volume" not in scores:
            scores["volume"] = 1.0 - missing_share
    return {name: values for name, values in scores.items() if values.std() > 0}


def cluster_means(
    sample: Sample, clusters: NDArray[np.int64], count: int
) -> dict[str, NDArray[np.float64]]:
    """Metric -> mean of its rows' contributions per cluster, (count,).

    Clusters without a row in the sample are given the mean of all.
    """
    sizes = np.bincount(clusters, minlength=count)
    means = {}
    for metric, values in row_scores(sample).items():
        if metric == "volume" and "tokens" not in sample.rows:
            continue
        summed = np.bincount(clusters, values, count)
        means[metric] = np.where(sizes > 0, summed / np.maximum(sizes, 1), values.mean())
    return means


def select(
    sample: Sample,
    clusters: NDArray[np.int64],
    size: int,
    thresholds: Sequence[Threshold],
    pursued: Mapping[str, str],
    directions: Mapping[str, int],
    *,
    target_mass: NDArray[np.float64] | None = None,
    seed: int = 0,
    tries: int = 12,
) -> MetricSelection:
    """Select rows: rows per cluster, the best rows inside clusters, then the thresholds.

    Args:
        sample: Rows of the pool.
        clusters: Cluster per row, (n,).
        size: Rows to select.
        thresholds: What the selection must reach.
        pursued: Metric -> class of the metrics to pursue (`pursued_metrics`).
        directions: 1 where more is better, -1 where less is.
        target_mass: Mass per cluster to follow (K,): that of the budgeted KL, to satisfy both; by
            default the target's, if mismatch or coverage matter, else the pool's, evened out if
            scope or variety matter.
        seed: Seed of the noise in the order of rows.
        tries: Largest number of reallocations.

    Raises:
        BudgetError: `size` is larger than the sample.
    """
    sizes = np.bincount(clusters, minlength=0 if target_mass is None else len(target_mass))
    if size > len(clusters):
        raise BudgetError(f"{size} rows cannot be selected from {len(clusters)}.", len(clusters))
    target_share = _target_share(sample, sizes.size)
    if target_mass is None:
        target_mass = _target_distribution(sizes, target_share, pursued)
    scores = row_scores(sample)
    order = _row_order(scores, clusters, pursued, directions, seed)
    stats = ClusterStats(sizes, target_share, cluster_means(sample, clusters, sizes.size))
    least, most = cluster_bounds(thresholds, stats, size)
    take = bounded_kl(target_mass, least, most, size)
    starts = np.r_[0, np.cumsum(sizes)]

    def pick(quota: NDArray[np.int64]) -> NDArray[np.intp]:
        parts = [order[s : s + q] for s, q in zip(starts[:-1], quota, strict=True)]
        return np.sort(np.concatenate(parts))

    take, verdict = meet_thresholds(
        take, stats, thresholds, lambda quota: sample.metrics(pick(quota)), tries=tries
    )
    return MetricSelection(pick(take), take, verdict)


def _target_share(sample: Sample, cluster_count: int) -> NDArray[np.float64] | None:
    if not sample.target or "cells" not in sample.target:
        return None
    counted = sample.target["cells"]["cells"]
    share = np.zeros(cluster_count)
    is_known = counted[0] < cluster_count
    share[counted[0][is_known]] = counted[1][is_known]
    total = share.sum()
    return share / total if total > 0 else None


def _target_distribution(
    sizes: NDArray[np.int64], target_share: NDArray[np.float64] | None, pursued: Mapping[str, str]
) -> NDArray[np.float64]:
    """Target distribution for the metrics of high or moderate sensitivity, (K,)."""
    if target_share is not None and ("mismatch" in pursued or "coverage" in pursued):
        return target_share
    mass = sizes.astype(np.float64)
    if pursued.get("scope") == "high" or pursued.get("variety") == "high":
        mass = np.sqrt(mass)
    return mass / mass.sum()


def _row_order(
    scores: Mapping[str, NDArray[np.float64]],
    clusters: NDArray[np.int64],
    pursued: Mapping[str, str],
    directions: Mapping[str, int],
    seed: int,
) -> NDArray[np.intp]:
    """Order of rows by cluster, the best of each cluster first."""
    rng = np.random.default_rng(seed)
    # Gumbel noise of unit size: rows are drawn with odds exp(score), not ranked, so that rare rows
    # of a cluster can be drawn as well.
    total = rng.gumbel(size=len(clusters))
    strength = {"high": 2.0, "moderate": 0.7}
    for metric, values in scores.items():
        if metric in pursued:
            standard = (values - values.mean()) / values.std()
            total += strength[pursued[metric]] * directions.get(metric, 0) * standard
    return np.lexsort((-total, clusters))
