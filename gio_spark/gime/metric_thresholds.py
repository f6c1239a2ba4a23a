"""Thresholds of metrics: shares of the attainable range, from the measured response or by hand.

An efficiency curve gives one number of rows, not eleven thresholds. So the threshold of a metric is
a share of the range attainable at this budget (0: the worst value seen, 1: the best): the share at
which the lower bound of the score's response reaches 90, 95 or 99 % of full performance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from gio_spark.errors import ConfigError
from gio_spark.gime.proxy_training import CustomScore, Task, row_count_of, train_many
from gio_spark.gime.tilted_subsets import Sample, random_tilts, tilts_of

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pyspark.sql import SparkSession

    from gio_spark.gime.sensitivity_analysis import Sensitivity

LEVELS = (0.90, 0.95, 0.99)


@dataclass(frozen=True)
class Threshold:
    """Threshold of one metric.

    Attributes:
        metric: Name.
        bound: Bound on the value.
        direction: "more": at least the bound; "less": at most.
        kind: "high" (near the best), "moderate" (a threshold), "by hand", or "band".
        share: Share of the way from the worst to the best value attainable, 0 to 1.
        worst: Worst value seen at this budget.
        best: Best value seen at this budget.
        upper: Other end of a band, or None.
    """

    metric: str
    bound: float
    direction: str
    kind: str
    share: float
    worst: float
    best: float
    upper: float | None = None

    def met(self, value: float | None, tolerance: float = 1e-9) -> bool:
        """Whether a value meets the threshold; a missing value never does."""
        if value is None or not np.isfinite(value):
            return False
        slack = tolerance * max(1.0, abs(self.bound))
        if self.upper is not None:
            return self.bound - slack <= value <= self.upper + slack
        if self.direction == "less":
            return value <= self.bound + slack
        return value >= self.bound - slack

    def tightened(self, share: float) -> Threshold:
        """Stricter threshold: its bound is tightened by a share of the attainable range."""
        step = share * abs(self.best - self.worst)
        if self.upper is not None:
            step = min(step, (self.upper - self.bound) / 4)
            return replace(self, bound=self.bound + step, upper=self.upper - step)
        inwards = -step if self.direction == "less" else step
        return replace(self, bound=self.bound + inwards)

    @classmethod
    def at_share(
        cls, metric: str, share: float, worst: float, best: float, direction: str, kind: str
    ) -> Threshold:
        """Threshold at a share of the way from the worst to the best value."""
        return cls(metric, worst + share * (best - worst), direction, kind, share, worst, best)


def pursued_metrics(table: pd.DataFrame, directions: Mapping[str, int]) -> dict[str, str]:
    """Metrics of high or moderate sensitivity to pursue, each with its class.

    A metric whose improvement made models worse in the runs is left out, because pursuing it would
    do harm. Where none is of high sensitivity, nothing is pursued: selections by moderate metrics
    alone were worse than random rows.

    Example:
        >>> table = pd.DataFrame({"metrics": ["scope", "delay"], "class": ["high", "moderate"],
        ...                       "change": [0.1, -0.02]})
        >>> pursued_metrics(table, {"scope": 1, "delay": -1})
        {'scope': 'high', 'delay': 'moderate'}
        >>> pursued_metrics(table[table["class"] == "moderate"], {"scope": 1, "delay": -1})
        {}
    """
    class_of_metric: dict[str, str] = {}
    for _, row in table.iterrows():
        if row["class"] == "low":
            continue
        members = str(row["metrics"]).split("+")
        # A merged factor is signed like its first metric.
        if np.sign(row["change"]) == directions.get(members[0], 0):
            class_of_metric.update(dict.fromkeys(members, str(row["class"])))
    return class_of_metric if "high" in class_of_metric.values() else {}


def attainable_ranges(runs: Sensitivity, directions: Mapping[str, int]) -> pd.DataFrame:
    """Worst and best value of each metric over all subsets of the sensitivity runs.

    Args:
        runs: The sensitivity runs.
        directions: 1 where more is better, -1 where less is; metrics with 0 are left out.

    Returns:
        Columns metric, worst, best, random: the mean of untilted random subsets.
    """
    names = [m for m, sign in directions.items() if sign and m in runs.screen]
    subsets = pd.concat([runs.screen[names], runs.sweeps.reindex(columns=names)])
    return _ranges(subsets, directions, runs.random_metrics)


def ranges_without_labels(
    sample: Sample,
    directions: Mapping[str, int],
    *,
    size: int,
    subsets: int = 48,
    seed: int = 0,
) -> pd.DataFrame:
    """Worst and best value of each metric over random tilts: without labels or models.

    Args:
        sample: Rows whose subsets are measured.
        directions: 1 where more is better, -1 where less is.
        size: Rows per subset.
        subsets: Number of subsets.
        seed: Seed of the draws.

    Returns:
        Columns as of `attainable_ranges`.
    """
    coefficients, subset_rows = random_tilts(tilts_of(sample, seed), subsets, size)
    metrics = pd.DataFrame([sample.metrics(s) for s in subset_rows])
    names = [m for m, sign in directions.items() if sign and m in metrics]
    untilted = metrics[(coefficients == 0).all(axis=1)].mean()
    return _ranges(metrics[names], directions, untilted.to_dict())


def _ranges(
    metrics: pd.DataFrame, directions: Mapping[str, int], random: Mapping[str, float]
) -> pd.DataFrame:
    names = list(metrics.columns)
    rows = []
    for name in names:
        values = metrics[name].dropna()
        low, high = float(values.min()), float(values.max())
        worst, best = (low, high) if directions[name] > 0 else (high, low)
        rows.append((name, worst, best, random.get(name, float("nan"))))
    return pd.DataFrame(rows, columns=["metric", "worst", "best", "random"])


def manual_thresholds(
    ranges: pd.DataFrame, directions: Mapping[str, int], shares: Mapping[str, float]
) -> list[Threshold]:
    """Thresholds set by hand, as shares of the attainable range.

    Args:
        ranges: From `attainable_ranges` or `ranges_without_labels`.
        directions: 1 where more is better, -1 where less is.
        shares: Metric -> share of the way from the worst to the best value, 0 to 1.

    Raises:
        ConfigError: A share is not within 0 to 1, or a metric has no value.

    Example:
        >>> ranges = pd.DataFrame({"metric": ["scope"], "worst": [0.2], "best": [1.0]})
        >>> round(float(manual_thresholds(ranges, {"scope": 1}, {"scope": 0.5})[0].bound), 3)
        0.6
    """
    _check_shares(shares, directions)
    ends = zip(ranges["worst"].to_numpy(float), ranges["best"].to_numpy(float), strict=True)
    ends_of_metric = dict(zip(ranges["metric"].astype(str), ends, strict=True))
    unknown = sorted(set(shares) - set(ends_of_metric))
    if unknown:
        raise ConfigError(
            f"No threshold can be set for {', '.join(unknown)}: it has no value here. Name the "
            f"columns that it needs; metrics with values are {', '.join(ends_of_metric)}."
        )
    thresholds = []
    for metric, share in shares.items():
        worst, best = ends_of_metric[metric]
        direction = "more" if directions[metric] > 0 else "less"
        thresholds.append(Threshold.at_share(metric, share, worst, best, direction, "by hand"))
    return thresholds


# The one metric that grows with the number of rows; all others are per row or per cluster.
ADDITIVE = ("volume",)


def additive(metric: str) -> bool:
    """Whether a metric (of all rows, or `source/metric`) grows with the number of rows."""
    return metric.rpartition("/")[2] in ADDITIVE


def rescaled_thresholds(
    thresholds: Sequence[Threshold],
    random_before: Mapping[str, float],
    random_after: Mapping[str, float],
) -> list[Threshold]:
    """Thresholds for selections of another size.

    A threshold is an excess over a random draw of the same size: set-like and histogram metrics
    depend on the number of rows, and any large subset would meet a bound from small subsets. So the
    difference of the random draws is added to the bounds, and volume is scaled by their ratio.

    Args:
        thresholds: Thresholds for subsets of one size.
        random_before: Metrics of random draws of that size.
        random_after: Metrics of random draws of the other size.
    """

    def shifted(metric: str, value: float) -> float:
        if metric not in random_before or metric not in random_after:
            return value
        if additive(metric):
            return (
                value * random_after[metric] / random_before[metric]
                if random_before[metric]
                else value
            )
        return value + random_after[metric] - random_before[metric]

    return [
        replace(
            threshold,
            bound=shifted(threshold.metric, threshold.bound),
            worst=shifted(threshold.metric, threshold.worst),
            best=shifted(threshold.metric, threshold.best),
            upper=None if threshold.upper is None else shifted(threshold.metric, threshold.upper),
        )
        for threshold in thresholds
    ]


def response(
    share: NDArray[np.float64], score: NDArray[np.float64], *, repeats: int = 200, seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Rising response of the score to a metric's share, with its lower bound (90 %).

    Isotonic regression, resampled over the subsets.

    Args:
        share: Share of the attainable range per subset, (n,).
        score: Score per subset, (n,).
        repeats: Resamples.
        seed: Seed of the resamples.

    Returns:
        A grid of 41 shares, the response there, and its 5 % quantile over resamples.
    """
    from scipy.optimize import isotonic_regression

    grid = np.linspace(0, 1, 41)
    rng = np.random.default_rng(seed)

    def fitted(index: NDArray[np.intp]) -> NDArray[np.float64]:
        # As scikit-learn's IsotonicRegression, in a tenth of its time.
        at, group, size = np.unique(share[index], return_inverse=True, return_counts=True)
        mean = np.bincount(group, score[index]) / size
        return np.interp(grid, at, isotonic_regression(mean, weights=size).x)

    fitted_response = fitted(np.arange(share.size))
    resampled = [fitted(rng.integers(0, share.size, share.size)) for _ in range(repeats)]
    return grid, fitted_response, np.quantile(np.stack(resampled), 0.05, axis=0)


