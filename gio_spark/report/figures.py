"""The figures of a run's report, each from plain numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter, PercentFormatter

from gio_spark.report.data import Calibration, Divergence, Points, ReportData
from gio_spark.report.draw import GRID, INK, POOL, RANDOM, SELECTION, TARGET, Drawn, draw
from gio_spark.report.elbow import elbow
from gio_spark.report.text import clean, percent, real, whole

FEW_CLUSTERS = 40
MANY_SOURCES = 12
MAX_POINTS = 3000
MAX_PATH = 1000


def figures(data: ReportData) -> list[Drawn]:
    """Figures that the data has numbers for, in the order of the page."""
    drawn = [
        verdict(data.divergence, data.rows_selected),
        path(data.divergence),
        points(data.points),
        clusters(data.plan),
        sources(data.sources),
        calibration(data.calibration),
        elbow(data.error_curve, len(data.plan)),
    ]
    return [figure for figure in drawn if figure is not None]


def verdict(divergence: Divergence, rows: int) -> Drawn | None:
    """Draw the distance to the target of pool, random rows and selection as bars."""
    bars = [
        ("whole pool", divergence.pool, POOL),
        (f"{rows:,} random rows", divergence.random, RANDOM),
        (f"{rows:,} selected rows", divergence.selection, SELECTION),
    ]
    known = [(name, v, c) for name, v, c in bars if v is not None and np.isfinite(v)]
    if len(known) < 2:
        return None

    def paint(axes: Axes) -> None:
        at = np.arange(len(known))[::-1]
        values = [v for _, v, _ in known]
        axes.barh(at, values, color=[c for _, _, c in known], height=0.6)
        axes.set_yticks(at, [name for name, _, _ in known])
        top = max(0.0, *values)
        for y, value in zip(at, values, strict=True):
            axes.text(max(value, 0) + top * 0.015, y, real(value), va="center")
        axes.set_xlim(min(0.0, *values), top * 1.14 or 1.0)
        axes.set_xlabel(f"{divergence.unit} (shorter: nearer to the target)")
        axes.grid(axis="y", visible=False)

    said = ", ".join(f"{name} {real(v)}" for name, v, _ in known)
    caption = f"How far from the target, in {divergence.unit}: {said}. {divergence.name}."
    return draw("divergence", caption, paint, height=2.3)


def path(divergence: Divergence) -> Drawn | None:
    """Draw the divergence as rows are added."""
    if divergence.path is None or len(divergence.path) < 2:
        return None
    y = np.asarray(divergence.path, dtype=np.float64)
    if divergence.path_rows is None:
        x = np.arange(1, len(y) + 1, dtype=np.float64)
    else:
        x = np.asarray(divergence.path_rows, dtype=np.float64)
    fine = np.isfinite(y) & np.isfinite(x)
    x, y = x[fine], y[fine]
    if len(y) < 2:
        return None
    if len(y) > MAX_PATH:
        keep = np.unique(np.linspace(0, len(y) - 1, MAX_PATH).round().astype(int))
        x, y = x[keep], y[keep]

    def paint(axes: Axes) -> None:
        axes.plot(x, y, color=SELECTION, linewidth=2, label="selection, as it grows")
        axes.plot(x[-1:], y[-1:], "o", color=SELECTION)
        lines = (("random rows", divergence.random, RANDOM), ("whole pool", divergence.pool, POOL))
        for name, value, colour in lines:
            if value is not None and np.isfinite(value):
                style = "--" if colour == RANDOM else ":"
                axes.axhline(value, color=colour, linestyle=style, linewidth=1.5, label=name)
        _log_if_wide(axes, y)
        counts = divergence.path_rows is not None
        axes.set_xlabel("rows taken" if counts else "clusters taken")
        axes.set_ylabel(divergence.unit)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: _short(v)))
        axes.legend()

    caption = (
        f"Divergence from the target while rows are added: from {real(y[0])} to {real(y[-1])} "
        f"{divergence.unit}."
    )
    return draw("divergence_path", caption, paint)


def points(cloud: Points | None) -> Drawn | None:
    """Draw target, pool and selection in two dimensions, side by side on one scale."""
    if cloud is None or not len(cloud.pool):
        return None
    parts = [_bounded(a) for a in (cloud.pool, cloud.target, cloud.selection)]
    pool, target, selection = parts

    def paint(left: Axes, right: Axes) -> None:
        for axes, cover, colour, name in (
            (left, pool, POOL, "pool"),
            (right, selection, SELECTION, "selection"),
        ):
            axes.scatter(
                cover[:, 0],
                cover[:, 1],
                s=7,
                color=colour,
                alpha=0.45,
                linewidths=0,
                rasterized=True,
                label=name,
            )
            axes.scatter(
                target[:, 0],
                target[:, 1],
                s=11,
                color=TARGET,
                alpha=0.6,
                marker="^",
                linewidths=0,
                rasterized=True,
                label="target",
            )
            axes.set_title(f"{name} and target")
            axes.set_xticks([])
            axes.set_yticks([])
            marks = axes.legend(loc="best", markerscale=1.8)
            for mark in marks.legend_handles:
                if mark is not None:
                    mark.set_alpha(1)

    shown = "" if cloud.explained is None else f", {percent(cloud.explained)} of the variance"
    caption = (
        "Samples of the vectors in their two main directions"
        f"{shown}: pool and selection, each with the target on top. Where the right cloud covers "
        "the triangles and little else, the selection looks like the target."
    )
    return draw("points", caption, paint, panels=2, width=7.4, height=3.6)


def clusters(plan: pd.DataFrame) -> Drawn | None:
    """Draw shares per cluster of pool, target and selection."""
    if len(plan) < 2:
        return None
    pool, target, taken = (_share(plan[c]) for c in ("rows", "target_mass", "take"))
    return (
        _few_clusters(plan, pool, target, taken)
        if len(plan) <= FEW_CLUSTERS
        else _many(pool, target, taken)
    )


def _few_clusters(plan: pd.DataFrame, pool: Any, target: Any, taken: Any) -> Drawn:
    order = np.argsort(-target, kind="stable")
    names = plan["cluster"].astype(str).to_numpy()[order]

    def paint(axes: Axes) -> None:
        at = np.arange(len(order))
        axes.bar(at - 0.27, pool[order], 0.27, color=POOL, label="pool")
        axes.bar(at, taken[order], 0.27, color=SELECTION, label="selection")
        axes.bar(at + 0.27, target[order], 0.27, color=TARGET, label="target", hatch="///")
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        size = 9.5 if len(order) <= 20 else 7
        axes.set_xticks(at, names, fontsize=size, rotation=90 if len(order) > 15 else 0)
        axes.set_xlabel("cluster, by share of the target")
        axes.grid(axis="x", visible=False)
        _legend_above(axes)

    caption = (
        "Share of each cluster in the pool, in the selection and in the target. The blue and the "
        "orange bar should be as high as each other."
    )
    return draw("clusters", caption, paint)


def _many(pool: Any, target: Any, taken: Any) -> Drawn:
    floor = 0.3 / max(len(pool), 1) / 10
    some = (target > 0) | (taken > 0)

    def paint(axes: Axes) -> None:
        def up(a: Any) -> Any:
            return np.maximum(a, floor)

        axes.loglog(
            up(target[some]),
            up(pool[some]),
            ".",
            color=POOL,
            alpha=0.5,
            markersize=5,
            rasterized=True,
            label="pool",
        )
        axes.loglog(
            up(target[some]),
            up(taken[some]),
            "o",
            color=SELECTION,
            alpha=0.6,
            markersize=3.5,
            markeredgewidth=0,
            rasterized=True,
            label="selection",
        )
        high = float(max(target.max(), taken.max(), pool.max())) * 1.5
        axes.plot([floor, high], [floor, high], color=INK, linewidth=1, label="same as the target")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{100 * v:.4g} %"))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{100 * v:.4g} %"))
        axes.set_xlabel("cluster's share of the target")
        axes.set_ylabel("its share of pool, selection")
        _legend_above(axes, markerscale=2)

    caption = (
        f"Each of {int(some.sum()):,} clusters by its share of the target and its share of the "
        "selection (blue) and of the pool (grey). On the line: as in the target; below it: less "
        f"than in the target. Shares below {100 * floor:.2g} % stand at the edge."
    )
    return draw("clusters", caption, paint)


def sources(table: pd.DataFrame | None) -> Drawn | None:
    """Draw shares per source before and after, and in the target where it is known."""
    if table is None or not len(table):
        return None
    parts = [("pool", POOL), ("selected", SELECTION)]
    if "target" in table.columns and table["target"].fillna(0).sum() > 0:
        parts.append(("target", TARGET))
    shares = pd.DataFrame({name: _share(table[name]) for name, _ in parts})
    order = shares.max(axis=1).to_numpy().argsort(kind="stable")[::-1]
    names = [clean(v, 26) or "(none)" for v in table["source"]]
    top = order if len(order) <= MANY_SOURCES else order[: MANY_SOURCES - 1]
    rows = [(names[i], shares.iloc[i].to_numpy()) for i in top]
    if len(order) > len(top):
        rest = shares.iloc[order[len(top) :]].sum().to_numpy()
        rows.append((f"{len(order) - len(top):,} others", rest))

    def paint(axes: Axes) -> None:
        at = np.arange(len(rows))[::-1]
        thick = 0.8 / len(parts)
        for place, (name, colour) in enumerate(parts):
            values = [share[place] for _, share in rows]
            offset = 0.4 - thick * (place + 0.5)
            hatch = "///" if name == "target" else None
            label = "selection" if name == "selected" else name
            axes.barh(at + offset, values, thick * 0.92, color=colour, label=label, hatch=hatch)
        axes.set_yticks(at, [name for name, _ in rows])
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.set_xlabel("share of rows")
        axes.grid(axis="y", visible=False)
        _legend_above(axes)

    caption = "Share of each source in the pool, in the selection" + (
        " and in the target." if len(parts) == 3 else "."
    )
    return draw("sources", caption, paint, height=max(2.4, 0.9 + 0.36 * len(rows)))


def calibration(bins: Calibration | None) -> Drawn | None:
    """Draw observed against predicted share of target rows, per bin."""
    if bins is None or not len(bins.predicted):
        return None
    predicted, observed, sizes = (
        np.asarray(a, dtype=np.float64)[np.argsort(bins.predicted, kind="stable")]
        for a in (bins.predicted, bins.observed, bins.rows)
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
        f"How far the probabilities of the {clean(bins.name)} can be trusted: on the line they "
        f"mean what they say.{auc}"
    )
    return draw("calibration", caption, paint)


def _share(column: Any) -> Any:
    values = np.nan_to_num(np.asarray(column, dtype=np.float64))
    total = values.sum()
    return values / total if total > 0 else values


def _bounded(cloud: Any) -> Any:
    matrix = np.asarray(cloud, dtype=np.float64).reshape(-1, 2)
    matrix = matrix[np.isfinite(matrix).all(axis=1)]
    if len(matrix) > MAX_POINTS:
        matrix = matrix[np.linspace(0, len(matrix) - 1, MAX_POINTS).astype(int)]
    return matrix


def _legend_above(axes: Axes, **look: Any) -> None:
    """Put the legend in a row above the axes, where it hides nothing."""
    axes.legend(ncols=3, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2, **look)


def _log_if_wide(axes: Axes, values: Any) -> None:
    positive = values[values > 0]
    if len(positive) == len(values) and values.max() > 100 * values.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    elif values.min() >= 0:
        axes.set_ylim(bottom=0)


def _short(value: float) -> str:
    for limit, mark in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:g}{mark}"
    return whole(value)
