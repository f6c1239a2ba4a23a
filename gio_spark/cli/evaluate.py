"""The table of a bake-off for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from rich.table import Table

from gio_spark.evaluate.measures import MEASURES
from gio_spark.evaluate.run import BASELINE, ranked_by, ranks
from gio_spark.report import scores

if TYPE_CHECKING:
    from rich.console import Console

    from gio_spark.evaluate.run import Evaluation


def print_evaluation(out: Console, made: Evaluation) -> None:
    """Print one table of scores per measure, the methods in order of mean rank, and the costs."""
    cells = scores.checked(made.cells)
    for name in ("pool", "target", "cells"):
        out.print(f"{name}: {made.summary[name]}", markup=False)
    ranked = ranks(made.cells)
    rest = [m for m in dict.fromkeys(cells["method"]) if m not in ranked.methods]
    order = [*ranked.methods, *rest]
    for measure in dict.fromkeys(cells["measure"]):
        out.print(_scores(cells[cells["measure"] == measure], str(measure), order))
    out.print(
        f"± half of the 95 % interval over seeds; + better, - worse than {BASELINE} on the same "
        "seeds (paired 95 % interval)."
    )
    out.print(_costs(cells, ranked, order))
    if ranked.blocks > 1:
        by = ranked_by(made.cells)
        told = f" by {', '.join(by)}" if by else ""
        out.print(
            f"Mean ranks{told} over {ranked.blocks} comparisons; below {ranked.critical:.2f} "
            "apart, two methods cannot be told from each other (Nemenyi, 5 %)."
        )
    for method in order:
        error = scores.first_error(cells, method)
        if error is not None:
            out.print(f"failed, {method}: {error}", style="yellow", markup=False)
    out.print(f"cells: {made.table}", markup=False)
    out.print(f"page: {made.page}", markup=False)


def _scores(cells: pd.DataFrame, measure: str, order: list[str]) -> Table:
    it = MEASURES[measure]
    way = "higher" if it.higher_is_better else "lower"
    table = _table(f"{it.title} ({way} is better)", "method")
    middle = scores.means(cells).set_index(["method", "budget"])
    means, halves = middle["mean"].to_dict(), middle["half"].to_dict()
    verdicts = scores.against(cells, BASELINE).set_index(["method", "budget"])["verdict"].to_dict()
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


def _costs(cells: pd.DataFrame, ranked: scores.Ranks, order: list[str]) -> Table:
    table = _table("Ranks and costs", "method", "mean rank", "seconds", "memory, MB", "failed")
    costs = scores.costs(cells).set_index("method")
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
