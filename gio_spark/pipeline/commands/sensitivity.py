"""`gio-spark sensitivity`: the runs, what they found, and where their page is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from gio_spark.engine import session
from gio_spark.pipeline.constraints import sensitivity_runs
from gio_spark.pipeline.constraints.sensitivity_page import page_of, shown_level, thresholds_of
from gio_spark.pipeline.run import run
from gio_spark.tables import Workspace

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from gio_spark.engine.progress import Progress
    from gio_spark.pipeline.constraints.sensitivity_runs import Learnt
    from gio_spark.settings.run import RunSettings


@dataclass(frozen=True, eq=False)
class Found:
    """What a sensitivity command gives.

    Attributes:
        learnt: The runs' outcome.
        thresholds: One row per threshold at the level.
        level: Fraction of full performance that thresholds are shown for.
        page: Path of the HTML page.
        place: Place of the Delta table.
        skipped: Whether everything was complete already.
    """

    learnt: Learnt
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
) -> Found:
    """Run the sensitivity runs of a configuration, or find them complete.

    Args:
        settings: Of the run; labels or a scoring function are needed.
        spark: Session.
        progress: Display.

    Raises:
        ConfigError: There is nothing to score subsets by.
        InputError: No row has a label, or no metric can be moved.
    """
    sensitivity_runs.check_labels(settings)
    spark = spark or session(settings.engine)
    curation = run(settings, spark=spark, progress=progress, until=sensitivity_runs.STAGE)
    workspace = Workspace(spark, settings.workspace)
    learnt = sensitivity_runs.of_key(workspace, curation.summary[sensitivity_runs.STAGE])
    stages = {name: skipped for name, _, _, skipped in curation.summary["stages"]}
    return Found(
        learnt,
        thresholds_of(settings, learnt),
        shown_level(settings),
        page_of(workspace, curation.run_id),
        workspace.place("sensitivity"),
        stages.get(sensitivity_runs.STAGE, False),
    )
