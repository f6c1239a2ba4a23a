"""Stages embed and quarantine: rows to vectors, and unusable rows put aside."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from pyspark.sql import functions as F

from gio_spark import embed
from gio_spark.engine import bounded, ensure_parallelism
from gio_spark.errors import InputError, TooManyBadRowsError
from gio_spark.pipeline.stage_runner import Context, fingerprint
from gio_spark.pipeline.stages.embedding_changes import (
    EmbeddingChanges,
    changed_embeddings,
    earlier_embeddings,
    find_changes,
    unchanged_embeddings,
)
from gio_spark.tables import WHOLE, Chunk, chunks_for, count_values
from gio_spark.tables.model_arrays import load_arrays, save_arrays

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from gio_spark.engine.progress import Stage as StageProgress
    from gio_spark.tables import Input

# Settings of the embedder that change its speed, not its vectors.
_SPEED = {"batch_rows", "processes", "device", "model_batch"}
# Rows that were put aside because another row says the same are no sign of bad data.
HARMLESS = ("copy of another row", "duplicate")

_CONTENT = ("text", "vector", "image")

CARRIED = ("tokens", "source", "quality", "event_time", "ingest_time", "label")


@dataclass(frozen=True)
class Side:
    """One embedded input.

    Attributes:
        name: pool, target, target-1, ...
        source: The pinned input.
        key: Fingerprint of its embeddings.
        usable: Rows with a vector.
        bad: Reason -> rows put aside.
    """

    name: str
    source: Input
    key: str
    usable: int
    bad: dict[str, int]


def make_embedder(ctx: Context) -> embed.Embedder:
    """Return the embedder of the run, checked before any work."""
    return embed.make_embedder(ctx.settings.embed, ctx.settings.pool_columns())


def embedder_name(embedder: embed.Embedder) -> list[Any]:
    """Return what the vectors depend on beside the rows."""
    settings = embedder.settings.model_dump(mode="json", exclude=_SPEED)
    return [embedder.name, embedder.revision, settings]


def fit_embedder(ctx: Context, embedder: embed.Embedder, pool: Input) -> tuple[embed.Embedder, str]:
    """Fit the embedder on a sample of the pool where it needs that; gives it and its key."""
    if not embedder.needs_fit:
        return embedder, ""
    key = fingerprint("embed-fit", embedder_name(embedder), pool.fingerprint())

    def make(_: StageProgress) -> tuple[int, dict[str, Any]]:
        try:
            state = embed.fit_state(pool.rows, embedder, total=pool.count)
        except InputError as error:
            raise InputError(f"{pool.name}: {pool.location}: {error}") from error
        return save_arrays(ctx.workspace, "embedder", state, key=key, run=ctx.run), {}

    ctx.stage("embed-fit", key, "models", make)
    return embedder.with_state(load_arrays(ctx.workspace, key)), key


def to_embed(
    ctx: Context, embedder: embed.Embedder, inputs: Mapping[str, Input]
) -> dict[str, Side]:
    """Return the sides as they will be if every row can be used; for what needs no vectors."""
    return {n: Side(n, s, _embedding_key(ctx, embedder, s), s.ids, {}) for n, s in inputs.items()}


def embed_sides(
    ctx: Context, embedder: embed.Embedder, inputs: Mapping[str, Input]
) -> dict[str, tuple[Input, str, int]]:
    """Embed the inputs; gives each with the fingerprint of its rows and their number."""
    return {name: (source, *_embed_side(ctx, embedder, source)) for name, source in inputs.items()}


def _directions(ctx: Context) -> list[str]:
    return ["directions"] if ctx.settings.quantize.spherical else []


def _embedding_key(ctx: Context, embedder: embed.Embedder, source: Input) -> str:
    name, state = embedder_name(embedder), _state_digest(embedder)
    return fingerprint("embed", name, state, source.fingerprint(), *_directions(ctx))


def _state_digest(embedder: embed.Embedder) -> str:
    """Hash of what was fitted: another pool may lead to the same, as for ready-made vectors."""
    digest = hashlib.sha256()
    for name, array in sorted(embedder.state.items()):
        digest.update(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:32]


def _embed_side(ctx: Context, embedder: embed.Embedder, source: Input) -> tuple[str, int]:
    """Write the embeddings of an input, on those of its earlier version where there are some."""
    ws, stage = ctx.workspace, f"embed {source.name}"
    key = _embedding_key(ctx, embedder, source)
    directed = bool(_directions(ctx))
    # Which vectors are the same for the same content: those of this embedder, of these columns.
    same_vectors = fingerprint(
        "vectors of",
        embedder_name(embedder),
        _state_digest(embedder),
        source.columns.digest(),
        directed,
    )

    def rows_of(chunk: Chunk, changes: EmbeddingChanges | None) -> DataFrame:
        rows = chunk.rows(source.rows)
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

    def make(shown: StageProgress) -> tuple[int, dict[str, Any]]:
        newest = earlier_embeddings(ws, stage, same_vectors, source)
        changes = None
        if newest:
            changes = find_changes(ctx, source, embedder, newest=newest, key=key, stage=stage)
            shown.say(
                f"{changes.added + changes.changed:,} new or changed rows, {changes.gone:,} gone"
            )
        on_base = changes is not None and changes.on_base
        own = changes.added + changes.changed if changes and on_base else source.ids
        # The number of chunks is no part of the key: the rows are the same.
        ctx.write_chunks(
            shown,
            "embeddings",
            lambda chunk: rows_of(chunk, changes),
            count=chunks_for(own, ctx.settings.chunk_rows),
            key=key,
            stage=stage,
            expected=own,
        )
        source.recheck()
        detail: dict[str, Any] = {
            "side": source.name,
            "version": source.version,
            "embedder": same_vectors,
            "location": source.location,
        }
        if changes is not None:
            detail["changes"] = asdict(changes)
        if changes is not None and changes.on_base:
            detail["base"] = {"embeddings": [changes.base, key]}
        return source.ids, detail

    record = ctx.stage(stage, key, "embeddings", make, rows=source.ids, claim=True)
    return key, record.rows


def set_aside(ctx: Context, embedded: dict[str, tuple[Input, str, int]]) -> dict[str, Side]:
    """Write unusable rows of all inputs to quarantine and count them.

    Raises:
        TooManyBadRowsError: Their share of an input is above `quarantine.max_share`.
        InputError: An input has no usable row left.
    """
    key = fingerprint("quarantine", sorted(k for _, k, _ in embedded.values()))
    ws = ctx.workspace

    def make(_: StageProgress) -> tuple[int, dict[str, Any]]:
        sources = [source for source, _, _ in embedded.values()]
        if all(s.bad is None for s in sources) and not any(
            count_values(ws, "embeddings", k, "reason") != 0 for _, k, _ in embedded.values()
        ):
            return 0, {"counts": []}  # the log says that no row has a reason: nothing to look for
        frames: list[DataFrame] = []
        for name, (source, side_key, _rows) in embedded.items():
            rows = ws.read("embeddings", side_key).where(F.col("reason").isNotNull())
            frames.append(
                rows.select(
                    "id",
                    "reason",
                    F.lit(None).cast("string").alias("detail"),
                    F.lit(name).alias("side"),
                )
            )
            if source.bad is not None:
                frames.append(
                    source.bad.select("id", "reason", "detail", F.lit(name).alias("side"))
                )
        both = _joined(frames)
        counted = both.groupBy("side", "reason").count()
        found = bounded(counted, 10_000, "reasons").to_pylist()
        rows = sum(int(r["count"]) for r in found)
        if rows:
            ws.write(
                "quarantine",
                both,
                fingerprint=key,
                run=ctx.run,
                stage="quarantine",
                expected=rows,
            )
        return rows, {"counts": [[r["side"], r["reason"], r["count"]] for r in found]}

    record = ctx.stage("quarantine", key, "quarantine", make)
    sides = {}
    for name, (source, side_key, count) in embedded.items():
        bad = {reason: n for side, reason, n in record.detail["counts"] if side == name}
        unusable = sum(n for reason, n in bad.items() if _in_embeddings(reason))
        sides[name] = Side(name, source, side_key, count - unusable, dict(sorted(bad.items())))
        _judge(ctx, sides[name], count)
    return sides


def _joined(frames: list[DataFrame]) -> DataFrame:
    whole = frames[0]
    for frame in frames[1:]:
        whole = whole.unionByName(frame)
    return whole


def _in_embeddings(reason: str) -> bool:
    return not reason.startswith(("malformed", "null id", "duplicate id", "copy of another row"))


def _judge(ctx: Context, side: Side, rows: int) -> None:
    """Stop where too many rows are unusable."""
    harmful = {r: n for r, n in side.bad.items() if not r.startswith(HARMLESS)}
    total = rows + sum(n for r, n in side.bad.items() if not _in_embeddings(r))
    bad = sum(harmful.values())
    shown = ", ".join(f"{n:,} {r}" for r, n in sorted(harmful.items(), key=lambda x: -x[1])[:6])
    where = ctx.workspace.place("quarantine")
    source = f"{side.source.location} ({content_columns(side.source)})"
    if side.usable == 0:
        raise InputError(
            f"{side.name}: none of the {total:,} rows of {source} can be used: {shown}. See "
            f"{where}; name the column that holds the content, or mend the input."
        )
    if bad > ctx.settings.quarantine.max_share * total:
        raise TooManyBadRowsError(
            f"{side.name}: {bad:,} of {total:,} rows of {source} cannot be used: {shown}. That is "
            f"above quarantine.max_share = {ctx.settings.quarantine.max_share:g}. Look at {where}, "
            "mend the input, or allow a larger share."
        )


def content_columns(source: Input) -> str:
    """Return an input's content columns with their roles, for messages."""
    roles = {c: f"columns.{r}" for r, c in source.columns.named().items() if r in _CONTENT}
    return ", ".join(f"{roles.get(c, 'feature')} {c!r}" for c in source.columns.content())


