"""Where files of a run go that are not tables."""

from __future__ import annotations

from pathlib import Path

from gio_spark.tables import Workspace
from gio_spark.tables.identifiers import is_remote_path


def local_folder(workspace: Workspace) -> Path:
    """Return where files beside the tables go: the workspace, or here if that is not local."""
    if workspace.in_catalog or is_remote_path(workspace.location):
        return Path("gio-workspace-files")
    return Path(workspace.location)


def report_folder(workspace: Workspace, run_id: str) -> Path:
    """Return the folder of a run's report."""
    return local_folder(workspace) / "reports" / run_id
