"""Counts of a refresh: rows of the pool and of the selection that differ from the one before."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from gio_spark.engine import bounded
from gio_spark.pipeline.refresh_records import RefreshCounts
from gio_spark.pipeline.stages.changed_rows import changed_rows, counts_by_change

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from gio_spark.tables import Workspace

_EMBED = "embed pool"


def no_changes(selected: int) -> RefreshCounts:
    """Counts of a refresh that had nothing to do."""
    return RefreshCounts(
        new_rows=0, changed_rows=0, gone_rows=0, bad_rows=0, before=selected, added=0, dropped=0,
        after=selected,
    )  # fmt: skip


def count_changes(
    ws: Workspace,
    *,
    embeddings: tuple[str, str],
    quarantine: tuple[Collection[str], Collection[str]],
    tables: tuple[str, str],
) -> RefreshCounts:
    """Count the rows that differ; each argument is a pair, before and now.

    Args:
        ws: The workspace.
        embeddings: Keys of the pool's embeddings.
        quarantine: Keys of the quarantine.
        tables: Tables of the selected rows.
    """
    return RefreshCounts(
        **_changes_of_pool(ws, *embeddings),
        bad_rows=_new_bad_rows(ws, *quarantine),
        **_changes_of_selection(ws, *tables),
    )


def _changes_of_pool(ws: Workspace, before: str, now: str) -> dict[str, int]:
    """Rows of the pool that are new, changed and gone between two embeddings of it."""
    counts = _recorded_changes(ws, before, now)
    if counts is None:
        columns = ["id", "content_hash", "row_hash"]
        earlier, present = (ws.read("embeddings", key).select(*columns) for key in (before, now))
        counts = counts_by_change(changed_rows(earlier, present))
    return dict(zip(("new_rows", "changed_rows", "gone_rows"), counts, strict=True))


def _recorded_changes(ws: Workspace, before: str, now: str) -> tuple[int, int, int] | None:
    """The same from the record of the embeddings, where they were compared with these."""
    if now == before:
        return 0, 0, 0
    for record in reversed(ws.recorded(_EMBED, now)):
        changes = record.detail.get("changes")
        if changes and changes["base"] == before:
            return changes["added"], changes["changed"], changes["gone"]
    return None


def _changes_of_selection(ws: Workspace, before: str, after: str) -> dict[str, int]:
    """Rows that were selected before and after, and how many came and went."""
    old, new = (ws.read_table(t).select(F.col("gio_id").alias("id")) for t in (before, after))
    added, _, dropped = counts_by_change(changed_rows(old, new))
    rows_before = int(old.count())
    after_rows = rows_before + added - dropped
    return {"before": rows_before, "added": added, "dropped": dropped, "after": after_rows}


def _new_bad_rows(ws: Workspace, before: Collection[str], now: Collection[str]) -> int:
    """Rows of the pool in quarantine that were not there before."""
    present = _quarantined(ws, now)
    if present is None:
        return 0
    present = present.withColumnRenamed("count", "present")
    earlier = _quarantined(ws, before)
    if earlier is None:
        rows = present.withColumn("count", F.lit(0))
    else:
        rows = present.join(earlier, ["row", "reason"], "left")
    more = F.greatest(F.col("present") - F.coalesce("count", F.lit(0)), F.lit(0))
    counted = rows.agg(F.sum(more.cast("bigint")).alias("rows"))
    return int(bounded(counted, 1, "rows in quarantine")["rows"][0].as_py() or 0)


def _quarantined(ws: Workspace, keys: Collection[str]) -> DataFrame | None:
    """Rows of the pool in quarantine by row and reason, with their count."""
    there = [k for k in keys if k and ws.exists("quarantine") and ws.holds("quarantine", k)]
    if not there:
        return None
    rows = ws.read_keys("quarantine", there).where(F.col("side") == F.lit("pool"))
    # Lines without an id are told apart by their text.
    row = F.coalesce("id", "detail", F.lit("")).alias("row")
    return rows.groupBy(row, "reason").count()
