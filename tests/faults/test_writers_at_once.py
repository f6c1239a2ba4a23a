"""Two writers in one workspace at once: each gives the rows that it gives alone."""

from __future__ import annotations

import os
import re
import signal

import pytest

from tests.faults.processes import (
    add_rows,
    beside,
    check_recorded_rows,
    check_same_rows,
    has_record,
    job,
    published,
    publishes,
    records,
    rows,
    wait_until,
)
from tests.pipeline import jobs

pytestmark = pytest.mark.faults

DIFFERENCES = {
    "the same configuration": {},
    "another budget": {"budget": 60},
    "another codebook": {"clusters": 6},
}


@pytest.mark.parametrize("changes", DIFFERENCES.values(), ids=DIFFERENCES)
@pytest.mark.parametrize("record_at_once", [False, True], ids=["gathered", "at once"])
def test_two_runs_at_once_give_the_rows_that_each_gives_alone(
    undisturbed, tmp_path, changes, record_at_once
):
    workspace = str(tmp_path / "ws")
    one = beside(undisturbed, "one", workspace=workspace, name="one")
    other = beside(undisturbed, "other", workspace=workspace, name="other", **changes)
    alone = beside(undisturbed, "alone", workspace=str(tmp_path / "alone"), **changes)
    started = [j.start(record_at_once=record_at_once) for j in (one, other)]
    for process in started:
        process.outcome().check_done()
    alone.finish()
    check_same_rows(one.workspace, undisturbed.workspace, "one", "run")
    check_same_rows(one.workspace, alone.workspace, "other", "alone")
    check_recorded_rows(one.workspace)
    assert {(e["name"], e["number"]) for e in publishes(one.workspace)} == {
        ("one", 1),
        ("other", 1),
    }
    recorded = len(records(one.workspace))
    for j in (one, other):
        j.finish()
    assert len(records(one.workspace)) == recorded


def test_two_runs_at_once_under_one_name_are_published_in_turn(undisturbed, tmp_path):
    workspace = str(tmp_path / "ws")
    one = beside(undisturbed, "one", workspace=workspace, name="shared")
    other = beside(undisturbed, "other", workspace=workspace, name="shared", budget=60)
    for process in [one.start(), other.start()]:
        process.outcome().check_done()
    events = publishes(one.workspace, "shared")
    assert [e["number"] for e in events] == [1, 2]
    assert sorted(e["rows"] for e in events) == [30, 60]
    for event in events:
        assert rows(one.workspace / event["table"]).num_rows == event["rows"]


def test_runs_on_unrelated_pools_at_once_do_not_meet(undisturbed, tmp_path):
    workspace = str(tmp_path / "ws")
    pool = jobs.write(jobs.vector_pool(300, seed=5, name="u"), tmp_path / "unrelated.parquet")
    one = beside(undisturbed, "one", workspace=workspace, name="one")
    other = beside(undisturbed, "other", workspace=workspace, name="other", pool=pool)
    alone = beside(undisturbed, "alone", workspace=str(tmp_path / "alone"), pool=pool)
    for process in [one.start(), other.start(), alone.start()]:
        process.outcome().check_done()
    check_same_rows(one.workspace, undisturbed.workspace, "one", "run")
    check_same_rows(one.workspace, alone.workspace, "other", "alone")
    check_recorded_rows(one.workspace)


def test_a_run_that_may_not_wait_says_which_run_computes_the_stage_since_when_and_where(
    undisturbed, tmp_path
):
    workspace = str(tmp_path / "ws")
    one = beside(undisturbed, "one", workspace=workspace, name="one")
    impatient = {"name": "other", "budget": 60, "concurrency": {"wait_minutes": 0}}
    other = beside(undisturbed, "other", workspace=workspace, **impatient)
    first = one.start()
    # Its embeddings are being written, and their record waits for those of other stages.
    wait_until(lambda: rows(one.workspace / "claims") is not None, first)
    os.kill(first.number, signal.SIGSTOP)  # it is not done before the second one asks
    try:
        line = other.start().outcome().check_one_line()
    finally:
        os.kill(first.number, signal.SIGCONT)
    first.outcome().check_done()
    assert re.search(
        rf"run-\w+ has been computing it in {re.escape(workspace)} since "
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC \(host \S+, process \d+\)",
        line,
    ), line
    assert f"process {first.number})" in line
    check_same_rows(one.workspace, undisturbed.workspace, "one", "run")
    other.finish()
    alone = beside(undisturbed, "alone", workspace=str(tmp_path / "alone"), budget=60)
    alone.finish()
    check_same_rows(one.workspace, alone.workspace, "other", "alone")
    check_recorded_rows(one.workspace)


GIME = {"on_refresh": True}


def _sequence(folder):
    """A job that ran, whose pool then grew; and the refresh of another workspace, undisturbed."""
    first = job(folder, within_cluster="exact_count", gime=GIME)
    alone = beside(first, "alone", name="run")
    for j in (first, alone):
        j.finish()
    add_rows(folder)
    alone.finish("refresh")
    return first, alone