def automatic_thresholds(
    runs: Sensitivity,
    directions: Mapping[str, int],
    *,
    level: float = 0.95,
    manual_shares: Mapping[str, float] | None = None,
) -> tuple[list[Threshold], pd.DataFrame]:
    """Thresholds of the metrics of high or moderate sensitivity that are pursued.

    Args:
        runs: The sensitivity runs.
        directions: 1 where more is better, -1 where less is.
        level: Fraction of full performance that the response's lower bound must reach (the loss a
            user accepts is one minus it).
        manual_shares: Metric -> share set by hand; it replaces the automatic one.

    Returns:
        The thresholds, and a table of the share at which each level is reached (NaN: never, at
        this budget and by this metric alone).

    Raises:
        ConfigError: A share by hand is not within 0 to 1, or names no known metric.
    """
    manual_shares = dict(manual_shares or {})
    _check_shares(manual_shares, directions)
    ranges = attainable_ranges(runs, directions).set_index("metric")
    classes = pursued_metrics(runs.table, directions)
    bands = {
        row["metrics"]: (row["band_low"], row["band_high"])
        for _, row in runs.table.iterrows()
        if row["band_low"] is not None and np.isfinite(row["band_low"])
    }
    subsets = pd.concat([runs.screen, runs.sweeps.reindex(columns=runs.screen.columns)])
    thresholds, rows = [], []
    for metric, (worst, best) in zip(
        ranges.index, ranges[["worst", "best"]].to_numpy(dtype=float).tolist(), strict=True
    ):
        kind = classes.get(metric, "low")
        direction = "more" if directions[metric] > 0 else "less"
        shares = dict.fromkeys(LEVELS, float("nan"))
        scored = subsets[[metric, "score"]].dropna()
        if best != worst and len(scored) >= 8:
            share = ((scored[metric] - worst) / (best - worst)).to_numpy()
            grid, _, lower = response(share, scored["score"].to_numpy())
            for target_level in {*LEVELS, level}:
                enough = np.flatnonzero(lower >= target_level * runs.full_score)
                shares[target_level] = float(grid[enough[0]]) if enough.size else float("nan")
        row = {"metric": metric, "class": kind, "worst": worst, "best": best}
        rows.append(row | {f"share at {point:.0%}": shares[point] for point in sorted(shares)})
        if metric in manual_shares:
            thresholds.append(
                Threshold.at_share(metric, manual_shares[metric], worst, best, direction, "by hand")
            )
        elif metric in bands and kind != "low":
            low, high = bands[metric]
            thresholds.append(
                Threshold(metric, low, direction, "band", float("nan"), worst, best, high)
            )
        elif kind != "low":
            # Where one metric alone never reaches the level, its threshold is the share where its
            # own response stops rising.
            share_found = shares[level]
            if not np.isfinite(share_found):
                share_found = _plateau(scored, metric, worst, best)
            if kind == "high":
                share_found = max(share_found, 0.8)
            thresholds.append(Threshold.at_share(metric, share_found, worst, best, direction, kind))
    return thresholds, pd.DataFrame(rows)


