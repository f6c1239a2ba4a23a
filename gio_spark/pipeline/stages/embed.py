"""Stages fit embedder and embed: rows to vectors."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
from pyspark.sql import functions as F

from gio_spark import embed
from gio_spark.engine import ensure_parallelism
from gio_spark.errors import InputError
from gio_spark.pipeline.run_context import RunContext, fingerprint
from gio_spark.pipeline.run_state import Dataset, FittedEmbedder, RunState
from gio_spark.pipeline.stage_runner import Stage, Step
from gio_spark.pipeline.stages.changed_rows import (
    EmbeddingChanges,
    changed_embeddings,
    earlier_embeddings,
    find_changes,
    unchanged_embeddings,
)
from gio_spark.tables import WHOLE, Chunk
from gio_spark.tables.model_arrays import load_arrays, save_arrays

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from gio_spark.engine.progress import Stage as StageProgress
    from gio_spark.tables import Input

# Settings of the embedder that change its speed, not its vectors.
_SPEED = {"batch_rows", "processes", "device", "model_batch"}

CARRIED = ("tokens", "source", "quality", "event_time", "ingest_time", "label")


def make_embedder(ctx: RunContext) -> embed.Embedder:
    """Embedder of the run, checked before any work."""
    return embed.make_embedder(ctx.settings.embed, ctx.settings.pool_columns())


def embedder_identity(embedder: embed.Embedder) -> list[Any]:
    """Identity of the embedder: everything beside rows and fitted state that vectors depend on."""
    settings = embedder.settings.model_dump(mode="json", exclude=_SPEED)
    return [embedder.name, embedder.revision, settings]


def fit_embedder_stage() -> Stage:
    """Fit an embedder that needs it on a sample of the pool.

    The key of what it gives is what was fitted, not what it was fitted on: where another pool leads
    to the same, the targets are not embedded again.
    """
    return Stage(
        "fit embedder",
        _fit_embedder,
        inputs=("embedder", "inputs.pool"),
        outputs=("fitted_embedder",),
        keyed_by_content=True,
    )


def _fit_embedder(step: Step, state: RunState) -> None:
    embedder, pool, ws = state.embedder, state.inputs["pool"], step.ctx.workspace

    def make(_: StageProgress) -> tuple[int, dict[str, Any]]:
        try:
            arrays = embed.fit_state(pool.rows, embedder, total=pool.count)
        except InputError as error:
            raise InputError(f"{pool.name}: {pool.location}: {error}") from error
        return save_arrays(ws, "embedder", arrays, key=step.key, run=step.ctx.run), {}

    step.record(make, table="models")
    fitted = embedder.with_state(load_arrays(ws, step.key))
    set_fitted_embedder(state, FittedEmbedder(fitted, step.key))


def set_fitted_embedder(state: RunState, fitted: FittedEmbedder) -> None:
    """Put a fitted embedder into the state, under the hash of what it has fitted."""
    digest = hashlib.sha256()
    for name, array in sorted(fitted.embedder.state.items()):
        digest.update(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    state.fitted_embedder = fitted
    state.keys["fitted_embedder"] = fingerprint(
        "fitted embedder", embedder_identity(fitted.embedder), digest.hexdigest()
    )


def embed_stage(name: str) -> Stage:
    """Embed the rows of one input, on the embeddings of its earlier version where there are some.

    Args:
        name: pool, target, held-out-1, ...
    """
    return Stage(
        f"embed {name}",
        lambda step, state: _embed(step, state, name),
        inputs=("fitted_embedder", f"inputs.{name}"),
        outputs=(f"embeddings.{name}",),
        settings=("quantize.spherical",),
    )


def _embed(step: Step, state: RunState, name: str) -> None:
    ctx, key, stage = step.ctx, step.key, step.stage.name
    ws, source, embedder = ctx.workspace, state.inputs[name], state.fitted_embedder.embedder
    directed = ctx.settings.quantize.spherical
    same_vectors = vectors_key(ctx, state, source)

    def rows_of(chunk: Chunk, present: DataFrame, changes: EmbeddingChanges | None) -> DataFrame:
        rows = chunk.rows(present)
        if changes is None:
            rows = ensure_parallelism(rows, "id", source.bytes)
            out = embed.embed(rows, embedder, columns=source.columns, directions=directed)
        else:
            out = changed_embeddings(
                ws, rows, source, embedder, changes, key=key, directions=directed
            )
        out = out.select(
            "*",
            F.lit(source.name).alias("side"),
            F.lit(embedder.name).alias("embedder"),
            F.lit(embedder.revision).alias("embedder_revision"),
            F.lit(source.version).alias("input_version"),
        )
        if changes is not None and not changes.on_base:
            unchanged = chunk.rows(unchanged_embeddings(ws, changes, key=key))
            out = out.unionByName(unchanged.select(*out.columns))
        return out

    def make(progress: StageProgress) -> tuple[int, dict[str, Any]]:
        newest = earlier_embeddings(ws, stage, same_vectors, source)
        changes, present = None, source.rows
        if newest:
            changes, present = find_changes(
                ctx, source, embedder, newest=newest, key=key, stage=stage
            )
            progress.say(
                f"{changes.added + changes.changed:,} new or changed rows, {changes.gone:,} gone"
                f"{changes.way}"
            )
        on_base = changes is not None and changes.on_base
        new_rows = changes.added + changes.changed if changes and on_base else source.ids
        step.write_chunks(
            progress,
            "embeddings",
            lambda chunk: rows_of(chunk, present, changes),
            expected=new_rows,
        )
        source.recheck()
        detail: dict[str, Any] = {
            "side": source.name,
            "version": source.version,
            "embedder": same_vectors,
            "location": source.location,
            "any_version": source.any_version(),
        }
        if source.file_rows is not None and (marks := source.file_rows.marks()) is not None:
            detail["files"] = marks
        if changes is not None:
            detail["changes"] = asdict(changes)
        if changes is not None and changes.on_base:
            detail["base"] = {"embeddings": [changes.base, key]}
        return source.ids, detail

    record = step.record(make, table="embeddings", rows=source.ids, claim=True)
    state.embeddings[name] = record.rows


def vectors_key(ctx: RunContext, state: RunState, source: Input) -> str:
    """Key of the vectors that are the same for the same content: by embedder and columns."""
    directed = ctx.settings.quantize.spherical
    return fingerprint(
        "vectors of", state.keys["fitted_embedder"], source.columns.digest(), directed
    )


def vectors_of(
    ctx: RunContext, dataset: Dataset, chunk: Chunk = WHOLE, *, only_new: bool = False
) -> DataFrame:
    """Usable rows of a dataset, or of one chunk of them: id, vector and what is carried.

    Args:
        ctx: The run.
        dataset: Whose rows.
        chunk: Which of them.
        only_new: Only rows that its version brought, not those of an earlier one.
    """
    read = ctx.workspace.own_rows if only_new else ctx.workspace.read
    rows = read("embeddings", dataset.key, chunk=chunk)
    rows = rows.where(F.col("reason").isNull())
    return rows.select("id", "vector", *CARRIED)
