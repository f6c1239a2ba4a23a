"""A run that is killed, wherever: the next one goes on and gives the rows of an undisturbed one."""

from __future__ import annotations

import random
import time

import pytest

from gio_spark.settings.load import load
from tests.faults.processes import (
    beside,
    check_recorded_rows,
    check_same_rows,
    commits,
    has_record,
    job,
    publishes,
    wait_until,
)
from tests.pipeline import jobs

STAGES = [
    "fit embedder", "embed pool", "embed target", "quarantine", "fit pool", "assign pool",
    "assign target", "centroids", "fit ratio", "score pool", "plan", "select rows", "metrics",
    "run", "audit",
]  # fmt: skip
TABLES = [
    "claims", "models", "embeddings", "quarantine", "centroids", "assignments", "scores", "plan",
    "selection_", "metrics", "runs", "publishes",
]  # fmt: skip


def _goes_on(job, undisturbed):
    job.finish()
    check_same_rows(job.workspace, undisturbed.workspace)
    check_recorded_rows(job.workspace)
    assert len(publishes(job.workspace)) == 1


@pytest.mark.faults
@pytest.mark.parametrize("stage", STAGES)
def test_a_run_killed_at_a_record_goes_on(undisturbed, tmp_path, stage):
    job = beside(undisturbed, "killed", workspace=str(tmp_path / "ws"))
    process = job.start(record_at_once=True)
    wait_until(lambda: has_record(job.workspace, stage), process)
    process.kill()
    _goes_on(job, undisturbed)


@pytest.mark.faults
@pytest.mark.parametrize("table", TABLES)
def test_a_run_killed_once_a_table_has_a_commit_goes_on(undisturbed, tmp_path, table):
    job = beside(undisturbed, "killed", workspace=str(tmp_path / "ws"))
    process = job.start()
    wait_until(lambda: commits(job.workspace, table), process)
    process.kill()
    _goes_on(job, undisturbed)


@pytest.mark.faults
def test_a_run_killed_over_and_over_again_goes_on_each_time(undisturbed, tmp_path):
    job = beside(undisturbed, "killed", workspace=str(tmp_path / "ws"))
    for stage in STAGES:
        process = job.start(record_at_once=True)
        wait_until(lambda stage=stage: has_record(job.workspace, stage), process)
        process.kill()
    _goes_on(job, undisturbed)


@pytest.mark.faults
@pytest.mark.parametrize("seed", range(10))
def test_a_run_killed_at_a_random_moment_goes_on(undisturbed, tmp_path, seed):
    job = beside(undisturbed, "killed", workspace=str(tmp_path / "ws"))
    process = job.start(record_at_once=seed % 2 == 0)
    wait_until(lambda: commits(job.workspace, "claims"), process)
    time.sleep(random.Random(seed).uniform(0.0, 4.0))
    process.kill()
    _goes_on(job, undisturbed)


def test_a_run_killed_after_its_plan_goes_on_in_another_process(spark, tmp_path):
    small = job(tmp_path, within_cluster="exact_count")
    process = small.start(record_at_once=True)
    wait_until(lambda: has_record(small.workspace, "plan"), process)
    process.kill()
    settings = load(small.config, [])
    goes_on = jobs.select(settings)
    assert jobs.done(goes_on) <= {"select rows"}
    whole = load(small.config, [f"workspace={tmp_path / 'undisturbed'}"])
    assert jobs.picked_ids(settings) == jobs.picked_ids(whole)
    assert len(jobs.picked_ids(settings)) == 30
    check_recorded_rows(small.workspace)
