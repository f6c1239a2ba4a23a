"""Page of the information metrics: plots and tables of every metric by group."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from gio_spark.report.html_page import inline_plots, save_page, save_plots, write_file
from gio_spark.report.plot_rendering import POOL, RANDOM, SELECTION, TARGET, Plot, render_plot
from gio_spark.report.run_tables import TableText
from gio_spark.report.text_format import clean_text, count_text, location_text, number_text

PAGE = "metrics.html"
MAX_GROUPS = 24
MAX_COLUMNS = 8
MAX_FORMS = 600
_COLORS = {"pool": POOL, "selected": SELECTION, "random": RANDOM, "target": TARGET}
_DIRECTION_TEXT = {"more": "more is better", "less": "less is better", "unknown": ""}
_TIME = re.compile(r"\d{4}(-\d{2}){0,2}")


def render_metrics(
    metric_values: pd.DataFrame,
    folder: Path,
    *,
    title: str = "Information metrics",
    facts: Mapping[str, str] | None = None,
    warnings: Sequence[tuple[str, str, str]] = (),
) -> Path:
    """Write the page of a table's metrics, its plots as PNG and all values as CSV.

    Args:
        metric_values: Columns group, metric, form, value, unit, direction, exactness, rows, nulls,
            caveat.
        folder: Local folder; `metrics.html`, `metrics.csv` and the PNG files are replaced.
        title: Heading.
        facts: Lines for the head of the page (table, version, profile, grouping).
        warnings: Name, text and remedy of each warning.

    Returns:
        Path of the HTML file.

    Raises:
        OSError: The folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    plots = metric_plots(metric_values)
    save_plots(plots, folder)
    write_file(folder / "metrics.csv", metric_values.to_csv(index=False).encode())
    return save_page(
        folder / PAGE,
        "evaluation.html",
        title=clean_text(title, 120),
        run=[
            (clean_text(label, 60), location_text(text, 300))
            for label, text in (facts or {}).items()
        ],
        summary=_summary(metric_values),
        warnings=[
            (clean_text(name, 80), clean_text(description, 600), clean_text(remedy, 400))
            for name, description, remedy in warnings
        ],
        plots=inline_plots(plots),
        tables=[
            table for table in (metric_table(metric_values), _forms(metric_values)) if table.rows
        ],
    )


def ordered_groups(metric_values: pd.DataFrame) -> list[str]:
    """Groups in display order: points in time ascending, other groups by size."""
    sizes = metric_values.groupby("group")["rows"].max().fillna(0)
    names = [str(group) for group in sizes.index]
    if len(names) > 1 and all(_TIME.fullmatch(name) for name in names):
        return sorted(names)
    preferred = {name: position for position, name in enumerate(_COLORS)}
    return sorted(
        names, key=lambda name: (preferred.get(name, len(preferred)), -float(sizes[name]), name)
    )


def _summary(metric_values: pd.DataFrame) -> list[str]:
    robust = metric_values[metric_values["form"] == "robust"]
    groups = ordered_groups(metric_values)
    rows = int(metric_values.groupby("group")["rows"].max().sum())
    overview = (
        f"{count_text(robust['metric'].nunique())} metrics of {count_text(rows)} rows in "
        f"{count_text(len(groups))} group{'' if len(groups) == 1 else 's'}. "
        "Each picture shows the robust form; literal and further forms are in the last table."
    )
    sentences = [overview]
    missing = robust[robust["value"].isna()]
    if len(missing):
        first = missing.drop_duplicates("metric")
        reasons = ", ".join(
            f"{clean_text(metric, 40).replace('_', ' ')} ({clean_text(caveat, 80)})"
            for metric, caveat in zip(first["metric"], first["caveat"], strict=True)
        )
        sentences.append(f"Without a value in some group: {reasons}.")
    return sentences


def metric_plots(metric_values: pd.DataFrame) -> list[Plot]:
    """Plots of the robust metrics by group: lines over time, else bars of at most 24 groups."""
    groups = ordered_groups(metric_values)
    if len(groups) < 2:
        return []
    over_time = all(_TIME.fullmatch(group) for group in groups)
    shown_groups = groups if over_time else groups[:MAX_GROUPS]
    robust = metric_values[
        (metric_values["form"] == "robust") & metric_values["group"].isin(shown_groups)
    ]
    plots = []
    for metric, part in robust.groupby("metric", sort=False):
        values = part.set_index("group")["value"].astype(float).reindex(shown_groups)
        if values.notna().sum() < 2:
            continue
        plots.append(_plot(str(metric), values, part.iloc[0], over_time, len(groups)))
    return plots


