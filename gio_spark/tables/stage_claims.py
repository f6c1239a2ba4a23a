"""Claims on stages: a second writer waits for the one that computes a stage.

A claim spares work and nothing depends on it: two writers that hold the same one, after a clock
that is wrong or a host that is gone, write the same rows under tokens of their own.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa
from pyspark.sql import functions as F

from gio_spark.engine import bounded
from gio_spark.errors import ConcurrentRunError
from gio_spark.tables.stage_records import new_token

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from gio_spark.settings.run import ConcurrencySettings
    from gio_spark.tables.workspace import Workspace

T = TypeVar("T")

TABLE = "claims"
SCHEMA = pa.schema(
    [
        pa.field("key", pa.string()),
        pa.field("claim", pa.string()),
        pa.field("run", pa.string()),
        pa.field("stage", pa.string()),
        pa.field("host", pa.string()),
        pa.field("process", pa.int64()),
        pa.field("process_started", pa.string()),
        pa.field("claimed", pa.timestamp("us", tz="UTC")),
        pa.field("released", pa.bool_()),
    ]
)
_MOST = 10_000
_POLL_SECONDS = (1.0, 10.0)
_ENDED = ("Z", "X", "x")

# Claims that this process holds: its number does not distinguish threads of one process.
_process_claims: set[str] = set()
_lock = threading.Lock()


@dataclass(frozen=True)
class Claim:
    """A row of the table of claims."""

    key: str
    claim: str
    run: str
    stage: str
    host: str
    process: int
    process_started: str
    claimed: datetime
    released: bool

    def line(self, place: str) -> str:
        """Line for display: run, start time, host and process that compute the stage."""
        return (
            f"{self.stage}: {self.run} has been computing it in {place} since "
            f"{self.claimed:%Y-%m-%d %H:%M:%S} UTC (host {self.host.split('/')[0]}, process "
            f"{self.process})"
        )


class StageClaims:
    """Claims of one workspace.

    Args:
        workspace: Whose.
        settings: How long to wait, and from what age a claim of another host counts no more.
        show_line: Displays a line.
    """

    def __init__(
        self, workspace: Workspace, settings: ConcurrencySettings, show_line: Callable[[str], None]
    ) -> None:
        self._workspace = workspace
        self._settings = settings
        self._show_line = show_line

    @contextmanager
    def hold(
        self,
        key: str,
        *,
        run: str,
        stage: str,
        finished: Callable[[], T | None],
        release: bool = False,
    ) -> Iterator[T | None]:
        """Hold the claim on a stage, once the present holder has released it.

        A claim ends with the record of its stage, with an error, or with its process.

        Args:
            key: Key of the stage.
            run: Run that wants to compute it.
            stage: Its name.
            finished: Looks anew whether the stage is complete, and returns its record.
            release: Whether the claim ends with a commit of its own, since no record of the run
                has its key.

        Yields:
            What `finished` gave where another writer has done the work in the meantime, or None:
            then the caller computes it.

        Raises:
            ConcurrentRunError: Another run still computes it after the longest wait.
        """
        claim = self._claim(key, run, stage)
        try:
            yield self._wait(claim, finished)
        except BaseException:
            self._release(claim)
            raise
        else:
            if release:
                self._release(claim)
        finally:
            with _lock:
                _process_claims.discard(claim.claim)

    def active(self, *, besides: str) -> list[Claim]:
        """Claims on all keys but one whose holder still computes, oldest first."""
        rows = self._workspace.store.read(TABLE).where(F.col("key") != besides)
        return sorted(self._counting(rows), key=lambda c: (c.claimed, c.claim))

    def _claim(self, key: str, run: str, stage: str) -> Claim:
        claim = Claim(
            key, new_token(), run, stage, _host(), os.getpid(), _started(os.getpid()),
            datetime.now(timezone.utc), released=False,
        )  # fmt: skip
        with _lock:
            _process_claims.add(claim.claim)
        self._write(claim)
        return claim

    def _write(self, claim: Claim, **changes: Any) -> None:
        row = {n: getattr(claim, n) for n in SCHEMA.names} | changes
        rows = self._workspace.frame(pa.Table.from_pylist([row], schema=SCHEMA))
        note = {"run": claim.run, "stage": claim.stage, "claim": claim.claim}
        self._workspace.store.append_again(TABLE, rows, note=note)

    def _release(self, claim: Claim) -> None:
        try:
            self._write(claim, released=True)
        except Exception as error:  # noqa: BLE001 - the error that ended the stage is raised
            self._show_line(f"claims: {str(error).splitlines()[0][:200]}")

    def _wait(self, claim: Claim, finished: Callable[[], T | None]) -> T | None:
        """Wait until no other claim on the key comes before one's own."""
        began, pause, last_line = time.monotonic(), _POLL_SECONDS[0], ""
        while True:
            first = self._first(claim)
            if first is None or first.claim == claim.claim:
                # Who held it before may have finished just now.
                return finished() if last_line else None
            line = first.line(self._workspace.location)
            waited = time.monotonic() - began
            if waited >= 60 * self._settings.wait_minutes:
                raise ConcurrentRunError(
                    f"{line}. Run again when it has finished; what is complete is not computed "
                    "twice. concurrency.wait_minutes says how long to wait for it."
                )
            if line != last_line:
                self._show_line(f"{line}; waiting for it")
                last_line = line
            time.sleep(pause)
            pause = min(1.5 * pause, _POLL_SECONDS[1])
            record = finished()
            if record is not None:
                return record

    def _first(self, claim: Claim) -> Claim | None:
        """First valid claim on the key, the same for all readers."""
        rows = self._workspace.store.read(TABLE).where(F.col("key") == claim.key)
        counting = self._counting(rows, claim)
        return min(counting, key=lambda c: (c.claimed, c.claim), default=None)

    def _counting(self, rows: DataFrame, own: Claim | None = None) -> list[Claim]:
        """Claims among rows that count: one's own, and those of others who still compute."""
        table = bounded(rows.select(*SCHEMA.names), _MOST, "claims on stages")
        claims = [Claim(**row) for row in table.to_pylist()]
        released = {c.claim for c in claims if c.released}
        oldest = datetime.now(timezone.utc) - timedelta(hours=self._settings.takeover_hours)
        return [
            c
            for c in claims
            if (own is not None and c.claim == own.claim)
            or (c.claim not in released and _lives(c, oldest) and not self._is_recorded(c))
        ]

    def _is_recorded(self, claim: Claim) -> bool:
        """Whether the run has done what it claimed, by its own clock; its process may live on."""
        return any(
            r.run == claim.run and r.fingerprint == claim.key and r.finished >= claim.claimed
            for r in self._workspace.records()
        )


def _lives(claim: Claim, oldest: datetime) -> bool:
    """Whether a claim counts: its process is there, or, on another host, it is not old."""
    if claim.host != _host():
        return claim.claimed > oldest
    if claim.process == os.getpid():
        with _lock:
            return claim.claim in _process_claims
    return claim.process_started == _started(claim.process)


def _host() -> str:
    """Host and, on Linux, the namespace of process numbers: containers may share a name."""
    try:
        return f"{socket.gethostname()}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return socket.gethostname()


def _started(process: int) -> str:
    """Start time of a process, which distinguishes reused numbers; "" where it has ended."""
    try:
        # The name of the program, in brackets, may hold blanks.
        facts = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
        # One that has ended stays in the list until whoever started it asks for its exit code.
        return "" if facts[0] in _ENDED else facts[19]
    except (OSError, IndexError):
        pass
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return ""
    except OSError:
        return "unknown"
    return "unknown"
