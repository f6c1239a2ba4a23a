"""Settings of the information metrics (GIME)."""

from __future__ import annotations

from pydantic import Field

from gio_spark.settings.base import StageSettings


class GimeSettings(StageSettings):
    """How the eleven metrics are computed and judged."""

    profile: str = Field(
        default="text",
        description="Metric profile: text, tabular, spatiotemporal, or one you registered.",
    )
    by: tuple[str, ...] = Field(
        default=(),
        description="Columns to group by (cluster, source, month, ...); none: one group.",
    )
    partitions: int = Field(
        default=16,
        ge=1,
        le=4096,
        description="Hash chunks of the id that states are kept for, so that a delete recomputes "
        "one chunk only.",
    )
    tau: float = Field(
        default=0.8,
        ge=-1.0,
        le=1.0,
        description="Cosine from which a target probe counts as covered.",
    )
    probes: int = Field(
        default=128, ge=1, le=65_536, description="Rows of the target whose coverage is measured."
    )
    directions: int = Field(
        default=64,
        ge=2,
        le=512,
        description="Directions that vectors are projected to for spectral variety and the "
        "Frechet distance; vectors that are shorter stay as they are.",
    )
    sketch_log_size: int = Field(
        default=12,
        ge=5,
        le=20,
        description="log2 of the hashes kept by a distinct count; 12 gives 3 % error at 95 %.",
    )
    bucket_hours: float = Field(
        default=24.0, gt=0, description="Length of a time bucket of the sampling rate, in hours."
    )
    levels: int = Field(
        default=7,
        ge=5,
        le=25,
        description="Levels of a metric in the sweeps of the sensitivity runs.",
    )
    screen: int = Field(
        default=48,
        ge=20,
        le=400,
        description="Random-tilt subsets trained by the sensitivity screen.",
    )
    seeds: int = Field(
        default=5, ge=2, le=100, description="Repeats of each level in the sensitivity sweeps."
    )
    thresholds: dict[str, float] = Field(
        default_factory=dict,
        description="Metric -> least acceptable share of the best attainable value (0 to 1), set "
        "by hand; none: found by the sensitivity runs.",
    )
