"""The page of the sensitivity runs: what models follow, what to hold, what it costs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, PercentFormatter

from gio_spark.report.draw import INK, POOL, RANDOM, SELECTION, TARGET, Drawn, draw
from gio_spark.report.render import inline, save_figures, save_page, write
from gio_spark.report.tables import TableText
from gio_spark.report.text import clean, percent, place, real, seconds, whole

PAGE = "sensitivity.html"
CLASSES = {"high": TARGET, "moderate": SELECTION, "low": POOL}
MOST_RESPONSES = 6


def render_sensitivity(
    table: pd.DataFrame,
    sweeps: pd.DataFrame,
    screen: pd.DataFrame,
    curve: pd.DataFrame,
    thresholds: pd.DataFrame,
    folder: Path,
    *,
    numbers: Mapping[str, Any],
    facts: Mapping[str, str] | None = None,
) -> Path:
    """Write the page of the sensitivity runs, its figures as PNG and its tables as CSV.

    Args:
        table: one row per metric: factor, metric, class, change, low, high, pearson, spearman,
            mutual_information, worst, best, random, share_90, share_95, share_99, band_low, ...
        sweeps: factor, value, score of every swept subset.
        screen: one row per screened subset, metrics as columns, and score.
        curve: way, rows, seconds, score, of_full.
        thresholds: metric, kind, direction, bound, upper, share, best at the level chosen.
        folder: local folder.
        numbers: full_score, random_score (mean, spread), seconds, models, measure, size, sample,
            full_seconds, notes, level.
        facts: lines for the head of the page.

    Returns:
        Path of the HTML file.

    Raises:
        OSError: when the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawn = [effects(table, str(numbers["measure"]))]
    drawn.append(efficiency(curve))
    order = list(dict.fromkeys(table["factor"]))
    swept = [f for f in order if (sweeps["factor"] == f).any()]
    drawn += [
        response(sweeps[sweeps["factor"] == f], f, table, numbers, at)
        for at, f in enumerate(swept[:MOST_RESPONSES])
    ]
    drawn.append(together(screen.drop(columns="score", errors="ignore")))
    shown = [d for d in drawn if d is not None]
    save_figures(shown, folder)
    for name, frame in (("sensitivity", table), ("curve", curve), ("thresholds", thresholds)):
        write(folder / f"{name}.csv", frame.to_csv(index=False).encode())
    notes = [("seen in the runs", clean(n, 600), "") for n in numbers["notes"]]
    return save_page(
        folder / PAGE,
        "evaluation.html",
        title="Sensitivity: what models follow in this data",
        run=[(clean(k, 60), place(v, 300)) for k, v in (facts or {}).items()],
        summary=_summary(table, curve, thresholds, numbers),
        cautions=notes,
        figures=inline(shown),
        tables=[
            t
            for t in (
                sensitivity_table(table),
                threshold_table(thresholds, numbers.get("level")),
                level_table(table),
                curve_table(curve),
            )
            if t.rows
        ],
    )


def _named(factor: str) -> str:
    return clean(factor, 120).replace("_", " ").replace("+", " + ")


def _summary(
    table: pd.DataFrame, curve: pd.DataFrame, thresholds: pd.DataFrame, numbers: Mapping[str, Any]
) -> list[str]:
    by_class = {c: table[table["class"] == c] for c in CLASSES}
    parts = [
        f"{c}: {', '.join(_named(f) for f in dict.fromkeys(part['factor'])) or 'none'}"
        for c, part in by_class.items()
    ]
    cost = float(numbers["seconds"])
    full = float(numbers.get("full_seconds") or 0)
    times = f", as much as training {cost / full:,.0f} times on all of them" if full > 0 else ""
    mean, spread = numbers["random_score"]
    what = f"Sensitivity of the {clean(numbers['measure'], 40)} to each metric. {'; '.join(parts)}."
    scores = (
        f"On {whole(numbers['sample'])} rows of the pool; {whole(numbers['size'])} random ones "
        f"reach {real(mean)} (spread {real(spread, 2)}), all of them "
        f"{real(numbers['full_score'])}."
    )
    price = (
        f"{whole(numbers['models'])} models were trained for this in {seconds(cost)} of processor "
        f"time{times}. Count it in any saving."
    )
    said = [what, scores, price]
    if len(thresholds):
        names = ", ".join(clean(m, 40).replace("_", " ") for m in thresholds["metric"])
        said.append(f"Thresholds are set for {names}.")
    else:
        said.append(
            "No metric is worth a threshold: none moved the score the way it should, beyond doubt."
        )
    return said


