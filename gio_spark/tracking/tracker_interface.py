"""Interface of trackers, the records that they take, and a tracker that does nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from typing_extensions import Self


@dataclass(frozen=True, kw_only=True)
class TrackedInput:
    """Input of a run; `context` is its role: 'pool', 'target', 'selected', ..."""

    name: str
    location: str
    format: str
    version: str | int | None = None
    context: str = "pool"


@dataclass(frozen=True, kw_only=True)
class TrackedStage:
    """Finished stage of a run."""

    name: str
    seconds: float
    rows: int | None = None
    skipped: bool = False


@dataclass(frozen=True, kw_only=True)
class TrackingOutcome:
    """Result of tracking; `problem` is one sentence if something was not recorded."""

    enabled: bool
    run_id: str | None = None
    location: str = ""
    problem: str | None = None


class Tracker(Protocol):
    """Tracker of a run; a selection is never lost to tracking.

    No method raises for what a store does, unless `tracking.on_error` is stop.
    """

    @property
    def run_id(self) -> str | None:
        """Id of the run on the tracking server, or None; waits until it is known."""

    @property
    def location(self) -> str:
        """Location of the record without secrets; '' if nothing is recorded."""

    def check(self) -> None:
        """Check that the tracking store works; called before any expensive work."""

    def start(self, run_name: str, tags: Mapping[str, str] | None = None) -> None:
        """Start the record of the run."""

    def params(self, settings: Mapping[str, Any]) -> None:
        """Record nested settings as flat parameters."""

    def tags(self, tags: Mapping[str, str]) -> None:
        """Record tags."""

    def inputs(self, inputs: Iterable[TrackedInput]) -> None:
        """Record the tables that were read, with their versions."""

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Record numbers."""

    def path(self, name: str, values: Sequence[float], steps: Sequence[int] | None = None) -> None:
        """Record a curve, one value per step."""

    def stage(self, stage: TrackedStage) -> None:
        """Record seconds and rows of a finished stage."""

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Record a file, or all files of a folder."""

    def end(self, status: str = "FINISHED") -> TrackingOutcome:
        """Close the record ('FINISHED', 'FAILED', 'KILLED') and return the result of tracking."""

    def __enter__(self) -> Self:
        """Tracker."""

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the record: as failed if an error passes through, as killed on Ctrl-C or exit."""


class NullTracker:
    """Tracker that records nothing."""

    run_id: str | None = None
    location: str = ""

    def check(self) -> None:
        """Do nothing."""

    def start(self, run_name: str, tags: Mapping[str, str] | None = None) -> None:
        """Do nothing."""

    def params(self, settings: Mapping[str, Any]) -> None:
        """Do nothing."""

    def tags(self, tags: Mapping[str, str]) -> None:
        """Do nothing."""

    def inputs(self, inputs: Iterable[TrackedInput]) -> None:
        """Do nothing."""

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Do nothing."""

    def path(self, name: str, values: Sequence[float], steps: Sequence[int] | None = None) -> None:
        """Do nothing."""

    def stage(self, stage: TrackedStage) -> None:
        """Do nothing."""

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Do nothing."""

    def end(self, status: str = "FINISHED") -> TrackingOutcome:
        """Result that says that tracking is disabled."""
        return TrackingOutcome(enabled=False)

    def __enter__(self) -> Self:
        """Tracker."""
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Do nothing."""
