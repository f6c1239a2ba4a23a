"""Stages fit ratio and score pool: density ratio of target over pool, per row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyspark.sql import functions as F

from gio_spark import explode
from gio_spark.errors import InputError
from gio_spark.pipeline.run_context import RunContext
from gio_spark.pipeline.run_records import RatioFacts
from gio_spark.pipeline.run_state import RatioModel, RunState
from gio_spark.pipeline.stage_runner import Stage, Step
from gio_spark.pipeline.stages.embed import vectors_of
from gio_spark.settings.budget import parse_budget
from gio_spark.tables import WHOLE, Chunk, quoted_column
from gio_spark.tables.model_arrays import array_text, load_arrays, save_arrays, text_array

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyspark.sql import DataFrame

    from gio_spark.engine.progress import Stage as StageProgress
    from gio_spark.settings.run import RunSettings
    from gio_spark.tables import Input, Workspace

_FIT_SETTINGS = (
    "estimator", "folds", "fit_rows", "regularization", "word_ngrams", "char_ngrams", "hash_bits",
    "text_bytes", "neighbors", "knn_rows",
)  # fmt: skip


def is_scored(settings: RunSettings) -> bool:
    """Whether the settings need the density ratio of the pool's rows."""
    by_ratio = settings.explode.within_cluster == "density_ratio"
    return by_ratio or parse_budget(settings.budget)[0] == "auto"


def content_kind(settings: RunSettings) -> str:
    """Content for scoring: `text` or `pairs`, where all inputs have it, or `vector`."""
    on_text = (
        settings.pool_columns().text is not None
        and all(settings.target_columns(i).text for i in range(len(settings.target)))
        and settings.explode.estimator == "classifier"
    )
    if not on_text:
        return "vector"
    return "text" if settings.pool_columns().output is None else "pairs"


def density_ratio_stages(targets: Sequence[str], kind: str) -> list[Stage]:
    """Fit the density ratio target over pool, and score every usable row of the pool.

    The fit needs no clusters, and on text not even vectors, so that it can go on beside their
    making: two small samples are fitted in one thread of the driver, while workers do the rest.

    Args:
        targets: Names of the targets.
        kind: What rows are scored by, see `content_kind`.
    """
    content = "embeddings" if kind == "vector" else "inputs"
    names = ("pool", *targets)
    return [
        Stage(
            "ratio samples and fit",
            query=lambda ctx, state: fit_ratio(ctx, state, targets, kind),
            inputs=tuple(f"{content}.{name}" for name in names),
            reads=("datasets",) if kind == "vector" else (),
            outputs=("ratio_fit",),
            settings=(*(f"explode.{name}" for name in _FIT_SETTINGS), "seed"),
        ),
        Stage(
            "fit ratio",
            lambda step, state: store_ratio(step, state, kind),
            inputs=("ratio_fit",),
            outputs=("ratio_model",),
        ),
        Stage(
            "score pool",
            score_pool,
            inputs=("ratio_model", "assignments.pool"),
            reads=("datasets",),
            outputs=("scores",),
        ),
    ]


def fit_ratio(
    ctx: RunContext, state: RunState, targets: Sequence[str], kind: str
) -> explode.RatioFit:
    """Fit the ratio on samples of the targets and of the pool."""
    target = content_of(ctx, state, targets[0], kind)
    for name in targets[1:]:
        target = target.unionByName(content_of(ctx, state, name, kind))
    return explode.fit_ratio(
        target,
        content_of(ctx, state, "pool", kind),
        content="content",
        kind=kind,
        settings=ctx.settings.explode,
        target_rows=sum(state.inputs[name].ids for name in targets),
        pool_rows=state.inputs["pool"].ids,
        seed=ctx.settings.seed,
    )


def store_ratio(step: Step, state: RunState, kind: str) -> None:
    """Store the fitted ratio with the facts of its fit."""
    ws = step.ctx.workspace

    def make(progress: StageProgress) -> tuple[int, dict[str, Any]]:
        fitted = state.ratio_fit()
        progress.say(f"on {fitted.target_rows:,} target and {fitted.pool_rows:,} pool rows")
        facts = RatioFacts(
            auc=fitted.calibration.auc,
            error=fitted.calibration.error,
            table={k: v.tolist() for k, v in fitted.calibration.table().items()},
            target_rows=fitted.target_rows,
            pool_rows=fitted.pool_rows,
            warnings=tuple(fitted.warnings),
            kind=kind,
        )
        arrays = {**fitted.model.to_arrays(), "facts": text_array(facts.model_dump(mode="json"))}
        return save_arrays(ws, "ratio", arrays, key=step.key, run=step.ctx.run), {}

    step.record(make, table="models")
    state.ratio_model = load_ratio(ws, step.key)


