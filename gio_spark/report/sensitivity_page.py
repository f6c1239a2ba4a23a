"""Page of the sensitivity runs: sensitivity of each metric, thresholds, efficiency and cost."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, PercentFormatter

from gio_spark.report.html_page import inline_plots, save_page, save_plots, write_file
from gio_spark.report.plot_rendering import INK, POOL, RANDOM, SELECTION, TARGET, Plot, render_plot
from gio_spark.report.run_tables import TableText
from gio_spark.report.text_format import (
    clean_text,
    count_text,
    duration_text,
    location_text,
    number_text,
    percent_text,
)

PAGE = "sensitivity.html"
CLASSES = {"high": TARGET, "moderate": SELECTION, "low": POOL}
MAX_RESPONSE_PLOTS = 6


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
    """Write the page of the sensitivity runs, its plots as PNG and its tables as CSV.

    Args:
        table: One row per metric: factor, metric, class, change, low, high, pearson, spearman,
            mutual_information, worst, best, random, share_90, share_95, share_99, band_low, ...
        sweeps: Factor, value and score of every swept subset.
        screen: One row per screened subset, with metrics as columns, and score.
        curve: Columns way, rows, seconds, score, of_full.
        thresholds: Metric, kind, direction, bound, upper, share, best at the level of `numbers`.
        folder: Local folder, created if missing.
        numbers: Items full_score, random_score (mean, spread), seconds, models, measure, size,
            sample, full_seconds, notes, level.
        facts: Lines for the head of the page.

    Returns:
        Path of the HTML file.

    Raises:
        OSError: The folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    plots = [effects_plot(table, str(numbers["measure"]))]
    plots.append(efficiency_plot(curve))
    order = list(dict.fromkeys(table["factor"]))
    swept = [factor for factor in order if (sweeps["factor"] == factor).any()]
    plots += [
        response_plot(sweeps[sweeps["factor"] == factor], factor, table, numbers, number)
        for number, factor in enumerate(swept[:MAX_RESPONSE_PLOTS])
    ]
    plots.append(correlation_plot(screen.drop(columns="score", errors="ignore")))
    plots_with_data = [plot for plot in plots if plot is not None]
    save_plots(plots_with_data, folder)
    for name, frame in (("sensitivity", table), ("curve", curve), ("thresholds", thresholds)):
        write_file(folder / f"{name}.csv", frame.to_csv(index=False).encode())
    notes = [("seen in the runs", clean_text(note, 600), "") for note in numbers["notes"]]
    return save_page(
        folder / PAGE,
        "evaluation.html",
        title="Sensitivity: what models follow in this data",
        run=[
            (clean_text(name, 60), location_text(value, 300))
            for name, value in (facts or {}).items()
        ],
        summary=_summary(table, curve, thresholds, numbers),
        warnings=notes,
        plots=inline_plots(plots_with_data),
        tables=[
            table
            for table in (
                sensitivity_table(table),
                threshold_table(thresholds, numbers.get("level")),
                level_table(table),
                curve_table(curve),
            )
            if table.rows
        ],
    )


def _factor_name(factor: str) -> str:
    return clean_text(factor, 120).replace("_", " ").replace("+", " + ")


