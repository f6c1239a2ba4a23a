"""Stages fit ratio and score pool: how much more likely a row is under the target than the pool."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pyspark.sql import functions as F

from gio_spark import explode
from gio_spark.errors import InputError
from gio_spark.pipeline.clusters import Codebook
from gio_spark.pipeline.context import Context, fingerprint
from gio_spark.pipeline.store import array_text, load_arrays, save_arrays, text_array
from gio_spark.pipeline.vectors import Side, targets_of, vectors_of
from gio_spark.tables import WHOLE, Chunk, chunks_for, quoted_column

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
    kind, model_key, ws = begun.kind, begun.model_key, ctx.workspace

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
        return save_arrays(ctx, "ratio", arrays, key=model_key), {}

    ctx.stage("fit ratio", model_key, "models", fit)
    arrays = load_arrays(ws, model_key)
    facts = array_text(arrays.pop("facts"))
    for text in facts["warnings"]:
        ctx.caution("density ratio", text, "See the calibration plot; or use exact_count.")
    key = fingerprint("scores", model_key, book.assignments["pool"])

    chunks = chunks_for(sides["pool"].usable, ctx.settings.chunk_rows)

    def rated(chunk: Chunk) -> DataFrame:
        model = explode.RatioModel.from_arrays(arrays)
        scored = explode.score(
            content_of(ctx, sides["pool"], kind, chunk), model, content="content", keep=()
        )
        assigned = ws.read("assignments", book.assignments["pool"], chunk=chunk)
        # A row that cannot be scored counts as neither like nor unlike the target.
        return (
            assigned.select("id", "cluster")
            .join(scored, "id", "left")
            .select(
                "id",
                "cluster",
                F.coalesce("log_ratio", F.lit(0.0).cast("float")).alias("log_ratio"),
            )
        )

    def apply(shown: StageProgress) -> tuple[int, dict[str, Any]]:
        rows = ctx.write_chunks(
            shown,
            "scores",
            rated,
            count=chunks,
            key=key,
            stage="score pool",
            expected=int(book.stats.rows.sum()),
        )
        return rows, {}

    ctx.stage("score pool", key, "scores", apply, rows=sides["pool"].usable, claim=True)
    return Ratio(key, model_key, kind, facts)


def content_of(ctx: Context, side: Side, kind: str, chunk: Chunk = WHOLE) -> DataFrame:
    """Return id and content of a side's usable rows, or of one chunk of them."""
    if kind == "vector":
        return vectors_of(ctx, side, chunk).select("id", F.col("vector").alias("content"))
    column = side.source.columns.text
    if column is None:
        raise InputError(f"{side.name}: a density ratio on text needs columns.text.")
    rows = chunk.rows(side.source.rows)
    rows = rows.select("id", F.col(quoted_column(column)).alias("content"))
    return rows.where(F.col("content").isNotNull())
