"""Settings of the explode stage: from a plan over clusters to rows of the pool."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from gio_spark.settings.base import StageSettings

WithinCluster = Literal["hash_share", "exact_count", "density_ratio"]


class ExplodeSettings(StageSettings):
    """Choice of rows inside a cluster, and form of the selection."""

    within_cluster: WithinCluster = Field(
        "density_ratio",
        description="Rows taken inside a cluster: hash_share (a random share, count met on "
        "average), exact_count (random, count met exactly) or density_ratio (the rows that look "
        "most like the target, count met exactly).",
    )
    temperature: float = Field(
        0.25,
        ge=0.0,
        le=50.0,
        description="Noise added to the log density ratio before ranking: 0 ranks strictly, 1 "
        "draws in proportion to the ratio, large values approach a random draw.",
    )
    estimator: Literal["classifier", "knn", "retrieval"] = Field(
        "classifier",
        description="Estimator of the density ratio: classifier (target against pool), knn "
        "(nearest-neighbor densities in the embedding) or retrieval (nearness to any target row).",
    )
    folds: int = Field(
        4,
        ge=2,
        le=16,
        description="Number of models; each scores only rows that it was not fitted on.",
    )
    fit_rows: int = Field(
        20_000,
        ge=100,
        le=500_000,
        description="Rows of the target and of the pool, each, that the ratio is fitted on.",
    )
    regularization: float | None = Field(
        None,
        gt=0.0,
        description="Weight of the data against the penalty in the logistic regression (its C); "
        "empty: chosen by the kind of content.",
    )
    word_ngrams: int = Field(
        1, ge=0, le=4, description="Longest word n-gram of the text classifier."
    )
    char_ngrams: tuple[int, ...] = Field(
        (2, 3),
        description="Lengths, in bytes, of the character n-grams of the text classifier.",
    )
    hash_bits: int = Field(
        18,
        ge=10,
        le=22,
        description="Binary logarithm of the number of features of the text classifier.",
    )
    text_bytes: int = Field(
        8_192, ge=64, description="Bytes at the start of a text that the classifier reads."
    )
    neighbors: int = Field(
        5, ge=1, le=100, description="Number of the neighbor whose distance knn and retrieval use."
    )
    knn_rows: int = Field(
        4_000,
        ge=100,
        le=50_000,
        description="Rows of the target, and for knn of the pool, to which knn and retrieval "
        "measure distances.",
    )
    output: Literal["copy", "ids"] = Field(
        "copy",
        description="Content of the selected table: copy (all columns of the pool) or ids (the "
        "ids, to be joined by a view).",
    )
    broadcast_rows: int = Field(
        500_000,
        ge=0,
        description="Maximum number of selected ids that are broadcast to the pool (about 250 "
        "bytes each); above it the pool is first filtered by a Bloom filter.",
    )
    bloom_megabytes: int = Field(
        64,
        ge=1,
        le=1_024,
        description="Largest size of the Bloom filter of selected ids, in MiB per worker process.",
    )
