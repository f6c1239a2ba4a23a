"""Which MLflow store a run is recorded in, and whether it can work."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from gio_spark.errors import ConfigError, MissingExtraError
from gio_spark.settings.redact import redact

SQLITE = "sqlite:///"
_SERVERS = ("http", "https")
_PLATFORM = ("databricks", "databricks-uc")
_SQL = ("sqlite", "postgresql", "mysql", "mssql")


@dataclass(frozen=True)
class Store:
    """A resolved tracking store.

    Attributes:
        uri: as MLflow takes it; may hold secrets.
        artifacts: where a new experiment keeps its files; None: the store's own choice.
        chosen: 'settings', 'environment', 'platform' or 'workspace'.
    """

    uri: str
    artifacts: str | None
    chosen: str

    @property
    def kind(self) -> str:
        """Return the URI's scheme; 'file' for a plain path."""
        if self.uri in _PLATFORM:
            return "databricks"
        scheme = urlsplit(self.uri).scheme.split("+")[0].lower()
        return scheme if len(scheme) > 1 else "file"  # one letter is a Windows drive

    @property
    def shown(self) -> str:
        """Return the URI without secrets."""
        return redact(self.uri)

    @property
    def path(self) -> Path | None:
        """Return the local file or folder that holds the store, if it is a local one."""
        if self.kind == "sqlite":
            name = self.uri.split("///", 1)[-1].split("?", 1)[0]
            return None if name in ("", ":memory:") else Path(name)
        if self.kind == "file":
            parts = urlsplit(self.uri)
            return Path(unquote(parts.path)) if parts.scheme == "file" else Path(self.uri)
        return None


def resolve(uri: str | None, artifacts: str | None, folder: Path) -> Store:
    """Choose the store: settings, then environment, then platform, then the workspace.

    In the workspace it is an SQLite file where sqlalchemy and alembic are installed (extra
    `local`), else a folder of plain files.

    Args:
        uri: tracking URI of the settings, or None.
        artifacts: artifact location of the settings, or None.
        folder: local folder for a store of our own.

    Returns:
        The store; nothing is created yet.
    """
    chosen = "settings"
    if uri is None and os.environ.get("MLFLOW_TRACKING_URI"):
        uri, chosen = os.environ["MLFLOW_TRACKING_URI"], "environment"
    if uri is None and os.environ.get("DATABRICKS_RUNTIME_VERSION"):
        uri, chosen = "databricks", "platform"
    if uri is None:
        chosen = "workspace"
        folder = folder.absolute()
        has_sql = _installed("sqlalchemy") and _installed("alembic")
        uri = f"{SQLITE}{folder / 'mlflow.db'}" if has_sql else (folder / "mlruns").as_uri()
    store = Store(uri=uri, artifacts=artifacts, chosen=chosen)
    if artifacts is None and store.kind == "sqlite" and store.path is not None:
        # MLflow's own default is ./mlruns of whatever folder the run was started in
        beside = store.path.absolute().parent / "mlartifacts"
        store = Store(uri=uri, artifacts=beside.as_uri(), chosen=chosen)
    return store


def check(store: Store) -> None:
    """Refuse a store that cannot work, without creating anything.

    A local store is looked at; a server is asked for one experiment.

    Raises:
        ConfigError: unknown scheme, no permission, not a database, or no answer.
        MissingExtraError: a database store without sqlalchemy.
    """
    kind = store.kind
    if kind not in (*_SERVERS, *_SQL, "file", "databricks", "uc"):
        raise ConfigError(
            f"tracking.uri '{store.shown}': MLflow knows no scheme '{kind}'. Use a folder, "
            "sqlite:///path/mlflow.db, http(s)://server, or databricks; or set "
            "tracking.enabled to false."
        )
    if kind in _SQL:
        for package in ("sqlalchemy", "alembic"):
            if not _installed(package):
                raise MissingExtraError(package, "local", f"The tracking store '{store.shown}'")
    if store.path is not None:
        _check_local(store, store.path)
    elif kind in (*_SERVERS, "databricks"):
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
    if not os.access(nearest, os.W_OK) or (nearest != path and not nearest.is_dir()):
        raise ConfigError(
            f"tracking.uri '{store.shown}': '{nearest}' cannot be written. Set tracking.uri to a "
            "place that can, or tracking.enabled to false."
        )


def _check_server(store: Store) -> None:
    from gio_spark.tracking.client import connect, mlflow_defaults

    try:
        with mlflow_defaults(store, retries=1, timeout=10):
            connect(store).search_experiments(max_results=1)
    except Exception as error:
        raise ConfigError(
            f"tracking.uri '{store.shown}' does not answer: {redact(str(error))[:300]} "
            "Check the address and the credentials, or set tracking.enabled to false."
        ) from error


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
