"""Open MLflow with safe defaults, touching no global run, and hand it bounded values."""

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

    from gio_spark.tracking.base import TrackedInput
    from gio_spark.tracking.store import Store

MAX_KEY = 250
MAX_PARAM = 500  # the smallest limit among supported servers
MAX_TAG = 5000
MAX_STEPS = 1000
_UNSAFE = re.compile(r"[^\w\-. /]")


def connect(store: Store) -> MlflowClient:
    """Client of a store; the global state of MLflow's fluent API stays untouched."""
    from mlflow.tracking import MlflowClient

    registry = {"registry_uri": store.uri} if store.kind != "databricks" else {}
    return MlflowClient(tracking_uri=store.uri, **registry)


def mlflow_defaults(
    store: Store, *, retries: int = 2, timeout: int = 10
) -> AbstractContextManager[None]:
    """Variables of the environment that MLflow reads, for the block in which it is called.

    Unless the user says otherwise in the environment: nothing is reported to MLflow's makers, the
    file store is allowed where it was asked for, and a server that has gone silent is given up
    after about half a minute (MLflow's own limit is beyond ten).

    Args:
        store: The store that is called.
        retries: Retries of a request.
        timeout: Seconds that a request may take.
    """
    file_store = {"MLFLOW_ALLOW_FILE_STORE": "true"} if store.kind == "file" else {}
    return environment(
        MLFLOW_HTTP_REQUEST_MAX_RETRIES=str(retries),
        MLFLOW_HTTP_REQUEST_TIMEOUT=str(timeout),
        MLFLOW_DISABLE_TELEMETRY="true",
        **file_store,
    )


def experiment_id(client: MlflowClient, name: str, store: Store) -> str:
    """Return the id of the experiment, made if it is new."""
    if store.kind == "databricks" and not name.startswith("/"):
        name = f"/Shared/{name}"
    found = client.get_experiment_by_name(name)
    if found is None:
        return str(client.create_experiment(name, artifact_location=store.artifacts))
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


def flat_params(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return parameters that every server takes: safe keys, no secrets, at most 500 characters."""
    return {safe_key(k): clip(v, MAX_PARAM) for k, v in flatten(settings).items()}


def flat_tags(tags: Mapping[str, Any]) -> dict[str, str]:
    """Return tags that every server takes, without secrets."""
    return {safe_key(k): clip(redact(str(v)), MAX_TAG) for k, v in tags.items()}


def safe_key(key: str) -> str:
    """Return the key with characters that MLflow refuses replaced by `_`."""
    return _UNSAFE.sub("_", key)[:MAX_KEY] or "_"


def clip(text: str, length: int) -> str:
    """Cut a text to the length, with a sign that it was cut."""
    return text if len(text) <= length else text[: length - 1] + "…"


def thin(values: Sequence[float], steps: Sequence[int] | None) -> list[tuple[int, float]]:
    """Return at most 1,000 finite (step, value) pairs, evenly spaced, first and last kept."""
    y = np.asarray(values, dtype=np.float64)
    x = np.arange(len(y)) if steps is None else np.asarray(steps, dtype=np.int64)
    finite = np.isfinite(y)
    x, y = x[finite], y[finite]
    if len(y) > MAX_STEPS:
        keep = np.unique(np.linspace(0, len(y) - 1, MAX_STEPS).round().astype(np.int64))
        x, y = x[keep], y[keep]
    return [(int(a), float(b)) for a, b in zip(x, y, strict=True)]


def dataset(tracked: TrackedInput) -> Any:
    """Return an input as an MLflow dataset, without a DataFrame and without a job.

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
    where = {"path": location} if is_path else {"delta_table_name": location}

    class PinnedDelta(DeltaDatasetSource):
        """A Delta table whose version is recorded even when it is 0.

        MLflow's own class leaves out version 0, and asks Unity Catalog for the table's id on any
        machine; the id is asked for on Databricks only.
        """

        def to_dict(self) -> dict[Any, Any]:
            on_platform = bool(os.environ.get("DATABRICKS_RUNTIME_VERSION"))
            info = super().to_dict() if on_platform else dict(where)
            if version is not None:
                info["delta_table_version"] = version
            return info

    return MetaDataset(PinnedDelta(**where, delta_table_version=version), name=name)


def _files_source(location: str, tracked: TrackedInput) -> Any:
    from mlflow.data.dataset_source import DatasetSource

    class PinnedFiles(DatasetSource):
        """Where files were read, and the hash of the list of them."""

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
