"""Settings of the selection: objective, caps, floors, mixture share."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from gio_spark.settings.base import StageSettings


class SelectSettings(StageSettings):
    """Settings of the selection on centroids."""

    objective: str = Field(
        "budgeted_kl",
        description="Objective: budgeted_kl, published_exact, published, knn_kl, energy_distance, "
        "or the name of a registered one.",
    )
    least_mixture: float = Field(
        0.01,
        ge=0,
        le=1,
        description=(
            "Minimum share of the budget that the pool must have in rows with the target's "
            "distribution (mixture-proportion estimate, computed where rows have a density ratio)."
        ),
    )
    on_low_mixture: Literal["warn", "stop"] = Field(
        "warn", description="Reaction of a run below least_mixture: warn, or stop (exit code 3)."
    )
    replay: float = Field(
        0.0, ge=0, lt=1, description="Share of the pool's own distribution mixed into the target."
    )
    source_caps: dict[str, float] = Field(
        default_factory=dict, description="Largest share of the selection per source."
    )
    source_floors: dict[str, float] = Field(
        default_factory=dict, description="Smallest share of the selection per source."
    )
    use_quality: bool = Field(
        False, description="Weighting of each cluster's target mass by its mean quality."
    )
    options: dict[str, Any] = Field(
        default_factory=dict, description="Further options of the objective."
    )