def test_two_refreshes_at_once_make_one(tmp_path):
    first, alone = _sequence(tmp_path)
    for process in [first.start("refresh"), first.start("refresh")]:
        process.outcome().check_done()
    check_same_rows(first.workspace, alone.workspace)
    check_recorded_rows(first.workspace)
    assert [e["number"] for e in publishes(first.workspace)] == [1, 2]
    assert first.finish("refresh").code == 0
    check_same_rows(first.workspace, alone.workspace)


def test_a_run_and_a_refresh_at_once_give_the_rows_that_each_gives_alone(tmp_path):
    first, alone = _sequence(tmp_path)
    # A run of other settings, on the grown pool, that shares embeddings of the earlier one.
    more = beside(first, "more", workspace=str(first.workspace), name="more", budget=50)
    more_alone = beside(first, "more-alone", workspace=str(alone.workspace), name="more", budget=50)
    for process in [first.start("refresh"), more.start()]:
        process.outcome().check_done()
    more_alone.finish()
    check_same_rows(first.workspace, alone.workspace, "run")
    check_same_rows(first.workspace, alone.workspace, "more")
    check_recorded_rows(first.workspace)


@pytest.mark.parametrize("stage", ["refresh", "audit"])
def test_a_refresh_that_was_killed_goes_on(tmp_path, stage):
    first, alone = _sequence(tmp_path)
    process = first.start("refresh", record_at_once=True)
    wait_until(lambda: _count(first.workspace, stage) > (stage == "audit"), process)
    process.kill()
    assert len(published(first.workspace)) == publishes(first.workspace)[-1]["rows"]
    first.finish("refresh")
    check_same_rows(first.workspace, alone.workspace)
    check_recorded_rows(first.workspace)
    assert [e["number"] for e in publishes(first.workspace)] == [1, 2]


def _count(workspace, stage):
    return sum(r["stage"] == stage for r in records(workspace))


@pytest.mark.parametrize("clock", [-3600, 3600], ids=["an hour behind", "an hour ahead"])
@pytest.mark.parametrize("who", ["the first", "the second"])
def test_clocks_an_hour_apart_change_no_rows(undisturbed, tmp_path, clock, who):
    workspace = str(tmp_path / "ws")
    one = beside(undisturbed, "one", workspace=workspace, name="one")
    other = beside(undisturbed, "other", workspace=workspace, name="other", budget=60)
    alone = beside(undisturbed, "alone", workspace=str(tmp_path / "alone"), budget=60)
    clocks = (clock, 0) if who == "the first" else (0, clock)
    started = [j.start(clock=c) for j, c in zip((one, other), clocks, strict=True)]
    for process in started:
        process.outcome().check_done()
    alone.finish()
    check_same_rows(one.workspace, undisturbed.workspace, "one", "run")
    check_same_rows(one.workspace, alone.workspace, "other", "alone")
    check_recorded_rows(one.workspace)


def test_runs_and_refreshes_by_wrong_clocks_in_turn_give_the_rows_of_right_ones(tmp_path):
    first = job(tmp_path, within_cluster="exact_count", gime=GIME)
    alone = beside(first, "alone", name="run")
    killed = first.start(record_at_once=True, clock=3600)
    wait_until(lambda: has_record(first.workspace, "fit pool"), killed)
    killed.kill()
    first.finish(clock=-3600)
    alone.finish()
    check_same_rows(first.workspace, alone.workspace)
    for i, clock in enumerate([3600, -3600, 0]):
        add_rows(tmp_path, 40, seed=20 + i, name=f"n{i}")
        first.finish("refresh", clock=clock)
        alone.finish("refresh")
        check_same_rows(first.workspace, alone.workspace)
    check_recorded_rows(first.workspace)
    assert [e["number"] for e in publishes(first.workspace)] == [1, 2, 3, 4]


@pytest.mark.spark
def test_the_embedded_engine_and_local_spark_at_once_give_the_rows_that_each_gives_alone(
    undisturbed, tmp_path
):
    changes = {"workspace": str(tmp_path / "ws"), "within_cluster": "exact_count"}
    small = beside(undisturbed, "embedded", name="embedded", **changes)
    spark = beside(undisturbed, "spark", name="spark", engine="spark", budget=60, **changes)
    started = spark.start()
    # Beside the start of the JVM, a run; beside its stages, those that share them and others.
    wait_until(lambda: rows(spark.workspace / "claims") is not None, started)
    small.finish()
    for budget in (40, 50):
        small.finish("run", f"budget={budget}")
    started.outcome().check_done()
    check_recorded_rows(small.workspace)
    for name, budget in {"embedded": 50, "spark": 60}.items():
        alone = beside(
            undisturbed, "alone", workspace=str(tmp_path / f"alone-{name}"), budget=budget,
            within_cluster="exact_count",
        )  # fmt: skip
        alone.finish()
        check_same_rows(small.workspace, alone.workspace, name, "alone")
