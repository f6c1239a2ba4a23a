"""Record a run with MLflow, beside the run and never in its way.

All calls go to one worker thread, in order, so that loading MLflow (3 s), making a new store (2 s)
or a slow server cost the run no time. The first failure is said once, clearly; what follows is
skipped, so that a dead server is not waited for again and again.
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
from gio_spark.tracking import client as ml
from gio_spark.tracking.base import (
    NullTracker,
    TrackedInput,
    TrackedStage,
    Tracker,
    TrackingOutcome,
)
from gio_spark.tracking.store import Store, resolve
from gio_spark.tracking.store_check import check

log = logging.getLogger(__name__)

_PARAMS_A_CALL = 100  # MLflow's own limits
_METRICS_A_CALL = 1000
_LAST_CALL = {"retries": 0, "timeout": 5}  # for a store that has failed before
_KILL_SECONDS = 2.0  # that a run which is interrupted waits for its record to be closed
_MAKE_SECONDS = 300.0  # that MLflow may take for the tables of a new SQLite store

_open_trackers: weakref.WeakSet[MlflowTracker] = weakref.WeakSet()


def end_open_records() -> None:
    """Close the records of all runs that this process has under way, as killed."""
    for open_tracker in list(_open_trackers):
        open_tracker.end("KILLED")


def tracker(settings: TrackingSettings, folder: Path) -> Tracker:
    """Return the tracker that the settings ask for.

    Args:
        settings: tracking settings.
        folder: local folder for a store of the run's own, used when no other store is named.

    Returns:
        A `NullTracker` when tracking is off, else an `MlflowTracker`. Nothing is created yet.
    """
    if not settings.enabled:
        return NullTracker()
    return MlflowTracker(settings, resolve(settings.uri, settings.artifact_location, folder))


class MlflowTracker:
    """A run's record in an MLflow store."""

    def __init__(self, settings: TrackingSettings, store: Store) -> None:
        """Keep settings and store; `start` opens them."""
        self.store = store
        self._settings = settings
        self._pool: ThreadPoolExecutor | None = None
        self._started: Future[str | None] | None = None
        self._last: Future[Any] | None = None
        self._client: Any = None
        self._id: str | None = None
        self._problem: str | None = None
        self._killed = False
        self._ended: TrackingOutcome | None = None

    @property
    def location(self) -> str:
        """Return the store's URI without secrets."""
        return self.store.shown

    @property
    def run_id(self) -> str | None:
        """Return MLflow's id of the run, waiting until it has begun; None if it could not."""
        if self._started is None:
            return None
        try:
            return self._started.result(timeout=self._settings.wait_seconds)
        except WaitTimeout:
            return None

    def check(self) -> None:
        """Refuse a tracking address that cannot work, before any expensive work.

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
        """Begin the run's record in the background."""
        name = self._settings.run_name or run_name
        kept = ml.flat_tags({**self._settings.tags, **(tags or {})})

        def begin() -> str | None:
            self._client = ml.connect(self.store)
            place = ml.experiment_id(self._client, self._settings.experiment, self.store)
            if self._killed:  # nobody would close it
                return None
            run = self._client.create_run(place, run_name=name, tags=kept)
            self._id = run.info.run_id
            return self._id

        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="gio-spark-tracking")
        self._started = self._submit("begin the run", begin)
        _open_trackers.add(self)

    def params(self, settings: Mapping[str, Any]) -> None:
        """Record nested settings as flat parameters, secrets taken out."""
        items = list(ml.flat_params(settings).items())

        def send() -> None:
            from mlflow.entities import Param

            for at in range(0, len(items), _PARAMS_A_CALL):
                part = [Param(k, v) for k, v in items[at : at + _PARAMS_A_CALL]]
                self._client.log_batch(self._id, params=part)

        self._submit("record the parameters", send)

    def tags(self, tags: Mapping[str, str]) -> None:
        """Record tags, secrets taken out."""
        kept = ml.flat_tags(tags)

        def send() -> None:
            from mlflow.entities import RunTag

            part = [RunTag(k, v) for k, v in kept.items()]
            self._client.log_batch(self._id, tags=part)

        self._submit("record the tags", send)

    def inputs(self, inputs: Iterable[TrackedInput]) -> None:
        """Record the tables that were read as MLflow datasets, with their versions."""
        tables = list(inputs)

        def send() -> None:
            from mlflow.entities import DatasetInput, InputTag

            entries = []
            for table in tables:
                tag = InputTag("mlflow.data.context", table.context)
                entries.append(DatasetInput(ml.dataset(table)._to_mlflow_entity(), [tag]))
            self._client.log_inputs(self._id, entries)

        self._submit("record the inputs", send)

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Record numbers; those that are not finite are left out."""
        self._send_metrics([(k, *p) for k, v in values.items() for p in ml.thin([v], [step])])

    def path(self, name: str, values: Sequence[float], steps: Sequence[int] | None = None) -> None:
        """Record a curve, one value a step, thinned evenly to 1,000 points."""
        self._send_metrics([(name, *pair) for pair in ml.thin(values, steps)])

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
        """Record a file, or all files of a folder; it must stay in place until `end`."""

        def send() -> None:
            if path.is_dir():
                self._client.log_artifacts(self._id, str(path), folder)
            else:
                self._client.log_artifact(self._id, str(path), folder)

        self._submit(f"record {path.name}", send)

    def end(self, status: str = "FINISHED") -> TrackingOutcome:
        """Close the record and wait for it, at most the settings' `wait_seconds`.

        A new SQLite store is waited for longer: it is at work on this machine, and its first making
        can outlast a short run. A run that was killed waits two seconds, and what is queued for its
        record is left out.
        """
        if self._ended is not None:
            return self._ended
        if self._pool is None:
            return TrackingOutcome(enabled=True, location=self.location, problem="not started")
        # What comes later, such as an error of an engine that was ended, changes nothing of it.
        self._killed = self._killed or status == "KILLED"
        seconds = _KILL_SECONDS if self._killed else self._settings.wait_seconds
        self._submit("close the run", lambda: self._close(status), closes=True)
        try:
            if self._started is not None and self.store.kind == "sqlite" and not self._killed:
                self._started.result(timeout=_MAKE_SECONDS)
            if self._last is not None:
                self._last.result(timeout=seconds)
        except WaitTimeout:
            self._fail(f"{self._cannot('close the run')}: no answer within {seconds:.0f} s")
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._ended = TrackingOutcome(
            enabled=True, run_id=self._id, location=self.location, problem=self._problem
        )
        _open_trackers.discard(self)
        return self._ended

    def _close(self, status: str) -> None:
        if self._id is not None:
            self._client.set_terminated(self._id, "KILLED" if self._killed else status)

    @property
    def _stops(self) -> bool:
        return self._settings.on_error == "stop"

    def __enter__(self) -> Self:
        """Return the tracker."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the record: as failed when an error passes through, as killed on Ctrl-C or exit."""
        if self._pool is None:
            return
        if kind is None:
            self.end()
            self._stop_on_problem()
        else:
            self.end("FAILED" if issubclass(kind, Exception) else "KILLED")

    def _stop_on_problem(self) -> None:
        if self._stops and self._problem is not None:
            raise TrackingError(f"{self._problem}. tracking.on_error is stop.")

    def _send_metrics(self, points: list[tuple[str, int, float]]) -> None:
        now = int(time.time() * 1000)
        points = [(ml.safe_key(name), step, value) for name, step, value in points]

        def send() -> None:
            from mlflow.entities import Metric

            for at in range(0, len(points), _METRICS_A_CALL):
                part = [Metric(k, v, now, s) for k, s, v in points[at : at + _METRICS_A_CALL]]
                self._client.log_batch(self._id, metrics=part)

        self._submit("record the metrics", send)

    def _submit(
        self, what: str, call: Callable[[], Any], *, closes: bool = False
    ) -> Future[Any] | None:
        """Queue a call; its failure is said once and ends tracking, not the run.

        Raises:
            TrackingError: An earlier call has failed, and `on_error` is stop.
        """
        if self._pool is None or self._ended is not None:
            log.debug("tracking is not open, so it cannot %s", what)
            return None
        if not closes:
            self._stop_on_problem()

        def guarded() -> Any:
            failed = self._problem is not None
            # A run that was begun is closed all the same.
            if (failed or self._killed) and not (closes and self._id):
                return None
            try:
                with ml.mlflow_defaults(self.store, **(_LAST_CALL if failed else {})):
                    return call()
            except Exception as error:  # noqa: BLE001 - whatever a store raises, the run goes on
                reason = redact(str(error)).strip().splitlines() or [type(error).__name__]
                self._fail(f"{self._cannot(what)}: {reason[0][:300]}", error)
                return None

        self._last = self._pool.submit(guarded)
        return self._last

    def _cannot(self, what: str) -> str:
        return f"Tracking could not {what} at {self.location}"

    def _fail(self, problem: str, error: Exception | None = None) -> None:
        if self._problem is not None:
            return
        self._problem = problem.rstrip(".")
        if not self._stops:
            log.warning("%s. The run goes on without its MLflow record.", self._problem)
        if error is not None:
            log.debug("tracking failure", exc_info=error)
