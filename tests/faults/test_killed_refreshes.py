"""A refresh that is killed at any commit: the next one goes on, as if nothing had happened."""

from __future__ import annotations

import shutil

import pytest

from tests.faults.processes import (
    Job,
    add_rows,
    beside,
    check_recorded_rows,
    check_same_rows,
    commits,
    job,
    published,
    publishes,
    records,
    wait_until,
)

pytestmark = pytest.mark.faults

TABLES = [
    "claims", "embeddings", "assignments", "scores", "replaced", "plan", "selection_",
    "metric_states", "metrics", "metric_series", "runs", "publishes",
]  # fmt: skip
STAGES = ["embed pool", "assign pool", "score pool", "plan", "refresh", "refresh metrics", "audit"]


@pytest.fixture(scope="module")
def grown(tmp_path_factory) -> tuple[Job, Job]:
    """A job whose pool has grown since, and the same with an undisturbed refresh."""
    first = job(tmp_path_factory.mktemp("grown"), gime={"on_refresh": True})
    first.finish()
    alone = beside(first, "alone", name="run")
    shutil.copytree(first.workspace, alone.workspace)
    add_rows(first.folder)
    alone.finish("refresh")
    return first, alone


def _copy(first: Job, place) -> Job:
    shutil.copytree(first.workspace, place / "ws")
    return beside(first, place.name, name="run", workspace=str(place / "ws"))


def _goes_on(job: Job, alone: Job) -> None:
    # Readers see a whole selection, the old or the new one.
    assert len(published(job.workspace)) == publishes(job.workspace)[-1]["rows"]
    job.finish("refresh")
    check_same_rows(job.workspace, alone.workspace)
    check_recorded_rows(job.workspace)
    assert [event["number"] for event in publishes(job.workspace)] == [1, 2]


def _count(job: Job, stage: str) -> int:
    return sum(record["stage"] == stage for record in records(job.workspace))


@pytest.mark.parametrize("table", TABLES)
def test_a_refresh_killed_once_a_table_has_a_commit_goes_on(grown, tmp_path, table):
    first, alone = grown
    job = _copy(first, tmp_path)
    before = commits(job.workspace, table)
    process = job.start("refresh")
    assert wait_until(lambda: commits(job.workspace, table) > before, process)
    process.kill()
    _goes_on(job, alone)


@pytest.mark.parametrize("stage", STAGES)
def test_a_refresh_killed_at_a_record_goes_on(grown, tmp_path, stage):
    first, alone = grown
    job = _copy(first, tmp_path)
    before = _count(job, stage)
    process = job.start("refresh", record_at_once=True)
    assert wait_until(lambda: _count(job, stage) > before, process)
    process.kill()
    _goes_on(job, alone)
