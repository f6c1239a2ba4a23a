"""Reports: the data of a run's page, and the modules that write pages, plots and tables.

The page modules (`html_page`, `checks_page`, `evaluation_page` and others) import matplotlib; code
that only fills in `ReportData` imports this package alone.
"""

from gio_spark.report.report_data import (
    Calibration,
    Certificate,
    Divergence,
    Example,
    InputSummary,
    Points,
    ReportData,
    ReportRows,
    RunWarning,
    StageSummary,
    project,
)

__all__ = [
    "Calibration",
    "Certificate",
    "Divergence",
    "Example",
    "InputSummary",
    "Points",
    "ReportData",
    "ReportRows",
    "RunWarning",
    "StageSummary",
    "project",
]