def _summary(
    table: pd.DataFrame, curve: pd.DataFrame, thresholds: pd.DataFrame, numbers: Mapping[str, Any]
) -> list[str]:
    by_class = {
        sensitivity_class: table[table["class"] == sensitivity_class]
        for sensitivity_class in CLASSES
    }
    parts = [
        f"{sensitivity_class}: "
        f"{', '.join(_factor_name(factor) for factor in dict.fromkeys(part['factor'])) or 'none'}"
        for sensitivity_class, part in by_class.items()
    ]
    cost = float(numbers["seconds"])
    full = float(numbers.get("full_seconds") or 0)
    training_ratio = (
        f", as much as training {cost / full:,.0f} times on all of them" if full > 0 else ""
    )
    mean, spread = numbers["random_score"]
    classes_text = (
        f"Sensitivity of the {clean_text(numbers['measure'], 40)} to each metric. "
        f"{'; '.join(parts)}."
    )
    score_text = (
        f"On {count_text(numbers['sample'])} rows of the pool; {count_text(numbers['size'])} "
        "random ones "
        f"reach {number_text(mean)} (spread {number_text(spread, 2)}), all of them "
        f"{number_text(numbers['full_score'])}."
    )
    cost_text = (
        f"{count_text(numbers['models'])} models were trained for this in {duration_text(cost)} of "
        "processor "
        f"time{training_ratio}. Count it in any saving."
    )
    sentences = [classes_text, score_text, cost_text]
    if len(thresholds):
        names = ", ".join(
            clean_text(metric, 40).replace("_", " ") for metric in thresholds["metric"]
        )
        sentences.append(f"Thresholds are set for {names}.")
    else:
        sentences.append(
            "No metric is worth a threshold: none moved the score the way it should, beyond doubt."
        )
    return sentences


# ---- plots -------------------------------------------------------------------------------------


def effects_plot(table: pd.DataFrame, measure: str) -> Plot | None:
    """Plot of the change of score between the 10th and the 90th percentile of each factor."""
    factors = table.drop_duplicates("factor")
    if factors.empty:
        return None
    names = [_wrapped_name(_factor_name(factor)) for factor in factors["factor"]]
    change, low, high = (
        factors[column].to_numpy(dtype=float) for column in ("change", "low", "high")
    )
    classes = list(factors["class"])
    # A single very wide interval must not flatten all others.
    bound = 1.3 * max(float(np.abs(change).max()), float(np.median(np.abs(np.r_[low, high]))))

    def paint(axes: Axes) -> None:
        positions = np.arange(len(names))[::-1]
        for y, middle, left, right, sensitivity_class in zip(
            positions, change, low, high, classes, strict=True
        ):
            axes.plot([left, right], [y, y], color=CLASSES[sensitivity_class], linewidth=2.4)
            axes.plot([middle], [y], "o", color=CLASSES[sensitivity_class], markersize=6)
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.set_yticks(positions, names)
        if np.isfinite(bound) and bound > 0:
            axes.set_xlim(-bound, bound)
        axes.set_ylim(-0.6, len(names) - 0.4)
        axes.set_xlabel(f"change of {clean_text(measure, 30)}, 10th to 90th percentile")
        axes.grid(axis="y", visible=False)
        for sensitivity_class, color in CLASSES.items():
            if sensitivity_class in classes:
                axes.plot([], [], "o-", color=color, label=sensitivity_class)
        axes.legend(loc="best")

    strongest = factors.iloc[0]
    lines = sum(name.count("\n") + 1 for name in names)
    caption = (
        "Change of the score while a metric goes from its attainable 10th to its 90th percentile, "
        "the others held fixed, with its 95 % interval. Strongest: "
        f"{_factor_name(strongest['factor'])} ({number_text(strongest['change'])})."
    )
    return render_plot("effects", caption, paint, width=5.6, height=1.4 + 0.26 * lines)


def _wrapped_name(name: str) -> str:
    parts = name.split(" + ")
    return " +\n".join(" + ".join(parts[i : i + 2]) for i in range(0, len(parts), 2))


