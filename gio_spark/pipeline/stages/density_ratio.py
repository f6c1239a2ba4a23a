"""Stages fit ratio and score pool: how much more likely a row is under the target than the pool."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pyspark.sql import functions as F

from gio_spark import explode
from gio_spark.errors import InputError
from gio_spark.pipeline.stage_runner import Context, fingerprint
from gio_spark.pipeline.stages.cluster import Codebook
from gio_spark.pipeline.stages.embed import Side, targets_of, vectors_of
from gio_spark.tables import WHOLE, Chunk, chunks_for, quoted_column
from gio_spark.tables.model_arrays import array_text, load_arrays, save_arrays, text_array

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from gio_spark.engine.progress import Stage as StageProgress


@dataclass(frozen=True)
class Ratio:
    """The density ratio of the pool's rows.

    Attributes:
        key: Fingerprint of its scores.
        model_key: Fingerprint of the fitted model.
        kind: text or vector: what is scored.
        facts: Calibration and sizes, as plain values.
    """

    key: str
    model_key: str
    kind: str
    facts: dict[str, Any]


@dataclass(frozen=True)
class Begun:
    """A fit of the density ratio under way; `fitted` waits for it."""

    kind: str
    model_key: str
    fitted: Callable[[], explode.RatioFit]


def content_kind(ctx: Context) -> str:
    """Return what rows are scored by: `text`, where all have some and it serves, or `vector`."""
    settings = ctx.settings
    on_text = (
        settings.pool_columns().text is not None
        and all(settings.target_columns(i).text for i in range(len(settings.target)))
        and settings.explode.estimator == "classifier"
    )
    return "text" if on_text else "vector"


def begin(ctx: Context, sides: dict[str, Side]) -> Begun:
    """Begin to fit the density ratio target over pool, unless it is there already.

    It needs no clusters, and on text not even vectors, so that it can go on beside their making:
    two small samples are fitted in one thread of the driver, while workers do the rest.
    """
    settings = ctx.settings.explode
    targets = targets_of(sides)
    kind = content_kind(ctx)
    used = settings.model_dump(
        mode="json",
        exclude={"within_cluster", "temperature", "output", "broadcast_rows", "bloom_megabytes"},
    )
    model_key = fingerprint(
        "ratio", used, kind, ctx.settings.seed, {s.name: s.key for s in (sides["pool"], *targets)}
    )

    def fit() -> explode.RatioFit:
        target = content_of(ctx, targets[0], kind)
        for side in targets[1:]:
            target = target.unionByName(content_of(ctx, side, kind))
        return explode.fit_ratio(
            target,
            content_of(ctx, sides["pool"], kind),
            content="content",
            kind=kind,
            settings=settings,
            target_rows=sum(s.usable for s in targets),
            pool_rows=sides["pool"].usable,
            seed=ctx.settings.seed,
        )

    return Begun(kind, model_key, ctx.ahead("fit ratio", model_key, fit))


def score(ctx: Context, sides: dict[str, Side], book: Codebook, begun: Begun) -> Ratio:
    """Store the density ratio that was begun, and score every usable row of the pool."""
    kind, model_key = begun.kind, begun.model_key

    def fit(_: StageProgress) -> tuple[int, dict[str, Any]]:
        fitted = begun.fitted()
        facts = {
            "auc": fitted.calibration.auc,
            "error": fitted.calibration.error,
            "table": {k: v.tolist() for k, v in fitted.calibration.table().items()},
            "target_rows": fitted.target_rows,
            "pool_rows": fitted.pool_rows,
            "warnings": list(fitted.warnings),
            "kind": kind,
        }
        arrays = {**fitted.model.to_arrays(), "facts": text_array(facts)}
        return save_arrays(ctx.workspace, "ratio", arrays, key=model_key, run=ctx.run), {}

    ctx.stage("fit ratio", model_key, "models", fit)
    return score_pool(ctx, sides["pool"], book, model_key)


def score_pool(ctx: Context, pool: Side, book: Codebook, model_key: str) -> Ratio:
    """Score every usable row of a pool by a fitted ratio, on the scores of its earlier version."""
    ws, stage, assignments = ctx.workspace, "score pool", book.assignments["pool"]
    arrays = load_arrays(ws, model_key)
    facts = array_text(arrays.pop("facts"))
    for text in facts["warnings"]:
        ctx.caution("density ratio", text, "See the calibration plot; or use exact_count.")
    key = fingerprint("scores", model_key, assignments)
    below = ws.base_of("assignments", assignments)
    base = fingerprint("scores", model_key, below.key) if below else ""
    on_base = bool(base) and ws.complete(stage, base) is not None
    total = int(book.stats.rows.sum())

    def rated(chunk: Chunk) -> DataFrame:
        model = explode.RatioModel.from_arrays(arrays)
        content = content_of(ctx, pool, facts["kind"], chunk, only_new=on_base)
        scored = explode.score(content, model, content="content", keep=())
        read = ws.own_rows if on_base else ws.read
        # A row that cannot be scored counts as neither like nor unlike the target.
        return (
            read("assignments", assignments, chunk=chunk)
            .select("id", "cluster")
            .join(scored, "id", "left")
            .select(
                "id",
                "cluster",
                F.coalesce("log_ratio", F.lit(0.0).cast("float")).alias("log_ratio"),
            )
        )

    def apply(shown: StageProgress) -> tuple[int, dict[str, Any]]:
        rows = ws.own_rows("assignments", assignments).count() if on_base else total
        ctx.write_chunks(
            shown,
            "scores",
            rated,
            count=chunks_for(rows, ctx.settings.chunk_rows),
            key=key,
            stage=stage,
            expected=rows,
        )
        detail: dict[str, Any] = {}
        if on_base and below is not None:
            detail["base"] = {"scores": [base, below.hidden]}
        return total, detail

    ctx.stage(stage, key, "scores", apply, rows=total, claim=True)
    return Ratio(key, model_key, facts["kind"], facts)


def content_of(
    ctx: Context, side: Side, kind: str, chunk: Chunk = WHOLE, *, only_new: bool = False
) -> DataFrame:
    """Return id and content of a side's usable rows, or of one chunk of them.

    Args:
        ctx: The run.
        side: Whose rows.
        kind: text or vector.
        chunk: Which of them.
        only_new: Only rows that its version brought.
    """
    if kind == "vector":
        vectors = vectors_of(ctx, side, chunk, only_new=only_new)
        return vectors.select("id", F.col("vector").alias("content"))
    column = side.source.columns.text
    if column is None:
        raise InputError(f"{side.name}: a density ratio on text needs columns.text.")
    rows = chunk.rows(side.source.rows)
    rows = rows.select("id", F.col(quoted_column(column)).alias("content"))
    if only_new:
        new = ctx.workspace.own_rows("embeddings", side.key).select(F.col("id").alias("new_id"))
        rows = F.broadcast(new).join(rows, new["new_id"] == rows["id"]).drop("new_id")
    return rows.where(F.col("content").isNotNull())
