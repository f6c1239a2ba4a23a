"""Stage clean, optional: rows that overlap held-out sets or repeat others are put aside."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from pyspark.sql import functions as F

from gio_spark import quantize
from gio_spark.engine import bounded
from gio_spark.errors import EmptySelectionError
from gio_spark.pipeline.stage_runner import Context, fingerprint
from gio_spark.pipeline.stages.cluster import Codebook
from gio_spark.pipeline.stages.embed import Side, held_out_of
from gio_spark.tables import Chunk, chunks_for, quoted_column

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from gio_spark.engine.progress import Stage as StageProgress

_SETTINGS = {
    "contamination_cosine", "contamination_grams", "contamination_share",
    "duplicates", "duplicate_cosine",
}  # fmt: skip


def wanted(ctx: Context) -> bool:
    """Tell whether the settings ask for this stage."""
    return bool(ctx.settings.held_out) or ctx.settings.quantize.duplicates != "keep"


def clean(ctx: Context, sides: dict[str, Side], book: Codebook) -> tuple[dict[str, Side], Codebook]:
    """Put rows aside and give sides and codebook as they are without them.

    Rows put aside are in quarantine with their reason; the assignments that later stages read are
    written without them. Centroids stay as they were fitted.

    Raises:
        EmptySelectionError: No row of the pool is left.
    """
    settings = ctx.settings.quantize
    used = settings.model_dump(mode="json", include=_SETTINGS)
    held = {s.name: s.key for s in held_out_of(sides)}
    key = fingerprint("clean", used, held, book.assignments["pool"], ctx.settings.seed)
    ws = ctx.workspace
    pool = sides["pool"]

    def put_aside(_: StageProgress) -> tuple[int, dict[str, Any]]:
        found = _found(ctx, sides, book).select(
            "id", "reason", F.col("matched").alias("detail"), F.lit("pool").alias("side")
        )
        rows = ws.write("quarantine", found, fingerprint=key, run=ctx.run, stage="clean")
        counted = ws.read("quarantine", key).groupBy("reason").count()
        counts = bounded(counted, 100, "reasons").to_pylist() if rows else []
        return rows, {"counts": {r["reason"]: r["count"] for r in counts}}

    record = ctx.stage("clean", key, "quarantine", put_aside, rows=pool.usable)
    if record.rows >= pool.usable:
        raise EmptySelectionError(
            f"Every one of the {pool.usable:,} usable rows of the pool was put aside as a copy or "
            f"as held-out content. See {ws.place('quarantine')}."
        )

    chunks = chunks_for(pool.usable - record.rows, ctx.settings.chunk_rows)

    def left(chunk: Chunk) -> DataFrame:
        aside = ws.read("quarantine", key).select("id")
        rows = ws.read("assignments", book.assignments["pool"], chunk=chunk)
        return rows.drop("fingerprint").join(aside, "id", "left_anti")

    def rest(shown: StageProgress) -> tuple[int, dict[str, Any]]:
        rows = ctx.write_chunks(
            shown,
            "assignments",
            left,
            count=chunks,
            key=key,
            stage="clean pool",
            expected=pool.usable - record.rows,
        )
        return rows, {}

    ctx.stage("clean pool", key, "assignments", rest)
    stats = quantize.cluster_stats(
        ws.read("assignments", key), len(book.centroids), quantile=settings.reach_quantile
    )
    cleaned = replace(
        pool, usable=pool.usable - record.rows, bad={**pool.bad, **record.detail["counts"]}
    )
    return {**sides, "pool": cleaned}, replace(
        book, assignments={**book.assignments, "pool": key}, stats=stats
    )


def _found(ctx: Context, sides: dict[str, Side], book: Codebook) -> DataFrame:
    """Return id, reason and matched id of all rows to put aside, each row once."""
    settings = ctx.settings.quantize
    held_out = held_out_of(sides)
    pool = _rows(ctx, sides["pool"], text=bool(held_out))
    parts: list[DataFrame] = []
    if held_out:
        held = _rows(ctx, held_out[0], text=True)
        for side in held_out[1:]:
            held = held.unionByName(_rows(ctx, side, text=True), allowMissingColumns=True)
        overlap = quantize.decontaminate(
            pool,
            quantize.HeldOut.collect(held, length=settings.contamination_grams),
            centroids=book.centroids,
            gram_threshold=settings.contamination_share,
            cosine_threshold=settings.contamination_cosine,
            spherical=settings.spherical,
        )
        parts.append(overlap.select("id", "reason", "matched"))
    if settings.duplicates != "keep":
        exact = quantize.exact_duplicates(pool.select("id", "content_hash", "quality"))
        parts.append(exact.select("id", "reason", F.col("keeper").alias("matched")))
    if settings.duplicates == "semantic":
        assigned = ctx.workspace.read("assignments", book.assignments["pool"])
        rows = pool.select("id", "vector", "quality").join(
            assigned.select("id", "cluster"), "id", "inner"
        )
        rows = rows.join(parts[-1].select("id"), "id", "left_anti")
        near = quantize.semantic_duplicates(
            rows,
            np.asarray(book.stats.rows),
            threshold=settings.duplicate_cosine,
            seed=ctx.settings.seed,
        )
        parts.append(near.select("id", "reason", F.col("keeper").alias("matched")))
    every = parts[0]
    for part in parts[1:]:
        every = every.unionByName(part)
    # A row found by several checks is put aside once, for the reason that comes first by name.
    return (
        every.groupBy("id")
        .agg(F.min(F.struct("reason", "matched")).alias("first"))
        .select(
            "id", F.col("first.reason").alias("reason"), F.col("first.matched").alias("matched")
        )
    )


def _rows(ctx: Context, side: Side, *, text: bool) -> DataFrame:
    rows = ctx.workspace.read("embeddings", side.key).where(F.col("reason").isNull())
    rows = rows.select("id", "content_hash", "vector", "quality")
    column = side.source.columns.text
    if not text or column is None:
        return rows
    content = side.source.rows.select("id", F.col(quoted_column(column)).alias("text"))
    return rows.join(content, "id", "inner")
