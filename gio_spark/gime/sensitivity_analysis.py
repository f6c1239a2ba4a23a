"""Sensitivity of a model's score to each metric: screen, level sweeps, classes.

The sensitivity of a metric is the change of the score between its attainable 10th and 90th
percentile at equal subset size, with an interval clustered by seed. Metrics that change together
(variance inflation above 10) are merged into one factor, whose name lists them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from gio_spark.errors import InputError
from gio_spark.gime.metric_factors import Factor, merged_factors, turning_point
from gio_spark.gime.proxy_training import CustomScore, Task, row_count_of, train_many
from gio_spark.gime.tilted_subsets import Sample, Tilts, random_tilts, tilts_of
from gio_spark.process import one_thread
from gio_spark.settings.gime import GimeSettings

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pyspark.sql import SparkSession


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """Result of the sensitivity runs.

    Attributes:
        table: One row per factor: metrics (joined by "+"), class, change, low, high, pearson,
            spearman, mutual_information, p10, p90, vif, turning_point, band_low, band_high.
        screen: One row per screened subset: metrics as achieved and score.
        sweeps: One row per (factor, seed, level): value of the factor, score, seconds.
        random_score: Mean score of untilted random subsets of that size, and its spread.
        full_score: Score of the whole sample.
        size: Rows per subset.
        seconds: Training seconds of all runs together, to be counted against any saving.
        models: Number of models trained.
        notes: Failure signs, each in a sentence.
        random_metrics: Mean of each metric over the untilted subsets.
    """

    table: pd.DataFrame
    screen: pd.DataFrame
    sweeps: pd.DataFrame
    random_score: tuple[float, float]
    full_score: float
    size: int
    seconds: float
    models: int
    notes: tuple[str, ...]
    random_metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainingForecast:
    """Models that sensitivity runs train, and seconds of one processor that they take.

    Attributes:
        screen: Models of the screen.
        sweeps: Models of the level sweeps at most; factors that the screen rules out have none.
        least: Seconds of the screen alone.
        most: Seconds with all sweeps.
    """

    screen: int
    sweeps: int
    least: float
    most: float


def forecast_training(
    sample: Sample, task: Task | CustomScore, *, size: int, settings: GimeSettings, seed: int = 0
) -> TrainingForecast:
    """Forecast of the sensitivity runs, from one random subset that is measured and trained on.

    Args:
        sample: Rows whose subsets are measured.
        task: Features, labels, held-out rows.
        size: Rows per subset.
        settings: Subsets of the screen, levels, seeds.
        seed: Seed of the subset.
    """
    index = np.sort(np.random.default_rng(seed).choice(sample.rows.count, size, replace=False))
    for _ in range(2):  # the first time loads the library
        start = time.thread_time()
        with one_thread():
            metrics = sample.metrics(index)
        train_many(None, task, [index], seeds=(seed,))
        seconds = time.thread_time() - start
    sweeps = len(metrics) * settings.seeds * settings.levels
    # The model of the whole sample takes about as much longer as it has more rows.
    least = seconds * (settings.screen + sample.rows.count / size)
    return TrainingForecast(settings.screen + 1, sweeps, least, least + sweeps * seconds)


def _measured(sample: Sample, subsets: Sequence[NDArray[np.intp]]) -> pd.DataFrame:
    """Metrics of subsets, one row each."""
    # Matrices are small: on all cores BLAS would mostly wait for its own threads.
    with one_thread():
        return pd.DataFrame([sample.metrics(s) for s in subsets])


def sensitivity(
    spark: SparkSession | None,
    sample: Sample,
    task: Task | CustomScore,
    *,
    size: int,
    settings: GimeSettings | None = None,
    seed: int = 0,
    on_models: Callable[[int], None] | None = None,
) -> Sensitivity:
    """Run the screen and the level sweeps.

    Args:
        spark: Session to train on; None trains in this process.
        sample: Rows whose subsets are measured; same order as the task's features.
        task: Features, labels, held-out rows.
        size: Rows per subset.
        settings: Subsets of the screen, levels, seeds.
        seed: Seed of all draws.
        on_models: Called with the number of models to train, as far as it is known.

    Raises:
        InputError: The subsets are not smaller than the sample, or no metric differs between them.
    """
    settings = settings or GimeSettings()
    if not 0 < size < sample.rows.count:
        raise InputError(
            f"Subsets of {size} rows must be smaller than the sample of {sample.rows.count}."
        )
    if row_count_of(task) != sample.rows.count:
        raise InputError("The task's features must be those of the sample's rows, in its order.")
    tilts = tilts_of(sample, seed)
    coefficients, subsets = random_tilts(tilts, settings.screen, size)
    achieved = _measured(sample, subsets)
    all_rows = np.arange(sample.rows.count)
    if on_models is not None:
        on_models(len(subsets) + 1)
    scored = train_many(spark, task, [*subsets, all_rows], seeds=(seed,))
    screen = achieved.assign(score=scored["score"].to_numpy()[:-1])
    is_untilted = (coefficients == 0).all(axis=1)
    untilted = screen["score"][is_untilted]
    factors = merged_factors(achieved)
    if not factors:
        raise InputError("No metric differs between subsets: nothing can be said about any.")
    spread = float(screen["score"].std())
    survivors = _survivors(factors, achieved, screen["score"].to_numpy())
    if on_models is not None:
        on_models(len(subsets) + 1 + len(survivors) * settings.seeds * settings.levels)
    sweeps, sweep_seconds = _sweep(
        spark, sample, task, tilts, survivors, coefficients, achieved, size, settings, seed
    )
    effects = _effects(factors, screen, sweeps, settings.seeds)
    swept = {f.name for f in survivors}
    table = pd.DataFrame(
        [
            _judge(f, effects[:, index], screen, sweeps, spread, f.name in swept)
            for index, f in enumerate(factors)
        ]
    )
    # Ordered by the certain change first: a wide interval around a large change ranks low.
    certain_change = np.where(
        table["low"] * table["high"] > 0, table[["low", "high"]].abs().min(axis=1), 0
    )
    table = table.iloc[np.lexsort((-table["change"].abs(), -certain_change))].reset_index(drop=True)
    full = float(scored["score"].iloc[-1])
    random = (float(untilted.mean()), float(untilted.std(ddof=1)) if len(untilted) > 1 else 0.0)
    return Sensitivity(
        table=table,
        screen=screen,
        sweeps=sweeps,
        random_score=random,
        full_score=full,
        size=size,
        seconds=float(scored["seconds"].sum()) + sweep_seconds,
        models=len(scored) + len(sweeps),
        notes=_failure_signs(full, random, spread, scored, table),
        random_metrics=achieved[is_untilted].mean().dropna().to_dict(),
    )


def _survivors(
    factors: Sequence[Factor], achieved: pd.DataFrame, score: NDArray[np.float64]
) -> list[Factor]:
    """Factors whose coefficient in one joint regression is not clearly zero."""
    from scipy import stats

    columns = [f.value(achieved) for f in factors]
    design = np.stack([(c - c.mean()) / c.std() for c in columns], axis=1)
    design = np.column_stack([np.ones(len(score)), design])
    coefficients, *_ = np.linalg.lstsq(design, score, rcond=None)
    residuals = score - design @ coefficients
    freedom = max(1, len(score) - design.shape[1])
    variance = float(residuals @ residuals) / freedom * np.diag(np.linalg.pinv(design.T @ design))
    t = np.abs(coefficients[1:]) / np.sqrt(np.maximum(variance[1:], 1e-30))
    # A lenient level: a weak factor that passes the screen is judged by the sweeps.
    passed = [
        f for f, statistic in zip(factors, t, strict=True) if statistic > stats.t.ppf(0.9, freedom)
    ]
    return passed or [factors[int(np.argmax(t))]]


def _sweep(
    spark: SparkSession | None,
    sample: Sample,
    task: Task | CustomScore,
    tilts: Tilts,
    factors: Sequence[Factor],
    coefficients: NDArray[np.float64],
    achieved: pd.DataFrame,
    size: int,
    settings: GimeSettings,
    seed: int,
) -> tuple[pd.DataFrame, float]:
    """Train at several levels of each factor, along the tilt that changes it most."""
    subsets, keys = [], []
    for factor in factors:
        standardized = factor.value(achieved)
        standardized = (standardized - standardized.mean()) / standardized.std()
        design = np.column_stack([np.ones(len(standardized)), coefficients])
        ridge = design.T @ design + 0.5 * np.eye(design.shape[1])
        direction = np.linalg.solve(ridge, design.T @ standardized)[1:]
        direction /= max(float(np.abs(direction).max()), 1e-12)
        for repeat in range(settings.seeds):
            for index, level in enumerate(np.linspace(-2.0, 2.0, settings.levels)):
                step = level * direction
                step[-1] = abs(step[-1]) if direction[-1] * level > 0 else 0.0
                subsets.append(tilts.draw(step, size, 10_000 + repeat))
                keys.append((factor.name, repeat, index))
    metrics = _measured(sample, subsets)
    scored = train_many(spark, task, subsets, seeds=(seed,))
    by_name = {f.name: f for f in factors}
    values = [
        float(by_name[name].value(metrics.iloc[[row]])[0]) for row, (name, _, _) in enumerate(keys)
    ]
    frame = pd.DataFrame(keys, columns=["factor", "seed", "level"]).assign(
        value=values, score=scored["score"].to_numpy(), seconds=scored["seconds"].to_numpy()
    )
    return pd.concat([frame, metrics], axis=1), float(scored["seconds"].sum())


def _effects(
    factors: Sequence[Factor], screen: pd.DataFrame, sweeps: pd.DataFrame, seeds: int
) -> NDArray[np.float64]:
    """Change of the score from the 10th to the 90th percentile, per seed and factor.

    Subsets with more variety also have more volume, so a factor's change is measured with the
    others fixed: one regression per seed on all factors, over that seed's sweeps and its share of
    the screen. Seeds share no subset, so their spread is that of independent runs.

    Returns:
        Shape (seeds, factors).
    """
    ranges = [np.ptp(np.quantile(f.value(screen), [0.1, 0.9])) for f in factors]
    effects = []
    for seed in range(seeds):
        of_seed = pd.concat([screen.iloc[seed::seeds], sweeps[sweeps["seed"] == seed]])
        of_seed = of_seed[np.isfinite(of_seed["score"])]
        design = np.stack([f.value(of_seed) for f in factors], axis=1)
        is_finite = np.isfinite(design).all(axis=1)
        design, score = design[is_finite], of_seed["score"].to_numpy()[is_finite]
        spread = design.std(axis=0)
        spread[spread == 0] = 1.0
        design = np.column_stack([np.ones(len(score)), (design - design.mean(axis=0)) / spread])
        # A little ridge: in one seed's subsets two factors may all but coincide.
        penalty = 0.5 * np.diag(np.r_[0.0, np.ones(len(factors))])
        slope = np.linalg.solve(design.T @ design + penalty, design.T @ score)[1:]
        effects.append(slope / spread * ranges)
    return np.array(effects)


def _judge(
    factor: Factor,
    changes: NDArray[np.float64],
    screen: pd.DataFrame,
    sweeps: pd.DataFrame,
    spread: float,
    swept: bool,
) -> dict[str, object]:
    """Row of the sensitivity table for one factor."""
    from scipy import stats

    screened = factor.value(screen)
    low_value, high_value = np.quantile(screened, [0.1, 0.9])
    of_factor = sweeps[sweeps["factor"] == factor.name]
    x = np.r_[screened, of_factor["value"]]
    y = np.r_[screen["score"], of_factor["score"]]
    is_finite = np.isfinite(y)
    x, y = x[is_finite], y[is_finite]
    change, half = float(np.mean(changes)), _half_width(changes)
    low, high = change - half, change + half
    turning = (
        turning_point(of_factor["value"].to_numpy(), of_factor["score"].to_numpy())
        if swept
        else None
    )
    return {
        "metrics": factor.name,
        "class": _class(low, high, spread),
        "change": change,
        "low": low,
        "high": high,
        "pearson": float(stats.pearsonr(x, y).statistic),
        "spearman": float(stats.spearmanr(x, y).statistic),
        "mutual_information": _mutual_information(x, y),
        "p10": float(low_value),
        "p90": float(high_value),
        "vif": factor.vif,
        "swept": swept,
        "turning_point": None if turning is None else turning[0],
        "band_low": None if turning is None else turning[1],
        "band_high": None if turning is None else turning[2],
    }


def _half_width(changes: NDArray[np.float64]) -> float:
    """Half width of the 95 % interval of a mean over seeds (Student's t, clustered by seed)."""
    from scipy import stats

    n = len(changes)
    if n < 2:
        return float("inf")
    return float(stats.t.ppf(0.975, n - 1) * np.std(changes, ddof=1) / np.sqrt(n))


def _class(low: float, high: float, spread: float) -> str:
    """Sensitivity class from the interval.

    High: even the interval's end nearer to zero is half the spread of scores over all tilts or
    more. Moderate: the interval excludes zero. Low: it does not.
    """
    nearest = 0.0 if low <= 0 <= high else min(abs(low), abs(high))
    if nearest >= 0.5 * spread and nearest > 0:
        return "high"
    return "moderate" if nearest > 0 else "low"


def _mutual_information(x: NDArray[np.float64], y: NDArray[np.float64]) -> float | None:
    """Mutual information in bits; None at 30 points or fewer."""
    if x.size <= 30:
        return None
    from sklearn.feature_selection import mutual_info_regression

    information = mutual_info_regression(x[:, None], y, random_state=0)
    return float(information[0] / np.log(2))


def _failure_signs(
    full: float,
    random: tuple[float, float],
    spread: float,
    scored: pd.DataFrame,
    table: pd.DataFrame,
) -> tuple[str, ...]:
    notes = []
    failed = int(scored["score"].isna().sum())
    if failed:
        notes.append(f"{failed} of {len(scored)} models could not be trained.")
    if full <= random[0] + 2 * random[1]:
        notes.append(
            "Random subsets of this size are as good as the full sample: there is nothing for a "
            "selection to win at this size; use a smaller one."
        )
    if random[1] > 0.5 * spread:
        notes.append(
            "Scores of equal random subsets vary about as much as those of tilted ones: use more "
            "seeds, larger subsets or more held-out rows."
        )
    if not (table["class"] == "high").any():
        notes.append("No metric has high sensitivity, so that gime.level pursues none.")
    return tuple(notes)
