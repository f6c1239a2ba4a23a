"""The figures of a bake-off: score against budget, mean ranks, costs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from gio_spark.report import scores
from gio_spark.report.draw import INK, POOL, RANDOM, SERIES, Drawn, draw
from gio_spark.report.text import clean, real

_MARKS = "os^Dv*PX"


def score_plot(
    middle: pd.DataFrame,
    cells: pd.DataFrame,
    pair: tuple[str, str],
    strong: list[str],
    baseline: str,
    oracle: str,
    place: int,
) -> Drawn | None:
    """Draw score against budget with intervals; the strongest in colour, the others in grey."""
    task, measure = pair
    here = middle[(middle["task"] == task) & (middle["measure"] == measure)]
    if here.empty:
        return None
    better = bool(cells.loc[cells["measure"] == measure, "higher_is_better"].iloc[0])
    methods = list(dict.fromkeys(here["method"]))
    top = [m for m in (*strong, baseline, oracle) if m in methods]
    rest = [m for m in methods if m not in top]
    span = here["budget"].astype(float)
    several = here.groupby("method")["budget"].nunique().max() > 1

    # What is far worse than everything in colour would press the rest into one line.
    coloured = here.loc[here["method"].isin(top), "mean"].to_numpy(dtype=float)
    low, high = (coloured.min(), coloured.max()) if len(coloured) else (0.0, 0.0)
    room = 0.5 * (high - low)
    values = here["mean"].to_numpy(dtype=float)
    cut = bool(room > 0 and (values.min() < low - room or values.max() > high + room))

    def paint(axes: Axes) -> None:
        for method in (*rest, *top[::-1]):
            line = here[here["method"] == method].sort_values("budget")
            x, y, half = (line[c].to_numpy(dtype=float) for c in ("budget", "mean", "half"))
            look = _look(method, strong, baseline, oracle)
            named = method in top or len(x) == 1
            label = clean(method, 28) if named else None
            if len(x) == 1 and several:
                level = {"color": INK, "linestyle": "-.", "linewidth": 1}
                axes.axhline(y[0], label=label, **(look if method in top else level))
                continue
            axes.plot(x, y, label=label, **look, **_mark(method, strong))
            if method in top and np.isfinite(half).any():
                band = np.nan_to_num(half)
                axes.fill_between(x, y - band, y + band, color=look["color"], alpha=0.15, lw=0)
        if span.min() > 0 and span.max() > 4 * span.min():
            axes.set_xscale("log")
            axes.xaxis.set_minor_formatter(NullFormatter())
            ticks = np.unique(span)
            axes.set_xticks(ticks[:: max(1, len(ticks) // 6)])
        if cut:
            now = axes.get_ylim()
            axes.set_ylim(max(now[0], low - room), min(now[1], high + room))
        axes.xaxis.set_major_formatter(FuncFormatter(budget_text))
        axes.set_xlabel("budget")
        axes.set_ylabel(f"{clean(measure, 40)} ({'higher' if better else 'lower'} is better)")
        axes.set_title(clean(task, 60))
        lines, names = axes.get_legend_handles_labels()
        figure = axes.get_figure()
        if figure is not None:
            figure.legend(lines[::-1], names[::-1], loc="outside lower center", ncols=2, fontsize=8)

    # A method with one budget is a level line of its own and named.
    unnamed = [m for m in rest if not several or (here["method"] == m).sum() > 1]
    many = f"{len(unnamed)} more methods are" if len(unnamed) > 1 else "One more method is"
    grey = f" {many} grey; the table has them all." if unnamed else ""
    caption = (
        f"{clean(task, 60)}: {clean(measure, 40)} against budget, mean over seeds with its 95 % "
        f"interval.{grey}{' Some of them leave the picture.' if cut else ''}"
    )
    return draw(f"scores_{place + 1:02d}", caption, paint, height=4.6)


def rank_plot(found: scores.Ranks, baseline: str) -> Drawn | None:
    """Draw mean ranks with bars as wide as the critical difference (Nemenyi)."""
    if len(found.methods) < 2 or not found.blocks:
        return None
    half = found.critical / 2 if np.isfinite(found.critical) else 0.0

    def paint(axes: Axes) -> None:
        at = np.arange(len(found.methods))[::-1]
        if half:
            axes.axvspan(found.mean[0] - half, found.mean[0] + half, color=SERIES[0], alpha=0.12)
        for y, method, rank in zip(at, found.methods, found.mean, strict=True):
            alike = rank - half <= found.mean[0] + half
            colour = RANDOM if method == baseline else SERIES[0] if alike else POOL
            axes.plot([rank - half, rank + half], [y, y], color=colour, linewidth=2)
            axes.plot([rank], [y], "o", color=colour)
        axes.set_yticks(at, [clean(m, 34) for m in found.methods])
        axes.set_xlim(left=max(axes.get_xlim()[0], 0.5))
        axes.set_xlabel("mean rank (1: best)")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(axis="y", visible=False)

    caption = (
        f"Mean rank over {found.blocks} comparisons. Methods whose bars overlap cannot be told "
        f"apart (critical difference {real(found.critical)}, 5 %); the shaded ones cannot be told "
        "from the best."
        if half
        else "Mean rank in one comparison, which is too few to tell methods apart."
    )
    return draw("ranks", caption, paint, height=1.0 + 0.28 * len(found.methods))


def cost_plot(cost: pd.DataFrame, column: str, label: str, *, least: float = 0.0) -> Drawn | None:
    """Draw one cost per method as bars; what is below `least` is drawn as that much."""
    known = cost[np.isfinite(pd.to_numeric(cost[column], errors="coerce"))]
    if known.empty:
        return None
    known = known.sort_values([column, "method"], ascending=[False, True])
    values = np.maximum(known[column].to_numpy(dtype=float), least)

    def paint(axes: Axes) -> None:
        at = np.arange(len(values))
        axes.barh(at, values, color=SERIES[0], height=0.65)
        axes.set_yticks(at, [clean(m, 34) for m in known["method"]])
        if values.min() > 0 and values.max() > 50 * values.min():
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
            axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel(label)
        axes.grid(axis="y", visible=False)

    said = f"{clean(known['method'].iloc[-1], 34)} {real(values[-1])}"
    most = f"{clean(known['method'].iloc[0], 34)} {real(values[0])}"
    caption = f"Cost of each method, {label}: from {said} to {most}."
    return draw(f"cost_{column}", caption, paint, height=1.0 + 0.25 * len(values))


def _look(method: str, strong: list[str], baseline: str, oracle: str) -> dict[str, Any]:
    if method == baseline:
        return {"color": RANDOM, "linestyle": "--", "linewidth": 1.8}
    if method == oracle:
        return {"color": INK, "linestyle": ":", "linewidth": 1.5}
    if method in strong:
        colours = [c for c in SERIES if c not in (RANDOM, POOL)]
        return {"color": colours[strong.index(method) % len(colours)], "linewidth": 1.8}
    return {"color": POOL, "linewidth": 0.9, "alpha": 0.7}


def _mark(method: str, strong: list[str]) -> dict[str, Any]:
    known = method in strong
    return {"marker": _MARKS[strong.index(method) % len(_MARKS)], "markersize": 4} if known else {}


def budget_text(value: float, _: int | None = None) -> str:
    """Budget as rows, or as per cent where it is a share."""
    return f"{100 * value:g} %" if value <= 1 else f"{value:,.0f}"