def efficiency_plot(curve: pd.DataFrame) -> Plot | None:
    """Plot of the fraction of full performance by rows, for each way of selecting."""
    ways = [way for way in dict.fromkeys(curve["way"]) if way != "full"] if len(curve) else []
    if not ways:
        return None
    mean = curve.groupby(["way", "rows"])["of_full"].agg(["mean", "min", "max"]).reset_index()
    full = int(curve.loc[curve["way"] == "full", "rows"].max())
    colors = {"random": RANDOM, "by metrics": SELECTION}

    def paint(axes: Axes) -> None:
        for way in ways:
            line = mean[mean["way"] == way].sort_values("rows")
            x = np.r_[line["rows"], full]
            style = "--" if way == "random" else "-"
            color = colors.get(way, TARGET)
            axes.plot(x, np.r_[line["mean"], 1.0], style, marker="o", markersize=4, color=color,
                      label=clean_text(way, 30))  # fmt: skip
            axes.fill_between(line["rows"], line["min"], line["max"], color=color, alpha=0.15, lw=0)
        for level in (0.9, 0.95, 0.99):
            axes.axhline(level, color=INK, linewidth=0.6, linestyle=":")
            axes.annotate(f"{level:.0%}", (0.005, level), xycoords=("axes fraction", "data"),
                          ha="left", va="bottom", fontsize=8)  # fmt: skip
        axes.set_xlabel("rows trained on")
        axes.set_ylabel("fraction of full performance")
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.0f}"))
        axes.legend(loc="lower right")

    smallest = mean[mean["way"] == ways[-1]].sort_values("rows").iloc[0]
    caption = (
        f"Efficiency: {clean_text(ways[-1], 30)}, {count_text(smallest['rows'])} of "
        f"{count_text(full)} rows reach "
        f"{percent_text(smallest['mean'])} of the full performance. Bands show the repeats."
    )
    return render_plot("efficiency", caption, paint, height=3.5)


def response_plot(
    swept: pd.DataFrame, factor: str, table: pd.DataFrame, numbers: Mapping[str, Any], number: int
) -> Plot | None:
    """Plot of the score of swept subsets by the value of a factor, with the mean per level."""
    swept = swept[
        np.isfinite(swept["score"].astype(float)) & np.isfinite(swept["value"].astype(float))
    ]
    if len(swept) < 4:
        return None
    row = table[table["factor"] == factor].iloc[0]
    is_single = "+" not in factor
    means = swept.groupby("level")[["value", "score"]].mean().sort_values("value")

    def paint(axes: Axes) -> None:
        if np.isfinite(row["band_low"] if row["band_low"] is not None else np.nan):
            axes.axvspan(row["band_low"], row["band_high"], color=TARGET, alpha=0.12, label="band")
        axes.scatter(
            swept["value"], swept["score"], s=16, color=SELECTION, alpha=0.55, linewidths=0
        )
        axes.plot(means["value"], means["score"], color=INK, linewidth=1.4, label="mean of a level")
        axes.axhline(numbers["full_score"], color=POOL, linestyle=":", label="all rows")
        axes.axhline(numbers["random_score"][0], color=RANDOM, linestyle="--", label="random rows")
        axes.set_xlabel(
            _factor_name(factor) if is_single else f"{_short_name(factor)} (joint, standardised)"
        )
        axes.set_ylabel(clean_text(numbers["measure"], 30))
        axes.legend(fontsize=8)

    has_turning_point = row["turning_point"] is not None and np.isfinite(row["turning_point"])
    caption = (
        f"{_factor_name(factor)}: score of subsets of {count_text(numbers['size'])} rows at "
        f"{swept['level'].nunique()} levels and {swept['seed'].nunique()} seeds; class "
        f"{row['class']}."
    )
    if has_turning_point:
        caption += (
            f" The score turns at {number_text(row['turning_point'])}, so it is held in a band."
        )
    return render_plot(f"response_{number + 1}", caption, paint)


def _short_name(factor: str) -> str:
    names = _factor_name(factor).split(" + ")
    return f"{names[0]} and {len(names) - 1} more"


def correlation_plot(metrics: pd.DataFrame) -> Plot | None:
    """Heat map of the correlation of metrics over the screened subsets."""
    names = [
        column
        for column in metrics.columns
        if metrics[column].notna().all() and metrics[column].std() > 1e-12
    ]
    if len(names) < 3:
        return None
    matrix = np.corrcoef(metrics[names].to_numpy(dtype=float).T)

    def paint(axes: Axes) -> None:
        axes.imshow(matrix, cmap="RdBu_r", vmin=-1, vmax=1)
        labels = [clean_text(name, 24).replace("_", " ") for name in names]
        axes.set_xticks(np.arange(len(names)), labels, rotation=45, ha="right")
        axes.set_yticks(np.arange(len(names)), labels)
        axes.grid(visible=False)
        for i in range(len(names)):
            for j in range(len(names)):
                # Fixed text colors, since the map has the same colors in light and dark mode.
                color = "#ffffff" if abs(matrix[i, j]) > 0.6 else "#333333"
                text = f"{matrix[i, j]:.1f}".replace("-0.0", "0.0")
                axes.text(j, i, text, ha="center", va="center", fontsize=7, color=color)

    caption = (
        "Correlation of the metrics over the screened subsets. Those that no subset can tell apart "
        "(variance inflation above 10) were merged into one factor."
    )
    return render_plot("together", caption, paint, height=4.6)


