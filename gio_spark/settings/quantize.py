"""Settings of the quantise stage: clusters, their fit, assignment and the target's mass on them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from gio_spark.settings.base import StageSettings


class QuantizeSettings(StageSettings):
    """How the pool is cut into clusters and how the target is laid over them."""

    clusters: int | Literal["auto"] = Field(
        "auto",
        description="Number of clusters; auto: from rows, dimension and memory.",
    )
    target_clusters: int | Literal["auto"] = Field(
        "auto", description="Number of clusters of the target's own codebook."
    )
    batch_rows: int | None = Field(
        None,
        ge=1,
        description="Rows of one mini-batch pass; none: 64 per cluster, at least 16,384.",
    )
    max_passes: int = Field(10, ge=1, description="Mini-batch passes at most.")
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
        description="Share of a centre's weight that outlives a pass, reached at the last one.",
    )
    starved_share: float = Field(
        0.02,
        ge=0,
        lt=1,
        description="Centres below this share of the mean weight are placed anew.",
    )
    init_rows: int | None = Field(
        None, ge=1, description="Rows of the sample for the first centres; none: 16 per cluster."
    )
    spherical: bool = Field(
        False, description="Cluster directions (cosine) instead of points: rows are normalised."
    )
    second: bool = Field(False, description="Also write each row's second-nearest cluster.")
    two_level_above: int = Field(
        8192, ge=2, description="Clusters above which search and fit go through two levels."
    )
    probes: int = Field(
        4,
        ge=1,
        description="Cells searched per row where search goes through two levels: more find the "
        "nearest cluster more often and take longer.",
    )
    neighbors: int = Field(
        8, ge=1, description="Clusters over which the mass of one target row is spread."
    )
    reach_quantile: float = Field(
        0.995,
        gt=0.5,
        lt=1,
        description="Target rows farther out than this share of the pool's rows are out of reach.",
    )
    contamination_cosine: float = Field(
        0.95, gt=0, le=1, description="Cosine above which a pool row counts as a held-out row."
    )
    contamination_grams: int = Field(
        13, ge=1, description="Length in words of the word sequences compared with held-out text."
    )
    contamination_share: float = Field(
        0.5, gt=0, le=1, description="Share of word sequences in common that puts a row aside."
    )
    duplicates: Literal["keep", "exact", "semantic"] = Field(
        "keep", description="Duplicates in the pool: keep, drop exact ones, or semantic ones too."
    )
    duplicate_cosine: float = Field(
        0.98, gt=0, le=1, description="Cosine above which two rows of a cluster are duplicates."
    )