def vectors_of(
    ctx: Context, side: Side, chunk: Chunk = WHOLE, *, only_new: bool = False
) -> DataFrame:
    """Return the usable rows of a side, or of one chunk of them: id, vector and what is carried.

    Args:
        ctx: The run.
        side: Whose rows.
        chunk: Which of them.
        only_new: Only rows that its version brought, not those of an earlier one.
    """
    read = ctx.workspace.own_rows if only_new else ctx.workspace.read
    rows = read("embeddings", side.key, chunk=chunk)
    rows = rows.where(F.col("reason").isNull())
    return rows.select("id", "vector", *CARRIED)


def targets_of(sides: dict[str, Side]) -> list[Side]:
    """Return the targets, in the order of the settings."""
    return [side for name, side in sides.items() if name.startswith("target")]


def held_out_of(sides: dict[str, Side]) -> list[Side]:
    """Return the held-out sets, in the order of the settings."""
    return [side for name, side in sides.items() if name.startswith("held-out")]


def lengths_of(
    ctx: Context, embedder: embed.Embedder, embedded: dict[str, tuple[Input, str, int]]
) -> dict[str, int]:
    """Return the length of the vectors of each input, or at least of those that have a vector."""
    if embedder.knows_dimension:
        return dict.fromkeys(embedded, embedder.dimension)
    length = F.length("vector").alias("n")
    first = [
        ctx.workspace.read("embeddings", key)
        .where(F.col("reason").isNull())
        .limit(1)
        .select(F.lit(name).alias("side"), length)
        for name, (_, key, _) in embedded.items()
    ]
    rows = bounded(_joined(first), len(first), "one vector per input")
    return {r["side"]: int(r["n"]) // 4 for r in rows.to_pylist()}


def one_dimension(found: dict[str, int]) -> int:
    """Return the common length of the vectors of inputs that all have some.

    Raises:
        InputError: Pool and target differ.
    """
    if len(set(found.values())) > 1:
        raise InputError(
            f"Vectors have different dimensions ({found}): pool and target must come from the "
            "same embedder."
        )
    return found["pool"]
