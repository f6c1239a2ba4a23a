"""`gio-spark sensitivity`: the sensitivity runs, their outcome, and their page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from gio_spark.pipeline.constraints.sensitivity_page import display_level, page_of, thresholds_of
from gio_spark.pipeline.constraints.sensitivity_runs import STAGE, check_labels
from gio_spark.pipeline.stage_runner import run_stages
from gio_spark.pipeline.stages.open_inputs import open_context, opened_run, pin_inputs
from gio_spark.pipeline.stages.run_graph import run_graph

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from gio_spark.engine.progress import Progress
    from gio_spark.pipeline.constraints.sensitivity_runs import SensitivityResult
    from gio_spark.settings.run import RunSettings


@dataclass(frozen=True, eq=False)
class SensitivityOutput:
    """Result of the sensitivity command.

    Attributes:
        result: The runs' outcome.
        thresholds: One row per threshold at the level.
        level: Fraction of full performance that thresholds are shown for.
        page: Path of the HTML page.
        place: Place of the Delta table.
        skipped: Whether everything was complete already.
    """

    result: SensitivityResult
    thresholds: pd.DataFrame
    level: float
    page: Path
    place: str
    skipped: bool


def sensitivity(
    settings: RunSettings,
    *,
    spark: SparkSession | None = None,
    progress: Progress | None = None,
) -> SensitivityOutput:
    """Run the sensitivity runs of a configuration, or find them complete.

    Args:
        settings: Of the run; labels or a scoring function are needed.
        spark: Session.
        progress: Display.

    Raises:
        ConfigError: There is nothing to score subsets by.
        InputError: No row has a label, or no metric can be moved.
    """
    check_labels(settings)
    ctx = open_context(settings, spark=spark, progress=progress)
    pinned = pin_inputs(ctx)
    ctx.run = pinned.run_id
    ctx.gather = True
    with opened_run(ctx, pinned, {"gio.command": "sensitivity"}) as state:
        run_stages(ctx, run_graph(settings), state, ["sensitivity"])
    ctx.progress.summary()
    result = state.sensitivity
    return SensitivityOutput(
        result,
        thresholds_of(settings, result),
        display_level(settings),
        page_of(ctx.workspace, ctx.run),
        ctx.workspace.place("sensitivity"),
        any(stage.skipped for stage in ctx.stages if stage.name == STAGE),
    )
