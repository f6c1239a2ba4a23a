"""Record runs with MLflow: parameters, inputs with versions, metrics, artifacts."""

from gio_spark.tracking.base import (
    NullTracker,
    TrackedInput,
    TrackedStage,
    Tracker,
    TrackingOutcome,
)
from gio_spark.tracking.mlflow import MlflowTracker, end_open_records, tracker

__all__ = [
    "MlflowTracker",
    "NullTracker",
    "TrackedInput",
    "TrackedStage",
    "Tracker",
    "TrackingOutcome",
    "end_open_records",
    "tracker",
]
