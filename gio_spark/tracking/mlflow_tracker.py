"""MLflow tracker that records a run in the background.

All calls run in order on one worker thread, so that the import of MLflow (3 s), the creation of a
store (2 s) or a slow server do not delay the run. The first failure is logged once; later calls are
skipped, so that the run does not wait again for a server that does not answer.
"""

from __future__ import annotations

import logging
import time
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as WaitTimeout
from pathlib import Path
from types import TracebackType
from typing import Any

from typing_extensions import Self

from gio_spark.errors import TrackingError
from gio_spark.settings.redact import redact
from gio_spark.settings.tracking import TrackingSettings
from gio_spark.tracking import mlflow_client
from gio_spark.tracking.store_check import check
from gio_spark.tracking.tracker_interface import (
    NullTracker,
    TrackedInput,
    TrackedStage,
    Tracker,
    TrackingOutcome,
)
from gio_spark.tracking.tracking_store import Store, resolve

log = logging.getLogger(__name__)

_PARAMS_PER_CALL = 100  # MLflow's own limits
_METRICS_PER_CALL = 1000
_LAST_CALL = {"retries": 0, "timeout": 5}  # for a store that has failed before
_KILL_SECONDS = 2.0  # that a run which is interrupted waits for its record to be closed
_SQLITE_START_SECONDS = 300.0  # that MLflow may take for the tables of a new SQLite store

_open_trackers: weakref.WeakSet[MlflowTracker] = weakref.WeakSet()


def end_open_records() -> None:
    """Close the records of all runs that this process has under way, as killed."""
    for open_tracker in list(_open_trackers):
        open_tracker.end("KILLED")


def tracker(settings: TrackingSettings, folder: Path) -> Tracker:
    """Tracker of the settings.

    Args:
        settings: Tracking settings.
        folder: Local folder for the store, if neither settings nor environment name another one.

    Returns:
        A `NullTracker` if tracking is disabled, else an `MlflowTracker`. Nothing is created yet.
    """
    if not settings.enabled:
        return NullTracker()
    return MlflowTracker(settings, resolve(settings.uri, settings.artifact_location, folder))


