"""Ctrl-C and SIGTERM at any stage: one line, no process left, the tracked run is closed."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
import yaml
from mlflow.entities import RunStatus

from tests.faults.processes import Job, Process, beside, check_same_rows, commits, job, wait_until

TABLES = ["claims", "embeddings", "centroids", "scores", "selection_", "runs"]
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
JVM_NEEDS = 15
"""Seconds on a busy machine; a machine of its own takes five."""


def _processes(session: int) -> list[int]:
    """Living processes of a session: those that were started by its first one."""
    living = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, *facts = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(facts[2]) == session and state != "Z":
            living.append(int(stat.parent.name))
    return living


def _statuses(uri: Path) -> list[str]:
    runs = [yaml.safe_load(meta.read_text()) for meta in uri.glob("*/*/meta.yaml")]
    return [RunStatus.to_string(run["status"]) for run in runs]


def _interrupt(process: Process, number: signal.Signals, seconds: float) -> None:
    began = time.monotonic()
    os.kill(process.number, number)
    outcome = process.outcome()
    assert time.monotonic() - began < seconds
    assert outcome.code == CODES[number], outcome.err[-3000:]
    assert outcome.err.splitlines()[-1].endswith("what is complete is not computed twice.")
    assert "Traceback" not in outcome.err
    wait_until(lambda: not _processes(process.number))


def _tracked(folder: Path, first: Job | None = None, **changes) -> tuple[Job, Path]:
    uri = folder / "mlruns"
    changes |= {"tracking": {"uri": str(uri)}, "workspace": str(folder / "ws")}
    return (beside(first, "tracked", **changes) if first else job(folder, **changes)), uri


@pytest.mark.faults
@pytest.mark.parametrize("number", CODES)
@pytest.mark.parametrize("table", TABLES)
def test_a_run_that_is_interrupted_ends_and_goes_on(undisturbed, tmp_path, table, number):
    job, uri = _tracked(tmp_path, undisturbed)
    process = job.start()
    if not wait_until(lambda: commits(job.workspace, table), process):
        pytest.skip("the run was done before it could be interrupted")
    _interrupt(process, number, 10)
    assert set(_statuses(uri)) <= {"KILLED"}
    job.finish()
    check_same_rows(job.workspace, undisturbed.workspace)
    assert "RUNNING" not in _statuses(uri)


@pytest.mark.faults
@pytest.mark.parametrize("delay", [0.5, 1.5, 3.0])
def test_a_run_that_has_hardly_begun_ends(undisturbed, tmp_path, delay):
    job, _ = _tracked(tmp_path, undisturbed)
    process = job.start()
    time.sleep(delay)
    os.kill(process.number, signal.SIGTERM)
    assert process.outcome(10).code in (143, -15)  # before the interpreter has come so far


@pytest.mark.faults
@pytest.mark.spark
@pytest.mark.parametrize(
    ("table", "number"), [("embeddings", signal.SIGINT), ("centroids", signal.SIGTERM)]
)
def test_a_run_on_spark_that_is_interrupted_leaves_no_jvm(tmp_path, table, number):
    job, uri = _tracked(tmp_path, engine="spark")
    process = job.start()
    wait_until(lambda: commits(job.workspace, table), process)
    assert len(_processes(process.number)) > 1
    _interrupt(process, number, JVM_NEEDS)
    assert set(_statuses(uri)) <= {"KILLED"}