# ---- tables ------------------------------------------------------------------------------------


def sensitivity_table(table: pd.DataFrame) -> TableText:
    """Table of factors: class, effect with interval, correlations and band."""
    rows = []
    for _, row in table.drop_duplicates("factor").iterrows():
        band = ""
        if row["band_low"] is not None and np.isfinite(row["band_low"]):
            band = f"{number_text(row['band_low'])} to {number_text(row['band_high'])}"
        members = table[table["factor"] == row["factor"]]
        rows.append(
            [
                _factor_name(row["factor"]),
                str(row["class"]),
                f"{row['change']:+.3g}",
                f"{row['low']:+.3g} to {row['high']:+.3g}",
                number_text(row["pearson"]),
                number_text(row["spearman"]),
                number_text(row["mutual_information"], 2),
                number_text(row["vif"]),
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
    """Table of thresholds: bound, share of the attainable range, worst and best value."""
    rows = []
    for _, row in thresholds.iterrows():
        sign = "at most" if row["direction"] == "less" else "at least"
        bound_text = f"{sign} {number_text(row['bound'])}"
        if row["upper"] is not None and np.isfinite(row["upper"]):
            bound_text = f"{number_text(row['bound'])} to {number_text(row['upper'])}"
        share = percent_text(row["share"]) if np.isfinite(row["share"]) else "–"
        rows.append(
            [clean_text(row["metric"], 40).replace("_", " "), str(row["kind"]), bound_text, share,
             number_text(row["worst"]), number_text(row["best"])]
        )  # fmt: skip
    level_text = "" if level is None else f" for {percent_text(level)} of full performance"
    return TableText(
        f"Thresholds{level_text}",
        ["metric", "kind", "bound", "share of attainable", "worst", "best"],
        rows, [False, False, False, True, True, True],
        "Bounds hold for subsets of the size of these runs; a run moves them to its own size by "
        "the difference of random draws.",
        id="thresholds",
    )  # fmt: skip


def level_table(table: pd.DataFrame) -> TableText:
    """Table of the share of the attainable range at which each level is reached, per metric."""
    known = table[table["direction"] != "unknown"]
    rows = [
        [clean_text(row["metric"], 40).replace("_", " "), str(row["class"]), str(row["direction"]),
         number_text(row["worst"]), number_text(row["random"]), number_text(row["best"]),
         *(_share(row[f"share_{level}"]) for level in (90, 95, 99))]
        for _, row in known.iterrows()
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
    return percent_text(value) if pd.notna(value) else "never"


def curve_table(curve: pd.DataFrame) -> TableText:
    """Table of the efficiency curve: score, rows, tokens and seconds per way and size."""
    if not len(curve):
        return TableText("Efficiency", [], [], [])
    mean = curve.groupby(["way", "rows"], as_index=False)[
        ["tokens", "seconds", "score", "of_full"]
    ].mean()
    rows = [
        [clean_text(row["way"], 30), count_text(row["rows"]), count_text(row["tokens"]),
         f"{number_text(row['seconds'])} s",
         number_text(row["score"]), percent_text(row["of_full"])]
        for _, row in mean.sort_values(["rows", "way"]).iterrows()
    ]  # fmt: skip
    return TableText(
        "Efficiency", ["way", "rows", "tokens", "training time", "score", "of full performance"],
        rows, [False] + [True] * 5, id="curve",
    )  # fmt: skip
