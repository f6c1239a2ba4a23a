"""Statistics of the trials of a bake-off: means, intervals, ranks, paired gains and costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

REQUIRED_COLUMNS = ("task", "method", "budget", "seed", "measure", "value", "higher_is_better")
LEVEL = 0.95


def checked_trials(table: pd.DataFrame) -> pd.DataFrame:
    """Trials with all columns that the report reads; columns of costs and errors are optional.

    Raises:
        ValueError: A required column is missing, or a measure has two directions.
    """
    missing = [c for c in REQUIRED_COLUMNS if c not in table.columns]
    if missing:
        raise ValueError(f"The table of an evaluation lacks the column(s) {', '.join(missing)}.")
    trials = table.copy()
    for column in ("seconds", "memory_mb", "error"):
        if column not in trials.columns:
            trials[column] = None if column == "error" else np.nan
    trials["value"] = pd.to_numeric(trials["value"], errors="coerce")
    directions = trials.groupby("measure")["higher_is_better"].nunique()
    if (directions > 1).any():
        ambiguous = ", ".join(map(str, directions[directions > 1].index))
        raise ValueError(f"higher_is_better is both true and false for: {ambiguous}.")
    return trials


def method_notes(trials: pd.DataFrame) -> pd.DataFrame:
    """Notes of methods about their selections, once each: task, method, budget, seed, note."""
    if "note" not in trials.columns:
        return pd.DataFrame(columns=["task", "method", "budget", "seed", "note"])
    notes = trials.loc[
        trials["note"].fillna("") != "", ["task", "method", "budget", "seed", "note"]
    ]
    return notes.drop_duplicates().sort_values(["task", "method", "budget", "seed"])


def mean_scores(trials: pd.DataFrame) -> pd.DataFrame:
    """Mean over seeds with the half-width of its 95 % interval (Student's t).

    Returns:
        Columns task, measure, method, budget, mean, half, seeds; half is NaN with one seed.

    Example:
        >>> trials = pd.DataFrame({"task": "t", "method": "a", "budget": 0.1, "measure": "m",
        ...                        "value": [1.0, 3.0]})
        >>> mean_scores(trials)[["mean", "half", "seeds"]].round(2).values.tolist()
        [[2.0, 12.71, 2.0]]
    """
    valid = trials[np.isfinite(trials["value"])]
    keys = ["task", "measure", "method", "budget"]
    scores = valid.groupby(keys, sort=False)["value"].agg(["mean", "std", "count"]).reset_index()
    count = scores["count"].to_numpy(dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        factor = stats.t.ppf(0.5 + LEVEL / 2, np.maximum(count - 1, 1)) / np.sqrt(count)
    scores["half"] = np.where(count > 1, scores["std"].to_numpy() * factor, np.nan)
    return scores.drop(columns="std").rename(columns={"count": "seeds"})


@dataclass(frozen=True)
class Ranks:
    """Mean ranks of methods over blocks (task, measure, budget), the best first.

    Attributes:
        methods: Names, best first.
        mean: Mean rank of each, 1 is best; ties share the mean of their ranks.
        critical: Critical difference: two methods differ at 5 % if their mean ranks differ by more
            than this (Nemenyi; NaN with fewer than two methods or blocks).
        blocks: Number of comparisons in which every ranked method has a value.
        p_value: Of Friedman's test that all methods are equal (NaN with one block or two methods).
        left_out: Methods that failed or are missing in too many blocks to be ranked.
    """

    methods: list[str]
    mean: np.ndarray
    critical: float
    blocks: int
    p_value: float
    left_out: list[str]


def method_ranks(trials: pd.DataFrame) -> Ranks:
    """Mean ranks of the methods with their critical difference (Demšar, JMLR 7, 2006).

    A block is one (task, measure, budget). Seeds are averaged first, because draws of one task are
    not independent tasks and would make the critical difference too small. A method is left out if
    it has no value in a task (for example a method for texts on images) or in half of the blocks of
    the most complete method. Blocks in which one of the other methods has no value are left out.
    """
    valid = trials[np.isfinite(trials["value"])].copy()
    valid["score"] = np.where(
        valid["higher_is_better"].astype(bool), valid["value"], -valid["value"]
    )
    score_table = valid.pivot_table(
        index=["task", "measure", "budget"], columns="method", values="score", aggfunc="mean"
    )
    all_methods = list(dict.fromkeys(trials["method"]))
    block_count = score_table.notna().sum()
    task_count = score_table.notna().groupby(level="task").any().sum()
    ranked_methods = [
        m
        for m in score_table
        if block_count[m] * 2 > block_count.max() and task_count[m] == task_count.max()
    ]
    score_table = score_table[ranked_methods].dropna()
    left_out = [str(m) for m in all_methods if m not in ranked_methods]
    if score_table.empty or len(ranked_methods) < 2:
        return Ranks(
            [str(m) for m in ranked_methods],
            np.ones(len(ranked_methods)),
            np.nan,
            0,
            np.nan,
            left_out,
        )
    block_ranks = stats.rankdata(-score_table.to_numpy(), axis=1)
    mean = block_ranks.mean(axis=0)
    order = np.lexsort((np.asarray(ranked_methods, dtype=str), mean))
    blocks, methods = block_ranks.shape
    critical = p_value = np.nan
    if blocks > 1:
        q = stats.studentized_range.ppf(LEVEL, methods, np.inf) / np.sqrt(2)
        critical = float(q * np.sqrt(methods * (methods + 1) / (6 * blocks)))
    if blocks > 1 and methods > 2:
        with np.errstate(invalid="ignore", divide="ignore"):
            p_value = float(stats.friedmanchisquare(*score_table.to_numpy().T).pvalue)
    return Ranks(
        [str(ranked_methods[i]) for i in order], mean[order], critical, blocks, p_value, left_out
    )


def paired_gains(trials: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """Gain of each method over a baseline, paired by seed.

    Returns:
        Columns task, measure, budget, method, gain (mean paired difference, positive is better),
        error (its standard error, NaN with one common seed), verdict: 'better', 'worse' or '' by
        the 95 % interval.
    """
    valid = trials[np.isfinite(trials["value"])]
    keys = ["task", "measure", "budget", "seed"]
    baseline_scores = valid.loc[valid["method"] == baseline, [*keys, "value"]]
    baseline_scores = baseline_scores.drop_duplicates(keys).rename(columns={"value": "base"})
    pairs = valid[valid["method"] != baseline].merge(baseline_scores, on=keys)
    sign = np.where(pairs["higher_is_better"].astype(bool), 1.0, -1.0)
    pairs = pairs.assign(gain=(pairs["value"] - pairs["base"]) * sign)
    comparison = ["task", "measure", "budget", "method"]
    gains = (
        pairs.groupby(comparison, sort=False)["gain"].agg(["mean", "std", "count"]).reset_index()
    )
    count = gains["count"].to_numpy(dtype=np.float64)
    error = np.where(count > 1, gains["std"].to_numpy() / np.sqrt(count), np.nan)
    bound = stats.t.ppf(0.5 + LEVEL / 2, np.maximum(count - 1, 1)) * error
    gain = gains["mean"].to_numpy()
    verdict = np.where(gain > bound, "better", np.where(gain < -bound, "worse", ""))
    return pd.DataFrame({**gains[comparison], "gain": gain, "error": error, "verdict": verdict})


def weak_comparisons(
    trials: pd.DataFrame, oracle: str, baseline: str
) -> list[tuple[Any, Any, Any]]:
    """Comparisons (task, measure, budget) in which even the oracle hardly beats the baseline.

    The gain of the oracle is below twice the paired standard error, so ranks are not meaningful.
    """
    gains = paired_gains(trials[trials["method"].isin([oracle, baseline])], baseline)
    weak = gains[gains["gain"] < 2 * gains["error"].fillna(0.0)]
    return list(weak[["task", "measure", "budget"]].itertuples(index=False, name=None))


def method_costs(trials: pd.DataFrame) -> pd.DataFrame:
    """Median seconds, largest memory, number of trials (cells) and failures per method.

    A trial is one (task, method, budget, seed); its measures share one cost.
    """
    failed = trials["error"].notna() & (trials["error"].astype(str) != "")
    trials_once = trials.assign(failed=failed).drop_duplicates(["task", "method", "budget", "seed"])
    costs = trials_once.groupby("method", sort=False).agg(
        seconds=("seconds", "median"),
        memory_mb=("memory_mb", "max"),
        cells=("seed", "size"),
        failed=("failed", "sum"),
    )
    return costs.reset_index()


def first_error(trials: pd.DataFrame, method: str) -> Any:
    """First error message of a method, or None."""
    errors = trials.loc[trials["method"] == method, "error"].dropna().astype(str)
    errors = errors[errors != ""]
    return errors.iloc[0] if len(errors) else None