class MlflowTracker:
    """Tracker that records a run in an MLflow store."""

    def __init__(self, settings: TrackingSettings, store: Store) -> None:
        """Initialize the tracker; `start` opens the store."""
        self.store = store
        self._settings = settings
        self._executor: ThreadPoolExecutor | None = None
        self._start_call: Future[str | None] | None = None
        self._last_call: Future[Any] | None = None
        self._client: Any = None
        self._run_id: str | None = None
        self._problem: str | None = None
        self._killed = False
        self._outcome: TrackingOutcome | None = None

    @property
    def location(self) -> str:
        """URI of the store without secrets."""
        return self.store.redacted_uri

    @property
    def run_id(self) -> str | None:
        """Id of the run in MLflow, after waiting for its start; None if it could not start."""
        if self._start_call is None:
            return None
        try:
            return self._start_call.result(timeout=self._settings.wait_seconds)
        except WaitTimeout:
            return None

    def check(self) -> None:
        """Check that the store works, before any expensive work.

        Raises:
            ConfigError: unknown scheme, or not a database.
            MissingExtraError: a database store without sqlalchemy.
            TrackingError: no answer or no permission, where `on_error` is stop.
        """
        try:
            check(self.store)
        except TrackingError as error:
            if self._stops:
                raise
            self._fail(str(error))

    def start(self, run_name: str, tags: Mapping[str, str] | None = None) -> None:
        """Start the record of the run in the background."""
        name = self._settings.run_name or run_name
        flat_tags = mlflow_client.flat_tags({**self._settings.tags, **(tags or {})})

        def begin() -> str | None:
            self._client = mlflow_client.connect(self.store)
            experiment = mlflow_client.experiment_id(
                self._client, self._settings.experiment, self.store
            )
            if self._killed:  # nobody would close it
                return None
            run = self._client.create_run(experiment, run_name=name, tags=flat_tags)
            self._run_id = run.info.run_id
            return self._run_id

        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="gio-spark-tracking")
        self._start_call = self._submit("begin the run", begin)
        _open_trackers.add(self)

    def params(self, settings: Mapping[str, Any]) -> None:
        """Record nested settings as flat parameters without secrets."""
        items = list(mlflow_client.flat_params(settings).items())

        def send() -> None:
            from mlflow.entities import Param

            for start in range(0, len(items), _PARAMS_PER_CALL):
                batch = [
                    Param(key, value) for key, value in items[start : start + _PARAMS_PER_CALL]
                ]
                self._client.log_batch(self._run_id, params=batch)

        self._submit("record the parameters", send)

    def tags(self, tags: Mapping[str, str]) -> None:
        """Record tags without secrets."""
        flat_tags = mlflow_client.flat_tags(tags)

        def send() -> None:
            from mlflow.entities import RunTag

            run_tags = [RunTag(key, value) for key, value in flat_tags.items()]
            self._client.log_batch(self._run_id, tags=run_tags)

        self._submit("record the tags", send)

    def inputs(self, inputs: Iterable[TrackedInput]) -> None:
        """Record the tables that were read as MLflow datasets, with their versions."""
        tables = list(inputs)

        def send() -> None:
            from mlflow.entities import DatasetInput, InputTag

            entries = []
            for table in tables:
                tag = InputTag("mlflow.data.context", table.context)
                entries.append(
                    DatasetInput(mlflow_client.dataset(table)._to_mlflow_entity(), [tag])
                )
            self._client.log_inputs(self._run_id, entries)

        self._submit("record the inputs", send)

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Record finite numbers; others are left out."""
        self._send_metrics(
            [
                (name, *point)
                for name, value in values.items()
                for point in mlflow_client.thinned_points([value], [step])
            ]
        )

    def path(self, name: str, values: Sequence[float], steps: Sequence[int] | None = None) -> None:
        """Record a curve, one value per step, thinned evenly to 1,000 points."""
        self._send_metrics([(name, *pair) for pair in mlflow_client.thinned_points(values, steps)])

    def stage(self, stage: TrackedStage) -> None:
        """Record seconds and rows of a finished stage as `stage/NAME/...`."""
        values = {
            f"stage/{stage.name}/seconds": stage.seconds,
            f"stage/{stage.name}/skipped": float(stage.skipped),
        }
        if stage.rows is not None:
            values[f"stage/{stage.name}/rows"] = float(stage.rows)
        self.metrics(values)

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Record a file, or all files of a folder, which must exist until `end`."""

        def send() -> None:
            if path.is_dir():
                self._client.log_artifacts(self._run_id, str(path), folder)
            else:
                self._client.log_artifact(self._run_id, str(path), folder)

        self._submit(f"record {path.name}", send)

    def end(self, status: str = "FINISHED") -> TrackingOutcome:
        """Close the record and wait for it for at most `wait_seconds` of the settings.

        The wait for a new SQLite store is longer, since its creation on this machine can take
        longer than a short run. A run that was killed waits two seconds, and calls still queued for
        its record are dropped.
        """
        if self._outcome is not None:
            return self._outcome
        if self._executor is None:
            return TrackingOutcome(enabled=True, location=self.location, problem="not started")
        # What comes later, such as an error of an engine that was ended, changes nothing of it.
        self._killed = self._killed or status == "KILLED"
        seconds = _KILL_SECONDS if self._killed else self._settings.wait_seconds
        self._submit("close the run", lambda: self._close(status), closes=True)
        try:
            if self._start_call is not None and self.store.kind == "sqlite" and not self._killed:
                self._start_call.result(timeout=_SQLITE_START_SECONDS)
            if self._last_call is not None:
                self._last_call.result(timeout=seconds)
        except WaitTimeout:
            self._fail(f"{self._cannot('close the run')}: no answer within {seconds:.0f} s")
        self._executor.shutdown(wait=False, cancel_futures=True)
        self._outcome = TrackingOutcome(
            enabled=True, run_id=self._run_id, location=self.location, problem=self._problem
        )
        _open_trackers.discard(self)
        return self._outcome

    def _close(self, status: str) -> None:
        if self._run_id is not None:
            self._client.set_terminated(self._run_id, "KILLED" if self._killed else status)

    @property
    def _stops(self) -> bool:
        return self._settings.on_error == "stop"

    def __enter__(self) -> Self:
        """Tracker."""
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the record: as failed when an error passes through, as killed on Ctrl-C or exit."""
        if self._executor is None:
            return
        if error_type is None:
            self.end()
            self._stop_on_problem()
        else:
            self.end("FAILED" if issubclass(error_type, Exception) else "KILLED")

    def _stop_on_problem(self) -> None:
        if self._stops and self._problem is not None:
            raise TrackingError(f"{self._problem}. tracking.on_error is stop.")

    def _send_metrics(self, points: list[tuple[str, int, float]]) -> None:
        now = int(time.time() * 1000)
        points = [(mlflow_client.safe_key(name), step, value) for name, step, value in points]

        def send() -> None:
            from mlflow.entities import Metric

            for start in range(0, len(points), _METRICS_PER_CALL):
                batch = [
                    Metric(name, value, now, step)
                    for name, step, value in points[start : start + _METRICS_PER_CALL]
                ]
                self._client.log_batch(self._run_id, metrics=batch)

        self._submit("record the metrics", send)

    def _submit(
        self, action: str, call: Callable[[], Any], *, closes: bool = False
    ) -> Future[Any] | None:
        """Queue a call; its first failure is logged and ends tracking, not the run.

        Raises:
            TrackingError: An earlier call has failed, and `on_error` is stop.
        """
        if self._executor is None or self._outcome is not None:
            log.debug("tracking is not open, so it cannot %s", action)
            return None
        if not closes:
            self._stop_on_problem()

        def guarded_call() -> Any:
            failed = self._problem is not None
            # A run that was begun is closed all the same.
            if (failed or self._killed) and not (closes and self._run_id):
                return None
            try:
                with mlflow_client.mlflow_defaults(self.store, **(_LAST_CALL if failed else {})):
                    return call()
            except Exception as error:  # noqa: BLE001 - whatever a store raises, the run goes on
                reason = redact(str(error)).strip().splitlines() or [type(error).__name__]
                self._fail(f"{self._cannot(action)}: {reason[0][:300]}", error)
                return None

        self._last_call = self._executor.submit(guarded_call)
        return self._last_call

    def _cannot(self, action: str) -> str:
        return f"Tracking could not {action} at {self.location}"

    def _fail(self, problem: str, error: Exception | None = None) -> None:
        if self._problem is not None:
            return
        self._problem = problem.rstrip(".")
        if not self._stops:
            log.warning("%s. The run goes on without its MLflow record.", self._problem)
        if error is not None:
            log.debug("tracking failure", exc_info=error)
