"""The page of the gate: what is asked for, what the selection has, what other ways would give."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from scipy import stats

from gio_spark.report.draw import INK, POOL, RANDOM, SELECTION, TARGET, Drawn, draw
from gio_spark.report.render import inline, save_figures, save_page, write
from gio_spark.report.tables import TableText
from gio_spark.report.text import clean, place, real, whole

PAGE = "gate.html"
WAYS = {
    "pool": "pool",
    "random": "random",
    "stratified": "stratified",
    "gime": "GIME",
    "gio": "GIO",
    "both": "both",
}
_LOOKS = {
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
    """Write the page of a verdict, its figure as PNG and its tables as CSV.

    Args:
        checks: metric, value, bound, upper, direction, kind, passed, best.
        ways: metric, unit, direction, and one column per way of selecting.
        folder: local folder.
        verdict: passed, why, notes, tries.
        passes: way -> whether it would pass.
        scores: way, rows, score, spread, draws, measure, proxy, where there are labels.
        facts: lines for the head of the page.

    Returns:
        Path of the HTML file.

    Raises:
        OSError: when the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawn = [d for d in (standing(checks, ways),) if d is not None]
    save_figures(drawn, folder)
    write(folder / "gate.csv", checks.to_csv(index=False).encode())
    write(folder / "ways.csv", ways.to_csv(index=False).encode())
    if scores is not None:
        write(folder / "scores.csv", scores.to_csv(index=False).encode())
    passed = bool(verdict["passed"])
    return save_page(
        folder / PAGE,
        "evaluation.html",
        title=f"Gate: {'passed' if passed else 'FAILED'}",
        run=[(clean(k, 60), place(v, 300)) for k, v in (facts or {}).items()],
        summary=[clean(line, 600) for line in str(verdict["why"]).splitlines()],
        cautions=[("seen by the gate", clean(n, 600), "") for n in verdict["notes"]],
        figures=inline(drawn),
        tables=[
            t
            for t in (
                check_table(checks),
                way_table(ways, checks, passes, scores),
                *([] if scores is None else [score_table(scores)]),
            )
            if t.rows
        ],
    )


def standing(checks: pd.DataFrame, ways: pd.DataFrame) -> Drawn | None:
    """Draw where each way stands between the worst and the best of all, with the bounds."""
    known = checks[checks["metric"].isin(ways["metric"])]
    if known.empty:
        return None
    values = ways.set_index("metric")
    names = [w for w in WAYS if w in ways.columns and w != "pool"]

    def paint(axes: Axes) -> None:
        for y, check in zip(np.arange(len(known))[::-1], known.to_dict("records"), strict=True):
            row = values.loc[check["metric"]]
            found = {w: float(row[w]) for w in names if np.isfinite(row[w])}
            ends = [*found.values(), float(check["bound"]), float(check["best"])]
            low, high = min(ends), max(ends)
            width = (high - low) or 1.0
            flip = check["direction"] == "less" and not _has_upper(check)

            def at(
                value: float, low: float = low, width: float = width, flip: bool = flip
            ) -> float:
                share = (value - low) / width
                return 1 - share if flip else share

            bound = at(float(check["bound"]))
            upper = at(float(check["upper"])) if _has_upper(check) else 1.08
            axes.fill_betweenx([y - 0.34, y + 0.34], bound, min(upper, 1.08), color=SELECTION,
                               alpha=0.13, lw=0)  # fmt: skip
            axes.plot([bound, bound], [y - 0.34, y + 0.34], color=INK, linewidth=1.2)
            for way, value in found.items():
                mark, colour = _LOOKS[way]
                size = 9 if way == "both" else 6
                axes.plot([at(value)], [y], mark, color=colour, markersize=size, alpha=0.9)
        axes.set_yticks(np.arange(len(known))[::-1],
                        [clean(m, 30).replace("_", " ") for m in known["metric"]])  # fmt: skip
        axes.set_xticks([0, 1], ["worst of these", "best"])
        axes.set_xlim(-0.06, 1.08)
        axes.set_ylim(-0.6, len(known) - 0.4)
        for way in names:
            mark, colour = _LOOKS[way]
            axes.plot([], [], mark, color=colour, label=WAYS[way])
        axes.grid(axis="y", visible=False)
        figure = axes.get_figure()
        if figure is not None:
            figure.legend(loc="outside lower center", ncols=3, fontsize=8.5)

    failed = [clean(m, 40) for m in known.loc[~known["passed"].astype(bool), "metric"]]
    said = f"It misses {', '.join(failed)}." if failed else "The selection lies in all of them."
    caption = (
        "Each metric with a threshold, better to the right; the shaded part is what is asked for, "
        f"from the line on. {said}"
    )
    return draw("gate", caption, paint, width=9.0, height=1.7 + 0.42 * len(known))


