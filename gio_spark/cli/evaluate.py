"""The table of a bake-off for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from rich.table import Table
from scipy import stats

from gio_spark.evaluate.compare_methods import (
    BASELINE,
    deciding_measures,
    rank_methods,
    ranking_measures,
)
from gio_spark.evaluate.measures import MEASURES
from gio_spark.report import trial_statistics

if TYPE_CHECKING:
    from rich.console import Console

    from gio_spark.evaluate.compare_methods import Evaluation


def print_evaluation(out: Console, made: Evaluation) -> None:
    """Print score against budget and gain over random, in order of mean rank, and the costs."""
    cells = trial_statistics.checked_trials(made.trials)
    for name in ("pool", "target", "cells"):
        out.print(f"{name}: {made.summary[name]}", markup=False)
    ranked = rank_methods(made.trials)
    rest = [m for m in dict.fromkeys(cells["method"]) if m not in ranked.methods]
    order = [*ranked.methods, *rest]
    shown = deciding_measures(cells)
    for measure in shown:
        mine = cells[cells["measure"] == measure]
        out.print(_scores(mine, measure, order))
        out.print(_gains(mine, measure, order))
    out.print(
        "± half of the 95 % interval over seeds; + better, - worse on the same seeds (paired 95 % "
        "interval)."
    )
    out.print(_costs(cells, ranked, order))
    if ranked.blocks > 1:
        by = ranking_measures(made.trials)
        told = f" by {', '.join(by)}" if by else ""
        out.print(
            f"Mean ranks{told} over {ranked.blocks} comparisons; below {ranked.critical:.2f} "
            "apart, two methods cannot be told from each other (Nemenyi, 5 %)."
        )
    for method in order:
        error = trial_statistics.first_error(cells, method)
        if error is not None:
            out.print(f"failed, {method}: {error}", style="yellow", markup=False)
    for budget, choices in _choices_of_auto(cells):
        out.print(f"auto at {100 * budget:g} %: {choices}", markup=False)
    others = [MEASURES[m].title for m in dict.fromkeys(cells["measure"]) if m not in shown]
    if others:
        out.print(f"also measured, see the page: {', '.join(others)}", markup=False)
    out.print(f"cells: {made.table}", markup=False)
    out.print(f"page: {made.page}", markup=False)


def _choices_of_auto(cells: pd.DataFrame) -> list[tuple[float, str]]:
    """Strategies that the method `auto` has chosen at each budget, with the number of seeds."""
    notes = trial_statistics.method_notes(cells[cells["method"] == "auto"])
    strategies = notes["note"].astype(str).str.split(":").str[0]
    return [
        (
            float(budget),
            ", ".join(f"{name} ({count})" for name, count in names.value_counts().items()),
        )
        for budget, names in strategies.groupby(notes["budget"])
    ]


def _scores(cells: pd.DataFrame, measure: str, order: list[str]) -> Table:
    it = MEASURES[measure]
    way = "higher" if it.higher_is_better else "lower"
    table = _table(f"{it.title} ({way} is better)", "method")
    middle = trial_statistics.mean_scores(cells).set_index(["method", "budget"])
    means, halves = middle["mean"].to_dict(), middle["half"].to_dict()
    verdicts = (
        trial_statistics.paired_gains(cells, BASELINE)
        .set_index(["method", "budget"])["verdict"]
        .to_dict()
    )
    budgets = sorted(middle.index.get_level_values("budget").unique())
    for budget in budgets:
        table.add_column(f"{100 * float(budget):g} %", justify="right", no_wrap=True)
    signs = {"better": "+", "worse": "-", "": " "}
    for method in order:
        row = []
        for budget in budgets:
            if (method, budget) not in means:
                row.append("")
                continue
            mean, half = means[method, budget], halves[method, budget]
            spread = f" ±{half:.2g}" if np.isfinite(half) else ""
            row.append(f"{mean:.4g}{spread} {signs[verdicts.get((method, budget), '')]}")
        if any(row):
            table.add_row(method, *row)
    return table


def _gains(cells: pd.DataFrame, measure: str, order: list[str]) -> Table:
    """Return the paired difference to the baseline, positive where a method is better."""
    table = _table(f"Gain over {BASELINE}: {MEASURES[measure].title}", "method")
    found = trial_statistics.paired_gains(cells, BASELINE)
    seeds = cells.groupby(["method", "budget"])["seed"].nunique().to_dict()
    budgets = sorted(found["budget"].unique())
    for budget in budgets:
        table.add_column(f"{100 * float(budget):g} %", justify="right", no_wrap=True)
    lines = {(r["method"], r["budget"]): r for r in found.to_dict("records")}
    signs = {"better": "+", "worse": "-", "": " "}
    for method in order:
        row = []
        for budget in budgets:
            it = lines.get((method, budget))
            if it is None:
                row.append("")
                continue
            factor = stats.t.ppf(0.975, max(1, seeds[method, budget] - 1))
            half = factor * it["error"]
            spread = f" ±{half:.2g}" if np.isfinite(half) else ""
            row.append(f"{it['gain']:+.3g}{spread} {signs[it['verdict']]}")
        if any(row):
            table.add_row(method, *row)
    return table


def _costs(cells: pd.DataFrame, ranked: trial_statistics.Ranks, order: list[str]) -> Table:
    table = _table("Ranks and costs", "method", "mean rank", "seconds", "memory, MB", "failed")
    costs = trial_statistics.method_costs(cells).set_index("method")
    rank = dict(zip(ranked.methods, ranked.mean, strict=True))
    for method in order:
        line = costs.loc[method]
        table.add_row(
            method,
            f"{rank[method]:.2f}" if method in rank else "",
            f"{line['seconds']:.2f}",
            f"{line['memory_mb']:.0f}",
            str(int(line["failed"])) if line["failed"] else "",
        )
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, title_style="bold")
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right", overflow="fold")
    return table
