"""Page of `gio-spark check`: a verdict and a plot for each check."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, PercentFormatter

from gio_spark.gio.selection_checks import DataCheck
from gio_spark.report.error_curve_plot import error_curve_plot
from gio_spark.report.html_page import inline_plots, save_page, save_plots
from gio_spark.report.plot_rendering import INK, POOL, SELECTION, TARGET, Plot, render_plot
from gio_spark.report.run_tables import TableText
from gio_spark.report.text_format import clean_text, number_text, percent_text

PAGE = "checks.html"
_BINS = 40


def render_checks(
    checks: Sequence[DataCheck],
    folder: Path,
    *,
    title: str = "Checks on your own data",
    facts: Mapping[str, str] | None = None,
    error_curve: Sequence[Mapping[str, float]] = (),
    clusters: int | None = None,
) -> Path:
    """Write the page of the checks and its plots as PNG.

    Args:
        checks: Verdicts, in order.
        folder: Local folder, created if missing; `checks.html` and the PNG files are replaced.
        title: Heading.
        facts: Lines for the head of the page.
        error_curve: Records of clusters and share of the quantization error, for the plot of the
            quantization check.
        clusters: Number of clusters in use, marked in that plot.

    Returns:
        Path of the HTML file.

    Raises:
        OSError: The folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    plots = [_plot(check, number) for number, check in enumerate(checks, start=1)]
    plots.append(error_curve_plot(error_curve, clusters))
    plots_with_data = [plot for plot in plots if plot is not None]
    save_plots(plots_with_data, folder)
    failed = [check for check in checks if not check.passed]
    summary = [
        f"All {len(checks)} checks held."
        if not failed
        else f"{len(failed)} of {len(checks)} checks failed: "
        + ", ".join(_name(check) for check in failed)
        + "."
    ]
    return save_page(
        folder / PAGE,
        "evaluation.html",
        title=clean_text(title, 120),
        run=[
            (clean_text(name, 60), clean_text(value, 300)) for name, value in (facts or {}).items()
        ],
        summary=summary,
        warnings=[
            (_name(check), clean_text(check.text, 600), clean_text(check.remedy, 400))
            for check in failed
        ],
        plots=inline_plots(plots_with_data),
        tables=[_table(checks)],
    )


def _name(check: DataCheck) -> str:
    return clean_text(check.name, 80).replace("_", " ")


def _table(checks: Sequence[DataCheck]) -> TableText:
    rows = [
        [
            _name(check),
            "held" if check.passed else "failed",
            clean_text(check.text, 600),
            ", ".join(
                f"{clean_text(name, 40)} {number_text(value)}"
                for name, value in check.figures.items()
            ),
        ]
        for check in checks
    ]
    return TableText(
        "Verdicts", ["check", "verdict", "what was found", "figures"], rows, [False] * 4
    )


def _plot(check: DataCheck, number: int) -> Plot | None:
    plot_functions = {
        "self_consistency": _self_consistency_plot,
        "negative_consistency": _negative_consistency_plot,
        "mode_coverage": _mode_coverage_plot,
    }
    plot_function = plot_functions.get(check.name)
    if plot_function is None or any(not len(values) for values in check.series.values()):
        return None
    return plot_function(check, f"{number:02d}_{check.name}") if check.series else None


def _self_consistency_plot(check: DataCheck, name: str) -> Plot:
    share, entropy, spread = (
        np.asarray(check.series[key], dtype=np.float64)
        for key in ("share", "cross_entropy", "standard_error")
    )
    excess = entropy - entropy.min()

    def paint(axes: Axes) -> None:
        axes.fill_between(share, excess - spread, excess + spread, color=SELECTION, alpha=0.2)
        axes.plot(share, excess, color=SELECTION, linewidth=2, label="plans of a budget")
        axes.axvline(check.figures["share"], color=INK, linewidth=1, label="worth taking")
        axes.axvline(
            check.figures["least"], color=POOL, linestyle="--", linewidth=1.5, label="expected"
        )
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.set_xlabel("share of the pool taken")
        axes.set_ylabel("nats above the best plan, on held-out rows")
        axes.legend()

    return render_plot(
        name,
        "Self-consistency: how well plans of a growing budget describe held-out rows of the pool's "
        f"own law. {percent_text(check.figures['share'])} of the pool is worth taking.",
        paint,
    )


def _negative_consistency_plot(check: DataCheck, name: str) -> Plot:
    limit = check.figures["limit"]
    target, moved = (_log_reach(check.series[key]) for key in ("target", "moved"))
    edges = np.linspace(
        min(target.min(), moved.min()), max(target.max(), moved.max()) + 1e-9, _BINS + 1
    )

    def paint(axes: Axes) -> None:
        axes.hist(target, bins=list(edges), color=TARGET, alpha=0.8, label="target")
        axes.hist(moved, bins=list(edges), color=POOL, alpha=0.8, label="target moved far away")
        if np.isfinite(limit) and limit > 0:
            axes.axvline(np.log10(limit), color=INK, linewidth=1, label="limit of the reach")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{10**v:.3g}"))
        axes.set_xlabel("distance to the nearest cluster, in radii of that cluster")
        axes.set_ylabel("target rows of the sample")
        axes.legend()

    return render_plot(
        name,
        "Negative consistency: target rows by their distance from the pool's clusters, as they are "
        "and moved far away. Right of the line a row counts as out of reach.",
        paint,
    )


def _log_reach(reach: Any) -> Any:
    values = np.asarray(reach, dtype=np.float64)
    finite = values[np.isfinite(values) & (values > 0)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (1e-3, 1.0)
    return np.log10(np.clip(np.nan_to_num(values, posinf=high), low, high))


def _mode_coverage_plot(check: DataCheck, name: str) -> Plot:
    target, selected = (np.asarray(check.series[key]) for key in ("target", "selection"))
    least_share = check.figures["least"]
    floor = float(target.min()) / 30
    missed = selected < least_share * target

    def paint(axes: Axes) -> None:
        for modes, color, label in (
            (~missed, SELECTION, "covered"),
            (missed, TARGET, "missed"),
        ):
            if modes.any():
                axes.loglog(
                    target[modes], np.maximum(selected[modes], floor), "o", color=color, label=label
                )
        diagonal = np.array([floor, max(float(target.max()), float(selected.max())) * 1.3])
        axes.plot(diagonal, diagonal, color=INK, linewidth=1, label="as in the target")
        axes.plot(
            diagonal,
            least_share * diagonal,
            color=POOL,
            linestyle="--",
            linewidth=1,
            label="least share",
        )
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(FuncFormatter(lambda v, _: f"{100 * v:.3g} %"))
            axis.set_minor_formatter(FuncFormatter(lambda v, _: ""))
        axes.set_xlabel("mode's share of the target")
        axes.set_ylabel("its share of the selection")
        axes.legend()

    return render_plot(
        name,
        f"Coverage of the target's modes: {int((~missed).sum())} of {len(target)} modes are "
        "covered; a mode below the broken line is missed.",
        paint,
    )