# ---- figures -----------------------------------------------------------------------------------


def effects(table: pd.DataFrame, measure: str) -> Drawn | None:
    """Draw the change of score between the 10th and 90th percentile of each factor."""
    factors = table.drop_duplicates("factor")
    if factors.empty:
        return None
    names = [_wrapped(_named(f)) for f in factors["factor"]]
    change, low, high = (factors[c].to_numpy(dtype=float) for c in ("change", "low", "high"))
    kinds = list(factors["class"])
    # One wild interval would flatten all others.
    bound = 1.3 * max(float(np.abs(change).max()), float(np.median(np.abs(np.r_[low, high]))))

    def paint(axes: Axes) -> None:
        at = np.arange(len(names))[::-1]
        for y, middle, left, right, kind in zip(at, change, low, high, kinds, strict=True):
            axes.plot([left, right], [y, y], color=CLASSES[kind], linewidth=2.4)
            axes.plot([middle], [y], "o", color=CLASSES[kind], markersize=6)
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.set_yticks(at, names)
        if np.isfinite(bound) and bound > 0:
            axes.set_xlim(-bound, bound)
        axes.set_ylim(-0.6, len(names) - 0.4)
        axes.set_xlabel(f"change of {clean(measure, 30)}, 10th to 90th percentile")
        axes.grid(axis="y", visible=False)
        for kind, colour in CLASSES.items():
            if kind in kinds:
                axes.plot([], [], "o-", color=colour, label=kind)
        axes.legend(loc="best")

    strongest = factors.iloc[0]
    lines = sum(n.count("\n") + 1 for n in names)
    caption = (
        "Change of the score while a metric goes from its attainable 10th to its 90th percentile, "
        "the others held fixed, with its 95 % interval. Strongest: "
        f"{_named(strongest['factor'])} ({real(strongest['change'])})."
    )
    return draw("effects", caption, paint, width=5.6, height=1.4 + 0.26 * lines)


def _wrapped(name: str) -> str:
    parts = name.split(" + ")
    return " +\n".join(" + ".join(parts[i : i + 2]) for i in range(0, len(parts), 2))


def efficiency(curve: pd.DataFrame) -> Drawn | None:
    """Draw the fraction of full performance against rows, for each way of selecting."""
    ways = [w for w in dict.fromkeys(curve["way"]) if w != "full"] if len(curve) else []
    if not ways:
        return None
    mean = curve.groupby(["way", "rows"])["of_full"].agg(["mean", "min", "max"]).reset_index()
    full = int(curve.loc[curve["way"] == "full", "rows"].max())
    colours = {"random": RANDOM, "by metrics": SELECTION}

    def paint(axes: Axes) -> None:
        for way in ways:
            line = mean[mean["way"] == way].sort_values("rows")
            x = np.r_[line["rows"], full]
            style = "--" if way == "random" else "-"
            colour = colours.get(way, TARGET)
            axes.plot(x, np.r_[line["mean"], 1.0], style, marker="o", markersize=4, color=colour,
                      label=clean(way, 30))  # fmt: skip
            axes.fill_between(
                line["rows"], line["min"], line["max"], color=colour, alpha=0.15, lw=0
            )
        for level in (0.9, 0.95, 0.99):
            axes.axhline(level, color=INK, linewidth=0.6, linestyle=":")
            axes.annotate(f"{level:.0%}", (0.005, level), xycoords=("axes fraction", "data"),
                          ha="left", va="bottom", fontsize=8)  # fmt: skip
        axes.set_xlabel("rows trained on")
        axes.set_ylabel("fraction of full performance")
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.0f}"))
        axes.legend(loc="lower right")

    least = mean[mean["way"] == ways[-1]].sort_values("rows").iloc[0]
    caption = (
        f"Efficiency: {clean(ways[-1], 30)}, {whole(least['rows'])} of {whole(full)} rows reach "
        f"{percent(least['mean'])} of the full performance. Bands show the repeats."
    )
    return draw("efficiency", caption, paint, height=3.5)


