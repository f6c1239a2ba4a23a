"""Cause of a failed stage that its error does not name: an input that changed, a broken file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gio_spark.engine import data_files
from gio_spark.engine.engine_errors import translated_error
from gio_spark.errors import (
    DataFileError,
    GioSparkError,
    InputError,
    SnapshotExpiredError,
    WorkspaceError,
)
from gio_spark.tables import STAGE_TABLES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gio_spark.tables import Input, Workspace


def find_cause(
    error: Exception, inputs: Mapping[str, Input], workspace: Workspace
) -> GioSparkError | None:
    """Look for the cause of an error in the files that a run reads.

    Args:
        error: What a stage raised.
        inputs: Pinned inputs of the run.
        workspace: Its tables.

    Returns:
        An error that names the input or the file; None where the first error says all there is.
    """
    first = error if isinstance(error, GioSparkError) else translated_error(error)
    if first is not None and (
        not isinstance(first, (InputError, WorkspaceError))
        or first.path is not None
        or first.location in _locations(inputs)
    ):
        return None
    for source in inputs.values():
        try:
            source.recheck()
        except SnapshotExpiredError as changed:
            return SnapshotExpiredError(
                f"{source.name}: {changed}", location=source.location, path=changed.path
            )
        except Exception:  # noqa: BLE001, S112 - the first error is the one to report
            continue
    if not isinstance(first, DataFileError):
        return None
    tables = [workspace.place(table) for table in STAGE_TABLES if workspace.exists(table)]
    for location in (*_locations(inputs), *tables):
        broken = data_files.first_broken(location)
        if broken is not None:
            return DataFileError(
                f"Cannot read {broken}: the file is corrupt or cut short. Put a whole one in its "
                "place, leave it out, or write it again from its source."
            ).about(location=location, path=broken)
    return None


def _locations(inputs: Mapping[str, Input]) -> list[str]:
    return [source.location for source in inputs.values()]
