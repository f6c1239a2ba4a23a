"""Finished cells of the quality benchmark in a file of the repository, so that they last.

A cell is known by names and versions alone (task, method, budget, seed, measure). The product's own
cells are keyed by the content of the dataset, whose last bits differ between processors; here, a
version is raised by hand when a task, method or measure changes what it gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from gio_spark.evaluate.measures import MEASURES
from gio_spark.evaluate.trials import TrialPlan
from gio_spark.strategy.methods import get

KEY = ["task", "task_version", "method", "method_version", "budget", "seed", "measure",
       "measure_version"]  # fmt: skip
KEPT = [*KEY, "rows", "value", "seconds", "memory_mb", "measure_seconds", "error"]


def wanted(task: str, version: int, names: Sequence[str], budgets: Sequence[float], seed: int,
           measures: Sequence[str]) -> pd.DataFrame:  # fmt: skip
    """List the cells of some methods; a method that takes all rows has one budget."""
    rows = [
        (task, version, name, get(name).version, budget, seed, measure, MEASURES[measure].version)
        for name in names
        for budget in ([1.0] if get(name).takes_all else budgets)
        for measure in measures
    ]
    return pd.DataFrame(rows, columns=KEY)


class Cells:
    """The cells of a file, written anew whenever some are added.

    Attributes:
        table: One row per cell and measure, columns `KEPT`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.table = pd.DataFrame(columns=KEPT)
        if path.exists():
            self.table = pd.read_csv(path, keep_default_na=False, na_values={"value": [""]})[KEPT]
            for name in ("seconds", "memory_mb", "measure_seconds"):
                self.table[name] = pd.to_numeric(self.table[name], errors="coerce")

    def missing(self, these: pd.DataFrame) -> pd.DataFrame:
        """Return which of these are not there; a failed one is not, and is tried again."""
        good = self.table.loc[self.table["error"] == "", KEY]
        found = these.merge(good.drop_duplicates(), on=KEY, how="left", indicator="where")
        return these[(found["where"] == "left_only").to_numpy()]

    def add(self, found: pd.DataFrame, these: pd.DataFrame) -> None:
        """Keep the cells that `run_trials` found for these, in place of any of other versions."""
        at = ["method", "budget", "seed", "measure"]
        new = these.merge(found.drop(columns="task"), on=at)[KEPT]
        names = ["task", *at]
        old = self.table.merge(new[names], on=names, how="left", indicator="where")
        old = self.table[(old["where"] == "left_only").to_numpy()]
        whole = pd.concat([old, new], ignore_index=True) if len(old) else new
        self.table = whole.sort_values(names, kind="stable", ignore_index=True)
        part = self.path.with_suffix(".part")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # No time in the file's head: the same cells are the same bytes.
        self.table.to_csv(part, index=False, float_format="%.6g",
                          compression={"method": "gzip", "mtime": 0})  # fmt: skip
        part.replace(self.path)

    def of(self, these: pd.DataFrame) -> pd.DataFrame:
        """Return these cells as far as they are there, as reports read them."""
        found = these.merge(self.table, on=KEY)
        better = [MEASURES[m].higher_is_better for m in found["measure"]]
        return found.assign(higher_is_better=better, note="")


def plans(missing: pd.DataFrame) -> list[TrialPlan]:
    """Return what `run_trials` computes: methods that lack the same cells together."""
    groups: dict[tuple, list[str]] = {}
    for name, rows in missing.groupby("method", sort=False):
        lacks = tuple(sorted(rows["budget"].unique())), tuple(dict.fromkeys(rows["measure"]))
        groups.setdefault(lacks, []).append(str(name))
    task, seed = missing["task"].iloc[0], int(missing["seed"].iloc[0])
    return [
        TrialPlan(task, names, budgets, [seed], [MEASURES[m] for m in measures])
        for (budgets, measures), names in groups.items()
    ]