def response(
    part: pd.DataFrame, factor: str, table: pd.DataFrame, numbers: Mapping[str, Any], at: int
) -> Drawn | None:
    """Draw the score of swept subsets against the factor's value, with the mean of each level."""
    part = part[np.isfinite(part["score"].astype(float)) & np.isfinite(part["value"].astype(float))]
    if len(part) < 4:
        return None
    row = table[table["factor"] == factor].iloc[0]
    single = "+" not in factor
    means = part.groupby("level")[["value", "score"]].mean().sort_values("value")

    def paint(axes: Axes) -> None:
        if np.isfinite(row["band_low"] if row["band_low"] is not None else np.nan):
            axes.axvspan(row["band_low"], row["band_high"], color=TARGET, alpha=0.12, label="band")
        axes.scatter(part["value"], part["score"], s=16, color=SELECTION, alpha=0.55, linewidths=0)
        axes.plot(means["value"], means["score"], color=INK, linewidth=1.4, label="mean of a level")
        axes.axhline(numbers["full_score"], color=POOL, linestyle=":", label="all rows")
        axes.axhline(numbers["random_score"][0], color=RANDOM, linestyle="--", label="random rows")
        axes.set_xlabel(_named(factor) if single else f"{_short(factor)} (joint, standardised)")
        axes.set_ylabel(clean(numbers["measure"], 30))
        axes.legend(fontsize=8)

    turns = row["turning_point"] is not None and np.isfinite(row["turning_point"])
    caption = (
        f"{_named(factor)}: score of subsets of {whole(numbers['size'])} rows at "
        f"{part['level'].nunique()} levels and {part['seed'].nunique()} seeds; class "
        f"{row['class']}."
    )
    if turns:
        caption += f" The score turns at {real(row['turning_point'])}, so it is held in a band."
    return draw(f"response_{at + 1}", caption, paint)


def _short(factor: str) -> str:
    names = _named(factor).split(" + ")
    return f"{names[0]} and {len(names) - 1} more"


def together(metrics: pd.DataFrame) -> Drawn | None:
    """Draw the correlation of metrics over the screened subsets."""
    names = [c for c in metrics.columns if metrics[c].notna().all() and metrics[c].std() > 1e-12]
    if len(names) < 3:
        return None
    matrix = np.corrcoef(metrics[names].to_numpy(dtype=float).T)

    def paint(axes: Axes) -> None:
        axes.imshow(matrix, cmap="RdBu_r", vmin=-1, vmax=1)
        shown = [clean(n, 24).replace("_", " ") for n in names]
        axes.set_xticks(np.arange(len(names)), shown, rotation=45, ha="right")
        axes.set_yticks(np.arange(len(names)), shown)
        axes.grid(visible=False)
        for i in range(len(names)):
            for j in range(len(names)):
                # Fixed colours: the cells' own are the same on a light and on a dark page.
                colour = "#ffffff" if abs(matrix[i, j]) > 0.6 else "#333333"
                text = f"{matrix[i, j]:.1f}".replace("-0.0", "0.0")
                axes.text(j, i, text, ha="center", va="center", fontsize=7, color=colour)

    caption = (
        "Correlation of the metrics over the screened subsets. Those that no subset can tell apart "
        "(variance inflation above 10) were merged into one factor."
    )
    return draw("together", caption, paint, height=4.6)


# ---- tables ------------------------------------------------------------------------------------


