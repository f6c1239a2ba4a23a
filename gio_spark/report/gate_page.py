"""Page of the gate: thresholds, metrics of the selection, and metrics of other selections."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from scipy import stats

from gio_spark.report.html_page import inline_plots, save_page, save_plots, write_file
from gio_spark.report.plot_rendering import INK, POOL, RANDOM, SELECTION, TARGET, Plot, render_plot
from gio_spark.report.run_tables import TableText
from gio_spark.report.text_format import (
    clean_text,
    count_text,
    location_text,
    number_text,
    verdict_text,
)

PAGE = "gate.html"
WAYS = {
    "pool": "pool",
    "random": "random",
    "stratified": "stratified",
    "gime": "GIME",
    "gio": "GIO",
    "both": "both",
}
_MARKERS = {
    "pool": ("s", POOL), "random": ("D", RANDOM), "stratified": ("v", "#a08420"),
    "gime": ("^", "#3a9d78"), "gio": ("P", TARGET), "both": ("o", SELECTION),
}  # fmt: skip


def render_gate(
    checks: pd.DataFrame,
    ways: pd.DataFrame,
    folder: Path,
    *,
    verdict: Mapping[str, Any],
    passes: Mapping[str, bool],
    scores: pd.DataFrame | None = None,
    facts: Mapping[str, str] | None = None,
) -> Path:
    """Write the page of a verdict, its plot as PNG and its tables as CSV.

    Args:
        checks: Columns metric, value, bound, upper, direction, kind, passed, best.
        ways: Columns metric, unit, direction, and one column per way of selecting.
        folder: Local folder, created if missing.
        verdict: Items passed, why, notes, tries.
        passes: Way -> whether its selection would pass.
        scores: Columns way, rows, score, spread, draws, measure, proxy; None without labels.
        facts: Lines for the head of the page.

    Returns:
        Path of the HTML file.

    Raises:
        OSError: The folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    plots = [plot for plot in (gate_plot(checks, ways),) if plot is not None]
    save_plots(plots, folder)
    write_file(folder / "gate.csv", checks.to_csv(index=False).encode())
    write_file(folder / "ways.csv", ways.to_csv(index=False).encode())
    if scores is not None:
        write_file(folder / "scores.csv", scores.to_csv(index=False).encode())
    return save_page(
        folder / PAGE,
        "evaluation.html",
        title=f"Gate: {verdict_text(passed=bool(verdict['passed']), checks=len(checks))}",
        run=[
            (clean_text(name, 60), location_text(value, 300))
            for name, value in (facts or {}).items()
        ],
        summary=[clean_text(line, 600) for line in str(verdict["why"]).splitlines()],
        warnings=[("note of the gate", clean_text(note, 600), "") for note in verdict["notes"]],
        plots=inline_plots(plots),
        tables=[
            table
            for table in (
                check_table(checks),
                way_table(ways, checks, passes, scores),
                *([] if scores is None else [score_table(scores)]),
            )
            if table.rows
        ],
    )


def gate_plot(checks: pd.DataFrame, ways: pd.DataFrame) -> Plot | None:
    """Plot of each way between the worst and the best value per metric, with the bounds."""
    checked = checks[checks["metric"].isin(ways["metric"])]
    if checked.empty:
        return None
    values = ways.set_index("metric")
    names = [way for way in WAYS if way in ways.columns and way != "pool"]

    def paint(axes: Axes) -> None:
        for y, check in zip(np.arange(len(checked))[::-1], checked.to_dict("records"), strict=True):
            row = values.loc[check["metric"]]
            value_of_way = {way: float(row[way]) for way in names if np.isfinite(row[way])}
            ends = [*value_of_way.values(), float(check["bound"]), float(check["best"])]
            low, high = min(ends), max(ends)
            width = (high - low) or 1.0
            lower_is_better = check["direction"] == "less" and not _has_upper(check)

            def position(
                value: float,
                low: float = low,
                width: float = width,
                lower_is_better: bool = lower_is_better,
            ) -> float:
                share = (value - low) / width
                return 1 - share if lower_is_better else share

            bound = position(float(check["bound"]))
            upper = position(float(check["upper"])) if _has_upper(check) else 1.08
            axes.fill_betweenx([y - 0.34, y + 0.34], bound, min(upper, 1.08), color=SELECTION,
                               alpha=0.13, lw=0)  # fmt: skip
            axes.plot([bound, bound], [y - 0.34, y + 0.34], color=INK, linewidth=1.2)
            for way, value in value_of_way.items():
                marker, color = _MARKERS[way]
                size = 9 if way == "both" else 6
                axes.plot([position(value)], [y], marker, color=color, markersize=size, alpha=0.9)
        axes.set_yticks(
            np.arange(len(checked))[::-1],
            [clean_text(metric, 30).replace("_", " ") for metric in checked["metric"]],
        )
        axes.set_xticks([0, 1], ["worst of these", "best"])
        axes.set_xlim(-0.06, 1.08)
        axes.set_ylim(-0.6, len(checked) - 0.4)
        for way in names:
            marker, color = _MARKERS[way]
            axes.plot([], [], marker, color=color, label=WAYS[way])
        axes.grid(axis="y", visible=False)
        figure = axes.get_figure()
        if figure is not None:
            figure.legend(loc="outside lower center", ncols=3, fontsize=8.5)

    failed = [
        clean_text(metric, 40) for metric in checked.loc[~checked["passed"].astype(bool), "metric"]
    ]
    verdict_text = (
        f"It misses {', '.join(failed)}." if failed else "The selection lies in all of them."
    )
    caption = (
        "Each metric with a threshold, better to the right; the shaded part is what is asked for, "
        f"from the line on. {verdict_text}"
    )
    return render_plot("gate", caption, paint, width=9.0, height=1.7 + 0.42 * len(checked))


