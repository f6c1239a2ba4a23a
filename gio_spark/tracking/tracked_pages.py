"""HTML pages among the artifacts of tracked runs: read, and replaced in place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from gio_spark.errors import TrackingError
from gio_spark.settings.redact import redact
from gio_spark.tracking.mlflow_client import connect, experiment_name, mlflow_defaults
from gio_spark.tracking.tracking_store import resolve

if TYPE_CHECKING:
    from gio_spark.settings.tracking import TrackingSettings

_RUNS_PER_CALL = 1000


@dataclass(frozen=True)
class TrackedPage:
    """A page of a tracked run.

    Attributes:
        run: Id of the run in MLflow.
        path: Its path among the artifacts of the run.
    """

    run: str
    path: str


class TrackedPages:
    """Pages of all tracked runs of an experiment, deleted ones included.

    Args:
        settings: Tracking settings.
        folder: Local folder of the store, if neither settings nor environment name another one.
    """

    def __init__(self, settings: TrackingSettings, folder: Path) -> None:
        self._settings = settings
        self._store = resolve(settings.uri, settings.artifact_location, folder)
        self._client: Any = None

    @property
    def location(self) -> str:
        """URI of the store without secrets."""
        return self._store.redacted_uri

    @property
    def exists(self) -> bool:
        """Whether runs were tracked: tracking is enabled, and a local store has been made."""
        path = self._store.path
        return self._settings.enabled and (path is None or path.exists())

    def list(self) -> list[TrackedPage]:
        """All pages.

        Raises:
            TrackingError: The store does not answer.
        """
        if not self.exists:
            return []
        with self._opened() as client:
            experiment = client.get_experiment_by_name(
                experiment_name(self._settings.experiment, self._store)
            )
            if experiment is None:
                return []
            runs = _all_runs(client, experiment.experiment_id)
            return [TrackedPage(run, path) for run in runs for path in _pages(client, run, None)]

    def read(self, page: TrackedPage) -> str:
        """Text of a page."""
        with self._opened() as client, TemporaryDirectory() as folder:
            file = client.download_artifacts(page.run, page.path, folder)
            return Path(file).read_text(encoding="utf-8")

    def replace(self, page: TrackedPage, text: str) -> None:
        """Write a page in place of the stored one."""
        path = PurePosixPath(page.path)
        with self._opened() as client, TemporaryDirectory() as folder:
            file = Path(folder) / path.name
            file.write_text(text, encoding="utf-8")
            parent = str(path.parent)
            client.log_artifact(page.run, str(file), None if parent == "." else parent)

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        try:
            with mlflow_defaults(self._store):
                self._client = self._client or connect(self._store)
                yield self._client
        except Exception as error:
            reason = redact(str(error)).strip().splitlines() or [type(error).__name__]
            raise TrackingError(
                f"The pages of tracked runs at {self.location} cannot be searched: "
                f"{reason[0][:300]} Check address and credentials, and run the purge again."
            ) from error


def _all_runs(client: Any, experiment: str) -> list[str]:
    from mlflow.entities import ViewType

    runs: list[str] = []
    token = None
    while True:
        batch = client.search_runs(
            [experiment], run_view_type=ViewType.ALL, max_results=_RUNS_PER_CALL, page_token=token
        )
        runs += [run.info.run_id for run in batch]
        token = batch.token
        if not token:
            return runs


def _pages(client: Any, run: str, folder: str | None) -> list[str]:
    """Paths of the pages below a folder of a run's artifacts."""
    paths: list[str] = []
    for info in client.list_artifacts(run, folder):
        if info.is_dir:
            paths += _pages(client, run, info.path)
        elif info.path.endswith(".html"):
            paths.append(info.path)
    return paths
