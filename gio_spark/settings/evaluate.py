"""Settings of the bake-off: which methods are compared, at which budgets, by which measures."""

from __future__ import annotations

from pydantic import Field

from gio_spark.settings.base import StageSettings


class EvaluateSettings(StageSettings):
    """Methods, budgets and measures of `gio-spark evaluate`."""

    methods: tuple[str, ...] = Field(
        default=(),
        description="Selection methods to compare; none: every one that the data allows.",
    )
    budgets: tuple[int | float | str, ...] = Field(
        default=(0.025, 0.05, 0.1, 0.25, 0.5),
        min_length=1,
        description="Budgets, each in rows of the pool (10000) or as a share (0.1).",
    )
    seeds: int = Field(
        default=5, ge=1, le=100, description="Repeats of every method, with the same seeds."
    )
    measures: tuple[str, ...] = Field(
        default=(),
        description="Measures to judge by; none: every one that the data allows (energy, jsd, "
        "coverage, two_sample_auc, cross_entropy, proxy_linear).",
    )
    sample: int = Field(
        default=50_000,
        ge=100,
        le=2_000_000,
        description="Rows of the hash sample of the pool that all methods select from.",
    )
    target_rows: int = Field(
        default=10_000,
        ge=10,
        le=200_000,
        description="Maximum number of target rows for the methods.",
    )
    held_out_rows: int = Field(
        default=10_000,
        ge=10,
        le=200_000,
        description="Maximum number of held-out target rows for the measures.",
    )
    held_out_share: float = Field(
        default=0.5,
        ge=0.0,
        lt=1.0,
        description="Share of the target reserved for judging, where there is no held_out input.",
    )
    slots: int | None = Field(
        default=None,
        ge=1,
        le=10_000,
        description="Parallel tasks; none: the cores of this machine, or 64 on a cluster.",
    )
    oracle: str | None = Field(
        default=None,
        description="Numeric column of the pool with the true value of a row (highest is best), "
        "for the oracle method alone.",
    )
