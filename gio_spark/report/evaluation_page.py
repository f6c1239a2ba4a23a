"""Page of a bake-off: scores, ranks and costs of all methods."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gio_spark.report import trial_statistics
from gio_spark.report.evaluation_plots import budget_text, cost_plot, rank_plot, score_plot
from gio_spark.report.html_page import inline_plots, save_page, save_plots, write_file
from gio_spark.report.run_tables import TableText
from gio_spark.report.text_format import clean_text, count_text, duration_text, number_text
from gio_spark.settings.redact import flatten

PAGE = "evaluation.html"
MAX_PLOTS = 16
MAX_ROWS = 600
COLORED = 5


def render_evaluation(
    table: pd.DataFrame,
    folder: Path,
    *,
    title: str = "Which selection is best on this data",
    baseline: str = "random",
    oracle: str = "oracle",
    ranking_measures: Collection[str] | None = None,
    facts: Mapping[str, str] | None = None,
    settings: Mapping[str, Any] | None = None,
    descriptions: Mapping[str, str] | None = None,
    default: str = "",
) -> Path:
    """Write the page of an evaluation, its plots as PNG and its trials as CSV.

    Args:
        table: One row per trial and measure: task, method, budget (rows, or a share up to 1), seed,
            measure, value, higher_is_better, and optionally seconds, memory_mb, error. A failed
            trial has no value and an error. A method with one budget (all rows) is a level line.
        folder: Local folder; `evaluation.html`, `evaluation.csv` and the PNG files are replaced.
        title: Heading.
        baseline: Method that the others are compared with, paired by seed.
        oracle: Method that knows the labels; it is shown but not ranked.
        ranking_measures: Titles of the measures that rank; the others are only shown. None: all.
        facts: Lines for the head of the page (run, engine, pool, target).
        settings: Settings at the end of the page, without secrets.
        descriptions: Method -> what it takes, in a sentence.
        default: Method that runs use unless settings say else; it is marked.

    Returns:
        Path of the HTML file.

    Raises:
        ValueError: A required column is missing, or a measure has two directions.
        OSError: The folder cannot be written.
    """
    trials = trial_statistics.checked_trials(table)
    folder.mkdir(parents=True, exist_ok=True)
    weak = trial_statistics.weak_comparisons(trials, oracle, baseline)
    ranked_trials = trials[trials["method"] != oracle]
    if weak:
        weak_comparisons = pd.MultiIndex.from_tuples(weak)
        index = pd.MultiIndex.from_frame(ranked_trials[["task", "measure", "budget"]])
        ranked_trials = ranked_trials[~index.isin(weak_comparisons)]
    if ranking_measures is not None:
        ranked_trials = ranked_trials[ranked_trials["measure"].isin(ranking_measures)]
    ranked = trial_statistics.method_ranks(ranked_trials)
    costs = trial_statistics.method_costs(trials)
    pairs = list(dict.fromkeys(trials[["task", "measure"]].itertuples(index=False, name=None)))
    best_methods = [method for method in ranked.methods if method != baseline][:COLORED]
    plots = [rank_plot(ranked, baseline)]
    mean_scores = trial_statistics.mean_scores(trials)
    plots += [
        score_plot(mean_scores, trials, pair, best_methods, baseline, oracle, number)
        for number, pair in enumerate(pairs[:MAX_PLOTS])
    ]
    plots += [cost_plot(costs, "seconds", "seconds (median of a cell)")]
    plots += [
        cost_plot(costs, "memory_mb", "memory, MB (largest of a cell; at least 1)", minimum=1.0)
    ]
    plots_with_data = [plot for plot in plots if plot is not None]
    save_plots(plots_with_data, folder)
    write_file(folder / "evaluation.csv", table.to_csv(index=False).encode())
    warnings = []
    if len(pairs) > MAX_PLOTS:
        warnings.append(("plots", f"The first {MAX_PLOTS} of {len(pairs)} are shown.", ""))
    return save_page(
        folder / PAGE,
        "evaluation.html",
        title=clean_text(title, 120),
        run=[
            (clean_text(name, 60), clean_text(value, 300)) for name, value in (facts or {}).items()
        ],
        summary=_summary(trials, ranked, weak, baseline, ranking_measures),
        warnings=warnings,
        plots=inline_plots(plots_with_data),
        tables=_tables(
            trials,
            mean_scores,
            ranked,
            costs,
            weak,
            baseline,
            settings or {},
            descriptions or {},
            default,
        ),
    )


def _summary(
    trials: pd.DataFrame,
    ranks: trial_statistics.Ranks,
    weak: list[Any],
    baseline: str,
    ranking_measures: Collection[str] | None,
) -> list[str]:
    sentences = [
        ", ".join(
            (
                f"{count_text(trials['method'].nunique())} methods were compared on "
                + _counted(trials["task"].nunique(), "task"),
                "at " + _counted(trials["budget"].nunique(), "budget"),
                "with " + _counted(trials["seed"].nunique(), "seed") + ".",
            )
        )
    ]
    if ranks.blocks and ranks.methods:
        close = [
            method for method, rank in zip(ranks.methods[1:], ranks.mean[1:], strict=True)
            if np.isfinite(ranks.critical) and rank - ranks.mean[0] <= ranks.critical
        ]  # fmt: skip
        best = (
            f"Best by mean rank is {clean_text(ranks.methods[0], 60)} "
            f"({number_text(ranks.mean[0])})"
        )
        if not np.isfinite(ranks.critical):
            sentences.append(f"{best}, from one comparison only.")
        elif close:
            names = ", ".join(clean_text(method, 40) for method in close[:6])
            more = f" and {len(close) - 6} more" if len(close) > 6 else ""
            sentences.append(f"{best}; it cannot be told from {names}{more}.")
        else:
            sentences.append(f"{best}, and the difference from every other method is significant.")
    if ranks.methods and ranking_measures is not None:
        names = ", ".join(
            clean_text(method, 40)
            for method in dict.fromkeys(trials["measure"])
            if method in ranking_measures
        )
        sentences.append(f"Ranks are by {names} alone; the other measures stand beside it.")
    verdicts = trial_statistics.paired_gains(trials, baseline)
    if ranking_measures is not None:
        verdicts = verdicts[verdicts["measure"].isin(ranking_measures)]
    if ranks.methods and len(verdicts):
        verdicts_of_best = verdicts[verdicts["method"] == ranks.methods[0]]
        if len(verdicts_of_best) and not np.isfinite(verdicts_of_best["error"]).any():
            sentences.append(
                f"It is ahead of {clean_text(baseline, 40)} in "
                f"{count_text((verdicts_of_best['gain'] > 0).sum())} of "
                f"{count_text(len(verdicts_of_best))} comparisons, each of one seed, which cannot "
                "tell skill from "
                "chance."
            )
        elif len(verdicts_of_best):
            sentences.append(
                f"Against {clean_text(baseline, 40)} it is better in "
                f"{count_text((verdicts_of_best['verdict'] == 'better').sum())}, worse in "
                f"{count_text((verdicts_of_best['verdict'] == 'worse').sum())} and no different in "
                f"{count_text((verdicts_of_best['verdict'] == '').sum())} of "
                f"{count_text(len(verdicts_of_best))} comparisons."
            )
    if weak:
        sentences.append(
            f"In {_counted(len(weak), 'comparison')} even knowing the labels helps less than twice "
            "the standard error; they rank nothing and are left out of the ranks."
        )
    return sentences


def _brief(value: Any) -> str:
    """Duration; short ones with two digits, since methods differ by orders of magnitude."""
    return f"{number_text(value, 2)} s" if 0 < float(value) < 9.5 else duration_text(value)


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _tables(
    trials: pd.DataFrame,
    mean_scores: pd.DataFrame,
    ranks: trial_statistics.Ranks,
    method_costs: pd.DataFrame,
    weak: list[Any],
    baseline: str,
    settings: Mapping[str, Any],
    descriptions: Mapping[str, str],
    default: str,
) -> list[TableText]:
    rank = dict(zip(ranks.methods, ranks.mean, strict=True))
    costs = method_costs.set_index("method")
    ordered = [*ranks.methods, *[method for method in costs.index if method not in rank]]
    overview = [
        [
            clean_text(method, 60) + " (default)" * (method == default),
            clean_text(descriptions.get(method, ""), 160),
            number_text(rank.get(method)),
            _brief(costs.at[method, "seconds"]),
            count_text(costs.at[method, "memory_mb"]),
            count_text(costs.at[method, "cells"]),
            count_text(costs.at[method, "failed"]),
            clean_text(trial_statistics.first_error(trials, method), 160),
        ]
        for method in ordered
        if method in costs.index
    ]
    head = ["method", "what it takes", "mean rank", "seconds", "memory, MB", "cells", "failed"]
    head.append("first error")
    note = f"{clean_text(default, 60)} is what gio-spark run does by default." if default else ""
    settings_rows = [
        [clean_text(name, 120), clean_text(value, 300)] for name, value in flatten(settings).items()
    ][:250]
    weak_rows = [
        [clean_text(task, 60), clean_text(method, 60), budget_text(float(budget))]
        for task, method, budget in weak[:100]
    ]
    tables = [
        TableText(
            "Methods", head, overview, [False, False, *[True] * 5, False], note, id="methods"
        ),
        _score_table(mean_scores, trials, ordered, baseline),
        TableText(
            "Left out of the ranks", ["task", "measure", "budget"], weak_rows,
            [False, False, True], open=False,
        ),
        _note_table(trials),
        TableText("Settings", ["setting", "value"], settings_rows, [False, False], open=False),
    ]  # fmt: skip
    return [task for task in tables if task.rows]


def _note_table(trials: pd.DataFrame) -> TableText:
    rows = [
        [
            clean_text(row["method"], 50),
            budget_text(float(row["budget"])),
            str(row["seed"]),
            clean_text(row["note"], 500),
        ]
        for row in trial_statistics.method_notes(trials).to_dict("records")[:MAX_ROWS]
    ]
    columns = ["method", "budget", "seed", "note"]
    return TableText("Notes", columns, rows, [False, True, True, False], id="notes", open=False)


def _score_table(
    mean_scores: pd.DataFrame, trials: pd.DataFrame, methods: list[str], baseline: str
) -> TableText:
    budgets = sorted(mean_scores["budget"].astype(float).unique())
    verdicts = trial_statistics.paired_gains(trials, baseline).set_index(
        ["task", "measure", "method", "budget"]
    )
    signs = verdicts["verdict"].map({"better": " ▲", "worse": " ▼", "": ""}).to_dict()
    values = mean_scores.set_index(["task", "measure", "method", "budget"])
    means, halves = values["mean"].to_dict(), values["half"].to_dict()
    pairs = list(dict.fromkeys(mean_scores[["task", "measure"]].itertuples(index=False, name=None)))
    rows: list[list[str]] = []
    for task, measure in pairs:
        rows.append([f"{clean_text(task, 60)}: {clean_text(measure, 60)}"])  # one cell: a heading
        for method in methods:
            row = [clean_text(method, 50)]
            keys = [(task, measure, method, budget) for budget in budgets]
            if not any(k in means for k in keys):
                continue
            for key in keys:
                half = halves.get(key)
                spread = "" if half is None or np.isnan(half) else f" ± {number_text(half, 2)}"
                row.append(
                    f"{number_text(means[key], 4)}{spread}{signs.get(key, '')}"
                    if key in means
                    else ""
                )
            rows.append(row)
    note = (
        "Mean over seeds ± half of the 95 % interval. ▲ better, ▼ worse than "
        f"{clean_text(baseline, 40)} on the same seeds (paired 95 % interval)."
    )
    if len(rows) > MAX_ROWS:
        note += f" The first {MAX_ROWS} of {len(rows):,} lines; evaluation.csv has all cells."
    columns = ["method", *(budget_text(budget) for budget in budgets)]
    numeric = [False] + [True] * len(budgets)
    return TableText("Scores", columns, rows[:MAX_ROWS], numeric, note, id="scores")
