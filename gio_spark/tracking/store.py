"""Which MLflow store a run is recorded in, whether it can work, and how it is made quickly."""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from gio_spark.errors import ConfigError, MissingExtraError
from gio_spark.settings.redact import redact

log = logging.getLogger(__name__)

SQLITE = "sqlite:///"
MAKE_SECONDS = 300.0  # most that the first database of a machine may take; 10 to 40 s were seen
_SERVERS = ("http", "https")
_PLATFORM = ("databricks", "databricks-uc")
_SQL = ("sqlite", "postgresql", "mysql", "mssql")
_MAKE_TABLES = (
    "import sys; from mlflow.store.db.utils import create_sqlalchemy_engine, "
    "_safe_initialize_tables; e = create_sqlalchemy_engine(sys.argv[1]); "
    "_safe_initialize_tables(e); e.dispose()"
)


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
    from gio_spark.tracking.client import connect, quick_answers

    try:
        with quick_answers():
            connect(store).search_experiments(max_results=1)
    except Exception as error:
        raise ConfigError(
            f"tracking.uri '{store.shown}' does not answer: {redact(str(error))[:300]} "
            "Check the address and the credentials, or set tracking.enabled to false."
        ) from error


def prepare(store: Store) -> None:
    """Make the tables of a new SQLite store, or do nothing.

    MLflow makes them by running its whole history of migrations, 8 to 20 s of work. So it is done
    in a process of its own, on a second core beside the first stages of a run, and the empty
    database is kept in the user's cache, by MLflow version: the next store is a copy. A store
    appears under its name complete or not at all.

    Raises:
        OSError: when the database cannot be made.
    """
    if store.kind != "sqlite" or store.path is None or store.path.exists():
        return
    store.path.parent.mkdir(parents=True, exist_ok=True)
    template = _template()
    with tempfile.TemporaryDirectory(dir=store.path.parent, prefix=".mlflow-") as scratch:
        fresh = Path(scratch) / "mlflow.db"
        if template is not None and _sound(template):
            shutil.copyfile(template, fresh)
        else:
            _make_tables(fresh)
            if template is not None:
                _keep(fresh, template)
        # a hard link fails if another run was first: its database is as good
        try:
            os.link(fresh, store.path)
        except FileExistsError:
            return
        except OSError:  # a file system without hard links
            fresh.replace(store.path)


def _make_tables(path: Path) -> None:
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", _MAKE_TABLES, f"{SQLITE}{path}"],
        capture_output=True,
        text=True,
        check=False,
        cwd=path.parent,
        stdin=subprocess.DEVNULL,
        timeout=MAKE_SECONDS,
    )
    if done.returncode:
        raise OSError(f"MLflow could not make its database: {done.stderr.strip()[-300:]}")


def _template() -> Path | None:
    """Return where the empty database of this MLflow version is kept."""
    from importlib.metadata import version

    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111
    if base.startswith("~"):  # no home folder
        return None
    return Path(base) / "gio-spark" / f"mlflow-{version('mlflow-skinny')}.db"


def _sound(path: Path) -> bool:
    """Tell whether the kept database is whole, empty and finished."""
    if not path.is_file():
        return False
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as base:
            whole = base.execute("pragma quick_check").fetchone()[0] == "ok"
            finished = base.execute("select count(*) from alembic_version").fetchone()[0] == 1
            empty = base.execute("select count(*) from runs").fetchone()[0] == 0
    except sqlite3.Error:
        return False
    return bool(whole and finished and empty)


def _keep(fresh: Path, template: Path) -> None:
    try:
        template.parent.mkdir(parents=True, exist_ok=True)
        part = template.with_suffix(f".{os.getpid()}.part")
        shutil.copyfile(fresh, part)
        part.replace(template)
    except OSError as error:
        log.debug("the empty MLflow database was not kept: %s", error)


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