def _plot(metric: str, values: pd.Series, first: pd.Series, over_time: bool, groups: int) -> Plot:
    name = metric.replace("_", " ")
    unit = f"{name} ({clean_text(first['unit'], 24)})"
    better = _DIRECTION_TEXT.get(str(first["direction"]), "")

    def paint(axes: Axes) -> None:
        if over_time:
            positions = np.arange(len(values))
            axes.plot(positions, values.to_numpy(), color=SELECTION, linewidth=1.8, marker="o",
                      markersize=3 if len(values) < 60 else 0)  # fmt: skip
            step = max(1, len(values) // 6)
            axes.set_xticks(positions[::step], list(values.index[::step]))
            axes.set_ylabel(unit)
        else:
            positions = np.arange(len(values))[::-1]
            colors = [_COLORS.get(group.split(" | ")[0], SELECTION) for group in values.index]
            axes.barh(positions, values.to_numpy(), color=colors, height=0.68)
            axes.set_yticks(positions, [clean_text(group, 28) for group in values.index])
            axes.set_xlabel(unit)
            axes.grid(axis="y", visible=False)
            if np.nanmax(np.abs(values.to_numpy())) >= 10_000:
                axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: _short_number(v)))
            axes.locator_params(axis="x", nbins=6)
        axes.set_title(better, loc="left", fontsize=9)

    known = values.dropna()
    least_group, largest_group = clean_text(known.idxmin(), 40), clean_text(known.idxmax(), 40)
    caption = (
        f"{name.capitalize()}: least in {least_group} ({number_text(known.min())}), most in "
        f"{largest_group} "
        f"({number_text(known.max())})."
    )
    if len(values) < groups:
        caption += f" The {len(values)} largest of {groups:,} groups."
    height = 2.6 if over_time else 1.1 + 0.24 * len(values)
    return render_plot(f"metric_{metric.replace('/', '_')}", caption, paint, height=height)


def _short_number(value: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def metric_table(metric_values: pd.DataFrame, max_columns: int = MAX_COLUMNS) -> TableText:
    """Table of metrics with one column per group, and unit, direction, exactness and nulls."""
    groups = ordered_groups(metric_values)
    shown_groups = groups[:max_columns]
    robust = metric_values[metric_values["form"] == "robust"]
    sizes = metric_values.groupby("group")["rows"].max()
    unmeasured: dict[str, list[str]] = {}
    rows = [
        ["rows", "rows", "", "exact", *(count_text(sizes.get(group)) for group in shown_groups), ""]
    ]
    for metric, part in robust.groupby("metric", sort=False):
        first = part.iloc[0]
        values = dict(zip(part["group"], part["value"], strict=True))
        nulls = int(part["nulls"].fillna(0).sum())
        if part["value"].isna().all():
            caveat = next((caveat for caveat in part["caveat"].fillna("") if caveat), "no value")
            unmeasured.setdefault(clean_text(caveat, 90), []).append(
                clean_text(metric, 40).replace("_", " ")
            )
        rows.append(
            [
                clean_text(metric, 40).replace("_", " "),
                clean_text(first["unit"], 24),
                clean_text(first["direction"], 10),
                _exactness(part),
                *(number_text(values.get(group)) for group in shown_groups),
                count_text(nulls),
            ]
        )
    note = " ".join(f"No {', '.join(names)}: {why}." for why, names in unmeasured.items())
    if len(groups) > max_columns:
        note += f" {max_columns} of {len(groups):,} groups; metrics.csv has all of them."
    return TableText(
        "Metrics by group",
        [
            "metric",
            "unit",
            "better",
            "exactness",
            *(clean_text(group, 40) for group in shown_groups),
            "nulls",
        ],
        rows,
        [False] * 4 + [True] * (len(shown_groups) + 1),
        note.strip(),
        id="metrics",
    )


def _exactness(part: pd.DataFrame) -> str:
    """Exactness of a metric: "exact", or the widest error bound (95 %) of the groups."""
    error = float(part["error"].fillna(0.0).max())
    return "exact" if error == 0 else f"±{error:.1%}"


def _forms(metric_values: pd.DataFrame) -> TableText:
    groups = ordered_groups(metric_values)[:MAX_COLUMNS]
    other = metric_values[(metric_values["form"] != "robust") & metric_values["group"].isin(groups)]
    rows = []
    for (metric, form), part in other.groupby(["metric", "form"], sort=False):
        first = part.iloc[0]
        values = dict(zip(part["group"], part["value"], strict=True))
        rows.append(
            [
                clean_text(metric, 40).replace("_", " "),
                clean_text(form, 30).replace("_", " "),
                clean_text(first["unit"], 24),
                clean_text(first["direction"], 10),
                _exactness(part),
                *(number_text(values.get(group)) for group in groups),
                clean_text(
                    next((caveat for caveat in part["caveat"].fillna("") if caveat), ""), 90
                ),
            ]
        )
    columns = [
        "metric",
        "form",
        "unit",
        "better",
        "exactness",
        *(clean_text(group, 40) for group in groups),
    ]
    return TableText(
        "Literal and further forms",
        [*columns, "caveat"],
        rows[:MAX_FORMS],
        [False] * 5 + [True] * len(groups) + [False],
        open=False,
        id="forms",
    )
