"""Jobs in processes of their own that can be killed, and what they leave in a workspace.

What a workspace holds is read with delta-rs by its public layout: `publishes` names the table of a
selection, `runs` the attempts that count.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import yaml
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from tests.cli.conftest import project

ROOT = Path(__file__).parents[2]
LIMIT = 240.0
"""Seconds that anything may take here."""


@dataclass(frozen=True)
class Outcome:
    """How a process ended."""

    code: int
    out: str
    err: str
    seconds: float

    @property
    def errors(self) -> list[str]:
        """Lines that say what went wrong."""
        return [line for line in self.err.splitlines() if line.startswith("error: ")]

    def check_done(self) -> None:
        """It ended well."""
        assert self.code == 0, f"exit {self.code}: {self.err[-3000:]}"

    def check_one_line(self, code: int = 1) -> str:
        """It ended with one line for people, which is returned."""
        assert "Traceback" not in self.err, self.err[-3000:]
        assert self.code == code and len(self.errors) == 1, f"exit {self.code}: {self.err[-3000:]}"
        assert self.err.rstrip().splitlines()[-1] == self.errors[0], self.err[-3000:]
        return self.errors[0]


class Process:
    """A process in a group of its own.

    Args:
        words: Module and words for `python -m`.
        folder: Where its output goes.
        cwd: Where it runs; none: the folder of the sources.
        env: Further variables of its environment.
    """

    _count = 0
    started: ClassVar[list[Process]] = []

    def __init__(
        self,
        words: list[str],
        folder: Path,
        *,
        cwd: Path = ROOT,
        env: dict[str, str] | None = None,
    ) -> None:
        Process._count += 1
        self._out = folder / f"out-{Process._count}.txt"
        self._err = folder / f"err-{Process._count}.txt"
        self._began = time.monotonic()
        with self._out.open("w") as out, self._err.open("w") as err:
            self._popen = subprocess.Popen(
                [sys.executable, "-m", *words], cwd=cwd, stdout=out, stderr=err,
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "1000", **(env or {})},
            )  # fmt: skip
        Process.started.append(self)

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._popen.poll() is None

    @property
    def number(self) -> int:
        """Its process number."""
        return self._popen.pid

    def said(self) -> str:
        """What it has printed so far."""
        return self._out.read_text()

    def told(self) -> str:
        """What it has told people beside its output so far."""
        return self._err.read_text()

    def kill(self, *, group: bool = True) -> None:
        """Kill it, with the JVM and the workers that it started, or alone."""
        if not self.running:
            return
        if group:
            os.killpg(self._popen.pid, signal.SIGKILL)
        else:
            self._popen.kill()
        self._popen.wait(LIMIT)

    def outcome(self, seconds: float = LIMIT) -> Outcome:
        """Wait for its end, which comes within some seconds."""
        try:
            code = self._popen.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"not done after {seconds:g} s: {self.told()[-3000:]}") from None
        return Outcome(code, self.said(), self.told(), time.monotonic() - self._began)


@dataclass(frozen=True)
class Job:
    """A configuration in a folder, with inputs and a workspace."""

    folder: Path
    config: Path
    workspace: Path

    def start(
        self,
        command: str = "run",
        *words: str,
        clock: float = 0.0,
        record_at_once: bool = False,
        **more: Any,
    ) -> Process:
        """Start `gio-spark COMMAND CONFIG WORDS`."""
        before = ["--clock", str(clock)] if clock else []
        before += ["--record-at-once"] if record_at_once else []
        whole = ["tests.faults.start", *before, command, str(self.config), *words]
        return Process(whole, self.folder, **more)

    def finish(self, command: str = "run", *words: str, **more: Any) -> Outcome:
        """Run it to a good end."""
        outcome = self.start(command, *words, **more).outcome()
        outcome.check_done()
        return outcome


def job(folder: Path, **changes: Any) -> Job:
    """Write inputs and configuration of a small job with scores."""
    folder.mkdir(parents=True, exist_ok=True)
    made = project(folder, **{"within_cluster": "density_ratio", **changes})
    return Job(folder, made.config, folder / "ws")


def beside(first: Job, file: str, /, **changes: Any) -> Job:
    """A job on the inputs of another one, in a workspace of its own unless one is given."""
    config = first.folder / f"{file}.yml"
    workspace = Path(changes.get("workspace", first.folder / f"ws-{file}"))
    given = yaml.safe_load(first.config.read_text())
    config.write_text(yaml.safe_dump({**given, **changes, "workspace": str(workspace)}))
    return Job(first.folder, config, workspace)


def wait_until(condition: Callable[[], Any], process: Process | None = None) -> bool:
    """Wait for a condition; False where the process ended before it was seen."""
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        over = process is not None and not process.running
        if condition():
            return True
        if over:
            return False
        time.sleep(0.01)
    raise AssertionError(f"nothing came within {LIMIT:g} s: {process and process.told()[-3000:]}")


# ---- what a workspace holds --------------------------------------------------------------------


def rows(place: Path) -> pa.Table | None:
    """Rows of a table, or None where it was not made (yet)."""
    if not any((place / "_delta_log").glob("0*.json")):
        return None
    try:
        return DeltaTable(str(place)).to_pyarrow_table()
    except (DeltaError, OSError):  # a first commit that is not whole
        return None


def records(workspace: Path) -> list[dict[str, Any]]:
    """Records of finished stages, in order of time, each once."""
    table = rows(workspace / "runs")
    listed = [] if table is None else table.to_pylist()
    unique = {r["record"]: r for r in listed}
    return sorted(unique.values(), key=lambda r: r["finished"])


def has_record(workspace: Path, stage: str) -> bool:
    """Whether a stage is recorded."""
    return any(r["stage"] == stage for r in records(workspace))


def commits(workspace: Path, table: str) -> int:
    """Number of commits of the table, or of all tables, whose names begin so."""
    return len(list(workspace.glob(f"{table}*/_delta_log/0*.json")))


def publishes(workspace: Path, name: str | None = None) -> list[dict[str, Any]]:
    """Publishes of a name, or of all names, oldest first."""
    table = rows(workspace / "publishes")
    listed = [] if table is None else table.to_pylist()
    own = [e for e in listed if name in (None, e["name"])]
    return sorted(own, key=lambda e: (e["name"], e["number"]))


def published(workspace: Path, name: str | None = None) -> pa.Table:
    """Rows that readers of a name see, in order of their ids."""
    event = publishes(workspace, name)[-1]
    table = DeltaTable(str(workspace / event["table"])).to_pyarrow_table()
    assert table.num_rows == event["rows"]
    return table.sort_by("gio_id")


def check_same_rows(
    workspace: Path, undisturbed: Path, name: str | None = None, named: str | None = None
) -> None:
    """A published selection is that of an undisturbed workspace, to the last bit.

    Args:
        workspace: What something happened to.
        undisturbed: What nothing happened to.
        name: Published name.
        named: Its name in the undisturbed workspace, where it is another one.
    """
    same = published(undisturbed, named or name)
    selection = published(workspace, name).select(same.column_names)
    assert selection["gio_id"].to_pylist() == same["gio_id"].to_pylist()
    assert selection.drop(["gio_run"]).to_pylist() == same.drop(["gio_run"]).to_pylist()


def check_recorded_rows(workspace: Path) -> None:
    """Rows of every record are there as recorded, and none of them twice."""
    tables: dict[str, list[dict[str, Any]]] = {}
    for record in records(workspace):
        attempts = json.loads(record["attempts"])
        for table, keys in attempts.items():
            if table not in tables:
                stored = rows(workspace / table)
                tables[table] = [] if stored is None else stored.to_pylist()
            for key, tokens in keys.items():
                own = [r for r in tables[table] if r["attempt"] in tokens]
                assert {r["fingerprint"] for r in own} <= {key}
                if own and "id" in own[0]:
                    ids = [(r.get("side"), r["id"]) for r in own]
                    assert len(ids) == len(set(ids)), f"{record['stage']}: doubled in {table}"
                if table == record["table"] and "base" not in json.loads(record["detail"]):
                    assert len(own) == record["rows"], f"{record['stage']}: lost in {table}"


def add_rows(folder: Path, count: int = 100, seed: int = 9, name: str = "n") -> None:
    """Let the pool grow."""
    import pyarrow.parquet as pq

    from tests.pipeline import jobs

    pool = folder / "pool.parquet"
    grown = pa.concat_tables([pq.read_table(pool), jobs.vector_pool(count, seed=seed, name=name)])
    pq.write_table(grown, folder / "grown.tmp")
    (folder / "grown.tmp").replace(pool)
