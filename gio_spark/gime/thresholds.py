"""Thresholds without an expert: shares of what is attainable, read from the measured response.

One efficiency curve gives one row count, not eleven thresholds. So each metric's threshold is a
share of the best value attainable at this budget (0: the worst seen, 1: the best), the share being
where the lower bound of the response reaches 90, 95 or 99 % of full performance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from gio_spark.errors import ConfigError
from gio_spark.gime.subsets import Sample, random_tilts, tilts_of
from gio_spark.gime.train import OwnScore, Task, rows_of, train_many

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pyspark.sql import SparkSession

    from gio_spark.gime.sensitivity import Sensitivity

LEVELS = (0.90, 0.95, 0.99)


@dataclass(frozen=True)
class Threshold:
    """What a selection must reach in one metric.

    Attributes:
        metric: Name.
        bound: Value that must be reached.
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
        """Say whether a value is good enough; a missing one never is."""
        if value is None or not np.isfinite(value):
            return False
        slack = tolerance * max(1.0, abs(self.bound))
        if self.upper is not None:
            return self.bound - slack <= value <= self.upper + slack
        if self.direction == "less":
            return value <= self.bound + slack
        return value >= self.bound - slack

    def tightened(self, share: float) -> Threshold:
        """Threshold with its bound moved inwards by a share of the attainable range."""
        step = share * abs(self.best - self.worst)
        if self.upper is not None:
            step = min(step, (self.upper - self.bound) / 4)
            return replace(self, bound=self.bound + step, upper=self.upper - step)
        ahead = -step if self.direction == "less" else step
        return replace(self, bound=self.bound + ahead)

    @classmethod
    def at_share(
        cls, metric: str, share: float, worst: float, best: float, direction: str, kind: str
    ) -> Threshold:
        """Threshold at a share of the way from the worst to the best value."""
        return cls(metric, worst + share * (best - worst), direction, kind, share, worst, best)


def pursued(table: pd.DataFrame, directions: Mapping[str, int]) -> dict[str, str]:
    """Metric -> class for those of high or moderate sensitivity worth pursuing.

    A metric whose improvement made models worse in the runs is left out: to follow its name
    against what was measured would do harm.
    """
    found = {}
    for _, row in table.iterrows():
        if row["class"] == "low":
            continue
        members = str(row["metrics"]).split("+")
        # A merged factor is signed like its first metric.
        if np.sign(row["change"]) == directions.get(members[0], 0):
            found.update(dict.fromkeys(members, str(row["class"])))
    return found


def attainable(found: Sensitivity, directions: Mapping[str, int]) -> pd.DataFrame:
    """Worst and best value of each metric over all subsets of this size that were tried.

    Args:
        found: The sensitivity runs.
        directions: 1 where more is better, -1 where less is; metrics with 0 are left out.

    Returns:
        Columns metric, worst, best, random: a plain random subset's mean.
    """
    names = [m for m, sign in directions.items() if sign and m in found.screen]
    every = pd.concat([found.screen[names], found.sweeps.reindex(columns=names)])
    return _ranges(every, directions, found.random_metrics)


def reach(
    sample: Sample,
    directions: Mapping[str, int],
    *,
    size: int,
    subsets: int = 48,
    seed: int = 0,
) -> pd.DataFrame:
    """What `attainable` does, from random tilts alone: no label, no model.

    Args:
        sample: Rows whose subsets are measured.
        directions: 1 where more is better, -1 where less is.
        size: Rows per subset.
        subsets: How many are drawn.
        seed: Seed of the draws.
    """
    coefficients, drawn = random_tilts(tilts_of(sample, seed), subsets, size)
    every = pd.DataFrame([sample.metrics(s) for s in drawn])
    names = [m for m, sign in directions.items() if sign and m in every]
    plain = every[(coefficients == 0).all(axis=1)].mean()
    return _ranges(every[names], directions, plain.to_dict())


def _ranges(
    every: pd.DataFrame, directions: Mapping[str, int], random: Mapping[str, float]
) -> pd.DataFrame:
    names = list(every.columns)
    rows = []
    for name in names:
        values = every[name].dropna()
        low, high = float(values.min()), float(values.max())
        worst, best = (low, high) if directions[name] > 0 else (high, low)
        rows.append((name, worst, best, random.get(name, float("nan"))))
    return pd.DataFrame(rows, columns=["metric", "worst", "best", "random"])


