"""Settings of the selection: objective, caps, floors, mixture share."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from gio_spark.settings.base import StageSettings
from gio_spark.settings.strategy_settings import STRATEGIES


class RepeatSettings(StageSettings):
    """Repetition of rows of clusters that hold fewer rows than the plan needs of them."""

    max: int = Field(4, ge=2, le=100, description="Largest number of copies of a row.")
    decay: float = Field(
        15.0,
        gt=0,
        le=1000,
        description="Repeats after which a further copy is worth 1/e of a new row.",
    )


class SelectSettings(StageSettings):
    """Settings of the selection on centroids."""

    strategy: Literal["default", "auto"] = Field(
        "default",
        description="Way to select: default (as the settings say), auto (chosen before the plan by "
        "target rows that no candidate has seen), or the name of a strategy in place of its "
        f"settings: {', '.join(STRATEGIES)}.",
    )
    scorer: str | None = Field(
        None,
        description="Scorer that you have registered, which judges the strategies that auto tries; "
        "none: labels or texts of held-out target rows.",
    )
    objective: str = Field(
        "budgeted_kl",
        description="Objective: budgeted_kl, whole_pool (the highest ranks of all rows, without "
        "quotas), published_exact, published, knn_kl, energy_distance, or the name of a registered "
        "one.",
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
    repeat: RepeatSettings | None = Field(
        None,
        description="Repetition of the rows of scarce clusters, for example {max: 4, decay: 15}: "
        "largest number of copies of a row, and the repeats after which a copy is worth 1/e of a "
        "new row; none: every row is taken once at most. Counts are in gio_repeat.",
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

    @model_serializer(mode="wrap")
    def _without_unset_values(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Values without later settings where unset: such a run has its earlier name."""
        values: dict[str, Any] = handler(self)
        unset = {"repeat": None, "strategy": "default", "scorer": None}
        return {k: v for k, v in values.items() if k not in unset or v != unset[k]}
