"""Pinning of inputs: the version of a Delta table, or the list of files, that a run reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gio_spark.errors import InputError
from gio_spark.tables import delta
from gio_spark.tables.duplicate_ids import frame_digest
from gio_spark.tables.file_list import FileList, check_unchanged, format_of, list_files
from gio_spark.tables.identifiers import absolute, kind_of

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from gio_spark.settings.inputs import InputSettings


@dataclass(frozen=True)
class PinnedInput:
    """Version of an input; it is determined without reading rows.

    Attributes:
        format: delta, parquet, jsonl, csv, or view where a forecast reads one as it is.
        table_id: Identity of the table; for files, their root.
        version: Version; for files, the hash of their list; for a view, that of its rows.
        bytes: Size in storage, where known.
        files: The list of files, unless it is a Delta table.
        check_table: Raises SnapshotExpiredError where another table has the place of the pinned
            one; of files, nothing.
    """

    format: str
    table_id: str
    version: str
    bytes: int | None
    files: FileList | None = None
    check_table: Callable[[], None] = field(repr=False, compare=False, default=lambda: None)

    def recheck(self) -> None:
        """Raise SnapshotExpiredError where the input is no longer the pinned one."""
        self.check_table()
        if self.files is not None:
            check_unchanged(self.files)


def pin_input(spark: SparkSession, settings: InputSettings, name: str) -> PinnedInput:
    """Find an input and pin its version.

    Raises:
        InputError: It is missing or cannot be listed.
        IdentifierError: Its name is not one.
    """
    try:
        return _pin_version(spark, settings)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error


def _pin_version(spark: SparkSession, settings: InputSettings) -> PinnedInput:
    kind: str = settings.format
    location = settings.location
    if delta.is_readable_otherwise(spark, location):
        version = frame_digest(spark.read.table(delta.sql_name(spark, location)))
        return PinnedInput("view", location, version, None)
    if (
        kind_of(location) == "table"
        or kind == "delta"
        or (kind == "auto" and delta.is_delta(spark, location))
    ):
        pinned = delta.pin(spark, location, settings.version)
        return PinnedInput(
            "delta",
            pinned.table_id,
            str(pinned.version),
            pinned.bytes,
            check_table=lambda: delta.check_same(spark, location, pinned),
        )
    if kind == "auto" and delta.has_log(spark, location):
        raise InputError(
            f"{location} holds the log of a Delta table without a commit in it: its first write "
            "was not finished, or its log was emptied. Write the table again, or set format: "
            "parquet to read all Parquet files there as they are."
        )
    if settings.version is not None:
        raise InputError(
            f"{location} is no Delta table, so it has no version {settings.version}. "
            "Files are pinned by their list."
        )
    files = list_files(location, settings.verify, kind, spark)
    kind = format_of(files) if kind == "auto" else kind
    return PinnedInput(kind, absolute(location), files.version, files.bytes, files)