def by_hand(
    ranges: pd.DataFrame, directions: Mapping[str, int], shares: Mapping[str, float]
) -> list[Threshold]:
    """Thresholds that an expert set, as shares of what is attainable.

    Args:
        ranges: From `attainable` or `reach`.
        directions: 1 where more is better, -1 where less is.
        shares: Metric -> share of the way from the worst to the best value, 0 to 1.

    Raises:
        ConfigError: A share is not within 0 to 1, or a metric has no value to be held to.
    """
    _check_shares(shares, directions)
    ends = zip(ranges["worst"].to_numpy(float), ranges["best"].to_numpy(float), strict=True)
    known = dict(zip(ranges["metric"].astype(str), ends, strict=True))
    gone = sorted(set(shares) - set(known))
    if gone:
        raise ConfigError(
            f"No threshold can be set for {', '.join(gone)}: it has no value here. Name the "
            f"columns that it needs; metrics with values are {', '.join(known)}."
        )
    found = []
    for metric, share in shares.items():
        worst, best = known[metric]
        way = "more" if directions[metric] > 0 else "less"
        found.append(Threshold.at_share(metric, share, worst, best, way, "by hand"))
    return found


# The one metric that grows with the number of rows; all others are read per row or per cell.
ADDITIVE = ("volume",)


def additive(metric: str) -> bool:
    """Say whether a metric (of all rows, or `source/metric`) grows with the number of rows."""
    return metric.rpartition("/")[2] in ADDITIVE


def rescaled(
    thresholds: Sequence[Threshold], here: Mapping[str, float], there: Mapping[str, float]
) -> list[Threshold]:
    """Thresholds for selections of another size.

    What a threshold asks for is its excess over a random draw of the same size: set-like and
    histogram metrics depend on the number of rows, and a bound found on small subsets would be
    met by any large one. So bounds are moved by the difference of the random draws, and in ratio
    to them for volume.

    Args:
        thresholds: As found on subsets of one size.
        here: Metrics of random draws of that size.
        there: Metrics of random draws of the other size.
    """

    def moved(metric: str, value: float) -> float:
        if metric not in here or metric not in there:
            return value
        if additive(metric):
            return value * there[metric] / here[metric] if here[metric] else value
        return value + there[metric] - here[metric]

    return [
        replace(
            one,
            bound=moved(one.metric, one.bound),
            worst=moved(one.metric, one.worst),
            best=moved(one.metric, one.best),
            upper=None if one.upper is None else moved(one.metric, one.upper),
        )
        for one in thresholds
    ]


