"""The page of `gio-spark check`: a verdict and a picture for each check."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, PercentFormatter

from gio_spark.gio.selection_checks import DataCheck
from gio_spark.report.draw import INK, POOL, SELECTION, TARGET, Drawn, draw
from gio_spark.report.elbow import elbow
from gio_spark.report.render import inline, save_figures, save_page
from gio_spark.report.tables import TableText
from gio_spark.report.text import clean, percent, real

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
    """Write the page of the checks and its figures as PNG.

    Args:
        checks: verdicts, in order.
        folder: local folder, made if need be; `checks.html` and the PNG files are replaced.
        title: heading.
        facts: lines for the head of the page.
        error_curve: records clusters, share of the quantisation error over the number of
            clusters, for the picture beside the quantisation check.
        clusters: clusters in use, marked there.

    Returns:
        Path of the HTML file.

    Raises:
        OSError: when the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawn = [_picture(check, place) for place, check in enumerate(checks, start=1)]
    drawn.append(elbow(error_curve, clusters))
    shown = [figure for figure in drawn if figure is not None]
    save_figures(shown, folder)
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
        title=clean(title, 120),
        run=[(clean(k, 60), clean(v, 300)) for k, v in (facts or {}).items()],
        summary=summary,
        cautions=[(_name(c), clean(c.text, 600), clean(c.remedy, 400)) for c in failed],
        figures=inline(shown),
        tables=[_table(checks)],
    )


def _name(check: DataCheck) -> str:
    return clean(check.name, 80).replace("_", " ")


def _table(checks: Sequence[DataCheck]) -> TableText:
    rows = [
        [
            _name(c),
            "held" if c.passed else "failed",
            clean(c.text, 600),
            ", ".join(f"{clean(k, 40)} {real(v)}" for k, v in c.figures.items()),
        ]
        for c in checks
    ]
    return TableText(
        "Verdicts", ["check", "verdict", "what was found", "figures"], rows, [False] * 4
    )


def _picture(check: DataCheck, place: int) -> Drawn | None:
    painters = {
        "self_consistency": _self,
        "negative_consistency": _negative,
        "mode_coverage": _modes,
    }
    paint = painters.get(check.name)
    if paint is None or any(not len(values) for values in check.series.values()):
        return None
    return paint(check, f"{place:02d}_{check.name}") if check.series else None


def _self(check: DataCheck, name: str) -> Drawn:
    share, entropy, spread = (
        np.asarray(check.series[key], dtype=np.float64)
        for key in ("share", "cross_entropy", "standard_error")
    )
    above = entropy - entropy.min()

    def paint(axes: Axes) -> None:
        axes.fill_between(share, above - spread, above + spread, color=SELECTION, alpha=0.2)
        axes.plot(share, above, color=SELECTION, linewidth=2, label="plans of a budget")
        axes.axvline(check.figures["share"], color=INK, linewidth=1, label="worth taking")
        axes.axvline(
            check.figures["least"], color=POOL, linestyle="--", linewidth=1.5, label="expected"
        )
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.set_xlabel("share of the pool taken")
        axes.set_ylabel("nats above the best plan, on held-out rows")
        axes.legend()

    return draw(
        name,
        "Self-consistency: how well plans of a growing budget describe held-out rows of the pool's "
        f"own law. {percent(check.figures['share'])} of the pool is worth taking.",
        paint,
    )


def _negative(check: DataCheck, name: str) -> Drawn:
    limit = check.figures["limit"]
    here, away = (_log(check.series[key]) for key in ("target", "moved"))
    edges = np.linspace(min(here.min(), away.min()), max(here.max(), away.max()) + 1e-9, _BINS + 1)

    def paint(axes: Axes) -> None:
        axes.hist(here, bins=list(edges), color=TARGET, alpha=0.8, label="target")
        axes.hist(away, bins=list(edges), color=POOL, alpha=0.8, label="target moved far away")
        if np.isfinite(limit) and limit > 0:
            axes.axvline(np.log10(limit), color=INK, linewidth=1, label="limit of the reach")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{10**v:.3g}"))
        axes.set_xlabel("distance to the nearest cluster, in radii of that cluster")
        axes.set_ylabel("target rows of the sample")
        axes.legend()

    return draw(
        name,
        "Negative consistency: target rows by their distance from the pool's clusters, as they are "
        "and moved far away. Right of the line a row counts as out of reach.",
        paint,
    )


def _log(reach: Any) -> Any:
    values = np.asarray(reach, dtype=np.float64)
    finite = values[np.isfinite(values) & (values > 0)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (1e-3, 1.0)
    return np.log10(np.clip(np.nan_to_num(values, posinf=high), low, high))


def _modes(check: DataCheck, name: str) -> Drawn:
    target, taken = (np.asarray(check.series[key]) for key in ("target", "selection"))
    least = check.figures["least"]
    floor = float(target.min()) / 30
    missed = taken < least * target

    def paint(axes: Axes) -> None:
        for which, colour, label in (
            (~missed, SELECTION, "covered"),
            (missed, TARGET, "missed"),
        ):
            if which.any():
                axes.loglog(
                    target[which], np.maximum(taken[which], floor), "o", color=colour, label=label
                )
        ends = np.array([floor, max(float(target.max()), float(taken.max())) * 1.3])
        axes.plot(ends, ends, color=INK, linewidth=1, label="as in the target")
        axes.plot(ends, least * ends, color=POOL, linestyle="--", linewidth=1, label="least share")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(FuncFormatter(lambda v, _: f"{100 * v:.3g} %"))
            axis.set_minor_formatter(FuncFormatter(lambda v, _: ""))
        axes.set_xlabel("mode's share of the target")
        axes.set_ylabel("its share of the selection")
        axes.legend()

    return draw(
        name,
        f"Coverage of the target's modes: {int((~missed).sum())} of {len(target)} modes are "
        "covered; a mode below the broken line is missed.",
        paint,
    )