def _plateau(scored: pd.DataFrame, metric: str, worst: float, best: float) -> float:
    share = ((scored[metric] - worst) / (best - worst)).to_numpy()
    grid, fitted_response, _ = response(share, scored["score"].to_numpy(), repeats=1)
    rise = fitted_response[-1] - fitted_response[0]
    return (
        float(grid[np.argmax(fitted_response >= fitted_response[0] + 0.9 * rise)])
        if rise > 0
        else 0.0
    )


def _check_shares(shares: Mapping[str, float], directions: Mapping[str, int]) -> None:
    for metric, share in shares.items():
        if directions.get(metric, 0) == 0:
            known = sorted(m for m, sign in directions.items() if sign)
            raise ConfigError(f"No threshold can be set for {metric!r}; metrics are {known}.")
        if not 0 <= share <= 1:
            raise ConfigError(f"The threshold of {metric!r} is a share from 0 to 1, not {share}.")


def excess_over_random(
    sample: Sample, index: NDArray[np.intp], *, draws: int = 8, seed: int = 0
) -> pd.DataFrame:
    """Compare the metrics of some rows with those of random draws of the same size.

    Set-like and histogram metrics depend on the number of rows (two samples of one distribution
    differ by .12 to .22 bit at K = 1,000), so that only the excess over such a draw is informative.

    Returns:
        Columns metric, value, random, spread, excess (value - random), z.
    """
    rng = np.random.default_rng(seed)
    selected = sample.metrics(index)
    random_draws = pd.DataFrame(
        [
            sample.metrics(np.sort(rng.choice(sample.rows.count, len(index), replace=False)))
            for _ in range(draws)
        ]
    )
    rows = []
    for name, value in selected.items():
        random, spread = float(random_draws[name].mean()), float(random_draws[name].std(ddof=1))
        difference = value - random
        rows.append(
            (name, value, random, spread, difference, difference / spread if spread > 0 else np.nan)
        )
    return pd.DataFrame(rows, columns=["metric", "value", "random", "spread", "excess", "z"])


