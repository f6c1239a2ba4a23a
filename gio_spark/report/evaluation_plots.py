"""Plots of a bake-off: score by budget, mean ranks and costs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from gio_spark.report import trial_statistics
from gio_spark.report.plot_rendering import INK, POOL, RANDOM, SERIES, Plot, render_plot
from gio_spark.report.text_format import clean_text, number_text

_MARKS = "os^Dv*PX"


def score_plot(
    mean_scores: pd.DataFrame,
    trials: pd.DataFrame,
    pair: tuple[str, str],
    best_methods: list[str],
    baseline: str,
    oracle: str,
    number: int,
) -> Plot | None:
    """Plot of score by budget with intervals; the best methods in color, the others in gray."""
    task, measure = pair
    task_scores = mean_scores[(mean_scores["task"] == task) & (mean_scores["measure"] == measure)]
    if task_scores.empty:
        return None
    higher_is_better = bool(trials.loc[trials["measure"] == measure, "higher_is_better"].iloc[0])
    methods = list(dict.fromkeys(task_scores["method"]))
    named_methods = [method for method in (*best_methods, baseline, oracle) if method in methods]
    other_methods = [method for method in methods if method not in named_methods]
    budgets = task_scores["budget"].astype(float)
    has_several_budgets = task_scores.groupby("method")["budget"].nunique().max() > 1

    # Scores far from all colored methods are clipped, since they would flatten the other lines.
    named_scores = task_scores.loc[task_scores["method"].isin(named_methods), "mean"].to_numpy(
        dtype=float
    )
    low, high = (named_scores.min(), named_scores.max()) if len(named_scores) else (0.0, 0.0)
    margin = 0.5 * (high - low)
    values = task_scores["mean"].to_numpy(dtype=float)
    is_clipped = bool(margin > 0 and (values.min() < low - margin or values.max() > high + margin))

    def paint(axes: Axes) -> None:
        for method in (*other_methods, *named_methods[::-1]):
            line = task_scores[task_scores["method"] == method].sort_values("budget")
            x, y, half = (line[c].to_numpy(dtype=float) for c in ("budget", "mean", "half"))
            style = _line_style(method, best_methods, baseline, oracle)
            is_named = method in named_methods or len(x) == 1
            label = clean_text(method, 28) if is_named else None
            if len(x) == 1 and has_several_budgets:
                level = {"color": INK, "linestyle": "-.", "linewidth": 1}
                axes.axhline(y[0], label=label, **(style if method in named_methods else level))
                continue
            axes.plot(x, y, label=label, **style, **_marker(method, best_methods))
            if method in named_methods and np.isfinite(half).any():
                band = np.nan_to_num(half)
                axes.fill_between(x, y - band, y + band, color=style["color"], alpha=0.15, lw=0)
        if budgets.min() > 0 and budgets.max() > 4 * budgets.min():
            axes.set_xscale("log")
            axes.xaxis.set_minor_formatter(NullFormatter())
            ticks = np.unique(budgets)
            axes.set_xticks(ticks[:: max(1, len(ticks) // 6)])
        if is_clipped:
            limits = axes.get_ylim()
            axes.set_ylim(max(limits[0], low - margin), min(limits[1], high + margin))
        axes.xaxis.set_major_formatter(FuncFormatter(budget_text))
        axes.set_xlabel("budget")
        axes.set_ylabel(
            f"{clean_text(measure, 40)} ({'higher' if higher_is_better else 'lower'} is better)"
        )
        axes.set_title(clean_text(task, 60))
        lines, names = axes.get_legend_handles_labels()
        figure = axes.get_figure()
        if figure is not None:
            figure.legend(lines[::-1], names[::-1], loc="outside lower center", ncols=2, fontsize=8)

    # A method with one budget is a level line with its own label.
    gray_methods = [
        method
        for method in other_methods
        if not has_several_budgets or (task_scores["method"] == method).sum() > 1
    ]
    gray_count = (
        f"{len(gray_methods)} more methods are" if len(gray_methods) > 1 else "One more method is"
    )
    gray_note = f" {gray_count} grey; the table has them all." if gray_methods else ""
    caption = (
        f"{clean_text(task, 60)}: {clean_text(measure, 40)} against budget, mean over seeds with "
        "its 95 % "
        f"interval.{gray_note}{' Some of them leave the picture.' if is_clipped else ''}"
    )
    return render_plot(f"scores_{number + 1:02d}", caption, paint, height=4.6)


def rank_plot(ranks: trial_statistics.Ranks, baseline: str) -> Plot | None:
    """Plot of mean ranks with bars as wide as the critical difference (Nemenyi)."""
    if len(ranks.methods) < 2 or not ranks.blocks:
        return None
    half = ranks.critical / 2 if np.isfinite(ranks.critical) else 0.0

    def paint(axes: Axes) -> None:
        positions = np.arange(len(ranks.methods))[::-1]
        if half:
            axes.axvspan(ranks.mean[0] - half, ranks.mean[0] + half, color=SERIES[0], alpha=0.12)
        for y, method, rank in zip(positions, ranks.methods, ranks.mean, strict=True):
            is_alike = rank - half <= ranks.mean[0] + half
            color = RANDOM if method == baseline else SERIES[0] if is_alike else POOL
            axes.plot([rank - half, rank + half], [y, y], color=color, linewidth=2)
            axes.plot([rank], [y], "o", color=color)
        axes.set_yticks(positions, [clean_text(method, 34) for method in ranks.methods])
        axes.set_xlim(left=max(axes.get_xlim()[0], 0.5))
        axes.set_xlabel("mean rank (1: best)")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(axis="y", visible=False)

    caption = (
        f"Mean rank over {ranks.blocks} comparisons. Methods whose bars overlap cannot be told "
        f"apart (critical difference {number_text(ranks.critical)}, 5 %); the shaded ones cannot "
        "be told "
        "from the best."
        if half
        else "Mean rank in one comparison, which is too few to tell methods apart."
    )
    return render_plot("ranks", caption, paint, height=1.0 + 0.28 * len(ranks.methods))


def cost_plot(
    method_costs: pd.DataFrame, column: str, label: str, *, minimum: float = 0.0
) -> Plot | None:
    """Bar plot of a cost per method; values below `minimum` are raised to it."""
    costs = method_costs[np.isfinite(pd.to_numeric(method_costs[column], errors="coerce"))]
    if costs.empty:
        return None
    costs = costs.sort_values([column, "method"], ascending=[False, True])
    values = np.maximum(costs[column].to_numpy(dtype=float), minimum)

    def paint(axes: Axes) -> None:
        positions = np.arange(len(values))
        axes.barh(positions, values, color=SERIES[0], height=0.65)
        axes.set_yticks(positions, [clean_text(method, 34) for method in costs["method"]])
        if values.min() > 0 and values.max() > 50 * values.min():
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
            axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel(label)
        axes.grid(axis="y", visible=False)

    cheapest = f"{clean_text(costs['method'].iloc[-1], 34)} {number_text(values[-1])}"
    costliest = f"{clean_text(costs['method'].iloc[0], 34)} {number_text(values[0])}"
    caption = f"Cost of each method, {label}: from {cheapest} to {costliest}."
    return render_plot(f"cost_{column}", caption, paint, height=1.0 + 0.25 * len(values))


def _line_style(method: str, best_methods: list[str], baseline: str, oracle: str) -> dict[str, Any]:
    if method == baseline:
        return {"color": RANDOM, "linestyle": "--", "linewidth": 1.8}
    if method == oracle:
        return {"color": INK, "linestyle": ":", "linewidth": 1.5}
    if method in best_methods:
        colors = [color for color in SERIES if color not in (RANDOM, POOL)]
        return {"color": colors[best_methods.index(method) % len(colors)], "linewidth": 1.8}
    return {"color": POOL, "linewidth": 0.9, "alpha": 0.7}


def _marker(method: str, best_methods: list[str]) -> dict[str, Any]:
    is_best = method in best_methods
    return (
        {"marker": _MARKS[best_methods.index(method) % len(_MARKS)], "markersize": 4}
        if is_best
        else {}
    )


def budget_text(value: float, _: int | None = None) -> str:
    """Budget as a number of rows, or as per cent if it is a share.

    Example:
        >>> budget_text(0.025), budget_text(5000)
        ('2.5 %', '5,000')
    """
    return f"{100 * value:g} %" if value <= 1 else f"{value:,.0f}"
