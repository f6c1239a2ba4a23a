"""Folders for the files of a run that are not tables."""

from __future__ import annotations

from pathlib import Path

from gio_spark.tables import Workspace
from gio_spark.tables.identifiers import is_remote_path


def local_folder(workspace: Workspace) -> Path:
    """Folder of a run's files: the workspace, or one in the current folder where that is remote."""
    if workspace.in_catalog or workspace.store.by_spark or is_remote_path(workspace.location):
        return Path("gio-workspace-files").absolute()
    return Path(workspace.location)


def report_folder(workspace: Workspace, run_id: str) -> Path:
    """The folder of a run's report."""
    return local_folder(workspace) / "reports" / run_id
