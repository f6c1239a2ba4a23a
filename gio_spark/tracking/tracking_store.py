"""MLflow store of a run: resolution from settings, environment, platform or workspace."""

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
    """Resolved tracking store.

    Attributes:
        uri: URI for MLflow; may contain secrets.
        artifacts: Artifact location of a new experiment; None: the default of the store.
        origin: Origin of the URI: 'settings', 'environment', 'platform' or 'workspace'.
    """

    uri: str
    artifacts: str | None
    origin: str

    @property
    def kind(self) -> str:
        """Scheme of the URI; 'file' for a plain path."""
        if self.uri in _PLATFORM:
            return "databricks"
        scheme = urlsplit(self.uri).scheme.split("+")[0].lower()
        return scheme if len(scheme) > 1 else "file"  # one letter is a Windows drive

    @property
    def redacted_uri(self) -> str:
        """URI without secrets."""
        return redact(self.uri)

    @property
    def path(self) -> Path | None:
        """Local file or folder of the store, None if it is not local."""
        if self.kind == "sqlite":
            name = self.uri.split("///", 1)[-1].split("?", 1)[0]
            return None if name in ("", ":memory:") else Path(name)
        if self.kind == "file":
            parts = urlsplit(self.uri)
            return Path(unquote(parts.path)) if parts.scheme == "file" else Path(self.uri)
        return None


def resolve(uri: str | None, artifacts: str | None, folder: Path) -> Store:
    """Store of the settings, else of the environment, the platform or the workspace.

    In the workspace it is an SQLite file if sqlalchemy and alembic are installed (extra `local`),
    else a folder of plain files.

    Args:
        uri: Tracking URI of the settings, or None.
        artifacts: Artifact location of the settings, or None.
        folder: Local folder for a store in the workspace.

    Returns:
        The store; nothing is created yet.

    Example:
        >>> store = resolve("https://user:secret@server", None, Path("tracking"))
        >>> store.kind, store.origin, store.redacted_uri
        ('https', 'settings', 'https://***@server')
    """
    origin = "settings"
    if uri is None and os.environ.get("MLFLOW_TRACKING_URI"):
        uri, origin = os.environ["MLFLOW_TRACKING_URI"], "environment"
    if uri is None and os.environ.get("DATABRICKS_RUNTIME_VERSION"):
        uri, origin = "databricks", "platform"
    if uri is None:
        origin = "workspace"
        folder = folder.absolute()
        has_sql = is_installed("sqlalchemy") and is_installed("alembic")
        uri = f"{SQLITE}{folder / 'mlflow.db'}" if has_sql else (folder / "mlruns").as_uri()
    store = Store(uri=uri, artifacts=artifacts, origin=origin)
    if artifacts is None and store.kind == "sqlite" and store.path is not None:
        # The default of MLflow is ./mlruns in the working directory of the run.
        artifact_folder = store.path.absolute().parent / "mlartifacts"
        store = Store(uri=uri, artifacts=artifact_folder.as_uri(), origin=origin)
    return store


def is_installed(package: str) -> bool:
    """Whether a package can be imported; the package is not imported."""
    return importlib.util.find_spec(package) is not None
