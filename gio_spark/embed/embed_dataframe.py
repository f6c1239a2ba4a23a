"""Embedding of a DataFrame: one pass from rows to the columns of the embeddings table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gio_spark.embed.column_casts import as_numbers, as_strings, as_times, is_text
from gio_spark.embed.embedder import (
    EMPTY_CONTENT,
    EMPTY_OUTPUT,
    LONG_TEXT,
    NOT_UTF8,
    NULL_CONTENT,
    NULL_OUTPUT,
    ZERO_NORM,
    Embedder,
    State,
    column,
    no_reasons,
    set_reason,
    text_column,
    usable,
)
from gio_spark.embed.failing_rows import embed_usable
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
# Roles whose values are copied to the embeddings table, in the order of row_hash.
PASSED_ROLES = ("tokens", "source", "quality", "event_time", "ingest_time", "label")


def fit_state(df: DataFrame, embedder: Embedder, *, total: int) -> State:
    """Fit an embedder on a hash sample of the pool, which does not depend on partitioning.

    Args:
        df: Pool with `id` (string) and the content columns.
        embedder: Prepared embedder.
        total: Rows in `df` (an upper estimate is enough).

    Returns:
        Arrays for `embedder.with_state`; empty where the embedder needs no fit.
    """
    if not embedder.needs_fit:
        return {}
    sample = hash_sample(_select(df, embedder.reads), embedder.fit_rows, "embed-fit", total=total)
    return embedder.fit(sample)


def _select(df: DataFrame, names: Iterable[str]) -> DataFrame:
    from pyspark.sql import functions as F

    unique = dict.fromkeys(["id", *names])
    return df.select(*[F.col("`" + name.replace("`", "``") + "`") for name in unique])


def read_columns(embedder: Embedder) -> tuple[str, ...]:
    """Columns that `embed_rows` reads beside `id`: content, and values that are passed through."""
    roles = (getattr(embedder.columns, role) for role in PASSED_ROLES)
    passed_columns = [name for name in roles if name is not None]
    return tuple(dict.fromkeys((*_content_columns(embedder), *passed_columns)))


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
        directions: Whether only directions are compared, so that a zero vector is unusable.

    Returns:
        One row per input row: id, vector (float32 bytes, little endian; null with a reason),
        reason, content_hash (of the content columns, both halves of a pair), row_hash (of the
        values passed through), and the passed values: tokens, source, quality, event_time,
        ingest_time, label. Tokens are the user's column; without one, or where it is null, the
        number of words separated by white space for text (at least 1, of a pair in both halves)
        and 1 for other content.
    """
    if columns is not None and columns != embedder.columns:
        embedder = embedder.with_columns(columns)
    selected = _select(df, read_columns(embedder))
    spark = df.sparkSession
    task = _EmbedTask(
        embedder.with_state({}),
        broadcast_arrays(spark, embedder.state),
        # On the embedded engine all rows share one process, whose tokenizers may use all cores.
        one_thread=describe(spark).kind != "embedded",
        directions=directions,
    )
    return map_arrow(selected, task, EMBEDDED_SCHEMA, batch_rows=embedder.settings.batch_rows)


def describe_rows(
    df: DataFrame, embedder: Embedder, *, columns: Columns | None = None
) -> DataFrame:
    """Columns of `embed` without the vector, without embedding the rows.

    Args:
        df: Rows with `id` (string) and the columns that the roles name.
        embedder: As for `embed`; no fit is needed.
        columns: Roles of the columns, where they differ from the embedder's own.

    Returns:
        id, reason (from the passed values alone), content_hash, row_hash and the passed values.
    """
    if columns is not None and columns != embedder.columns:
        embedder = embedder.with_columns(columns)
    selected = _select(df, read_columns(embedder))
    task = _DescribeTask(embedder.with_state({}))
    return map_arrow(selected, task, DESCRIBED_SCHEMA, batch_rows=embedder.settings.batch_rows)


@dataclass(frozen=True)
class _DescribeTask:
    """Map function that describes rows; a class, so that it is pickled by reference."""

    embedder: Embedder

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
        for batch in batches:
            rows = pa.Table.from_batches([batch])
            reasons = no_reasons(rows.num_rows)
            passed = _passed_columns(rows, self.embedder, reasons)
            yield pa.table(_described_columns(rows, self.embedder, passed, reasons))


def _content_columns(embedder: Embedder) -> tuple[str, ...]:
    """Columns that the content hash covers: those that are embedded, and both halves of a pair."""
    text, output = embedder.columns.text, embedder.columns.output
    if text is None or output is None:
        return embedder.reads
    return tuple(dict.fromkeys((*embedder.reads, text, output)))


def _described_columns(
    rows: pa.Table, embedder: Embedder, passed: dict[str, pa.Array], reasons: np.ndarray
) -> dict[str, pa.Array]:
    """Columns of the described rows; see `describe_rows`."""
    return {
        "id": column(rows, "id"),
        "reason": pa.array(reasons.tolist(), pa.string()),
        "content_hash": content_hashes([column(rows, name) for name in _content_columns(embedder)]),
        "row_hash": content_hashes(list(passed.values())),
        **passed,
    }


def _has_long_text(rows: pa.Table, embedder: Embedder) -> np.ndarray:
    """Mask (n,) of the rows whose text is above `embed.max_bytes`."""
    text = embedder.columns.text
    if text is None or text not in embedder.reads or not is_text(column(rows, text).type):
        return np.zeros(rows.num_rows, bool)
    sizes = pc.fill_null(pc.binary_length(column(rows, text)), 0)
    return np.asarray(sizes.to_numpy(zero_copy_only=False) > embedder.settings.max_bytes)


