"""Embed a DataFrame: one pass from rows to the columns of the embeddings table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gio_spark.embed.base import (
    ZERO_NORM,
    Embedder,
    State,
    column,
    no_reasons,
    set_reason,
    usable,
)
from gio_spark.embed.casts import as_numbers, as_strings, as_times, is_text
from gio_spark.engine.arrow import bytes_of, encode_vectors, map_arrow
from gio_spark.engine.broadcast import BroadcastArrays, broadcast_arrays
from gio_spark.engine.capabilities import describe
from gio_spark.engine.content_hash import content_hashes
from gio_spark.engine.sampling import hash_sample
from gio_spark.process import environment
from gio_spark.settings.columns import Columns

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

EMBEDDED_SCHEMA = (
    "id string, vector binary, reason string, content_hash string, row_hash string, "
    "tokens bigint, source string, quality double, event_time timestamp, ingest_time timestamp, "
    "label string"
)
DESCRIBED_SCHEMA = EMBEDDED_SCHEMA.replace("vector binary, ", "")
# Roles that are copied beside the vector, in the order that row_hash reads them.
PASSED_ROLES = ("tokens", "source", "quality", "event_time", "ingest_time", "label")


def fit_state(df: DataFrame, embedder: Embedder, *, total: int) -> State:
    """Fit an embedder on a hash sample of the pool, the same rows at any partitioning.

    Args:
        df: The pool: `id` (string) and the columns of the content.
        embedder: Prepared embedder.
        total: Rows in `df` (an upper estimate is enough).

    Returns:
        Plain arrays for `embedder.with_state`; none where nothing is fitted.
    """
    if not embedder.needs_fit:
        return {}
    sample = hash_sample(_pick(df, embedder.reads), embedder.fit_rows, "embed-fit", total=total)
    return embedder.fit(sample)


def _pick(df: DataFrame, names: Iterable[str]) -> DataFrame:
    from pyspark.sql import functions as F

    unique = dict.fromkeys(["id", *names])
    return df.select(*[F.col("`" + name.replace("`", "``") + "`") for name in unique])


def embed(
    df: DataFrame,
    embedder: Embedder,
    *,
    columns: Columns | None = None,
    directions: bool = False,
) -> DataFrame:
    """Embed rows.

    Args:
        df: Rows with `id` (string) and the columns that the roles name.
        embedder: Prepared and, where it needs a fit, fitted.
        columns: Roles of the columns, where they differ from the embedder's own (a target may
            name its columns differently).
        directions: Whether only directions will be compared: a vector of zeros has none and is
            unusable then.

    Returns:
        One row per input row: id, vector (float32 bytes, little endian; null with a reason),
        reason, content_hash (of the columns that the content is made of), row_hash (of the values
        passed through), and the passed values: tokens, source, quality, event_time, ingest_time,
        label. Tokens are the user's column; without one, or where it is null, words between white
        space for text (at least 1) and 1 for anything else.
    """
    if columns is not None and columns != embedder.columns:
        embedder = embedder.with_columns(columns)
    roles = embedder.columns
    passed = [name for role in PASSED_ROLES if (name := getattr(roles, role)) is not None]
    picked = _pick(df, [*embedder.reads, *passed])
    spark = df.sparkSession
    task = _Task(
        embedder.with_state({}),
        broadcast_arrays(spark, embedder.state),
        # On the embedded engine all rows share one process, whose tokenizers use every core.
        one_thread=describe(spark).kind != "embedded",
        directions=directions,
    )
    return map_arrow(picked, task, EMBEDDED_SCHEMA, batch_rows=embedder.settings.batch_rows)


def describe_rows(
    df: DataFrame, embedder: Embedder, *, columns: Columns | None = None
) -> DataFrame:
    """Everything that `embed` gives of rows but the vector, without embedding them.

    Args:
        df: Rows with `id` (string) and the columns that the roles name.
        embedder: As for `embed`; no fit is needed.
        columns: Roles of the columns, where they differ from the embedder's own.

    Returns:
        id, reason (of the passed values alone), content_hash, row_hash and the passed values.
    """
    if columns is not None and columns != embedder.columns:
        embedder = embedder.with_columns(columns)
    roles = embedder.columns
    passed = [name for role in PASSED_ROLES if (name := getattr(roles, role)) is not None]
    picked = _pick(df, [*embedder.reads, *passed])
    task = _Description(embedder.with_state({}))
    return map_arrow(picked, task, DESCRIBED_SCHEMA, batch_rows=embedder.settings.batch_rows)


@dataclass(frozen=True)
class _Description:
    """The function that describes rows on workers; a class, so that it is sent by reference."""

    embedder: Embedder

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
        for batch in batches:
            rows = pa.Table.from_batches([batch])
            reasons = no_reasons(rows.num_rows)
            passed = _passed(rows, self.embedder, reasons)
            yield pa.table(_described(rows, self.embedder, passed, reasons))


def _described(
    rows: pa.Table, embedder: Embedder, passed: dict[str, pa.Array], reasons: np.ndarray
) -> dict[str, pa.Array]:
    return {
        "id": column(rows, "id"),
        "reason": pa.array(reasons.tolist(), pa.string()),
        "content_hash": content_hashes([column(rows, name) for name in embedder.reads]),
        "row_hash": content_hashes(list(passed.values())),
        **passed,
    }


def embed_rows(rows: pa.Table, embedder: Embedder, *, directions: bool = False) -> pa.Table:
    """Embed one batch of rows; what `embed` does on a worker (see there for the columns)."""
    vectors, reasons = embedder.embed(rows)
    if directions:
        set_reason(reasons, np.asarray(~vectors.any(axis=1)), ZERO_NORM)
    passed = _passed(rows, embedder, reasons)
    bad = ~usable(reasons)
    blobs = encode_vectors(vectors)
    if bad.any():  # a copy of all vectors, which most batches do without
        blobs = pc.if_else(pa.array(bad), pa.scalar(None, pa.binary()), blobs)
    described = _described(rows, embedder, passed, reasons)
    return pa.table({"id": described.pop("id"), "vector": blobs, **described})


@dataclass(frozen=True)
class _Task:
    """The function that runs on workers; a class, so that it is sent by reference."""

    embedder: Embedder
    state: BroadcastArrays
    one_thread: bool
    directions: bool

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
        # A worker process has one core; tokenizers would start a thread for every core.
        variables = {"TOKENIZERS_PARALLELISM": "false"} if self.one_thread else {}
        with environment(**variables):
            embedder = self.embedder.with_state(self.state.load())
            for batch in batches:
                rows = pa.Table.from_batches([batch])
                yield embed_rows(rows, embedder, directions=self.directions)


def _passed(rows: pa.Table, embedder: Embedder, reasons: np.ndarray) -> dict[str, pa.Array]:
    """Return the passed values in the table's types; an unreadable one is a reason."""
    roles = embedder.columns
    count = rows.num_rows
    passed: dict[str, pa.Array] = {"tokens": _tokens(rows, embedder, reasons)}
    passed["source"] = _strings(rows, roles.source)
    if roles.quality is None:
        passed["quality"] = pa.nulls(count, pa.float64())
    else:
        values, bad = as_numbers(column(rows, roles.quality), roles.quality)
        set_reason(reasons, bad, f"column '{roles.quality}' is not a number")
        passed["quality"] = pa.array(values, mask=np.isnan(values))
    for role in ("event_time", "ingest_time"):
        name = getattr(roles, role)
        if name is None:
            passed[role] = pa.nulls(count, pa.timestamp("us", tz="UTC"))
            continue
        passed[role], bad = as_times(column(rows, name), name)
        set_reason(reasons, bad, f"column '{name}' is not a time")
    passed["label"] = _strings(rows, roles.label)
    return passed


