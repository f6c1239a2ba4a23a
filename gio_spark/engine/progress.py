"""Progress display of a run: a live line in a terminal, plain lines in a log, silent in tests.

The driver does not see rows processed inside a distributed pass. So a stage shows the rows reported
by `update` or counted by maps in this process (embedded engine), else the steps of its work, else
the tasks reported by the engine (Spark Connect only; see `watch`), else the time spent and the
forecast time of the stage.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, Any, Literal

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from gio_spark.engine.row_counter import counted_rows, rows_so_far

log = logging.getLogger(__name__)

Mode = Literal["auto", "live", "lines", "silent"]
LINE_EVERY_SECONDS = 30.0
FIRST_LINE_SECONDS = 2.0
_LIVE_PER_SECOND = 4
MIN_RATE_SECONDS = 0.01
"""Minimum duration in seconds for which a rate is shown."""


@dataclass
class Stage:
    """State of a stage, created by `Progress.stage`; methods may be called from any thread."""

    name: str
    total: int | None = None
    unit: str = "rows"
    forecast_seconds: float | None = None
    rows: int = 0
    note: str = ""
    skipped: bool = False
    finished: bool = False
    failed: bool = False
    tasks: tuple[int, int] | None = None
    steps: tuple[int, int] | None = None
    began: float = field(default_factory=time.monotonic)
    ended: float | None = None
    _label: str = field(default="", init=False, repr=False)
    _before: int = field(default=0, init=False, repr=False)

    def update(self, rows: int, *, total: int | None = None) -> None:
        """Add rows completed since the last call."""
        self.rows += rows
        if total is not None:
            self.total = total

    def reached(self, rows: int) -> None:
        """Set the total number of completed rows."""
        self.rows = rows

    def step(self, done: int, of: int) -> None:
        """Set how many steps of the stage's work are done, for instance passes of a fit."""
        self.steps = (done, of)

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Show the rows of maps that are built in a block, as far as they run in this process."""
        with counted_rows() as label:
            self._label, self._before = label, self.rows
            try:
                yield
            finally:
                self.rows = self.rows_done
                self._label = ""

    @property
    def rows_done(self) -> int:
        """Rows reported or counted so far, at most the total."""
        if not self._label:
            return self.rows
        counted = max(self.rows, self._before + rows_so_far(self._label))
        return min(counted, max(self.rows, self.total)) if self.total else counted

    def say(self, note: str) -> None:
        """Set a short note to show beside the stage, for instance the current pass."""
        self.note = note

    def done(self, note: str = "", *, rows: int | None = None) -> None:
        """Set the final note, and the rows where they are known only at the end of a stage."""
        self.note = note or self.note
        if rows is not None:
            self.rows = rows

    def skip(self, note: str = "up to date") -> None:
        """Mark the stage as skipped because an earlier result is reused."""
        self.skipped = True
        self.note = note

    @property
    def seconds(self) -> float:
        """Seconds since the start, up to the end of the stage."""
        return (self.ended or time.monotonic()) - self.began

    @property
    def rate(self) -> float | None:
        """Rows per second, None before the first row or below `MIN_RATE_SECONDS`."""
        rows = self.rows_done
        return rows / self.seconds if rows and self.seconds > MIN_RATE_SECONDS else None

    @property
    def share(self) -> float | None:
        """Completed share, by rows, steps, tasks or else by forecast time (at most 0.99)."""
        if self.total and self.rows_done:
            return min(self.rows_done / self.total, 1.0)
        if self.steps and self.steps[0]:
            return min(self.steps[0] / self.steps[1], 1.0)
        if self.tasks and self.tasks[1]:
            return min(self.tasks[0] / self.tasks[1], 1.0)
        if self.forecast_seconds:
            return min(self.seconds / self.forecast_seconds, 0.99)
        return None

    @property
    def seconds_left(self) -> float | None:
        """Estimate of the remaining seconds, None where there is none."""
        share = self.share
        if self.finished or not share:
            return None
        by_forecast = not (self.total and self.rows_done) and not self.steps and not self.tasks
        if by_forecast and self.forecast_seconds:
            remaining = self.forecast_seconds - self.seconds
            return remaining if remaining > 0 else None  # overdue: no estimate
        return self.seconds * (1 - share) / share

    def line(self) -> str:
        """State as one line of plain text, without the name."""
        parts: list[str] = []
        if self.skipped:
            parts.append("skipped")
        elif self.failed:
            parts.append(f"failed after {duration(self.seconds)}")
        rows = self.rows_done
        if rows:
            of = f" of {self.total:,}" if self.total and not self.finished else ""
            parts.append(f"{rows:,}{of} {self.unit}")
        elif self.total and not self.finished:
            parts.append(f"{self.total:,} {self.unit} to do")
        if not rows and not self.steps and self.tasks and not self.finished:
            parts.append(f"{self.tasks[0]:,} of {self.tasks[1]:,} tasks")
        if self.rate is not None and not self.skipped:
            parts.append(f"{quantity(self.rate)} {self.unit}/s")
        if not self.skipped and not self.failed:
            parts.append(duration(self.seconds))
        if self.seconds_left is not None:
            parts.append(f"about {duration(self.seconds_left)} left")
        if self.note:
            parts.append(self.note)
        return ", ".join(parts)


class Progress:
    """Display of the stages of one run, in sequence.

    Args:
        mode: 'live' (a moving line, needs a terminal), 'lines' (a line after two seconds of a
            stage, then one every half minute),
            'silent', or 'auto': silent under pytest or with GIO_SPARK_PROGRESS=silent, live in a
            terminal, else lines.
        stream: where to write; standard error by default, so that results can be piped.
        every: seconds between plain lines.
    """

    def __init__(
        self,
        mode: Mode = "auto",
        *,
        stream: IO[str] | None = None,
        every: float = LINE_EVERY_SECONDS,
    ) -> None:
        """Create a display; it writes nothing before the first stage."""
        stream = stream if stream is not None else sys.stderr
        self.mode = _choose_mode(stream) if mode == "auto" else mode
        self.stages: list[Stage] = []
        self._console = Console(file=stream, highlight=False, soft_wrap=True)
        self._interval = every

    def say(self, text: str) -> None:
        """Write one line, for instance the description of the engine."""
        if self.mode != "silent":
            self._console.print(text, markup=False)

    @contextmanager
    def stage(
        self,
        name: str,
        total: int | None = None,
        *,
        unit: str = "rows",
        forecast_seconds: float | None = None,
        spark: Any = None,
    ) -> Iterator[Stage]:
        """Show a stage while the block runs.

        Args:
            name: name of the stage.
            total: number of units to process, if known.
            unit: name of the counted unit.
            forecast_seconds: expected duration, from which the remaining time is estimated where
                neither rows nor tasks are known.
            spark: session whose running tasks are shown, where the engine reports them.

        Yields:
            The stage, with `update`, `say`, `done` and `skip`.
        """
        stage = Stage(name, total=total, unit=unit, forecast_seconds=forecast_seconds)
        self.stages.append(stage)
        try:
            with watch(spark, stage), self._display(stage):
                try:
                    yield stage
                except BaseException:
                    stage.failed = True
                    raise
                finally:
                    stage.ended = time.monotonic()
                    stage.finished = True
        finally:
            self.say(f"  {stage.name:<12} {stage.line()}")

    @contextmanager
    def _display(self, stage: Stage) -> Iterator[None]:
        """Show a stage in the display's mode while the block runs."""
        if self.mode == "live":
            view = _LiveLine(stage)
            with Live(
                view,
                console=self._console,
                refresh_per_second=_LIVE_PER_SECOND,
                transient=True,
                redirect_stdout=False,
            ):
                yield
        elif self.mode == "lines":
            stop = threading.Event()

            def print_lines() -> None:
                wait = min(FIRST_LINE_SECONDS, self._interval)
                while not stop.wait(wait):
                    wait = self._interval
                    share = "" if stage.share is None else f"{stage.share:.0%}, "
                    self.say(f"  {stage.name:<12} {share}{stage.line()} ...")

            printer = threading.Thread(target=print_lines, name="gio-spark-progress", daemon=True)
            printer.start()
            try:
                yield
            finally:
                stop.set()
                printer.join(timeout=1)
        else:
            yield

    def summary(self, title: str = "Stages") -> None:
        """Print a table of all stages: rows, seconds, rate, note."""
        if self.mode != "silent" and self.stages:
            self._console.print(stage_table(self.stages, title))


