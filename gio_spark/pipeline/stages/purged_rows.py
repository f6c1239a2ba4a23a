"""Rows that were purged from the workspace and are still in an input: left out and counted."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from gio_spark.errors import InputError
from gio_spark.tables.purge_list import PurgeList, only_hashed, without_hashed

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from gio_spark.pipeline.run_context import RunContext
    from gio_spark.tables import Input, PinnedInput, Workspace

_MALFORMED = "malformed"


def marked_pin(purged: PurgeList, location: str, pin: PinnedInput) -> PinnedInput:
    """Pin of an input that lacks purged rows, which make it another one than before the purge."""
    mark = purged.mark(location)
    return replace(pin, table_id=f"{pin.table_id} without {mark}") if mark else pin


def leave_out_purged(ctx: RunContext, purged: PurgeList, one: Input) -> Input:
    """Input without the rows that were purged; their number is shown.

    Raises:
        InputError: No other row is in it.
    """
    hashes = purged.hashes()
    rows = int(only_hashed(one.rows.select("id"), "id", hashes).count())
    bad_rows, bad = 0, one.bad
    if bad is not None:
        # Malformed lines are not among the counted rows.
        counted = bad.where(~F.col("reason").startswith(_MALFORMED))
        bad_rows = int(only_hashed(counted, "id", hashes).count())
        bad = without_hashed(bad, "id", hashes)
    if rows == one.ids:
        raise InputError(
            f"{one.name}: all {rows:,} rows of {one.location} were purged from this workspace. "
            "Use another workspace for them, or another input."
        )
    if rows or bad_rows:
        text = (
            f"{one.name}: {rows + bad_rows:,} rows of {one.location} were purged from the workspace"
        )
        ctx.progress.say(f"{text} and are left out")
        ctx.warn("purged rows left out", f"{text}.", "Delete them from the input as well.")
    return replace(
        one,
        rows=without_hashed(one.rows, "id", hashes),
        bad=bad,
        count=one.count - rows - bad_rows,
        ids=one.ids - rows,
        quarantined=one.quarantined - bad_rows,
        with_ids=lambda frame: without_hashed(one.with_ids(frame), "id", hashes),
    )


def frame_without_purged(
    workspace: Workspace, frame: DataFrame, id_column: str | None, location: str
) -> DataFrame:
    """Frame to be stored as a snapshot, without purged rows.

    Raises:
        InputError: It has no column of ids by which they are recognized.
    """
    purged = PurgeList(workspace)
    if not purged.exists:
        return frame
    if id_column is None or id_column not in frame.columns:
        raise InputError(
            f"{location} has no column of ids, and rows were purged from {workspace.location}: "
            "they could not be left out of its snapshot. Name columns.id, or give a table or files."
        )
    return without_hashed(frame, id_column, purged.hashes())