def sensitivity_table(table: pd.DataFrame) -> TableText:
    """One line a factor: class, effect with interval, correlations, band."""
    rows = []
    for _, row in table.drop_duplicates("factor").iterrows():
        band = ""
        if row["band_low"] is not None and np.isfinite(row["band_low"]):
            band = f"{real(row['band_low'])} to {real(row['band_high'])}"
        members = table[table["factor"] == row["factor"]]
        rows.append(
            [
                _named(row["factor"]),
                str(row["class"]),
                f"{row['change']:+.3g}",
                f"{row['low']:+.3g} to {row['high']:+.3g}",
                real(row["pearson"]),
                real(row["spearman"]),
                real(row["mutual_information"], 2),
                real(row["vif"]),
                "yes" if row["swept"] else "no",
                band,
                "yes" if bool(members["pursued"].all()) else "no",
            ]
        )
    return TableText(
        "Sensitivity",
        ["metric", "class", "effect", "95 % interval", "Pearson", "Spearman", "mutual inf., bits",
         "inflation", "swept", "band", "pursued"],
        rows, [False, False] + [True] * 6 + [False] * 3,
        "Effect: change of the score from the 10th to the 90th percentile of the metric. "
        "Inflation: how well the other metrics tell this one. Metrics joined by + cannot be "
        "told apart. Not pursued: of low sensitivity, or an improvement of the metric went with "
        "a worse score.",
        id="sensitivity",
    )  # fmt: skip


def threshold_table(thresholds: pd.DataFrame, level: float | None) -> TableText:
    """One line a threshold."""
    rows = []
    for _, row in thresholds.iterrows():
        sign = "at most" if row["direction"] == "less" else "at least"
        wanted = f"{sign} {real(row['bound'])}"
        if row["upper"] is not None and np.isfinite(row["upper"]):
            wanted = f"{real(row['bound'])} to {real(row['upper'])}"
        share = percent(row["share"]) if np.isfinite(row["share"]) else "–"
        rows.append(
            [clean(row["metric"], 40).replace("_", " "), str(row["kind"]), wanted, share,
             real(row["worst"]), real(row["best"])]
        )  # fmt: skip
    held = "" if level is None else f" for {percent(level)} of full performance"
    return TableText(
        f"Thresholds{held}",
        ["metric", "kind", "bound", "share of attainable", "worst", "best"],
        rows, [False, False, False, True, True, True],
        "Bounds hold for subsets of the size of these runs; a run moves them to its own size by "
        "the difference of random draws.",
        id="thresholds",
    )  # fmt: skip


def level_table(table: pd.DataFrame) -> TableText:
    """Share of the attainable range at which each level is reached, per metric."""
    known = table[table["direction"] != "unknown"]
    rows = [
        [clean(r["metric"], 40).replace("_", " "), str(r["class"]), str(r["direction"]),
         real(r["worst"]), real(r["random"]), real(r["best"]),
         *(_share(r[f"share_{n}"]) for n in (90, 95, 99))]
        for _, r in known.iterrows()
    ]  # fmt: skip
    return TableText(
        "Where full performance is reached",
        ["metric", "class", "better", "worst seen", "random rows", "best seen", "90 %", "95 %",
         "99 %"],
        rows, [False] * 3 + [True] * 6,
        "Share of the way from the worst to the best value at which the lower bound (90 %) of the "
        "response reaches 90, 95, 99 % of the full sample's score; never: not by this metric "
        "alone.",
        open=False, id="levels",
    )  # fmt: skip


def _share(value: float | None) -> str:
    return percent(value) if pd.notna(value) else "never"


def curve_table(curve: pd.DataFrame) -> TableText:
    """Efficiency curve: score, rows, tokens, seconds per way and size."""
    if not len(curve):
        return TableText("Efficiency", [], [], [])
    mean = curve.groupby(["way", "rows"], as_index=False)[
        ["tokens", "seconds", "score", "of_full"]
    ].mean()
    rows = [
        [clean(r["way"], 30), whole(r["rows"]), whole(r["tokens"]),
         f"{real(r['seconds'])} s",
         real(r["score"]), percent(r["of_full"])]
        for _, r in mean.sort_values(["rows", "way"]).iterrows()
    ]  # fmt: skip
    return TableText(
        "Efficiency", ["way", "rows", "tokens", "training time", "score", "of full performance"],
        rows, [False] + [True] * 5, id="curve",
    )  # fmt: skip
