"""Stage clean, optional: duplicates and rows that overlap held-out sets go to quarantine.

Rows with the id of another row are removed earlier, where an input is opened (`tables/inputs.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from pyspark.sql import functions as F

from gio_spark import quantize
from gio_spark.engine import bounded
from gio_spark.errors import EmptySelectionError
from gio_spark.pipeline.run_context import RunContext
from gio_spark.pipeline.run_state import Dataset, Removed, RunState
from gio_spark.pipeline.stage_runner import Stage, Step
from gio_spark.pipeline.stages.cluster import pool_stats
from gio_spark.tables import WHOLE, Chunk, Workspace, quoted_column

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyspark.sql import DataFrame

    from gio_spark.engine.progress import Stage as StageProgress
    from gio_spark.settings.run import RunSettings


def is_cleaned(settings: RunSettings) -> bool:
    """Whether the settings ask for this stage."""
    return bool(settings.held_out) or settings.quantize.duplicates != "keep"


def clean_stages(held_out: Sequence[str]) -> list[Stage]:
    """Remove rows from the pool: those in quarantine, with their reason, and all others.

    The assignments that later stages read are written without the removed rows. Centroids stay as
    they were fitted.

    Args:
        held_out: Names of the held-out sets.
    """
    return [
        Stage(
            "clean",
            remove_rows,
            inputs=("codebook", "assigned.pool", *(f"embeddings.{name}" for name in held_out)),
            reads=("datasets",),
            outputs=("removed_rows",),
            settings=(
                "quantize.contamination_cosine",
                "quantize.contamination_grams",
                "quantize.contamination_share",
                "quantize.duplicates",
                "quantize.duplicate_cosine",
                "seed",
            ),
        ),
        Stage(
            "clean pool",
            write_others,
            inputs=("removed_rows",),
            reads=("assigned.pool", "datasets"),
            outputs=("assignments.pool",),
        ),
    ]


def remove_rows(step: Step, state: RunState) -> None:
    """Write the rows to remove to quarantine.

    Raises:
        EmptySelectionError: No row of the pool is left.
    """
    ws, pool = step.ctx.workspace, state.datasets.pool

    def make(_: StageProgress) -> tuple[int, dict[str, Any]]:
        removed = _rows_to_remove(step.ctx, state).select(
            "id", "reason", F.col("matched").alias("detail"), F.lit("pool").alias("side")
        )
        rows = step.write_rows("quarantine", removed)
        counted = ws.read("quarantine", step.key).groupBy("reason").count()
        counts = bounded(counted, 100, "reasons").to_pylist() if rows else []
        below = ws.base_of("assignments", state.assigned["pool"])
        before = step.key_with("assigned.pool", below.key) if below else ""
        return rows, {
            "counts": {r["reason"]: r["count"] for r in counts},
            # What was removed from the pool's earlier version, where that is known.
            "before": before if before and ws.complete("clean", before) else "",
        }

    record = step.record(make, table="quarantine", rows=pool.usable)
    if record.rows >= pool.usable:
        raise EmptySelectionError(
            f"Every one of the {pool.usable:,} usable rows of the pool was quarantined as a "
            f"copy or as held-out content. See {ws.place('quarantine')}."
        )
    state.removed_rows = step.key
    state.removed = Removed(record.detail["counts"])


def write_others(step: Step, state: RunState) -> None:
    """Write the assignments of the pool's other rows, on those of its earlier version."""
    ws, removed, assigned = step.ctx.workspace, state.removed_rows, state.assigned["pool"]
    below = ws.base_of("assignments", assigned)
    removed_before = ws.recorded("clean", removed)[-1].detail.get("before", "")
    base = step.key_with("removed_rows", removed_before) if removed_before else ""
    on_base = below is not None and ws.complete(step.stage.name, base) is not None

    def others(chunk: Chunk) -> DataFrame:
        rows = ws.read("assignments", assigned, chunk=chunk).drop("fingerprint")
        if on_base:
            new = ws.own_rows("replaced", step.key).where(F.col("change") != F.lit("gone"))
            new = new.select(F.col("id").alias("new_id")).distinct()
            rows = F.broadcast(new).join(rows, new["new_id"] == rows["id"]).drop("new_id")
        return rows.join(ws.read("quarantine", removed).select("id"), "id", "left_anti")

    def make(progress: StageProgress) -> tuple[int, dict[str, Any]]:
        if below is None or not on_base:
            return step.write_chunks(progress, "assignments", others, expected=state.pool_rows), {}
        differing = _differing(ws, below.hidden, removed_before, removed)
        step.write_rows("replaced", differing)
        step.write_chunks(progress, "assignments", others, expected=int(others(WHOLE).count()))
        return state.pool_rows, {"base": {"assignments": [base, step.key]}}

    step.record(make, table="assignments")
    state.assignments["pool"] = step.key


