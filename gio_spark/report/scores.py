"""From the cells of a bake-off to means, intervals and ranks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

NEEDED = ("task", "method", "budget", "seed", "measure", "value", "higher_is_better")
LEVEL = 0.95


def checked(table: pd.DataFrame) -> pd.DataFrame:
    """Cells with every column the report reads; costs and errors may be absent.

    Raises:
        ValueError: when a needed column is missing or a measure points both ways.
    """
    missing = [c for c in NEEDED if c not in table.columns]
    if missing:
        raise ValueError(f"The table of an evaluation lacks the column(s) {', '.join(missing)}.")
    cells = table.copy()
    for column in ("seconds", "memory_mb", "error"):
        if column not in cells.columns:
            cells[column] = None if column == "error" else np.nan
    cells["value"] = pd.to_numeric(cells["value"], errors="coerce")
    ways = cells.groupby("measure")["higher_is_better"].nunique()
    if (ways > 1).any():
        both = ", ".join(map(str, ways[ways > 1].index))
        raise ValueError(f"higher_is_better is both true and false for: {both}.")
    return cells


def means(cells: pd.DataFrame) -> pd.DataFrame:
    """Mean and half-width of the 95 % interval (Student's t over seeds) per cell.

    Returns:
        Columns task, measure, method, budget, mean, half, seeds; half is NaN with one seed.
    """
    good = cells[np.isfinite(cells["value"])]
    keys = ["task", "measure", "method", "budget"]
    found = good.groupby(keys, sort=False)["value"].agg(["mean", "std", "count"]).reset_index()
    count = found["count"].to_numpy(dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        factor = stats.t.ppf(0.5 + LEVEL / 2, np.maximum(count - 1, 1)) / np.sqrt(count)
    found["half"] = np.where(count > 1, found["std"].to_numpy() * factor, np.nan)
    return found.drop(columns="std").rename(columns={"count": "seeds"})


@dataclass(frozen=True)
class Ranks:
    """Mean ranks of methods over blocks (task, measure, budget, seed), the best first.

    Attributes:
        methods: names, best first.
        mean: mean rank of each, 1 is best; ties share the mean of their ranks.
        critical: two methods differ at 5 % when their mean ranks differ by more than this
            (Nemenyi; NaN with fewer than two methods or blocks).
        blocks: comparisons in which every ranked method has a value.
        p_value: of Friedman's test that all methods are alike (NaN as above).
        left_out: methods that failed or are missing in some block, and so are not ranked.
    """

    methods: list[str]
    mean: np.ndarray
    critical: float
    blocks: int
    p_value: float
    left_out: list[str]


def ranks(cells: pd.DataFrame) -> Ranks:
    """Rank the methods that have a value in every comparison (Demsar, JMLR 7, 2006).

    A block is one (task, measure, budget): the seeds are averaged first, since draws of one task
    are no independent tasks, and would make the critical difference look smaller than it is. A
    method that has no value in a whole task (which does not allow it, as a method for texts on
    images), or in half of the blocks of the most complete one, is left out; of the rest, blocks
    where one is missing are.
    """
    good = cells[np.isfinite(cells["value"])].copy()
    good["score"] = np.where(good["higher_is_better"].astype(bool), good["value"], -good["value"])
    wide = good.pivot_table(
        index=["task", "measure", "budget"], columns="method", values="score", aggfunc="mean"
    )
    all_methods = list(dict.fromkeys(cells["method"]))
    filled = wide.notna().sum()
    tasks = wide.notna().groupby(level="task").any().sum()
    kept = [m for m in wide if filled[m] * 2 > filled.max() and tasks[m] == tasks.max()]
    wide = wide[kept].dropna()
    left_out = [str(m) for m in all_methods if m not in kept]
    if wide.empty or len(kept) < 2:
        return Ranks([str(m) for m in kept], np.ones(len(kept)), np.nan, 0, np.nan, left_out)
    placed = stats.rankdata(-wide.to_numpy(), axis=1)
    mean = placed.mean(axis=0)
    order = np.lexsort((np.asarray(kept, dtype=str), mean))
    blocks, methods = placed.shape
    critical = p_value = np.nan
    if blocks > 1:
        q = stats.studentized_range.ppf(LEVEL, methods, np.inf) / np.sqrt(2)
        critical = float(q * np.sqrt(methods * (methods + 1) / (6 * blocks)))
    if blocks > 1 and methods > 2:
        with np.errstate(invalid="ignore", divide="ignore"):
            p_value = float(stats.friedmanchisquare(*wide.to_numpy().T).pvalue)
    return Ranks([str(kept[i]) for i in order], mean[order], critical, blocks, p_value, left_out)


def against(cells: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """Compare each method with a baseline, seed by seed.

    Returns:
        Columns task, measure, budget, method, gain (mean paired difference, positive is better),
        error (its standard error, NaN with one common seed), verdict: 'better', 'worse' or '' by
        the 95 % interval.
    """
    good = cells[np.isfinite(cells["value"])]
    keys = ["task", "measure", "budget", "seed"]
    base = good.loc[good["method"] == baseline, [*keys, "value"]]
    base = base.drop_duplicates(keys).rename(columns={"value": "base"})
    both = good[good["method"] != baseline].merge(base, on=keys)
    sign = np.where(both["higher_is_better"].astype(bool), 1.0, -1.0)
    both = both.assign(gain=(both["value"] - both["base"]) * sign)
    named = ["task", "measure", "budget", "method"]
    found = both.groupby(named, sort=False)["gain"].agg(["mean", "std", "count"]).reset_index()
    count = found["count"].to_numpy(dtype=np.float64)
    error = np.where(count > 1, found["std"].to_numpy() / np.sqrt(count), np.nan)
    bound = stats.t.ppf(0.5 + LEVEL / 2, np.maximum(count - 1, 1)) * error
    gain = found["mean"].to_numpy()
    verdict = np.where(gain > bound, "better", np.where(gain < -bound, "worse", ""))
    return pd.DataFrame({**found[named], "gain": gain, "error": error, "verdict": verdict})


def unrankable(cells: pd.DataFrame, oracle: str, baseline: str) -> list[tuple[Any, Any, Any]]:
    """(task, measure, budget) where even the oracle hardly beats the baseline.

    Its gain is below twice the paired standard error there, so no order of methods means anything.
    """
    found = against(cells[cells["method"].isin([oracle, baseline])], baseline)
    weak = found[found["gain"] < 2 * found["error"].fillna(0.0)]
    return list(weak[["task", "measure", "budget"]].itertuples(index=False, name=None))


def costs(cells: pd.DataFrame) -> pd.DataFrame:
    """Median seconds, largest memory, cells and failures per method.

    A cell is one (task, method, budget, seed); its measures share one cost.
    """
    failed = cells["error"].notna() & (cells["error"].astype(str) != "")
    one = cells.assign(failed=failed).drop_duplicates(["task", "method", "budget", "seed"])
    found = one.groupby("method", sort=False).agg(
        seconds=("seconds", "median"),
        memory_mb=("memory_mb", "max"),
        cells=("seed", "size"),
        failed=("failed", "sum"),
    )
    return found.reset_index()


def first_error(cells: pd.DataFrame, method: str) -> Any:
    """Method's first error message, or None."""
    errors = cells.loc[cells["method"] == method, "error"].dropna().astype(str)
    errors = errors[errors != ""]
    return errors.iloc[0] if len(errors) else None
