"""Plots of a run's report, from the values of `ReportData`."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter, PercentFormatter

from gio_spark.report.error_curve_plot import error_curve_plot
from gio_spark.report.plot_rendering import (
    GRID,
    INK,
    POOL,
    RANDOM,
    SELECTION,
    TARGET,
    Plot,
    render_plot,
)
from gio_spark.report.report_data import Calibration, Divergence, Points, ReportData
from gio_spark.report.text_format import (
    clean_text,
    clusters_text,
    count_text,
    number_text,
    percent_text,
)

FEW_CLUSTERS = 40
MANY_SOURCES = 12
MAX_POINTS = 3000
MAX_PATH = 1000


def run_plots(data: ReportData) -> list[Plot]:
    """Plots that the data has values for, in the order of the page."""
    plots = [
        divergence_plot(data.divergence, data.rows_selected),
        path_plot(data.divergence),
        points_plot(data.points),
        clusters_plot(data.plan),
        sources_plot(data.sources),
        calibration_plot(data.calibration),
        error_curve_plot(data.error_curve, len(data.plan)),
    ]
    return [plot for plot in plots if plot is not None]


def divergence_plot(divergence: Divergence, rows: int) -> Plot | None:
    """Bar plot of the divergence from the target of pool, random rows and selection."""
    bars = [
        ("whole pool", divergence.pool, POOL),
        (f"{rows:,} random rows", divergence.random, RANDOM),
        (f"{rows:,} selected rows", divergence.selection, SELECTION),
    ]
    finite_bars = [
        (name, value, color)
        for name, value, color in bars
        if value is not None and np.isfinite(value)
    ]
    if len(finite_bars) < 2:
        return None

    def paint(axes: Axes) -> None:
        positions = np.arange(len(finite_bars))[::-1]
        values = [value for _, value, _ in finite_bars]
        axes.barh(positions, values, color=[color for _, _, color in finite_bars], height=0.6)
        axes.set_yticks(positions, [name for name, _, _ in finite_bars])
        longest = max(0.0, *values)
        for y, value in zip(positions, values, strict=True):
            axes.text(max(value, 0) + longest * 0.015, y, number_text(value), va="center")
        axes.set_xlim(min(0.0, *values), longest * 1.14 or 1.0)
        axes.set_xlabel(f"{divergence.unit} (shorter: nearer to the target)")
        axes.grid(axis="y", visible=False)

    values_text = ", ".join(f"{name} {number_text(value)}" for name, value, _ in finite_bars)
    caption = f"How far from the target, in {divergence.unit}: {values_text}. {divergence.name}."
    return render_plot("divergence", caption, paint, height=2.3)


def path_plot(divergence: Divergence) -> Plot | None:
    """Plot of the divergence while rows are added."""
    if divergence.path is None or len(divergence.path) < 2:
        return None
    y = np.asarray(divergence.path, dtype=np.float64)
    if divergence.path_rows is None:
        x = np.arange(1, len(y) + 1, dtype=np.float64)
    else:
        x = np.asarray(divergence.path_rows, dtype=np.float64)
    is_finite = np.isfinite(y) & np.isfinite(x)
    x, y = x[is_finite], y[is_finite]
    if len(y) < 2:
        return None
    if len(y) > MAX_PATH:
        shown_points = np.unique(np.linspace(0, len(y) - 1, MAX_PATH).round().astype(int))
        x, y = x[shown_points], y[shown_points]

    def paint(axes: Axes) -> None:
        axes.plot(x, y, color=SELECTION, linewidth=2, label="selection, as it grows")
        axes.plot(x[-1:], y[-1:], "o", color=SELECTION)
        lines = (("random rows", divergence.random, RANDOM), ("whole pool", divergence.pool, POOL))
        for name, value, color in lines:
            if value is not None and np.isfinite(value):
                style = "--" if color == RANDOM else ":"
                axes.axhline(value, color=color, linestyle=style, linewidth=1.5, label=name)
        _log_if_wide(axes, y)
        has_rows = divergence.path_rows is not None
        axes.set_xlabel("rows taken" if has_rows else "clusters taken")
        axes.set_ylabel(divergence.unit)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: _short_number(v)))
        axes.legend()

    caption = (
        f"Divergence from the target while rows are added: from {number_text(y[0])} to "
        f"{number_text(y[-1])} "
        f"{divergence.unit}."
    )
    return render_plot("divergence_path", caption, paint)


def points_plot(cloud: Points | None) -> Plot | None:
    """Scatter plots of pool and selection, each with the target, on the same scale."""
    if cloud is None or not len(cloud.pool):
        return None
    pool, target, selection = (
        _thinned(part) for part in (cloud.pool, cloud.target, cloud.selection)
    )
    everything = np.concatenate([pool, target, selection])
    low, high = everything.min(axis=0), everything.max(axis=0)
    margin = 0.05 * np.where(high > low, high - low, 1.0)

    def paint_one(axes: Axes, rows: Any, color: str, name: str) -> None:
        axes.scatter(rows[:, 0], rows[:, 1], s=7, color=color, alpha=0.45, linewidths=0,
                     rasterized=True, label=name)  # fmt: skip
        axes.scatter(target[:, 0], target[:, 1], s=11, color=TARGET, alpha=0.6, marker="^",
                     linewidths=0, rasterized=True, label="target")  # fmt: skip
        axes.set_title(f"{name} and target")
        axes.set_xlim(low[0] - margin[0], high[0] + margin[0])
        axes.set_ylim(low[1] - margin[1], high[1] + margin[1])
        axes.set_xticks([])
        axes.set_yticks([])
        legend = axes.legend(loc="best", markerscale=1.8)
        for handle in legend.legend_handles:
            if handle is not None:
                handle.set_alpha(1)

    clouds = ((pool, POOL, "pool"), (selection, SELECTION, "selection"))

    def paint(*panels: Axes) -> None:
        for axes, one in zip(panels, clouds, strict=True):
            paint_one(axes, *one)

    explained = (
        "" if cloud.explained is None else f", {percent_text(cloud.explained)} of the variance"
    )
    caption = (
        "Samples of the vectors in their two main directions"
        f"{explained}: pool and selection, each with the target on top. Where the cloud of the "
        "selection covers the triangles and little else, the selection looks like the target."
    )
    # The file has both panels side by side; on the page a narrow screen shows one below the other.
    panels = [
        render_plot(
            f"points-{one[2]}", f"{one[2].capitalize()} and target",
            partial(paint_one, rows=one[0], color=one[1], name=one[2]), width=4.2, height=3.6,
        )
        for one in clouds
    ]  # fmt: skip
    both = render_plot("points", caption, paint, panels=2, width=7.4, height=3.6)
    return replace(both, svg="".join(panel.svg for panel in panels))


def clusters_plot(plan: pd.DataFrame) -> Plot | None:
    """Plot of the share of each cluster in pool, target and selection."""
    if len(plan) < 2:
        return None
    trained = "copies" if "copies" in plan else "take"
    pool, target, selected = (_share(plan[column]) for column in ("rows", "target_mass", trained))
    return (
        _few_clusters(plan, pool, target, selected)
        if len(plan) <= FEW_CLUSTERS
        else _many_clusters(pool, target, selected)
    )


def _few_clusters(plan: pd.DataFrame, pool: Any, target: Any, selected: Any) -> Plot:
    order = np.argsort(-target, kind="stable")
    names = plan["cluster"].astype(str).to_numpy()[order]

    def paint(axes: Axes) -> None:
        positions = np.arange(len(order))
        axes.bar(positions - 0.27, pool[order], 0.27, color=POOL, label="pool")
        axes.bar(positions, selected[order], 0.27, color=SELECTION, label="selection")
        axes.bar(positions + 0.27, target[order], 0.27, color=TARGET, label="target", hatch="///")
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        size = 9.5 if len(order) <= 20 else 7
        axes.set_xticks(positions, names, fontsize=size, rotation=90 if len(order) > 15 else 0)
        axes.set_xlabel("cluster, by share of the target")
        axes.grid(axis="x", visible=False)
        _legend_above(axes)

    caption = (
        "Share of each cluster in the pool, in the selection and in the target. The blue and the "
        "orange bar should be as high as each other."
    )
    return render_plot("clusters", caption, paint)


def _many_clusters(pool: Any, target: Any, selected: Any) -> Plot:
    floor = 0.3 / max(len(pool), 1) / 10
    is_used = (target > 0) | (selected > 0)

    def paint(axes: Axes) -> None:
        def at_least_floor(shares: Any) -> Any:
            return np.maximum(shares, floor)

        axes.loglog(
            at_least_floor(target[is_used]),
            at_least_floor(pool[is_used]),
            ".",
            color=POOL,
            alpha=0.5,
            markersize=5,
            rasterized=True,
            label="pool",
        )
        axes.loglog(
            at_least_floor(target[is_used]),
            at_least_floor(selected[is_used]),
            "o",
            color=SELECTION,
            alpha=0.6,
            markersize=3.5,
            markeredgewidth=0,
            rasterized=True,
            label="selection",
        )
        high = float(max(target.max(), selected.max(), pool.max())) * 1.5
        axes.plot([floor, high], [floor, high], color=INK, linewidth=1, label="same as the target")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{100 * v:.4g} %"))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{100 * v:.4g} %"))
        axes.set_xlabel("cluster's share of the target")
        axes.set_ylabel("its share of pool, selection")
        _legend_above(axes, markerscale=2)

    caption = (
        f"The {int(is_used.sum()):,} clusters with a share of target or selection, of "
        f"{clusters_text(len(pool), int((selected > 0).sum()))}: by their share of the target, and "
        "of selection (blue) and pool (grey). On the line: as in the target; below it: less "
        f"than in the target. Shares below {100 * floor:.2g} % stand at the edge."
    )
    return render_plot("clusters", caption, paint)


def sources_plot(table: pd.DataFrame | None) -> Plot | None:
    """Bar plot of the share of each source in pool, selection and, if known, target."""
    if table is None or not len(table):
        return None
    columns = [("pool", POOL), ("selected", SELECTION)]
    if "target" in table.columns and table["target"].fillna(0).sum() > 0:
        columns.append(("target", TARGET))
    shares = pd.DataFrame({name: _share(table[name]) for name, _ in columns})
    order = shares.max(axis=1).to_numpy().argsort(kind="stable")[::-1]
    names = [clean_text(v, 26) or "(none)" for v in table["source"]]
    largest = order if len(order) <= MANY_SOURCES else order[: MANY_SOURCES - 1]
    rows = [(names[i], shares.iloc[i].to_numpy()) for i in largest]
    if len(order) > len(largest):
        other_share = shares.iloc[order[len(largest) :]].sum().to_numpy()
        rows.append((f"{len(order) - len(largest):,} others", other_share))

    def paint(axes: Axes) -> None:
        positions = np.arange(len(rows))[::-1]
        bar_height = 0.8 / len(columns)
        for number, (name, color) in enumerate(columns):
            values = [share[number] for _, share in rows]
            offset = 0.4 - bar_height * (number + 0.5)
            hatch = "///" if name == "target" else None
            label = "selection" if name == "selected" else name
            axes.barh(
                positions + offset, values, bar_height * 0.92, color=color, label=label, hatch=hatch
            )
        axes.set_yticks(positions, [name for name, _ in rows])
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.set_xlabel("share of rows")
        axes.grid(axis="y", visible=False)
        _legend_above(axes)

    caption = "Share of each source in the pool, in the selection" + (
        " and in the target." if len(columns) == 3 else "."
    )
    return render_plot("sources", caption, paint, height=max(2.4, 0.9 + 0.36 * len(rows)))


def calibration_plot(bins: Calibration | None) -> Plot | None:
    """Plot of observed against predicted share of target rows, per bin."""
    if bins is None or not len(bins.predicted):
        return None
    predicted, observed, sizes = (
        np.asarray(column, dtype=np.float64)[np.argsort(bins.predicted, kind="stable")]
        for column in (bins.predicted, bins.observed, bins.rows)
    )
    sizes = 15 + 120 * sizes / max(sizes.max(), 1)

    def paint(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=GRID, linewidth=1.5)
        axes.plot(predicted, observed, color=SELECTION, linewidth=1)
        axes.scatter(predicted, observed, s=sizes, color=SELECTION, alpha=0.8)
        axes.set_xlim(-0.03, 1.03)
        axes.set_ylim(-0.03, 1.03)
        axes.set_xlabel("predicted probability of 'target'")
        axes.set_ylabel("observed share of target rows")

    auc = "" if bins.auc is None else f" AUC {bins.auc:.3f} (0.5: cannot tell them apart)."
    caption = (
        f"How far the probabilities of the {clean_text(bins.name)} can be trusted: on the line "
        "they "
        f"mean what they say.{auc}"
    )
    return render_plot("calibration", caption, paint)


def _share(column: Any) -> Any:
    values = np.nan_to_num(np.asarray(column, dtype=np.float64))
    total = values.sum()
    return values / total if total > 0 else values


def _thinned(cloud: Any) -> Any:
    matrix = np.asarray(cloud, dtype=np.float64).reshape(-1, 2)
    matrix = matrix[np.isfinite(matrix).all(axis=1)]
    if len(matrix) > MAX_POINTS:
        matrix = matrix[np.linspace(0, len(matrix) - 1, MAX_POINTS).astype(int)]
    return matrix


def _legend_above(axes: Axes, **options: Any) -> None:
    """Place the legend in a row above the axes."""
    axes.legend(ncols=3, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2, **options)


def _log_if_wide(axes: Axes, values: Any) -> None:
    positive = values[values > 0]
    if len(positive) == len(values) and values.max() > 100 * values.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    elif values.min() >= 0:
        axes.set_ylim(bottom=0)


def _short_number(value: float) -> str:
    for limit, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:g}{suffix}"
    return count_text(value)