def efficiency_curve(
    spark: SparkSession | None,
    task: Task | CustomScore,
    ways: Mapping[str, Sequence[NDArray[np.intp]]],
    *,
    tokens: NDArray[np.int64] | None = None,
    seeds: Sequence[int] = (0,),
) -> pd.DataFrame:
    """Efficiency curve: fraction of full performance against rows, tokens and training time.

    Args:
        spark: Session to train on; None trains in this process.
        task: Features, labels, held-out rows.
        ways: Name of a way of selecting -> its subsets, one per size and repeat.
        tokens: Tokens per row of the sample.
        seeds: Seeds of the models.

    Returns:
        One row per subset and model seed: way, rows (blocks, where the task has them), tokens,
        seconds, score, of_full. The way "full" is added.
    """
    names = [name for name, subsets in ways.items() for _ in subsets]
    subsets = [s for of_way in ways.values() for s in of_way]
    all_rows = np.arange(row_count_of(task))
    scored = train_many(spark, task, [*subsets, all_rows], seeds=seeds)
    sizes = [len(s) for s in [*subsets, all_rows]]
    scored["rows"] = [sizes[s] for s in scored["subset"]]
    scored["way"] = [(*names, "full")[s] for s in scored["subset"]]
    if tokens is not None:
        each = [int(tokens[s].sum()) for s in [*subsets, all_rows]]
        scored["tokens"] = [each[s] for s in scored["subset"]]
    full = float(scored.loc[scored["way"] == "full", "score"].mean())
    return scored.assign(of_full=scored["score"] / full)
