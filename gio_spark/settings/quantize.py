"""Settings of the quantize stage: clusters, their fit, assignment, and target masses."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from gio_spark.settings.base import StageSettings


class QuantizeSettings(StageSettings):
    """Clustering of the pool, and spreading of the target over the clusters."""

    clusters: int | Literal["auto"] = Field(
        "auto",
        description="Number of clusters; auto: from rows, dimension and memory.",
    )
    target_clusters: int | Literal["auto"] = Field(
        "auto", description="Number of clusters of each target's codebook."
    )
    batch_rows: int | None = Field(
        None,
        ge=1,
        description="Rows of one mini-batch pass; none: 64 per cluster, at least 16,384.",
    )
    max_passes: int = Field(10, ge=1, description="Maximum number of mini-batch passes.")
    patience: int = Field(
        3, ge=1, description="Passes without enough improvement after which the fit stops."
    )
    tolerance: float = Field(
        1e-3, ge=0, description="Relative fall of the smoothed inertia that counts as improvement."
    )
    decay: float = Field(
        0.9,
        ge=0,
        le=1,
        description="Share of a center's weight retained after a pass, reached at the last one.",
    )
    starved_share: float = Field(
        0.02,
        ge=0,
        lt=1,
        description="Share of the mean weight below which centers are placed anew.",
    )
    init_rows: int | None = Field(
        None, ge=1, description="Rows of the sample for the first centers; none: 16 per cluster."
    )
    spherical: bool = Field(
        False,
        description="Clustering of directions (cosine) instead of points: rows are normalized.",
    )
    second: bool = Field(
        False, description="Second-nearest cluster of each row in the assignments."
    )
    two_level_above: int = Field(
        8192, ge=2, description="Clusters above which search and fit go through two levels."
    )
    probes: int = Field(
        4,
        ge=1,
        description="Groups of clusters searched per row in two-level search: more find the "
        "nearest cluster more often and take longer.",
    )
    neighbors: int = Field(
        8, ge=1, description="Clusters over which the mass of one target row is spread."
    )
    reach_quantile: float = Field(
        0.995,
        gt=0.5,
        lt=1,
        description="Quantile of the pool's distances beyond which target rows are out of reach.",
    )
    contamination_cosine: float = Field(
        0.95, gt=0, le=1, description="Cosine above which a pool row counts as a held-out row."
    )
    contamination_grams: int = Field(
        13, ge=1, description="Length in words of the word sequences compared with held-out text."
    )
    contamination_share: float = Field(
        0.5,
        gt=0,
        le=1,
        description="Share of common word sequences from which a row is quarantined.",
    )
    duplicates: Literal["keep", "exact", "semantic"] = Field(
        "keep", description="Duplicates in the pool: keep, drop exact ones, or semantic ones too."
    )
    duplicate_cosine: float = Field(
        0.98, gt=0, le=1, description="Cosine above which two rows of a cluster are duplicates."
    )
