"""The page of a bake-off: which method is best, where, and what it costs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gio_spark.report import scores
from gio_spark.report.evaluation_plots import budget_text, cost_plot, rank_plot, score_plot
from gio_spark.report.render import inline, save_figures, save_page, write
from gio_spark.report.tables import TableText
from gio_spark.report.text import clean, real, seconds, whole
from gio_spark.settings.redact import flatten

PAGE = "evaluation.html"
MAX_PLOTS = 16
MAX_ROWS = 600
COLOURED = 5


def render_evaluation(
    table: pd.DataFrame,
    folder: Path,
    *,
    title: str = "Which selection is best on this data",
    baseline: str = "random",
    oracle: str = "oracle",
    ranked_by: Collection[str] | None = None,
    facts: Mapping[str, str] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Path:
    """Write the page of an evaluation, its figures as PNG and its cells as CSV.

    Args:
        table: one row per cell and measure: task, method, budget (rows, or a share up to 1), seed,
            measure, value, higher_is_better, and optionally seconds, memory_mb, error. A failed
            cell has no value and an error. A method with one budget (full data) is a level line.
        folder: local folder; `evaluation.html`, `evaluation.csv` and the PNG files are replaced.
        title: heading.
        baseline: the method that the others are compared with, seed by seed.
        oracle: a method that knows the labels; it is shown, and not ranked.
        ranked_by: measures that rank; the others are shown. None: all rank.
        facts: lines for the head of the page (run, engine, pool, target).
        settings: shown at the end, secrets taken out.

    Returns:
        Path of the HTML file.

    Raises:
        ValueError: when a needed column is missing or a measure points both ways.
        OSError: when the folder cannot be written.
    """
    cells = scores.checked(table)
    folder.mkdir(parents=True, exist_ok=True)
    weak = scores.unrankable(cells, oracle, baseline)
    fair = cells[cells["method"] != oracle]
    if weak:
        places = pd.MultiIndex.from_tuples(weak)
        index = pd.MultiIndex.from_frame(fair[["task", "measure", "budget"]])
        fair = fair[~index.isin(places)]
    if ranked_by is not None:
        fair = fair[fair["measure"].isin(ranked_by)]
    ranked = scores.ranks(fair)
    cost = scores.costs(cells)
    pairs = list(dict.fromkeys(cells[["task", "measure"]].itertuples(index=False, name=None)))
    strong = [m for m in ranked.methods if m != baseline][:COLOURED]
    drawn = [rank_plot(ranked, baseline)]
    middle = scores.means(cells)
    drawn += [
        score_plot(middle, cells, pair, strong, baseline, oracle, place)
        for place, pair in enumerate(pairs[:MAX_PLOTS])
    ]
    drawn += [cost_plot(cost, "seconds", "seconds (median of a cell)")]
    drawn += [cost_plot(cost, "memory_mb", "memory, MB (largest of a cell; at least 1)", least=1.0)]
    shown = [d for d in drawn if d is not None]
    save_figures(shown, folder)
    write(folder / "evaluation.csv", table.to_csv(index=False).encode())
    cautions = []
    if len(pairs) > MAX_PLOTS:
        cautions.append(("plots", f"The first {MAX_PLOTS} of {len(pairs)} are shown.", ""))
    return save_page(
        folder / PAGE,
        "evaluation.html",
        title=clean(title, 120),
        run=[(clean(k, 60), clean(v, 300)) for k, v in (facts or {}).items()],
        summary=_summary(cells, ranked, weak, baseline, ranked_by),
        cautions=cautions,
        figures=inline(shown),
        tables=_tables(cells, middle, ranked, cost, weak, baseline, settings or {}),
    )


def _summary(
    cells: pd.DataFrame,
    found: scores.Ranks,
    weak: list[Any],
    baseline: str,
    ranked_by: Collection[str] | None,
) -> list[str]:
    said = [
        ", ".join(
            (
                f"{whole(cells['method'].nunique())} methods were compared on "
                + _counted(cells["task"].nunique(), "task"),
                "at " + _counted(cells["budget"].nunique(), "budget"),
                "with " + _counted(cells["seed"].nunique(), "seed") + ".",
            )
        )
    ]
    if found.blocks and found.methods:
        close = [
            m for m, r in zip(found.methods[1:], found.mean[1:], strict=True)
            if np.isfinite(found.critical) and r - found.mean[0] <= found.critical
        ]  # fmt: skip
        best = f"Best by mean rank is {clean(found.methods[0], 60)} ({real(found.mean[0])})"
        if not np.isfinite(found.critical):
            said.append(f"{best}, from one comparison only.")
        elif close:
            names = ", ".join(clean(m, 40) for m in close[:6])
            more = f" and {len(close) - 6} more" if len(close) > 6 else ""
            said.append(f"{best}; it cannot be told from {names}{more}.")
        else:
            said.append(f"{best}, and the difference from every other method is significant.")
    if found.methods and ranked_by is not None:
        names = ", ".join(clean(m, 40) for m in dict.fromkeys(cells["measure"]) if m in ranked_by)
        said.append(f"Ranks are by {names} alone; the other measures stand beside it.")
    verdicts = scores.against(cells, baseline)
    if ranked_by is not None:
        verdicts = verdicts[verdicts["measure"].isin(ranked_by)]
    if found.methods and len(verdicts):
        mine = verdicts[verdicts["method"] == found.methods[0]]
        if len(mine) and not np.isfinite(mine["error"]).any():
            said.append(
                f"It is ahead of {clean(baseline, 40)} in {whole((mine['gain'] > 0).sum())} of "
                f"{whole(len(mine))} comparisons, each of one seed, which cannot tell skill from "
                "chance."
            )
        elif len(mine):
            said.append(
                f"Against {clean(baseline, 40)} it is better in "
                f"{whole((mine['verdict'] == 'better').sum())}, worse in "
                f"{whole((mine['verdict'] == 'worse').sum())} and no different in "
                f"{whole((mine['verdict'] == '').sum())} of {whole(len(mine))} comparisons."
            )
    if weak:
        said.append(
            f"In {_counted(len(weak), 'comparison')} even knowing the labels helps less than twice "
            "the standard error; they rank nothing and are left out of the ranks."
        )
    return said


def _brief(value: Any) -> str:
    """Seconds; short ones with two digits, since methods differ there by orders."""
    return f"{real(value, 2)} s" if 0 < float(value) < 9.5 else seconds(value)


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _tables(
    cells: pd.DataFrame,
    middle: pd.DataFrame,
    found: scores.Ranks,
    cost: pd.DataFrame,
    weak: list[Any],
    baseline: str,
    settings: Mapping[str, Any],
) -> list[TableText]:
    rank = dict(zip(found.methods, found.mean, strict=True))
    costs = cost.set_index("method")
    ordered = [*found.methods, *[m for m in costs.index if m not in rank]]
    overview = [
        [
            clean(m, 60),
            real(rank.get(m)),
            _brief(costs.at[m, "seconds"]),
            whole(costs.at[m, "memory_mb"]),
            whole(costs.at[m, "cells"]),
            whole(costs.at[m, "failed"]),
            clean(scores.first_error(cells, m), 160),
        ]
        for m in ordered
        if m in costs.index
    ]
    head = ["method", "mean rank", "seconds", "memory, MB", "cells", "failed", "first error"]
    flat = [[clean(k, 120), clean(v, 300)] for k, v in flatten(settings).items()][:250]
    weak_rows = [[clean(t, 60), clean(m, 60), budget_text(float(b))] for t, m, b in weak[:100]]
    made = [
        TableText("Methods", head, overview, [False, *[True] * 5, False], id="methods"),
        _score_table(middle, cells, ordered, baseline),
        TableText(
            "Left out of the ranks", ["task", "measure", "budget"], weak_rows,
            [False, False, True], open=False,
        ),
        TableText("Settings", ["setting", "value"], flat, [False, False], open=False),
    ]  # fmt: skip
    return [t for t in made if t.rows]


def _score_table(
    middle: pd.DataFrame, cells: pd.DataFrame, methods: list[str], baseline: str
) -> TableText:
    budgets = sorted(middle["budget"].astype(float).unique())
    verdicts = scores.against(cells, baseline).set_index(["task", "measure", "method", "budget"])
    signs = verdicts["verdict"].map({"better": " ▲", "worse": " ▼", "": ""}).to_dict()
    values = middle.set_index(["task", "measure", "method", "budget"])
    means, halves = values["mean"].to_dict(), values["half"].to_dict()
    pairs = list(dict.fromkeys(middle[["task", "measure"]].itertuples(index=False, name=None)))
    rows: list[list[str]] = []
    for task, measure in pairs:
        rows.append([f"{clean(task, 60)}: {clean(measure, 60)}"])  # one cell: a heading
        for method in methods:
            row = [clean(method, 50)]
            keys = [(task, measure, method, b) for b in budgets]
            if not any(k in means for k in keys):
                continue
            for key in keys:
                half = halves.get(key)
                spread = "" if half is None or np.isnan(half) else f" ± {real(half, 2)}"
                row.append(
                    f"{real(means[key], 4)}{spread}{signs.get(key, '')}" if key in means else ""
                )
            rows.append(row)
    note = (
        "Mean over seeds ± half of the 95 % interval. ▲ better, ▼ worse than "
        f"{clean(baseline, 40)} on the same seeds (paired 95 % interval)."
    )
    if len(rows) > MAX_ROWS:
        note += f" The first {MAX_ROWS} of {len(rows):,} lines; evaluation.csv has all cells."
    columns = ["method", *(budget_text(b) for b in budgets)]
    numeric = [False] + [True] * len(budgets)
    return TableText("Scores", columns, rows[:MAX_ROWS], numeric, note, id="scores")
