"""The page of the information metrics: what each is in every group, as pictures and tables."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from gio_spark.report.draw import POOL, RANDOM, SELECTION, TARGET, Drawn, draw
from gio_spark.report.render import inline, save_figures, save_page, write
from gio_spark.report.tables import TableText
from gio_spark.report.text import clean, place, real, whole

PAGE = "metrics.html"
MOST_GROUPS = 24
MOST_COLUMNS = 8
MAX_FORMS = 600
_COLOURS = {"pool": POOL, "selected": SELECTION, "random": RANDOM, "target": TARGET}
_WORDS = {"more": "more is better", "less": "less is better", "unknown": ""}
_TIME = re.compile(r"\d{4}(-\d{2}){0,2}")


def render_metrics(
    figures: pd.DataFrame,
    folder: Path,
    *,
    title: str = "Information metrics",
    facts: Mapping[str, str] | None = None,
    cautions: Sequence[tuple[str, str, str]] = (),
) -> Path:
    """Write the page of a table's metrics, its figures as PNG and all values as CSV.

    Args:
        figures: rows of group, metric, form, value, unit, direction, exactness, rows, nulls,
            caveat.
        folder: local folder; `metrics.html`, `metrics.csv` and the PNG files are replaced there.
        title: heading.
        facts: lines for the head of the page (table, version, profile, grouping).
        cautions: name, text and remedy of what a reader must know.

    Returns:
        Path of the HTML file.

    Raises:
        OSError: when the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawn = metric_plots(figures)
    save_figures(drawn, folder)
    write(folder / "metrics.csv", figures.to_csv(index=False).encode())
    return save_page(
        folder / PAGE,
        "evaluation.html",
        title=clean(title, 120),
        run=[(clean(k, 60), place(v, 300)) for k, v in (facts or {}).items()],
        summary=_summary(figures),
        cautions=[(clean(a, 80), clean(b, 600), clean(c, 400)) for a, b, c in cautions],
        figures=inline(drawn),
        tables=[t for t in (metric_table(figures), _forms(figures)) if t.rows],
    )


def order_of(figures: pd.DataFrame) -> list[str]:
    """Groups as they are shown: points in time in order, others by size."""
    sizes = figures.groupby("group")["rows"].max().fillna(0)
    names = [str(g) for g in sizes.index]
    if len(names) > 1 and all(_TIME.fullmatch(n) for n in names):
        return sorted(names)
    first = {name: at for at, name in enumerate(_COLOURS)}
    return sorted(names, key=lambda n: (first.get(n, len(first)), -float(sizes[n]), n))


def _summary(figures: pd.DataFrame) -> list[str]:
    robust = figures[figures["form"] == "robust"]
    groups = order_of(figures)
    rows = int(figures.groupby("group")["rows"].max().sum())
    what = (
        f"{whole(robust['metric'].nunique())} metrics of {whole(rows)} rows in "
        f"{whole(len(groups))} group{'' if len(groups) == 1 else 's'}. "
        "Each picture shows the robust form; literal and further forms are in the last table."
    )
    said = [what]
    missing = robust[robust["value"].isna()]
    if len(missing):
        first = missing.drop_duplicates("metric")
        reasons = ", ".join(
            f"{clean(m, 40).replace('_', ' ')} ({clean(c, 80)})"
            for m, c in zip(first["metric"], first["caveat"], strict=True)
        )
        said.append(f"Without a value in some group: {reasons}.")
    return said


def metric_plots(figures: pd.DataFrame) -> list[Drawn]:
    """Draw each robust metric by group: a line over time, else bars; at most 24 groups."""
    groups = order_of(figures)
    if len(groups) < 2:
        return []
    over_time = all(_TIME.fullmatch(g) for g in groups)
    shown = groups if over_time else groups[:MOST_GROUPS]
    robust = figures[(figures["form"] == "robust") & figures["group"].isin(shown)]
    drawn = []
    for metric, part in robust.groupby("metric", sort=False):
        values = part.set_index("group")["value"].astype(float).reindex(shown)
        if values.notna().sum() < 2:
            continue
        drawn.append(_plot(str(metric), values, part.iloc[0], over_time, len(groups)))
    return drawn