def load_ratio(workspace: Workspace, key: str) -> RatioModel:
    """Fitted ratio that is stored under a key."""
    arrays = load_arrays(workspace, key)
    facts = RatioFacts.model_validate(array_text(arrays.pop("facts")))
    return RatioModel(key, arrays, facts)


def score_pool(step: Step, state: RunState) -> None:
    """Score every usable row of the pool, on the scores of its earlier version."""
    ctx, ws, model = step.ctx, step.ctx.workspace, state.ratio_model
    assignments, total = state.assignments["pool"], state.pool_rows
    for text in model.facts.warnings:
        ctx.warn("density ratio", text, "See the calibration plot in the report.")
    below = ws.base_of("assignments", assignments)
    base = step.key_with("assignments.pool", below.key) if below else ""
    on_base = bool(base) and ws.complete(step.stage.name, base) is not None

    def scored(chunk: Chunk) -> DataFrame:
        new = ws.own_rows("assignments", assignments).select("id") if on_base else None
        content = content_of(ctx, state, "pool", model.facts.kind, chunk, only=new)
        ratio = explode.RatioModel.from_arrays(model.arrays)
        scores = explode.score(content, ratio, content="content", keep=())
        read = ws.own_rows if on_base else ws.read
        # A row that cannot be scored counts as neither like nor unlike the target.
        return (
            read("assignments", assignments, chunk=chunk)
            .select("id", "cluster")
            .join(scores, "id", "left")
            .select(
                "id",
                "cluster",
                F.coalesce("log_ratio", F.lit(0.0).cast("float")).alias("log_ratio"),
            )
        )

    def make(progress: StageProgress) -> tuple[int, dict[str, Any]]:
        rows = ws.own_rows("assignments", assignments).count() if on_base else total
        step.write_chunks(progress, "scores", scored, expected=rows)
        detail: dict[str, Any] = {}
        if on_base and below is not None:
            detail["base"] = {"scores": [base, below.hidden]}
        return total, detail

    step.record(make, table="scores", rows=total, claim=True)
    state.scores = step.key


def content_of(
    ctx: RunContext,
    state: RunState,
    name: str,
    kind: str,
    chunk: Chunk = WHOLE,
    *,
    only: DataFrame | None = None,
) -> DataFrame:
    """Id and content of the usable rows of a dataset, or of one chunk of them.

    Args:
        ctx: The run.
        state: Its inputs and, for vectors, its datasets.
        name: Whose rows.
        kind: text, pairs or vector.
        chunk: Which of them.
        only: Ids (few) of the rows that are read; None: all.
    """
    if kind == "vector":
        dataset = next(one for one in state.datasets if one.name == name)
        rows = vectors_of(ctx, dataset, chunk).select("id", F.col("vector").alias("content"))
    else:
        source = state.inputs[name]
        if source.columns.text is None:
            raise InputError(f"{name}: a density ratio on text needs columns.text.")
        rows = text_content(source, chunk.rows(source.rows), kind)
    if only is not None:
        ids = only.select(F.col("id").alias("new_id"))
        rows = F.broadcast(ids).join(rows, ids["new_id"] == rows["id"]).drop("new_id")
    return rows.where(F.col("content").isNotNull())


def text_content(source: Input, rows: DataFrame, kind: str) -> DataFrame:
    """Id and content of rows of an input, as the density ratio reads it; null where it has none.

    Args:
        source: The input, for its roles.
        rows: Its rows.
        kind: text, or pairs (structs of text and output).
    """
    content = F.col(quoted_column(str(source.columns.text)))
    if kind == "pairs":
        output = F.col(quoted_column(str(source.columns.output)))
        present = content.isNotNull() & output.isNotNull()
        content = F.when(present, F.struct(content.alias("text"), output.alias("output")))
    return rows.select("id", content.alias("content"))
