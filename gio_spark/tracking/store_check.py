"""Check of a tracking store before any expensive work; nothing is created."""

from __future__ import annotations

import os
from pathlib import Path

from gio_spark.errors import ConfigError, MissingExtraError, TrackingError
from gio_spark.settings.redact import redact
from gio_spark.tracking.client import connect, mlflow_defaults
from gio_spark.tracking.store import SERVERS, SQL, Store, is_installed


def check(store: Store) -> None:
    """Refuse a store that cannot work, without creating anything.

    A local store is looked at; a server is asked for one experiment.

    Raises:
        ConfigError: unknown scheme, or not a database.
        TrackingError: no answer, or no permission.
        MissingExtraError: a database store without sqlalchemy.
    """
    kind = store.kind
    if kind not in (*SERVERS, *SQL, "file", "databricks", "uc"):
        raise ConfigError(
            f"tracking.uri '{store.shown}': MLflow knows no scheme '{kind}'. Use a folder, "
            "sqlite:///path/mlflow.db, http(s)://server, or databricks; or set "
            "tracking.enabled to false."
        )
    if kind in SQL:
        for package in ("sqlalchemy", "alembic"):
            if not is_installed(package):
                raise MissingExtraError(package, "local", f"The tracking store '{store.shown}'")
    if store.path is not None:
        _check_local(store, store.path)
    elif kind in (*SERVERS, "databricks"):
        _check_server(store)


def _check_local(store: Store, path: Path) -> None:
    if path.is_dir() if store.kind == "sqlite" else path.is_file():
        what = "a folder, not a database" if store.kind == "sqlite" else "a file, not a folder"
        raise ConfigError(f"tracking.uri '{store.shown}' is {what}. Give another path.")
    if store.kind == "sqlite" and path.is_file() and path.stat().st_size:
        with path.open("rb") as file:
            if file.read(15) != b"SQLite format 3":
                raise ConfigError(
                    f"tracking.uri '{store.shown}': the file is not an SQLite database. "
                    "Give another path; the file was left as it is."
                )
    nearest = path
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    message = (
        f"tracking.uri '{store.shown}': '{nearest}' cannot be written. Set tracking.uri to a "
        "place that can, or tracking.enabled to false."
    )
    if nearest != path and not nearest.is_dir():
        raise ConfigError(message)
    if not os.access(nearest, os.W_OK):
        raise TrackingError(message)


def _check_server(store: Store) -> None:
    try:
        with mlflow_defaults(store, retries=1, timeout=5):
            connect(store).search_experiments(max_results=1)
    except Exception as error:
        reason = redact(str(error)).strip().splitlines() or [type(error).__name__]
        raise TrackingError(
            f"tracking.uri '{store.shown}' does not answer as it should: {reason[0][:300]} "
            "Check the address and the credentials, or set tracking.enabled to false."
        ) from error