def _plot(metric: str, values: pd.Series, first: pd.Series, over_time: bool, groups: int) -> Drawn:
    name = metric.replace("_", " ")
    unit = f"{name} ({clean(first['unit'], 24)})"
    better = _WORDS.get(str(first["direction"]), "")

    def paint(axes: Axes) -> None:
        if over_time:
            at = np.arange(len(values))
            axes.plot(at, values.to_numpy(), color=SELECTION, linewidth=1.8, marker="o",
                      markersize=3 if len(values) < 60 else 0)  # fmt: skip
            step = max(1, len(values) // 6)
            axes.set_xticks(at[::step], list(values.index[::step]))
            axes.set_ylabel(unit)
        else:
            at = np.arange(len(values))[::-1]
            colours = [_COLOURS.get(g.split(" | ")[0], SELECTION) for g in values.index]
            axes.barh(at, values.to_numpy(), color=colours, height=0.68)
            axes.set_yticks(at, [clean(g, 28) for g in values.index])
            axes.set_xlabel(unit)
            axes.grid(axis="y", visible=False)
            if np.nanmax(np.abs(values.to_numpy())) >= 10_000:
                axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: _short(v)))
            axes.locator_params(axis="x", nbins=6)
        axes.set_title(better, loc="left", fontsize=9)

    known = values.dropna()
    least, most = clean(known.idxmin(), 40), clean(known.idxmax(), 40)
    caption = (
        f"{name.capitalize()}: least in {least} ({real(known.min())}), most in {most} "
        f"({real(known.max())})."
    )
    if len(values) < groups:
        caption += f" The {len(values)} largest of {groups:,} groups."
    height = 2.6 if over_time else 1.1 + 0.24 * len(values)
    return draw(f"metric_{metric.replace('/', '_')}", caption, paint, height=height)


def _short(value: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def metric_table(figures: pd.DataFrame, most: int = MOST_COLUMNS) -> TableText:
    """One line a metric and one column a group, with unit, direction, exactness, nulls."""
    groups = order_of(figures)
    shown = groups[:most]
    robust = figures[figures["form"] == "robust"]
    sizes = figures.groupby("group")["rows"].max()
    unmeasured: dict[str, list[str]] = {}
    rows = [["rows", "rows", "", "exact", *(whole(sizes.get(g)) for g in shown), ""]]
    for metric, part in robust.groupby("metric", sort=False):
        first = part.iloc[0]
        values = dict(zip(part["group"], part["value"], strict=True))
        nulls = int(part["nulls"].fillna(0).sum())
        if part["value"].isna().all():
            caveat = next((c for c in part["caveat"].fillna("") if c), "no value")
            unmeasured.setdefault(clean(caveat, 90), []).append(clean(metric, 40).replace("_", " "))
        rows.append(
            [
                clean(metric, 40).replace("_", " "),
                clean(first["unit"], 24),
                clean(first["direction"], 10),
                _exactness(part),
                *(real(values.get(g)) for g in shown),
                whole(nulls),
            ]
        )
    note = " ".join(f"No {', '.join(names)}: {why}." for why, names in unmeasured.items())
    if len(groups) > most:
        note += f" {most} of {len(groups):,} groups; metrics.csv has all of them."
    return TableText(
        "Metrics by group",
        ["metric", "unit", "better", "exactness", *(clean(g, 40) for g in shown), "nulls"],
        rows, [False] * 4 + [True] * (len(shown) + 1), note.strip(), id="metrics",
    )  # fmt: skip


def _exactness(part: pd.DataFrame) -> str:
    """ "exact", or the widest error bound (95 %) of the groups."""
    error = float(part["error"].fillna(0.0).max())
    return "exact" if error == 0 else f"±{error:.1%}"


def _forms(figures: pd.DataFrame) -> TableText:
    groups = order_of(figures)[:MOST_COLUMNS]
    other = figures[(figures["form"] != "robust") & figures["group"].isin(groups)]
    rows = []
    for (metric, form), part in other.groupby(["metric", "form"], sort=False):
        first = part.iloc[0]
        values = dict(zip(part["group"], part["value"], strict=True))
        rows.append(
            [
                clean(metric, 40).replace("_", " "),
                clean(form, 30).replace("_", " "),
                clean(first["unit"], 24),
                clean(first["direction"], 10),
                _exactness(part),
                *(real(values.get(g)) for g in groups),
                clean(next((c for c in part["caveat"].fillna("") if c), ""), 90),
            ]
        )
    columns = ["metric", "form", "unit", "better", "exactness", *(clean(g, 40) for g in groups)]
    return TableText(
        "Literal and further forms", [*columns, "caveat"], rows[:MAX_FORMS],
        [False] * 5 + [True] * len(groups) + [False], open=False, id="forms",
    )  # fmt: skip
