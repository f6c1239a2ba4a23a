"""MLflow client with safe defaults and no global state, and values in the limits of MLflow."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import numpy as np

from gio_spark.process import environment
from gio_spark.settings.redact import flatten, redact

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

    from gio_spark.tracking.tracker_interface import TrackedInput
    from gio_spark.tracking.tracking_store import Store

MAX_KEY = 250
MAX_PARAM = 500  # the smallest limit among supported servers
MAX_TAG = 5000
MAX_STEPS = 1000
_UNSAFE = re.compile(r"[^\w\-. /]")


def connect(store: Store) -> MlflowClient:
    """Client of a store; the global state of MLflow's fluent API does not change."""
    from mlflow.tracking import MlflowClient

    registry = {"registry_uri": store.uri} if store.kind != "databricks" else {}
    return MlflowClient(tracking_uri=store.uri, **registry)


def mlflow_defaults(
    store: Store, *, retries: int = 2, timeout: int = 10
) -> AbstractContextManager[None]:
    """Environment variables of MLflow for a `with` block, unless the user has set them.

    MLflow sends no telemetry, a file store is allowed if it is the store of the run, and requests
    to a server that does not answer end after about half a minute (with MLflow's own limits, after
    more than ten).

    Args:
        store: Tracking store.
        retries: Retries of a request.
        timeout: Timeout of a request in seconds.
    """
    file_store = {"MLFLOW_ALLOW_FILE_STORE": "true"} if store.kind == "file" else {}
    return environment(
        MLFLOW_HTTP_REQUEST_MAX_RETRIES=str(retries),
        MLFLOW_HTTP_REQUEST_TIMEOUT=str(timeout),
        MLFLOW_DISABLE_TELEMETRY="true",
        MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR="false",
        **file_store,
    )


def experiment_id(client: MlflowClient, name: str, store: Store) -> str:
    """Id of the experiment, which is created or restored if necessary."""
    name = experiment_name(name, store)
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        return str(client.create_experiment(name, artifact_location=store.artifacts))
    if experiment.lifecycle_stage == "deleted":
        client.restore_experiment(experiment.experiment_id)
    return str(experiment.experiment_id)


def experiment_name(name: str, store: Store) -> str:
    """Full name of an experiment: Databricks keeps experiments in folders."""
    in_folder = store.kind != "databricks" or name.startswith("/")
    return name if in_folder else f"/Shared/{name}"


def flat_params(settings: Mapping[str, Any]) -> dict[str, str]:
    """Parameters that every server accepts: safe keys, no secrets, at most 500 characters.

    Example:
        >>> flat_params({"quantize": {"clusters": 5}, "api_key": "secret"})
        {'quantize.clusters': '5', 'api_key': '***'}
    """
    return {safe_key(key): clip(value, MAX_PARAM) for key, value in flatten(settings).items()}


def flat_tags(tags: Mapping[str, Any]) -> dict[str, str]:
    """Tags that every server accepts, without secrets."""
    return {safe_key(key): clip(redact(str(value)), MAX_TAG) for key, value in tags.items()}


def safe_key(key: str) -> str:
    """Key in which `_` replaces characters that MLflow refuses.

    Example:
        >>> safe_key("a=b")
        'a_b'
    """
    return _UNSAFE.sub("_", key)[:MAX_KEY] or "_"


def clip(text: str, length: int) -> str:
    """Text of at most `length` characters; a clipped text ends with an ellipsis.

    Example:
        >>> clip("abcdef", 4)
        'abc…'
    """
    return text if len(text) <= length else text[: length - 1] + "…"


def thinned_points(values: Sequence[float], steps: Sequence[int] | None) -> list[tuple[int, float]]:
    """At most 1,000 finite (step, value) pairs, evenly spaced, with the first and the last.

    Example:
        >>> thinned_points([1.0, float("nan"), 3.0], None)
        [(0, 1.0), (2, 3.0)]
    """
    value_array = np.asarray(values, dtype=np.float64)
    step_array = np.arange(len(value_array)) if steps is None else np.asarray(steps, dtype=np.int64)
    finite = np.isfinite(value_array)
    step_array, value_array = step_array[finite], value_array[finite]
    if len(value_array) > MAX_STEPS:
        sampled = np.unique(
            np.linspace(0, len(value_array) - 1, MAX_STEPS).round().astype(np.int64)
        )
        step_array, value_array = step_array[sampled], value_array[sampled]
    return [(int(step), float(value)) for step, value in zip(step_array, value_array, strict=True)]


def dataset(tracked: TrackedInput) -> Any:
    """Input as an MLflow dataset, without a DataFrame and without a job.

    Delta tables carry name or path and version; other inputs the hash of their pinned files.
    """
    from mlflow.data.delta_dataset_source import DeltaDatasetSource
    from mlflow.data.meta_dataset import MetaDataset

    location = redact(tracked.location)
    name = clip(tracked.name, MAX_PARAM)
    if tracked.format.lower() != "delta":
        digest = None if tracked.version is None else str(tracked.version)[:36]
        return MetaDataset(_files_source(location, tracked), name=name, digest=digest)
    version = None if tracked.version is None else int(tracked.version)
    is_path = "/" in location or "\\" in location
    table = {"path": location} if is_path else {"delta_table_name": location}

    class PinnedDelta(DeltaDatasetSource):
        """Delta table whose version is recorded even if it is 0.

        MLflow's own class leaves out version 0 and requests the table's id from Unity Catalog on
        any machine; this class requests it on Databricks only.
        """

        def to_dict(self) -> dict[Any, Any]:
            on_platform = bool(os.environ.get("DATABRICKS_RUNTIME_VERSION"))
            info = super().to_dict() if on_platform else dict(table)
            if version is not None:
                info["delta_table_version"] = version
            return info

    return MetaDataset(PinnedDelta(**table, delta_table_version=version), name=name)


def _files_source(location: str, tracked: TrackedInput) -> Any:
    from mlflow.data.dataset_source import DatasetSource

    class PinnedFiles(DatasetSource):
        """Location of files and the hash of their list."""

        @staticmethod
        def _get_source_type() -> str:
            return "gio_spark_files"

        def load(self) -> Any:
            raise NotImplementedError(f"Read {location} with the job that wrote this record.")

        @staticmethod
        def _can_resolve(raw_source: Any) -> bool:
            return False

        @classmethod
        def _resolve(cls, raw_source: Any) -> DatasetSource:
            raise NotImplementedError

        def to_dict(self) -> dict[str, Any]:
            return {
                "uri": location,
                "format": tracked.format,
                "version": "" if tracked.version is None else str(tracked.version),
            }

        @classmethod
        def from_dict(cls, source_dict: dict[Any, Any]) -> DatasetSource:
            return cls()

    return PinnedFiles()