def _has_upper(check: Mapping[Any, Any]) -> bool:
    return check["upper"] is not None and bool(np.isfinite(check["upper"]))


def _bound_text(check: Mapping[Any, Any]) -> str:
    if _has_upper(check):
        return f"{number_text(check['bound'])} to {number_text(check['upper'])}"
    return (
        f"{'at most' if check['direction'] == 'less' else 'at least'} {number_text(check['bound'])}"
    )


def check_table(checks: pd.DataFrame) -> TableText:
    """Table of the thresholds with verdicts and the best attained values."""
    rows = [
        [
            clean_text(check["metric"], 60).replace("_", " "),
            number_text(check["value"]),
            _bound_text(check),
            number_text(check.get("best")),
            clean_text(check["kind"], 20),
            "pass" if check["passed"] else "FAIL",
        ]
        for check in checks.to_dict("records")
    ]
    return TableText(
        "Thresholds", ["metric", "selection", "asked for", "best seen", "kind", "verdict"], rows,
        [False, True, False, True, False, False],
        "Best seen: over the subsets of this size that were tried while thresholds were found.",
        id="checks",
    )  # fmt: skip


def way_table(
    ways: pd.DataFrame,
    checks: pd.DataFrame,
    passes: Mapping[str, bool],
    scores: pd.DataFrame | None = None,
) -> TableText:
    """Table of metrics, with one column per way of selecting as many rows."""
    names = [way for way in WAYS if way in ways.columns]
    bound_of_metric = {check["metric"]: _bound_text(check) for check in checks.to_dict("records")}
    rows = [
        [
            clean_text(row["metric"], 40).replace("_", " "),
            clean_text(row["unit"], 24),
            clean_text(row["direction"], 10),
            *(number_text(row[way]) for way in names),
            bound_of_metric.get(row["metric"], ""),
        ]
        for row in ways.to_dict("records")
    ]
    gate_row = ["gate", "", "", *_marks(names, passes if len(checks) else {}), ""]
    if scores is not None and len(scores):
        score_of_way = dict(zip(scores["way"], scores["score"], strict=True))
        rows.append(["proxy score", clean_text(scores["measure"].iloc[0], 24), "more",
                     *(number_text(score_of_way.get(way)) for way in names), ""])  # fmt: skip
    return TableText(
        "Ways of selecting as many rows",
        ["metric", "unit", "better", *(WAYS[way] for way in names), "asked for"],
        [*rows, gate_row], [False] * 3 + [True] * len(names) + [False],
        "Both: the selection judged here. The others choose inside clusters by hash: stratified "
        "takes each cluster in proportion, GIME follows the thresholds alone, GIO the budgeted KL.",
        id="ways",
    )  # fmt: skip


def score_table(scores: pd.DataFrame) -> TableText:
    """Table of the proxy score of each way, with the standard deviation over its draws."""
    row_of_way = {str(row["way"]): row for row in scores.to_dict("records")}
    rows = [
        [
            WAYS[way],
            number_text(row["score"]),
            number_text(row["spread"], 2) if row["draws"] > 1 else "",
            count_text(row["draws"]),
            count_text(row["rows"]),
        ]
        for way, row in ((way, row_of_way[way]) for way in WAYS if way in row_of_way)
    ]
    measure = clean_text(scores["measure"].iloc[0], 24).replace("_", " ")
    return TableText(
        "Proxy score of each way", ["way", measure, "±", "draws", "rows"], rows,
        [False, True, True, True, True], _score_note(scores), id="scores",
    )  # fmt: skip


def _score_note(scores: pd.DataFrame) -> str:
    """Note on how the scores were computed, and on the selection compared with random rows."""
    row_of_way = {str(row["way"]): row for row in scores.to_dict("records")}
    selection, random = row_of_way["both"], row_of_way["random"]
    draws = int(random["draws"])
    text = (
        f"{clean_text(selection['proxy'], 20).capitalize()} models trained on the "
        f"{count_text(selection['rows'])} labelled rows that each way has in a sample of "
        f"{count_text(row_of_way['pool']['rows'])} (the pool's own is all of them); ± is the "
        "standard "
        f"deviation over {draws} draws, the selection is one set of rows."
    )
    gap = float(selection["score"]) - float(random["score"])
    spread = float(random["spread"])
    if np.isfinite(gap) and np.isfinite(spread) and draws > 1:
        half = float(stats.t.ppf(0.975, draws - 1)) * spread * float(np.sqrt(1 + 1 / draws))
        text += (
            f" It is {number_text(abs(gap))} {'above' if gap >= 0 else 'below'} the mean of random "
            "rows; "
            f"19 of 20 random draws are to be expected within {number_text(half)} of that mean."
        )
    return text


def _marks(names: list[str], passes: Mapping[str, bool]) -> list[str]:
    return ["" if way not in passes else "pass" if passes[way] else "FAIL" for way in names]
