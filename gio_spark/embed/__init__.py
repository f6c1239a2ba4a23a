"""Embedding of rows as vectors: a common protocol, one file per embedder."""

from gio_spark.embed.embed_dataframe import (
    EMBEDDED_SCHEMA,
    count_words,
    describe_rows,
    embed,
    embed_rows,
    fit_state,
    read_columns,
)
from gio_spark.embed.embedder import Embedder, text_column
from gio_spark.embed.registry import make_embedder, pick_embedder

__all__ = [
    "EMBEDDED_SCHEMA",
    "Embedder",
    "count_words",
    "describe_rows",
    "embed",
    "embed_rows",
    "fit_state",
    "make_embedder",
    "pick_embedder",
    "read_columns",
    "text_column",
]
