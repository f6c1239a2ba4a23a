"""Page and tracked record of the sensitivity runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from gio_spark import gime
from gio_spark.tables.output_folders import report_folder

if TYPE_CHECKING:
    from gio_spark.pipeline.constraints.sensitivity_runs import SensitivityResult
    from gio_spark.pipeline.run_context import RunContext
    from gio_spark.settings.run import RunSettings
    from gio_spark.tables import Workspace

DEFAULT_LEVEL = 0.95
_FOLDER = "sensitivity"


def display_level(settings: RunSettings) -> float:
    """Fraction of full performance of the displayed thresholds."""
    return settings.gime.performance_level or DEFAULT_LEVEL


def thresholds_of(settings: RunSettings, result: SensitivityResult) -> pd.DataFrame:
    """Table with one row per threshold at the displayed level."""
    thresholds, _ = gime.automatic_thresholds(
        result.analysis,
        result.directions,
        level=display_level(settings),
        manual_shares=settings.gime.manual_shares(),
    )
    table = pd.DataFrame(
        [vars(t) for t in thresholds],
        columns=["metric", "bound", "direction", "kind", "share", "worst", "best", "upper"],
    )
    return table.astype(dict.fromkeys(("bound", "share", "worst", "best", "upper"), float))


def page_of(workspace: Workspace, run: str) -> Path:
    """The path of a run's page of its sensitivity runs."""
    from gio_spark.report.sensitivity_page import PAGE

    return report_folder(workspace, run) / _FOLDER / PAGE


def write_page(ctx: RunContext, result: SensitivityResult) -> None:
    """Write the page and record it, its plots, the figures and their cost with the run.

    Done whenever a run rests on sensitivity runs, complete ones of an earlier run too: its record
    then shows by itself where its thresholds come from and what they cost.
    """
    from gio_spark.report.sensitivity_page import render_sensitivity

    facts, level = result.facts, display_level(ctx.settings)
    render_sensitivity(
        result.table,
        result.analysis.sweeps,
        result.analysis.screen,
        result.curve,
        thresholds_of(ctx.settings, result),
        page_of(ctx.workspace, ctx.run).parent,
        numbers={**facts.plain(), "level": level},
        facts={
            "run": ctx.run,
            "profile": ctx.settings.gime.profile,
            "proxy": f"{facts.proxy}, scored by {facts.measure}",
            "thresholds for": f"{level:.0%} of full performance",
            "budget": str(ctx.settings.budget),
            "stored in": ctx.workspace.place("sensitivity"),
        },
    )
    numbers = {
        "sensitivity/full_score": facts.full_score,
        "sensitivity/random_score": facts.random_score[0],
        "sensitivity/training_seconds": facts.seconds,
        "sensitivity/full_training_seconds": facts.full_seconds,
        "sensitivity/models": float(facts.models),
    }
    for row in result.table.to_dict("records"):
        for name in ("change", "low", "high", "pearson", "spearman"):
            value = row[name]
            if value is not None and np.isfinite(value):
                numbers[f"sensitivity/{row['metric']}/{name}"] = float(value)
    ctx.tracker.metrics(numbers)
    classes = result.table["class"]
    ctx.tracker.tags(
        {f"gio.sensitivity.{c}": ", ".join(result.table.loc[classes == c, "metric"])
         for c in ("high", "moderate", "low")}
    )  # fmt: skip
    ctx.tracker.artifact(page_of(ctx.workspace, ctx.run).parent, _FOLDER)
