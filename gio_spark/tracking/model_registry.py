"""Registered models of MLflow: a version per plan, and its files for whoever applies it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from gio_spark.errors import TrackingError
from gio_spark.settings.redact import redact
from gio_spark.tracking.mlflow_client import connect, flat_tags, mlflow_defaults
from gio_spark.tracking.tracking_store import resolve
from gio_spark.version import __version__

if TYPE_CHECKING:
    from gio_spark.settings.tracking import TrackingSettings
    from gio_spark.tracking.tracking_store import Store

KEY_TAG = "gio.model"
_FOLDER = "model"
_ARTIFACT = "plan"


@dataclass(frozen=True)
class PlanModel:
    """A model to register.

    Attributes:
        name: Registered name; catalog.schema.name in Unity Catalog.
        key: Fingerprint, by which an earlier version of the same model is recognized.
        files: Folder with its files.
        code: Python file that MLflow executes where the model is loaded.
        inputs: Columns that it reads.
        outputs: Column -> type of MLflow, of what it gives.
        tags: Tags of the version.
    """

    name: str
    key: str
    files: Path
    code: Path
    inputs: Sequence[str]
    outputs: Mapping[str, str]
    tags: Mapping[str, str] = field(default_factory=dict)


def register_version(
    model: PlanModel, settings: TrackingSettings, folder: Path, *, run: str
) -> str:
    """Log a model from code among the artifacts of a tracked run, and register it.

    Args:
        model: The model.
        settings: Tracking settings.
        folder: Local folder of the store, if neither settings nor environment name another one.
        run: Id of the run in MLflow.

    Returns:
        Number of the new version, or of an earlier one of the same key.

    Raises:
        TrackingError: The store does not answer, or refuses.
    """
    store = resolve(settings.uri, settings.artifact_location, folder)
    with _errors(f"The model {model.name} cannot be registered at {store.redacted_uri}", store):
        client = connect(store)
        for version in client.search_model_versions(f"name='{model.name}'"):
            if version.tags.get(KEY_TAG) == model.key:
                return str(version.version)
        with TemporaryDirectory() as temporary:
            path = Path(temporary) / _FOLDER
            _save(model, path)
            client.log_artifacts(run, str(path), _FOLDER)
        if not client.search_registered_models(f"name='{model.name}'"):
            client.create_registered_model(model.name)
        source = f"{client.get_run(run).info.artifact_uri}/{_FOLDER}"
        tags = flat_tags({**model.tags, KEY_TAG: model.key})
        return str(client.create_model_version(model.name, source, run, tags=tags).version)


@contextmanager
def downloaded_model(uri: str) -> Iterator[Path]:
    """Folder with the files of a registered model, for a `with` block.

    Args:
        uri: models:/NAME/VERSION, models:/NAME@ALIAS or runs:/RUN/model. The store is that of
            MLFLOW_TRACKING_URI (and MLFLOW_REGISTRY_URI), or the platform's on Databricks.

    Raises:
        TrackingError: It cannot be downloaded.
    """
    from mlflow.artifacts import download_artifacts

    store = resolve(None, None, Path())
    if store.origin == "workspace":
        raise TrackingError(f"{uri}: the store of the model is not known. Set MLFLOW_TRACKING_URI.")
    with TemporaryDirectory() as temporary:
        with _errors(f"The model {uri} cannot be read from {store.redacted_uri}", store):
            path = download_artifacts(artifact_uri=uri, dst_path=temporary, tracking_uri=store.uri)
        yield Path(path) / "artifacts" / _ARTIFACT


def _save(model: PlanModel, path: Path) -> None:
    """Write a model as MLflow lays it out: from code, so that nothing of it is pickled."""
    with warnings.catch_warnings():
        # Of MLflow's own types, and its advice to log an example: rows of a user.
        warnings.simplefilter("ignore", UserWarning)
        import mlflow.pyfunc
        from mlflow.models import ModelSignature
        from mlflow.types.schema import AnyType, ColSpec, Schema

        signature = ModelSignature(
            inputs=Schema([ColSpec(AnyType(), name) for name in model.inputs]),
            outputs=Schema([ColSpec(kind, name) for name, kind in model.outputs.items()]),
        )
        mlflow.pyfunc.save_model(
            path,
            python_model=str(model.code),
            artifacts={_ARTIFACT: str(model.files)},
            signature=signature,
            pip_requirements=[f"gio-spark[embedded]=={__version__}"],
        )


@contextmanager
def _errors(problem: str, store: Store) -> Iterator[Any]:
    """Raise what a store raises as a TrackingError; MLflow has its defaults meanwhile."""
    try:
        with mlflow_defaults(store):
            yield
    except Exception as error:
        reason = redact(str(error)).strip().splitlines() or [type(error).__name__]
        raise TrackingError(f"{problem}: {reason[0][:300]}") from error