def response(
    share: NDArray[np.float64], score: NDArray[np.float64], *, repeats: int = 200, seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Score's rising response to a metric's share, with its lower bound (90 %).

    Isotonic regression, resampled over the subsets.

    Args:
        share: Share of the attainable range per subset, (n,).
        score: Score per subset, (n,).
        repeats: Resamples.
        seed: Seed of the resamples.

    Returns:
        A grid of 41 shares, the response there, and its 5 % quantile over resamples.
    """
    from sklearn.isotonic import IsotonicRegression

    grid = np.linspace(0, 1, 41)
    rng = np.random.default_rng(seed)

    def fitted(index: NDArray[np.intp]) -> NDArray[np.float64]:
        model = IsotonicRegression(out_of_bounds="clip").fit(share[index], score[index])
        return np.asarray(model.predict(grid))

    whole = fitted(np.arange(share.size))
    drawn = [fitted(rng.integers(0, share.size, share.size)) for _ in range(repeats)]
    return grid, whole, np.quantile(np.stack(drawn), 0.05, axis=0)


def automatic(
    found: Sensitivity,
    directions: Mapping[str, int],
    *,
    level: float = 0.95,
    by_hand: Mapping[str, float] | None = None,
) -> tuple[list[Threshold], pd.DataFrame]:
    """Find the threshold of each metric of high or moderate sensitivity that is worth pursuing.

    Args:
        found: The sensitivity runs.
        directions: 1 where more is better, -1 where less is.
        level: Fraction of full performance that the response's lower bound must reach (the loss a
            user accepts is one minus it).
        by_hand: Metric -> share set by an expert; goes before what is found.

    Returns:
        The thresholds, and a table of the share at which each level is reached (NaN: never, at
        this budget and by this metric alone).

    Raises:
        ConfigError: A share by hand is not within 0 to 1, or names no known metric.
    """
    by_hand = dict(by_hand or {})
    _check_shares(by_hand, directions)
    ranges = attainable(found, directions).set_index("metric")
    classes = pursued(found.table, directions)
    bands = {
        row["metrics"]: (row["band_low"], row["band_high"])
        for _, row in found.table.iterrows()
        if row["band_low"] is not None and np.isfinite(row["band_low"])
    }
    every = pd.concat([found.screen, found.sweeps.reindex(columns=found.screen.columns)])
    chosen, table = [], []
    for metric, (worst, best) in zip(
        ranges.index, ranges[["worst", "best"]].to_numpy(dtype=float).tolist(), strict=True
    ):
        kind = classes.get(metric, "low")
        direction = "more" if directions[metric] > 0 else "less"
        shares = dict.fromkeys(LEVELS, float("nan"))
        known = every[[metric, "score"]].dropna()
        if best != worst and len(known) >= 8:
            share = ((known[metric] - worst) / (best - worst)).to_numpy()
            grid, _, lower = response(share, known["score"].to_numpy())
            for one in {*LEVELS, level}:
                enough = np.flatnonzero(lower >= one * found.full_score)
                shares[one] = float(grid[enough[0]]) if enough.size else float("nan")
        table.append({"metric": metric, "class": kind, "worst": worst, "best": best, **{
            f"share at {one:.0%}": shares[one] for one in sorted(shares)}})  # fmt: skip
        if metric in by_hand:
            chosen.append(
                Threshold.at_share(metric, by_hand[metric], worst, best, direction, "by hand")
            )
        elif metric in bands and kind != "low":
            low, high = bands[metric]
            chosen.append(
                Threshold(metric, low, direction, "band", float("nan"), worst, best, high)
            )
        elif kind != "low":
            # Where one metric alone never reaches the level, nothing more can be asked of it than
            # the share where its own response stops rising.
            share_found = shares[level]
            if not np.isfinite(share_found):
                share_found = _plateau(known, metric, worst, best)
            if kind == "high":
                share_found = max(share_found, 0.8)
            chosen.append(Threshold.at_share(metric, share_found, worst, best, direction, kind))
    return chosen, pd.DataFrame(table)


def _plateau(known: pd.DataFrame, metric: str, worst: float, best: float) -> float:
    share = ((known[metric] - worst) / (best - worst)).to_numpy()
    grid, middle, _ = response(share, known["score"].to_numpy(), repeats=1)
    rise = middle[-1] - middle[0]
    return float(grid[np.argmax(middle >= middle[0] + 0.9 * rise)]) if rise > 0 else 0.0


def _check_shares(by_hand: Mapping[str, float], directions: Mapping[str, int]) -> None:
    for metric, share in by_hand.items():
        if directions.get(metric, 0) == 0:
            known = sorted(m for m, sign in directions.items() if sign)
            raise ConfigError(f"No threshold can be set for {metric!r}; metrics are {known}.")
        if not 0 <= share <= 1:
            raise ConfigError(f"The threshold of {metric!r} is a share from 0 to 1, not {share}.")


def excess(
    sample: Sample, index: NDArray[np.intp], *, draws: int = 8, seed: int = 0
) -> pd.DataFrame:
    """Compare the metrics of some rows with those of random draws of the same size.

    Set-like and histogram metrics depend on the number of rows (two samples of one law differ by
    .12 to .22 bit at K = 1,000), so that only the excess over such a draw says something.

    Returns:
        Columns metric, value, random, spread, excess (value - random), z.
    """
    rng = np.random.default_rng(seed)
    mine = sample.metrics(index)
    others = pd.DataFrame(
        [
            sample.metrics(np.sort(rng.choice(sample.rows.count, len(index), replace=False)))
            for _ in range(draws)
        ]
    )
    rows = []
    for name, value in mine.items():
        random, spread = float(others[name].mean()), float(others[name].std(ddof=1))
        gap = value - random
        rows.append((name, value, random, spread, gap, gap / spread if spread > 0 else np.nan))
    return pd.DataFrame(rows, columns=["metric", "value", "random", "spread", "excess", "z"])


def efficiency(
    spark: SparkSession | None,
    task: Task | OwnScore,
    ways: Mapping[str, Sequence[NDArray[np.intp]]],
    *,
    tokens: NDArray[np.int64] | None = None,
    seeds: Sequence[int] = (0,),
) -> pd.DataFrame:
    """Efficiency-performance curve: fraction of full performance against what it costs.

    Args:
        spark: Session to train on; None trains here.
        task: Features, labels, held-out rows.
        ways: Name of a way of selecting -> its subsets, one per size and repeat.
        tokens: Tokens per row of the sample.
        seeds: Seeds of the models.

    Returns:
        One row per subset and model seed: way, rows (blocks, where the task has them), tokens,
        seconds, score, of_full. The way "full" is added.
    """
    names = [name for name, subsets in ways.items() for _ in subsets]
    subsets = [s for several in ways.values() for s in several]
    whole = np.arange(rows_of(task))
    scored = train_many(spark, task, [*subsets, whole], seeds=seeds)
    drawn = [len(s) for s in [*subsets, whole]]
    scored["rows"] = [drawn[s] for s in scored["subset"]]
    scored["way"] = [(*names, "full")[s] for s in scored["subset"]]
    if tokens is not None:
        each = [int(tokens[s].sum()) for s in [*subsets, whole]]
        scored["tokens"] = [each[s] for s in scored["subset"]]
    full = float(scored.loc[scored["way"] == "full", "score"].mean())
    return scored.assign(of_full=scored["score"] / full)