def _differing(ws: Workspace, replaced: str, before: str, now: str) -> DataFrame:
    """Rows whose earlier assignment does not count: replaced ones, and those removed or restored.

    Returns:
        id and change (added, changed or gone) of the pool without its removed rows.
    """
    rows = ws.own_rows("replaced", replaced).select("id", "change")
    old, new = (ws.read("quarantine", key).select("id") for key in (before, now))
    gone = new.join(old, "id", "left_anti").withColumn("change", F.lit("gone"))
    restored = old.join(new, "id", "left_anti").withColumn("change", F.lit("added"))
    return rows.unionByName(gone).unionByName(restored)


def _rows_to_remove(ctx: RunContext, state: RunState) -> DataFrame:
    """Id, reason and matched id of all rows to remove, each row once."""
    settings = ctx.settings.quantize
    held_out, centroids = state.datasets.held_out, state.codebook.centroids
    pool = _rows(ctx, state.datasets.pool, text=bool(held_out))
    parts: list[DataFrame] = []
    if held_out:
        held_out_rows = _rows(ctx, held_out[0], text=True)
        for one in held_out[1:]:
            held_out_rows = held_out_rows.unionByName(
                _rows(ctx, one, text=True), allowMissingColumns=True
            )
        overlap = quantize.decontaminate(
            pool,
            quantize.HeldOut.collect(held_out_rows, length=settings.contamination_grams),
            centroids=centroids,
            gram_threshold=settings.contamination_share,
            cosine_threshold=settings.contamination_cosine,
            spherical=settings.spherical,
        )
        parts.append(overlap.select("id", "reason", "matched"))
    if settings.duplicates != "keep":
        exact = quantize.exact_duplicates(pool.select("id", "content_hash", "quality"))
        parts.append(exact.select("id", "reason", F.col("keeper").alias("matched")))
    if settings.duplicates == "semantic":
        assigned = ctx.workspace.read("assignments", state.assigned["pool"])
        rows = pool.select("id", "vector", "quality").join(
            assigned.select("id", "cluster"), "id", "inner"
        )
        rows = rows.join(parts[-1].select("id"), "id", "left_anti")
        near = quantize.semantic_duplicates(
            rows,
            np.asarray(pool_stats(ctx, state.assigned["pool"], len(centroids)).rows),
            threshold=settings.duplicate_cosine,
            seed=ctx.settings.seed,
        )
        parts.append(near.select("id", "reason", F.col("keeper").alias("matched")))
    every = parts[0]
    for part in parts[1:]:
        every = every.unionByName(part)
    # A row that several checks name is removed once, for the reason that comes first by name.
    return (
        every.groupBy("id")
        .agg(F.min(F.struct("reason", "matched")).alias("first"))
        .select(
            "id", F.col("first.reason").alias("reason"), F.col("first.matched").alias("matched")
        )
    )


def _rows(ctx: RunContext, dataset: Dataset, *, text: bool) -> DataFrame:
    rows = ctx.workspace.read("embeddings", dataset.key).where(F.col("reason").isNull())
    rows = rows.select("id", "content_hash", "vector", "quality")
    column = dataset.source.columns.text
    if not text or column is None:
        return rows
    content = dataset.source.rows.select("id", F.col(quoted_column(column)).alias("text"))
    return rows.join(content, "id", "inner")
