"""History of runs, from the records in the workspace."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gio_spark.errors import InputError
from gio_spark.tables import Record, Workspace
from gio_spark.tables.identifiers import absolute, is_remote_path, kind_of

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def history(spark: SparkSession, location: str) -> list[Record]:
    """All records of a workspace, oldest first.

    Raises:
        InputError: No run has been recorded there.
    """
    # Looking must not make the folder that was asked for by mistake.
    nowhere = (
        kind_of(location) == "path"
        and not is_remote_path(location)
        and not Path(absolute(location)).exists()
    )
    records = [] if nowhere else Workspace(spark, location, writable=False).records()
    if not records:
        raise InputError(
            f"No runs are recorded in the workspace {location}. Run `gio-spark run` first, or name "
            "the workspace of the run."
        )
    return records
