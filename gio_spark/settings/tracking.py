"""Settings of run tracking."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from gio_spark.settings.base import StageSettings


class TrackingSettings(StageSettings):
    """Tracking of parameters, metrics, inputs and artifacts of runs (MLflow)."""

    enabled: bool = Field(True, description="Recording of the run with MLflow.")
    uri: str | None = Field(
        None,
        description=(
            "MLflow tracking URI; none: MLFLOW_TRACKING_URI, else the platform's on Databricks, "
            "else a store in the workspace."
        ),
    )
    experiment: str = Field(
        "gio-spark",
        min_length=1,
        description="Name of the MLflow experiment (on Databricks a path; else put in /Shared).",
    )
    run_name: str | None = Field(None, description="Name of the MLflow run; none: the run id.")
    artifact_location: str | None = Field(
        None,
        description="Folder or URI for artifacts of a new experiment; none: the store's default.",
    )
    tags: dict[str, str] = Field({}, description="Further tags of the MLflow run.")
    on_error: Literal["continue", "stop"] = Field(
        "continue",
        description=(
            "Reaction of a run that cannot be recorded (no answer, an error, no permission): "
            "continue, with a message at once and at the end, or stop (exit code 1)."
        ),
    )
    registered_model: str | None = Field(
        None,
        min_length=1,
        description=(
            "Name of a registered model in MLflow (catalog.schema.name in Unity Catalog) that gets "
            "a version with configuration, models and plan of each published run and each refresh "
            "with another plan; none: nothing is registered."
        ),
    )
    wait_seconds: float = Field(
        60.0, gt=0, description="Seconds to wait for the tracking server at the end of a run."
    )
