"""Settings of `gio-spark refresh`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from gio_spark.settings.base import StageSettings


class DriftSettings(StageSettings):
    """Figures from which a refresh does not keep the plan of its run; none: never.

    Where several are reached, the first of these counts: stop, quantize again, plan again.
    """

    target: Literal["replan", "keep", "stop"] = Field(
        "replan",
        description=(
            "Reaction to a target at another version than the run's: replan (a new run on the same "
            "codebook), keep the plan, or stop (the selection is not published, exit code 4)."
        ),
    )
    share_shift: float | None = Field(
        0.3,
        gt=0,
        le=1,
        description=(
            "Total variation between the pool's shares per cluster, now and in the run's plan, "
            "from which a new run plans again on the same codebook."
        ),
    )
    auc_shift: float | None = Field(
        0.15,
        gt=0,
        le=1,
        description=(
            "Change of the density ratio's AUC (target against new rows, and against the run's "
            "pool) from which a new run plans again on the same codebook."
        ),
    )
    inertia_ratio: float | None = Field(
        2.0,
        gt=1,
        description=(
            "Mean squared distance of new rows to their centroids over that of the run's pool, "
            "from which a new run fits the codebook again, from the present centroids."
        ),
    )
    lost_mass: float | None = Field(
        0.2,
        gt=0,
        le=1,
        description=(
            "Further share of the target whose clusters have lost all rows, from which the "
            "selection is not published (exit code 4)."
        ),
    )
    least_rows: int = Field(
        200,
        ge=1,
        description="New or changed rows from which auc_shift and inertia_ratio are judged.",
    )


class RefreshSettings(StageSettings):
    """Update of a selection after changes of the pool."""

    budget: Literal["hold", "float"] = Field(
        "hold",
        description=(
            "Size of the refreshed selection: hold (the budget is met again, with the rows per "
            "cluster solved for the present pool) or float (thresholds of the plan stay, the "
            "number of rows follows the pool)."
        ),
    )
    drift: DriftSettings = Field(
        default_factory=lambda: DriftSettings(),
        description="Drift from which a refresh is a new run, or is not published.",
    )