def _without_text(rows: pa.Table, embedder: Embedder, is_left_out: np.ndarray) -> pa.Table:
    """Rows of which some have no text, so that embedding them costs nothing."""
    text = embedder.columns.text
    if text is None or not is_left_out.any():
        return rows
    texts = column(rows, text)
    texts = pc.if_else(pa.array(is_left_out), pa.scalar(None, texts.type), texts)
    return rows.set_column(rows.schema.get_field_index(text), text, texts)


def embed_rows(rows: pa.Table, embedder: Embedder, *, directions: bool = False) -> pa.Table:
    """Embed one batch of rows on a worker; for the columns see `embed`."""
    is_long = _has_long_text(rows, embedder)
    vectors, reasons = embed_usable(embedder, _without_text(rows, embedder, is_long))
    reasons[is_long] = LONG_TEXT
    if directions:
        set_reason(reasons, np.asarray(~vectors.any(axis=1)), ZERO_NORM)
    passed = _passed_columns(rows, embedder, reasons)
    unusable = ~usable(reasons)
    encoded = encode_vectors(vectors)
    if unusable.any():  # copies all vectors, which most batches avoid
        encoded = pc.if_else(pa.array(unusable), pa.scalar(None, pa.binary()), encoded)
    described = _described_columns(rows, embedder, passed, reasons)
    return pa.table({"id": described.pop("id"), "vector": encoded, **described})


@dataclass(frozen=True)
class _EmbedTask:
    """Map function that embeds rows; a class, so that it is pickled by reference."""

    embedder: Embedder
    state: BroadcastArrays
    one_thread: bool
    directions: bool

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
        # A worker process has one core, but tokenizers would start a thread per core.
        variables = {"TOKENIZERS_PARALLELISM": "false"} if self.one_thread else {}
        with environment(**variables):
            embedder = self.embedder.with_state(self.state.load())
            for batch in batches:
                rows = pa.Table.from_batches([batch])
                yield embed_rows(rows, embedder, directions=self.directions)


def _passed_columns(rows: pa.Table, embedder: Embedder, reasons: np.ndarray) -> dict[str, pa.Array]:
    """Passed values in the types of the embeddings table; an invalid value sets a reason."""
    roles = embedder.columns
    count = rows.num_rows
    if roles.output is not None:
        names = {NULL_CONTENT: NULL_OUTPUT, EMPTY_CONTENT: EMPTY_OUTPUT}
        output_reasons = text_column(rows, roles.output)[1]
        for reason in (NULL_CONTENT, EMPTY_CONTENT, NOT_UTF8):
            set_reason(reasons, output_reasons == reason, names.get(reason, reason))
    passed: dict[str, pa.Array] = {"tokens": _tokens(rows, embedder, reasons)}
    passed["source"] = _string_column(rows, roles.source)
    if roles.quality is None:
        passed["quality"] = pa.nulls(count, pa.float64())
    else:
        values, invalid = as_numbers(column(rows, roles.quality), roles.quality)
        set_reason(reasons, invalid, f"column '{roles.quality}' is not a number")
        passed["quality"] = pa.array(values, mask=np.isnan(values))
    for role in ("event_time", "ingest_time"):
        name = getattr(roles, role)
        if name is None:
            passed[role] = pa.nulls(count, pa.timestamp("us", tz="UTC"))
            continue
        passed[role], invalid = as_times(column(rows, name), name)
        set_reason(reasons, invalid, f"column '{name}' is not a time")
    passed["label"] = _string_column(rows, roles.label)
    return passed


def _string_column(rows: pa.Table, name: str | None) -> pa.Array:
    if name is None:
        return pa.nulls(rows.num_rows, pa.string())
    return as_strings(column(rows, name), name)


def _tokens(rows: pa.Table, embedder: Embedder, reasons: np.ndarray) -> pa.Array:
    """Token counts of the rows; see `embed`."""
    roles = embedder.columns
    if roles.text is not None and roles.text in rows.schema.names:
        word_counts = count_words(column(rows, roles.text))
        if roles.output is not None:
            word_counts = word_counts + count_words(column(rows, roles.output))
    else:
        word_counts = np.ones(rows.num_rows, dtype=np.int64)
    if roles.tokens is None:
        return pa.array(word_counts)
    values, invalid = as_numbers(column(rows, roles.tokens), roles.tokens)
    set_reason(reasons, invalid, f"column '{roles.tokens}' is not a number")
    is_valid = np.isfinite(values) & (values >= 0)
    return pa.array(np.where(is_valid, np.where(is_valid, values, 0).astype(np.int64), word_counts))


def count_words(texts: pa.Array) -> np.ndarray:
    """Number of words separated by ASCII white space in each text; at least 1.

    Args:
        texts: String array of n texts; a null counts as 1.
    """
    if not len(texts) or not is_text(texts.type):
        return np.ones(len(texts), dtype=np.int64)
    encoded = pc.fill_null(texts.cast(pa.large_binary()), b"")
    data, offsets = bytes_of(encoded)
    if not len(data):
        return np.ones(len(texts), dtype=np.int64)
    in_word = data > 32
    word_starts = in_word.copy()
    word_starts[1:] &= ~in_word[:-1]
    text_starts = offsets[:-1]
    first_bytes = text_starts[text_starts < len(in_word)]
    word_starts[first_bytes] = in_word[first_bytes]
    cumulative = np.concatenate([[0], np.cumsum(word_starts)])
    return np.maximum(cumulative[offsets[1:] - offsets[0]] - cumulative[text_starts], 1)