def _strings(rows: pa.Table, name: str | None) -> pa.Array:
    if name is None:
        return pa.nulls(rows.num_rows, pa.string())
    return as_strings(column(rows, name), name)


def _tokens(rows: pa.Table, embedder: Embedder, reasons: np.ndarray) -> pa.Array:
    roles = embedder.columns
    if roles.text is not None and roles.text in rows.schema.names:
        counted = count_words(column(rows, roles.text))
    else:
        counted = np.ones(rows.num_rows, dtype=np.int64)
    if roles.tokens is None:
        return pa.array(counted)
    values, bad = as_numbers(column(rows, roles.tokens), roles.tokens)
    set_reason(reasons, bad, f"column '{roles.tokens}' is not a number")
    given = np.isfinite(values) & (values >= 0)
    return pa.array(np.where(given, np.where(given, values, 0).astype(np.int64), counted))


def count_words(texts: pa.Array) -> np.ndarray:
    """Count the words between ASCII white space in each text; at least 1.

    Args:
        texts: String array of n texts; a null counts as 1.
    """
    if not len(texts) or not is_text(texts.type):
        return np.ones(len(texts), dtype=np.int64)
    blobs = pc.fill_null(texts.cast(pa.large_binary()), b"")
    data, ends = bytes_of(blobs)
    if not len(data):
        return np.ones(len(texts), dtype=np.int64)
    inside = data > 32
    begins = inside.copy()
    begins[1:] &= ~inside[:-1]
    starts = ends[:-1]
    firsts = starts[starts < len(inside)]
    begins[firsts] = inside[firsts]
    total = np.concatenate([[0], np.cumsum(begins)])
    return np.maximum(total[ends[1:] - ends[0]] - total[starts], 1)
