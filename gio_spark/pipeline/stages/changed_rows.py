"""Rows of an input that are new, changed or gone since its last version: only they are embedded.

The earlier rows stay where they are and count for the new version as well, but for those that are
gone or changed (`replaced` holds their ids). Changed rows are written anew; one whose content was
embedded before, under whatever id, takes its vector from there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from gio_spark import embed
from gio_spark.engine import bounded
from gio_spark.tables.change_feed import changed_ids

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from gio_spark.pipeline.run_context import RunContext
    from gio_spark.tables import Input, Record, Workspace

# Every stage below costs each later reader a join with the ids that do not count. A version that
# would have more is put on the lowest one, with all that changed since.
MOST_STAGES_BELOW = 4
# Above this share of new and changed rows, all rows are written anew.
MOST_CHANGED = 0.5
# Above this share of rows that a change data feed names, all rows are compared.
MOST_IN_FEED = 0.2

_HASHES = ("content_hash", "row_hash")


@dataclass(frozen=True)
class EmbeddingChanges:
    """Difference between an input and the embeddings of its earlier version.

    Attributes:
        base: Key of the earlier embeddings that are compared with.
        newest: Key of those that vectors are taken from; another one where the base is older.
        added: Rows whose ids are new.
        changed: Rows with an id that was there and other content or other carried values.
        gone: Ids that are no longer there.
        known: Of the added and changed rows, those whose content was embedded before.
        on_base: Whether the earlier rows go on to count; else all rows are written anew.
        by_feed: Whether only rows that the table's change data feed names were compared.
        by_files: Whether only rows of files that were added were compared.
    """

    base: str
    newest: str
    added: int
    changed: int
    gone: int
    known: int
    on_base: bool
    by_feed: bool = False
    by_files: bool = False

    @property
    def way(self) -> str:
        """How they were found, as the end of a line; "" where all rows were compared."""
        if self.by_feed:
            return ", by the change data feed"
        return ", by the files that were added" if self.by_files else ""


def earlier_embeddings(workspace: Workspace, stage: str, embedder: str, source: Input) -> str:
    """Key of the newest embeddings that the same embedder made of the same input, or ""."""
    candidates = [
        r
        for r in workspace.records()
        if r.stage == stage
        and r.detail.get("embedder") == embedder
        and source.location == r.detail.get("location")
    ]
    for record in reversed(candidates):
        if workspace.complete(stage, record.fingerprint) is not None:
            return record.fingerprint
    return ""


def find_changes(
    ctx: RunContext, source: Input, embedder: embed.Embedder, *, newest: str, key: str, stage: str
) -> tuple[EmbeddingChanges, DataFrame]:
    """Compare an input with its earlier embeddings, and write what differs to `replaced`.

    Rows are compared by the hashes of their content and of the values carried along, in one join
    of hashes: those that the table's change data feed names, where there is one, or those of files
    that were added, where no other file has changed, else all.

    Args:
        ctx: The run.
        source: The input.
        embedder: Prepared embedder.
        newest: Key of the newest earlier embeddings.
        key: Key of the new ones, under which the differences are written.
        stage: Stage that writes.

    Returns:
        What differs, and rows of the input among which are all that are new or changed.
    """
    ws = ctx.workspace
    below = ws.stages_below("embeddings", newest)
    base = newest if len(below) < MOST_STAGES_BELOW else below[-1]

    def write_changes(present: DataFrame, ids: DataFrame | None) -> tuple[int, int, int]:
        before = ws.read("embeddings", base)
        if ids is not None:
            before = before.join(ids, "id", "left_semi")
        now = embed.describe_rows(present, embedder, columns=source.columns)
        rows = changed_rows(before.select("id", *_HASHES), now.select("id", *_HASHES))
        ws.write("replaced", rows, fingerprint=key, run=ctx.run, stage=stage)
        return counts_by_change(ws.own_rows("replaced", key))

    earlier = ws.recorded(stage, base)[-1]
    by_feed = by_files = False
    present = rows_in_added_files(source, earlier)
    if present is not None:
        by_files = True
        added, changed, gone = write_changes(present, present.select("id"))
    elif (ids := _ids_in_feed(ctx, source, earlier)) is not None:
        by_feed, present = True, source.rows
        added, changed, gone = write_changes(present.join(ids, "id", "left_semi"), ids)
    if present is None or earlier.rows + added - gone != source.ids:
        if present is not None:
            _say_compared(ctx, source, "the counts do not add up")
        by_feed, by_files, present = False, False, source.rows
        added, changed, gone = write_changes(present, None)
    changes = EmbeddingChanges(
        base=base,
        newest=newest,
        added=added,
        changed=changed,
        gone=gone,
        known=_known_rows(ws, newest, key),
        on_base=added + changed <= MOST_CHANGED * source.ids,
        by_feed=by_feed,
        by_files=by_files,
    )
    return changes, present


def rows_in_added_files(source: Input, earlier: Record) -> DataFrame | None:
    """Rows of an input that lie in files added since earlier embeddings of it.

    Returns:
        None where other rows may have changed as well, or where it cannot be said.
    """
    if earlier.detail.get("any_version") != source.any_version():
        return None
    return source.rows_in_files_since(earlier.detail.get("files"))


def _ids_in_feed(ctx: RunContext, source: Input, earlier: Record) -> DataFrame | None:
    """Ids of the rows that the change data feed names since earlier embeddings, or None."""
    is_same_table = earlier.detail.get("any_version") == source.any_version()
    since = int(earlier.detail["version"]) if is_same_table and source.format == "delta" else None
    ids, why = changed_ids(ctx.spark, source, since, int(MOST_IN_FEED * source.ids))
    if why:
        _say_compared(ctx, source, f"the change data feed does not say what changed, {why}")
    return ids


def _say_compared(ctx: RunContext, source: Input, why: str) -> None:
    ctx.progress.say(f"{source.name}: all rows are compared: {why}")


def changed_rows(before: DataFrame, now: DataFrame) -> DataFrame:
    """Rows that differ between two frames of the same columns, of which `id` is unique.

    Returns:
        id, change (added, changed or gone) and the other columns as they are now.
    """
    columns = [c for c in now.columns if c not in ("id", "fingerprint")]
    old = before.select(F.col("id").alias("old_id"), *[F.col(c).alias(f"old_{c}") for c in columns])
    joined = now.select("id", *columns).join(old, now["id"] == old["old_id"], "full_outer")
    same = F.lit(True)
    for column in columns:
        same = same & F.col(column).eqNullSafe(F.col(f"old_{column}"))
    change = (
        F.when(F.col("old_id").isNull(), F.lit("added"))
        .when(F.col("id").isNull(), F.lit("gone"))
        .when(~same, F.lit("changed"))
    )
    differing = joined.withColumn("change", change).where(F.col("change").isNotNull())
    return differing.select(F.coalesce("id", "old_id").alias("id"), "change", *columns)


def counts_by_change(rows: DataFrame) -> tuple[int, int, int]:
    """Numbers of rows added, changed and gone."""
    table = bounded(rows.groupBy("change").count(), 3, "changes").to_pylist()
    counts = {row["change"]: int(row["count"]) for row in table}
    return counts.get("added", 0), counts.get("changed", 0), counts.get("gone", 0)


def _known_rows(ws: Workspace, newest: str, key: str) -> int:
    """Number of new and changed rows whose content has a vector already."""
    hashes = _new_rows(ws, key).select("content_hash")
    before = ws.read("embeddings", newest).where(F.col("reason").isNull())
    embedded = hashes.distinct().join(before.select("content_hash").distinct(), "content_hash")
    return int(hashes.join(embedded, "content_hash").count())


def _new_rows(ws: Workspace, key: str) -> DataFrame:
    return ws.own_rows("replaced", key).where(F.col("change") != F.lit("gone"))


def changed_embeddings(
    ws: Workspace,
    rows: DataFrame,
    source: Input,
    embedder: embed.Embedder,
    changes: EmbeddingChanges,
    *,
    key: str,
    directions: bool,
) -> DataFrame:
    """Embeddings of the rows that are new or changed.

    Args:
        ws: The workspace.
        rows: Rows of the input, or of a chunk of it, with all that are new or changed.
        source: The input.
        embedder: Prepared and fitted embedder.
        changes: What differs.
        key: Key of the new embeddings.
        directions: As for `embed.embed`.
    """
    ids = _new_rows(ws, key).select(F.col("id").alias("new_id"), "content_hash")
    if not changes.known:
        fresh = _only(rows, ids.select("new_id"))
        return embed.embed(fresh, embedder, columns=source.columns, directions=directions)
    before = ws.read("embeddings", changes.newest).where(F.col("reason").isNull())
    before = before.select(F.col("content_hash").alias("known_hash"), "vector")
    hashes = ids.select("content_hash").distinct()
    # Equal content has equal vectors, so it does not matter whose is taken.
    vectors = (
        F.broadcast(hashes)
        .join(before, hashes["content_hash"] == before["known_hash"])
        .select("known_hash", "vector")
        .dropDuplicates(["known_hash"])
    )
    known = vectors.select("known_hash")
    to_embed = ids.join(known, ids["content_hash"] == known["known_hash"], "left_anti")
    to_copy = ids.join(known, ids["content_hash"] == known["known_hash"], "left_semi")
    fresh = _only(rows, to_embed.select("new_id"))
    embedded = embed.embed(fresh, embedder, columns=source.columns, directions=directions)
    described = embed.describe_rows(
        _only(rows, to_copy.select("new_id")), embedder, columns=source.columns
    )
    copied = described.join(vectors, described["content_hash"] == vectors["known_hash"]).select(
        *described.columns, F.when(F.col("reason").isNull(), F.col("vector")).alias("vector")
    )
    return embedded.unionByName(copied)


def unchanged_embeddings(ws: Workspace, changes: EmbeddingChanges, *, key: str) -> DataFrame:
    """Earlier embeddings of the rows that did not change, to be written anew."""
    ids = ws.own_rows("replaced", key).select(F.col("id").alias("new_id"))
    rows = ws.read("embeddings", changes.base)
    joined = F.broadcast(ids).join(rows, ids["new_id"] == rows["id"], "right_outer")
    return joined.where(F.col("new_id").isNull()).drop("new_id", "fingerprint")


def _only(rows: DataFrame, ids: DataFrame) -> DataFrame:
    """Rows with one of few ids, which are on the left side: every engine broadcasts that one."""
    return F.broadcast(ids).join(rows, ids["new_id"] == rows["id"]).drop("new_id")
