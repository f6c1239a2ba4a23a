"""`gio-spark sensitivity`: the runs, what they found, and its page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from gio_spark import gime
from gio_spark.engine import session
from gio_spark.errors import InputError
from gio_spark.pipeline import learn
from gio_spark.pipeline.learn import Learnt, check_labels
from gio_spark.pipeline.run import report_folder, run
from gio_spark.report.sensitivity import render_sensitivity
from gio_spark.tables import Record, Workspace

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from gio_spark.engine.progress import Progress
    from gio_spark.settings.run import RunSettings

DEFAULT_LEVEL = 0.95


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
    check_labels(settings)
    spark = spark or session(settings.engine)
    curation = run(settings, spark=spark, progress=progress, until=learn.STAGE)
    workspace = Workspace(spark, settings.workspace)
    record = _record(workspace, curation.summary[learn.STAGE])
    learnt = learn.load(workspace, record)
    level = settings.gime.wanted_level or DEFAULT_LEVEL
    thresholds, _ = gime.automatic(
        learnt.found, learnt.directions, level=level, by_hand=settings.gime.thresholds
    )
    table = pd.DataFrame(
        [vars(t) for t in thresholds],
        columns=["metric", "bound", "direction", "kind", "share", "worst", "best", "upper"],
    )
    table = table.astype(dict.fromkeys(("bound", "share", "worst", "best", "upper"), float))
    facts = {
        "run": curation.run_id,
        "profile": settings.gime.profile,
        "proxy": f"{learnt.facts['proxy']}, scored by {learnt.facts['measure']}",
        "thresholds for": f"{level:.0%} of full performance",
        "budget": str(settings.budget),
        "stored in": workspace.place("sensitivity"),
    }
    page = render_sensitivity(
        learnt.table,
        learnt.found.sweeps,
        learnt.found.screen,
        learnt.curve,
        table,
        report_folder(workspace, curation.run_id) / "sensitivity",
        numbers={**learnt.facts, "level": level},
        facts=facts,
    )
    stages = {name: skipped for name, _, _, skipped in curation.summary["stages"]}
    return Found(
        learnt, table, level, page, workspace.place("sensitivity"), stages.get(learn.STAGE, False)
    )


def _record(workspace: Workspace, key: str) -> Record:
    found = workspace.complete(learn.STAGE, key)
    if found is None:
        raise InputError(f"The sensitivity runs are gone from {workspace.place('sensitivity')}.")
    return found
