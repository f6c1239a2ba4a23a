"""Claims of processes that are gone, and of those that have done what they claimed."""

from __future__ import annotations

import os
import signal
import time

import pytest

from gio_spark.engine.progress import Progress
from gio_spark.errors import ConcurrentRunError
from gio_spark.pipeline.refresh import refresh
from gio_spark.settings.load import load
from gio_spark.settings.run import ConcurrencySettings
from gio_spark.tables import StageClaims, Workspace
from tests.faults.processes import (
    Process,
    add_rows,
    beside,
    check_same_rows,
    job,
    published,
    publishes,
    rows,
    wait_until,
)
from tests.pipeline import jobs


def test_the_claim_of_a_process_that_was_killed_is_taken_over_at_once(spark, tmp_path):
    place = tmp_path / "ws"
    process = Process(["tests.faults.start", "--hold-claim", str(place), "some key"], tmp_path)
    assert wait_until(lambda: "holding" in process.said(), process)
    workspace = Workspace(spark, str(place))

    def claim(minutes):
        claims = StageClaims(workspace, ConcurrencySettings(wait_minutes=minutes), print)
        with claims.hold("some key", run="run-own", stage="embed pool", finished=lambda: None):
            return time.monotonic()

    with pytest.raises(ConcurrentRunError, match="run-of-another has been computing it"):
        claim(0)
    # Whoever started the process has not asked for its exit code yet.
    os.kill(process.number, signal.SIGKILL)
    began = time.monotonic()
    assert claim(1) - began < 5


@pytest.mark.faults
def test_a_run_takes_over_from_a_run_that_was_killed_with_a_claim(undisturbed, tmp_path):
    more = {"workspace": str(tmp_path / "ws"), "concurrency": {"wait_minutes": 0}}
    one = beside(undisturbed, "one", **more)
    process = one.start()
    wait_until(lambda: rows(one.workspace / "claims") is not None, process)
    process.kill()
    # Nothing may be waited for; the whole run takes what a run takes.
    assert one.finish().seconds < 60
    check_same_rows(one.workspace, undisturbed.workspace, "one", "run")


@pytest.mark.faults
def test_a_claim_counts_no_more_once_its_stage_is_recorded(spark, tmp_path):
    one = job(tmp_path, within_cluster="exact_count", concurrency={"wait_minutes": 0})
    # This process lives on, as a notebook does.
    jobs.go(load(one.config, []))
    for table in ("embeddings", "assignments"):
        spark.sql(f"DELETE FROM delta.`{one.workspace}/{table}`").collect()
    one.finish("run", "budget=40")
    assert published(one.workspace).num_rows == 40


@pytest.mark.faults
def test_a_refresh_that_is_done_is_not_waited_for(spark, tmp_path):
    one = job(tmp_path, within_cluster="exact_count", concurrency={"wait_minutes": 0})
    settings = load(one.config, [])
    jobs.go(settings)
    for i in range(2):
        add_rows(tmp_path, 40, seed=20 + i, name=f"n{i}")
        if i == 0:
            refresh(settings, progress=Progress("silent"))
    one.finish("refresh")
    assert [e["number"] for e in publishes(one.workspace)] == [1, 2, 3]
