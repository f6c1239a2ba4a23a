"""Settings of the information metrics (GIME)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from gio_spark.settings.base import StageSettings


class GimeSettings(StageSettings):
    """Computation and judgment of the eleven metrics."""

    profile: str = Field(
        default="text",
        description="Metric profile: text, tabular, spatiotemporal, or one you registered.",
    )
    profiles: dict[str, str] = Field(
        default_factory=dict,
        description="Source -> profile, where the pool holds several kinds of data: each such "
        "source is also measured by its own profile, as metrics `source/metric`.",
    )
    columns: dict[str, str] = Field(
        default_factory=dict,
        description="Further roles of the profiles -> columns of pool and target (station, user, "
        "item, latitude, ...).",
    )
    by: tuple[str, ...] = Field(
        default=(),
        description="Columns to group by (cluster, source, month, ...); none: one group.",
    )
    partitions: int = Field(
        default=16,
        ge=1,
        le=4096,
        description="Hash chunks of the id that states are stored for, so that a delete recomputes "
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
        "Frechet distance; shorter vectors are not projected.",
    )
    sketch_log_size: int = Field(
        default=12,
        ge=5,
        le=20,
        description="log2 of the hashes in a distinct count; 12 gives 3 % error at 95 %.",
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
    sample: int = Field(
        default=20_000,
        ge=100,
        le=1_000_000,
        description="Maximum number of pool rows for the sensitivity runs and thresholds.",
    )
    proxy: Literal["linear", "boosting"] = Field(
        default="linear", description="Model of the sensitivity runs."
    )
    measure: Literal["auto", "accuracy", "auc", "average_precision", "skill"] = Field(
        default="auto",
        description="Score of the sensitivity runs; auto: skill for numbers, auc for two "
        "classes, else accuracy.",
    )
    scorer: str | None = Field(
        default=None,
        pattern=r"[\w.]+:\w+",
        description="Your own score in place of labels and a proxy, as package.module:function; "
        "its arguments are rows (Arrow table) and a seed, its result a number, higher for better.",
    )
    level: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Fraction of the full pool's performance that automatic thresholds are set "
        "for (0.95); none: no automatic thresholds.",
    )
    accepted_loss: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="Accepted loss of performance (0.05), instead of level.",
    )
    thresholds: dict[str, float] = Field(
        default_factory=dict,
        description="Metric -> least acceptable share of the best attainable value (0 to 1), set "
        "by hand; these take precedence over automatic ones. `source/metric` is the metric of one "
        "source of `profiles`.",
    )
    moves: int = Field(
        default=3,
        ge=0,
        le=20,
        description="Maximum number of corrections of the quotas after the plan's rows missed a "
        "threshold; 0: the plan is only judged.",
    )
    on_refresh: bool = Field(
        default=True,
        description="Measurement of pool and selection, and judgment by the gate, in `refresh`.",
    )

    @model_validator(mode="after")
    def _one_level(self) -> GimeSettings:
        if self.level is not None and self.accepted_loss is not None:
            raise ValueError("level and accepted_loss say the same; keep one of them")
        for name in self.thresholds:
            source, slash, _ = name.rpartition("/")
            if slash and source not in self.profiles:
                raise ValueError(f"the threshold of {name!r} needs {source!r} in gime.profiles")
        return self

    @property
    def performance_level(self) -> float | None:
        """Fraction of full performance to enforce; None without automatic thresholds."""
        return self.level if self.accepted_loss is None else 1.0 - self.accepted_loss

    def manual_shares(self, source: str | None = None) -> dict[str, float]:
        """Metric -> share set by hand, for all rows or for those of a source."""
        split = {name: name.rpartition("/") for name in self.thresholds}
        return {m: self.thresholds[n] for n, (s, _, m) in split.items() if s == (source or "")}

    @property
    def enforces_thresholds(self) -> bool:
        """Whether thresholds are enforced on the plan."""
        return bool(self.thresholds) or self.performance_level is not None
