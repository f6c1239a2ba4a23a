"""The report of a run: what was chosen, how good it is, and how it was done."""

from gio_spark.report.checks import render_checks
from gio_spark.report.data import (
    Calibration,
    Caution,
    Certificate,
    Divergence,
    Example,
    InputSummary,
    Points,
    ReportData,
    StageSummary,
    project,
)
from gio_spark.report.evaluation import render_evaluation
from gio_spark.report.render import render

__all__ = [
    "Calibration",
    "Caution",
    "Certificate",
    "Divergence",
    "Example",
    "InputSummary",
    "Points",
    "ReportData",
    "StageSummary",
    "project",
    "render",
    "render_checks",
    "render_evaluation",
]
