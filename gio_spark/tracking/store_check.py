"""Check of a tracking store before any expensive work; nothing is created."""

from __future__ import annotations

import os
from pathlib import Path

from gio_spark.errors import ConfigError, MissingExtraError, TrackingError
from gio_spark.settings.redact import redact
from gio_spark.tracking.mlflow_client import clip, connect, mlflow_defaults
from gio_spark.tracking.tracking_store import SERVERS, SQL, Store, is_installed


def check(store: Store) -> None:
    """Check that a store works, without creating anything.

    For a local store, type and permissions of its path are checked; a server is asked for one
    experiment.

    Raises:
        ConfigError: Unknown scheme, or not a database.
        TrackingError: No answer, or no permission.
        MissingExtraError: A database store without sqlalchemy.
    """
    kind = store.kind
    if kind not in (*SERVERS, *SQL, "file", "databricks", "uc"):
        raise ConfigError(
            f"tracking.uri '{store.redacted_uri}': MLflow knows no scheme '{kind}'. Use a folder, "
            "sqlite:///path/mlflow.db, http(s)://server, or databricks; or set "
            "tracking.enabled to false."
        )
    if kind in SQL:
        for package in ("sqlalchemy", "alembic"):
            if not is_installed(package):
                raise MissingExtraError(
                    package, "local", f"The tracking store '{store.redacted_uri}'"
                )
    if store.path is not None:
        _check_local(store, store.path)
    elif kind in (*SERVERS, "databricks"):
        _check_server(store)


def _check_local(store: Store, path: Path) -> None:
    if path.is_dir() if store.kind == "sqlite" else path.is_file():
        found_type = (
            "a folder, not a database" if store.kind == "sqlite" else "a file, not a folder"
        )
        raise ConfigError(
            f"tracking.uri '{store.redacted_uri}' is {found_type}. Give another path."
        )
    if store.kind == "sqlite" and path.is_file() and path.stat().st_size:
        with path.open("rb") as file:
            if file.read(15) != b"SQLite format 3":
                raise ConfigError(
                    f"tracking.uri '{store.redacted_uri}': the file is not an SQLite database. "
                    "Give another path; the file was left as it is."
                )
    existing_parent = path
    while not existing_parent.exists() and existing_parent != existing_parent.parent:
        existing_parent = existing_parent.parent
    message = (
        f"tracking.uri '{store.redacted_uri}': '{existing_parent}' cannot be written. Set it to a "
        "place that can, or tracking.enabled to false."
    )
    if existing_parent != path and not existing_parent.is_dir():
        raise ConfigError(message)
    if not os.access(existing_parent, os.W_OK):
        raise TrackingError(message)


def _check_server(store: Store) -> None:
    try:
        with mlflow_defaults(store, retries=1, timeout=5):
            connect(store).search_experiments(max_results=1)
    except Exception as error:
        reason = redact(str(error)).strip().splitlines() or [type(error).__name__]
        raise TrackingError(
            f"tracking.uri '{store.redacted_uri}' does not answer as it should: "
            f"{clip(reason[0], 300).rstrip('.')}. Check the address and the credentials, or set "
            "tracking.enabled to false."
        ) from error
