"""Record a run with MLflow, beside the run and never in its way.

All calls go to one worker thread, in order, so that loading MLflow (3 s), making a new store (2 s)
or a slow server cost the run no time. The first failure is said once, clearly; what follows is
skipped, so that a dead server is not waited for again and again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as WaitTimeout
from pathlib import Path
from types import TracebackType
from typing import Any

from typing_extensions import Self

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
_MAKE_SECONDS = 300.0  # that MLflow may take for the tables of a new SQLite store


def tracker(settings: TrackingSettings, folder: Path) -> Tracker:
    """Tracker that the settings ask for.

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
        self._ended: TrackingOutcome | None = None

    @property
    def location(self) -> str:
        """Store's URI without secrets."""
        return self.store.shown

    @property
    def run_id(self) -> str | None:
        """MLflow's id of the run, waiting until it has begun; None if it could not."""
        if self._started is None:
            return None
        try:
            return self._started.result(timeout=self._settings.wait_seconds)
        except WaitTimeout:
            return None

    def check(self) -> None:
        """Refuse a tracking address that cannot work, before any expensive work.

        Raises:
            ConfigError: unknown scheme, no permission, not a database, or no answer.
            MissingExtraError: a database store without sqlalchemy.
        """
        check(self.store)

    def start(self, run_name: str, tags: Mapping[str, str] | None = None) -> None:
        """Begin the run's record in the background."""
        name = self._settings.run_name or run_name
        kept = ml.flat_tags({**self._settings.tags, **(tags or {})})

        def begin() -> str | None:
            self._client = ml.connect(self.store)
            place = ml.experiment_id(self._client, self._settings.experiment, self.store)
            run = self._client.create_run(place, run_name=name, tags=kept)
            self._id = run.info.run_id
            return self._id

        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="gio-spark-tracking")
        self._started = self._submit("begin the run", begin)

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
        can outlast a short run.
        """
        if self._ended is not None:
            return self._ended
        if self._pool is None:
            return TrackingOutcome(enabled=True, location=self.location, problem="not started")
        self._submit("close the run", lambda: self._client.set_terminated(self._id, status))
        try:
            if self._started is not None and self.store.kind == "sqlite":
                self._started.result(timeout=_MAKE_SECONDS)
            if self._last is not None:
                self._last.result(timeout=self._settings.wait_seconds)
        except WaitTimeout:
            self._fail(
                "close the run", f"no answer within {self._settings.wait_seconds:.0f} s", None
            )
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._ended = TrackingOutcome(
            enabled=True, run_id=self._id, location=self.location, problem=self._problem
        )
        return self._ended

    def __enter__(self) -> Self:
        """Tracker."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the record, as failed (or killed by the user) when an error passes through."""
        if self._pool is None:
            return
        if kind is None:
            self.end()
        else:
            self.end("KILLED" if issubclass(kind, KeyboardInterrupt) else "FAILED")

    def _send_metrics(self, points: list[tuple[str, int, float]]) -> None:
        now = int(time.time() * 1000)
        points = [(ml.safe_key(name), step, value) for name, step, value in points]

        def send() -> None:
            from mlflow.entities import Metric

            for at in range(0, len(points), _METRICS_A_CALL):
                part = [Metric(k, v, now, s) for k, s, v in points[at : at + _METRICS_A_CALL]]
                self._client.log_batch(self._id, metrics=part)

        self._submit("record the metrics", send)

    def _submit(self, what: str, call: Callable[[], Any]) -> Future[Any] | None:
        """Queue a call; its failure is said once and ends tracking, not the run."""
        if self._pool is None or self._ended is not None:
            log.debug("tracking is not open, so it cannot %s", what)
            return None

        def guarded() -> Any:
            if self._problem is not None:
                return None
            try:
                with ml.mlflow_defaults(self.store):
                    return call()
            except Exception as error:  # noqa: BLE001 - whatever a store raises, the run goes on
                self._fail(what, redact(str(error)), error)
                return None

        self._last = self._pool.submit(guarded)
        return self._last

    def _fail(self, what: str, why: str, error: Exception | None) -> None:
        first = why.strip().splitlines()[0][:300] if why.strip() else type(error).__name__
        self._problem = f"Tracking could not {what} at {self.location}: {first}"
        log.warning("%s. The run goes on without its MLflow record.", self._problem)
        if error is not None:
            log.debug("tracking failure", exc_info=error)
