"""The report of a run: what was chosen, how good it is, and how it was done.

Pages are written by `report.render`, `report.checks`, `report.evaluation` and their neighbours,
which load the plots; whoever fills in figures needs this package alone.
"""

from gio_spark.report.data import (
    Calibration,
    Caution,
    Certificate,
    Divergence,
    Example,
    InputSummary,
    Points,
    ReportData,
    ReportRows,
    StageSummary,
    project,
)

__all__ = [
    "Calibration",
    "Caution",
    "Certificate",
    "Divergence",
    "Example",
    "InputSummary",
    "Points",
    "ReportData",
    "ReportRows",
    "StageSummary",
    "project",
]
