"""Which MLflow store a run is recorded in, and whether it can work."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from gio_spark.settings.redact import redact

SQLITE = "sqlite:///"
SERVERS = ("http", "https")
_PLATFORM = ("databricks", "databricks-uc")
SQL = ("sqlite", "postgresql", "mysql", "mssql")


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
        """URI's scheme; 'file' for a plain path."""
        if self.uri in _PLATFORM:
            return "databricks"
        scheme = urlsplit(self.uri).scheme.split("+")[0].lower()
        return scheme if len(scheme) > 1 else "file"  # one letter is a Windows drive

    @property
    def shown(self) -> str:
        """URI without secrets."""
        return redact(self.uri)

    @property
    def path(self) -> Path | None:
        """Local file or folder that holds the store, if it is a local one."""
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
        has_sql = is_installed("sqlalchemy") and is_installed("alembic")
        uri = f"{SQLITE}{folder / 'mlflow.db'}" if has_sql else (folder / "mlruns").as_uri()
    store = Store(uri=uri, artifacts=artifacts, chosen=chosen)
    if artifacts is None and store.kind == "sqlite" and store.path is not None:
        # MLflow's own default is ./mlruns of whatever folder the run was started in
        beside = store.path.absolute().parent / "mlartifacts"
        store = Store(uri=uri, artifacts=beside.as_uri(), chosen=chosen)
    return store


def is_installed(package: str) -> bool:
    """Whether a package can be imported; it is not."""
    return importlib.util.find_spec(package) is not None
