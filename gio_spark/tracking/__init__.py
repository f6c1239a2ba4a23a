"""Tracking of runs with MLflow: parameters, inputs with versions, metrics and artifacts."""

from gio_spark.tracking.mlflow_tracker import MlflowTracker, end_open_records, tracker
from gio_spark.tracking.model_registry import PlanModel, downloaded_model, register_version
from gio_spark.tracking.tracked_pages import TrackedPage, TrackedPages
from gio_spark.tracking.tracker_interface import (
    NullTracker,
    TrackedInput,
    TrackedStage,
    Tracker,
    TrackingOutcome,
)

__all__ = [
    "MlflowTracker",
    "NullTracker",
    "PlanModel",
    "TrackedInput",
    "TrackedPage",
    "TrackedPages",
    "TrackedStage",
    "Tracker",
    "TrackingOutcome",
    "downloaded_model",
    "end_open_records",
    "register_version",
    "tracker",
]