def _has_upper(check: Mapping[Any, Any]) -> bool:
    return check["upper"] is not None and bool(np.isfinite(check["upper"]))


def _wanted(check: Mapping[Any, Any]) -> str:
    if _has_upper(check):
        return f"{real(check['bound'])} to {real(check['upper'])}"
    return f"{'at most' if check['direction'] == 'less' else 'at least'} {real(check['bound'])}"


def check_table(checks: pd.DataFrame) -> TableText:
    """One line a threshold with its verdict and the best attainable."""
    rows = [
        [clean(c["metric"], 60).replace("_", " "), real(c["value"]), _wanted(c),
         real(c.get("best")), clean(c["kind"], 20), "pass" if c["passed"] else "FAIL"]
        for c in checks.to_dict("records")
    ]  # fmt: skip
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
    """One line a metric and one column a way of selecting as many rows."""
    names = [w for w in WAYS if w in ways.columns]
    asked = {c["metric"]: _wanted(c) for c in checks.to_dict("records")}
    rows = [
        [clean(r["metric"], 40).replace("_", " "), clean(r["unit"], 24), clean(r["direction"], 10),
         *(real(r[w]) for w in names), asked.get(r["metric"], "")]
        for r in ways.to_dict("records")
    ]  # fmt: skip
    last = ["gate", "", "", *_marks(names, passes), ""]
    if scores is not None and len(scores):
        one = dict(zip(scores["way"], scores["score"], strict=True))
        rows.append(["proxy score", clean(scores["measure"].iloc[0], 24), "more",
                     *(real(one.get(w)) for w in names), ""])  # fmt: skip
    return TableText(
        "Ways of selecting as many rows",
        ["metric", "unit", "better", *(WAYS[w] for w in names), "asked for"],
        [*rows, last], [False] * 3 + [True] * len(names) + [False],
        "Both: the selection judged here. The others choose inside cells by hash: stratified takes "
        "each cell in proportion, GIME follows the thresholds alone, GIO the budgeted KL alone.",
        id="ways",
    )  # fmt: skip


def score_table(scores: pd.DataFrame) -> TableText:
    """Return what a proxy model learns from each way, with the scatter of its draws."""
    found = {str(r["way"]): r for r in scores.to_dict("records")}
    rows = [
        [WAYS[w], real(r["score"]), real(r["spread"], 2) if r["draws"] > 1 else "",
         whole(r["draws"]), whole(r["rows"])]
        for w, r in ((w, found[w]) for w in WAYS if w in found)
    ]  # fmt: skip
    measure = clean(scores["measure"].iloc[0], 24).replace("_", " ")
    return TableText(
        "Proxy score of each way", ["way", measure, "±", "draws", "rows"], rows,
        [False, True, True, True, True], _scored(scores), id="scores",
    )  # fmt: skip


def _scored(scores: pd.DataFrame) -> str:
    """Return what the scores were made of, and how the selection stands beside random rows."""
    found = {str(r["way"]): r for r in scores.to_dict("records")}
    both, random = found["both"], found["random"]
    draws = int(random["draws"])
    text = (
        f"{clean(both['proxy'], 20).capitalize()} models trained on the "
        f"{whole(both['rows'])} labelled rows that each way has in a sample of "
        f"{whole(found['pool']['rows'])} (the pool's own is all of them); ± is the standard "
        f"deviation over {draws} draws, the selection is one set of rows."
    )
    gap = float(both["score"]) - float(random["score"])
    spread = float(random["spread"])
    if np.isfinite(gap) and np.isfinite(spread) and draws > 1:
        half = float(stats.t.ppf(0.975, draws - 1)) * spread * float(np.sqrt(1 + 1 / draws))
        text += (
            f" It is {real(abs(gap))} {'above' if gap >= 0 else 'below'} the mean of random rows; "
            f"19 of 20 random draws are to be expected within {real(half)} of that mean."
        )
    return text


def _marks(names: list[str], passes: Mapping[str, bool]) -> list[str]:
    return ["" if w not in passes else "pass" if passes[w] else "FAIL" for w in names]
