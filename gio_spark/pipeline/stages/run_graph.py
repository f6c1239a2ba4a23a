"""Stages of a run, in order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gio_spark.pipeline.run_state import Role, role_of
from gio_spark.pipeline.stages.choose_strategy import strategy_stage
from gio_spark.pipeline.stages.cluster import (
    assign_stages,
    centroid_stages,
    fit_stage,
    target_mass_stage,
)
from gio_spark.pipeline.stages.density_ratio import content_kind, density_ratio_stages, is_scored
from gio_spark.pipeline.stages.duplicates_and_overlaps import clean_stages, is_cleaned
from gio_spark.pipeline.stages.embed import embed_stage, fit_embedder_stage
from gio_spark.pipeline.stages.held_plan import held_plan_stage
from gio_spark.pipeline.stages.measure import metrics_stage
from gio_spark.pipeline.stages.mixture_share import mixture_share_stage
from gio_spark.pipeline.stages.open_inputs import ALL_ROLES
from gio_spark.pipeline.stages.plan import enforcement_stages, plan_stage
from gio_spark.pipeline.stages.quarantine import quarantine_stage
from gio_spark.pipeline.stages.report_inputs import report_row_stages
from gio_spark.pipeline.stages.select_rows import select_stage
from gio_spark.pipeline.stages.write_report import report_stage

if TYPE_CHECKING:
    from gio_spark.pipeline.stage_runner import Stage
    from gio_spark.settings.run import RunSettings

PARTS = {
    "embed": "datasets",
    "quantize": "centroids",
    "select": "plan",
    "explode": "selection",
    "metrics": "metrics",
    "report": "report",
}
"""Parts of a run as the command line calls them -> what is there at the end of each."""


def run_graph(
    settings: RunSettings, roles: Sequence[Role] = ALL_ROLES, *, warm: bool = False
) -> list[Stage]:
    """Stages of a run with these settings.

    Args:
        settings: Of the run.
        roles: Whose rows go through the stages.
        warm: Whether the fit of the codebook begins with that of another run.
    """
    names = [name for name in settings.datasets() if role_of(name) in roles]
    targets = [name for name in names if role_of(name) == "target"]
    held_out = [name for name in names if role_of(name) == "held-out"]
    cleaned, scored = is_cleaned(settings), is_scored(settings)
    return [
        fit_embedder_stage(),
        *(embed_stage(name) for name in names),
        quarantine_stage(names),
        fit_stage(warm=warm),
        *assign_stages(names, cleaned=cleaned),
        *(clean_stages(held_out) if cleaned else []),
        *centroid_stages(targets),
        *(density_ratio_stages(targets, content_kind(settings)) if scored else []),
        *([mixture_share_stage(targets)] if scored else []),
        *enforcement_stages(settings, names),
        target_mass_stage(targets),
        *([strategy_stage(targets)] if settings.select.strategy == "auto" else []),
        plan_stage(settings, names, scored=scored),
        select_stage(scored=scored),
        *report_row_stages(targets),
        metrics_stage(names),
        report_stage(),
    ]


def refresh_graph(settings: RunSettings) -> list[Stage]:
    """Stages of a refresh: those of a run without the targets, with the budget of its plan held."""
    held = held_plan_stage(scored=settings.explode.within_cluster == "density_ratio")
    stages = run_graph(settings, ("pool", "held-out"))
    return [held if stage.outputs == ("plan",) else stage for stage in stages]