def stage_table(stages: Iterable[Stage], title: str = "Stages") -> Table:
    """Table of the stages with the total time, for a terminal."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column("stage")
    for column in ("rows", "time", "rows/s"):
        table.add_column(column, justify="right")
    table.add_column("", overflow="fold")
    total_seconds = 0.0
    for stage in stages:
        total_seconds += 0.0 if stage.skipped else stage.seconds
        state = "skipped: " if stage.skipped else "failed: " if stage.failed else ""
        table.add_row(
            stage.name,
            f"{stage.rows:,}" if stage.rows else "",
            "-" if stage.skipped else duration(stage.seconds),
            quantity(stage.rate) if stage.rate and not stage.skipped else "",
            Text((state + stage.note).rstrip(": ")),
        )
    table.add_row("all", "", duration(total_seconds), "", "", style="bold")
    return table


@contextmanager
def watch(spark: Any, stage: Stage) -> Iterator[None]:
    """Show the tasks of the session's running queries in a stage while the block runs.

    A Spark Connect session reports tasks to a progress handler. A classic session has no such
    interface for library code on every platform, so there no tasks are shown.
    """
    register = getattr(spark, "registerProgressHandler", None)
    if register is None:
        yield
        return

    def report_tasks(stages: Any, inflight_tasks: int, operation_id: Any, done: bool) -> None:
        reported = list(stages or ())
        total = sum(s.num_tasks for s in reported)
        if total:
            stage.tasks = (sum(s.num_completed_tasks for s in reported), total)

    try:
        register(report_tasks)
    except Exception as error:  # classic PySpark has the method, but it raises
        log.debug("the engine reports no progress: %s", error, exc_info=True)
        yield
        return
    try:
        yield
    finally:
        spark.removeProgressHandler(report_tasks)


class _LiveLine:
    """Live line: name, bar and numbers, redrawn a few times a second."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    def __rich__(self) -> Text:
        share = self._stage.share
        width = 24
        text = Text(f"  {self._stage.name:<12} ", no_wrap=True, overflow="ellipsis")
        if share is None:
            position = int(time.monotonic() * 8) % (width - 2)
            text.append("─" * position + "━━━" + "─" * (width - 3 - position), style="cyan")
        else:
            filled = int(share * width)
            text.append("━" * filled, style="cyan")
            text.append("─" * (width - filled), style="dim")
            text.append(f" {share:4.0%}")
        text.append("  " + self._stage.line())
        return text


def _choose_mode(stream: IO[str]) -> Mode:
    """Mode of the environment variable GIO_SPARK_PROGRESS, else by kind of output."""
    mode = os.environ.get("GIO_SPARK_PROGRESS", "").lower()
    if mode == "live" or mode == "lines" or mode == "silent":
        return mode  # type: ignore[return-value]
    if "PYTEST_CURRENT_TEST" in os.environ:
        return "silent"
    if stream.isatty() and os.environ.get("TERM", "") != "dumb":
        return "live"
    return "lines"


def duration(seconds: float) -> str:
    """Duration for display: '0.4 s', '12 s', '3 min 05 s', '2 h 10 min'."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    total_seconds = round(seconds)
    if total_seconds < 60:
        return f"{total_seconds} s"
    if total_seconds < 3600:
        return f"{total_seconds // 60} min {total_seconds % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def quantity(value: float) -> str:
    """Number with three significant digits and a unit prefix: '1.23k', '45.6M'."""
    for limit, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit * 0.9995:
            return f"{value / limit:.3g}{prefix}" if value < 999.5 * limit else f"{value:.3g}"
    return f"{value:.3g}"
