"""A purge that is killed at any step: the next one completes it, and nothing is lost beside."""

from __future__ import annotations

import random
import shutil
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from tests.cli.conftest import project
from tests.cli.test_purge import places_of
from tests.faults.processes import (
    Job,
    beside,
    check_recorded_rows,
    commits,
    job,
    published,
    wait_until,
)
from tests.pipeline import jobs

STEPS = [
    "purged", "runs", "publishes", "quarantine", "selection_", "scores", "assignments",
    "embeddings", "metric_states",
]  # fmt: skip


@pytest.fixture(scope="module")
def with_lost_rows(tmp_path_factory) -> tuple[Job, list[str]]:
    """A finished job whose pool has lost rows since; its workspace is copied for each test."""
    whole = job(tmp_path_factory.mktemp("lost"))
    whole.finish()
    return whole, _lose_rows(whole)


def _copy(whole: Job, place: Path) -> Job:
    shutil.copytree(whole.workspace, place / "ws")
    return beside(whole, place.name, workspace=str(place / "ws"))


def _lose_rows(whole: Job) -> list[str]:
    """Take three selected rows and one other row out of the pool; returns their ids."""
    lost = [*published(whole.workspace)["gio_id"].to_pylist()[:3], "p00299"]
    place = whole.folder / "pool.parquet"
    pool = pq.read_table(place)
    keep = [i not in lost for i in pool["id"].to_pylist()]
    jobs.write(pool.filter(keep), place)
    return lost


def _check_completed(job: Job, lost: list[str]) -> None:
    job.finish("purge", "--deleted-upstream", "--yes")
    assert places_of(job.workspace, set(lost)) == set()
    check_recorded_rows(job.workspace)
    assert published(job.workspace).num_rows == 27
    job.finish("refresh")
    selected = published(job.workspace)["gio_id"].to_pylist()
    assert len(selected) == 30 and not set(lost) & set(selected)


@pytest.mark.faults
@pytest.mark.parametrize("table", STEPS)
def test_a_purge_killed_once_a_table_has_a_commit_is_completed(with_lost_rows, tmp_path, table):
    whole, lost = with_lost_rows
    job = _copy(whole, tmp_path)
    before = commits(job.workspace, table)
    process = job.start("purge", "--deleted-upstream", "--yes")
    wait_until(lambda: commits(job.workspace, table) > before, process)
    process.kill()
    _check_completed(job, lost)


@pytest.mark.faults
@pytest.mark.parametrize("seed", range(4))
def test_a_purge_killed_at_a_random_moment_is_completed(with_lost_rows, tmp_path, seed):
    whole, lost = with_lost_rows
    job = _copy(whole, tmp_path)
    process = job.start("purge", "--deleted-upstream", "--yes")
    wait_until(lambda: commits(job.workspace, "purged"), process)
    time.sleep(random.Random(seed).uniform(0.0, 3.0))
    process.kill()
    _check_completed(job, lost)


def test_a_killed_purge_is_completed_by_the_next_one(spark, tmp_path):
    made = project(tmp_path)
    assert made("run").exit_code == 0
    whole = Job(tmp_path, made.config, tmp_path / "ws")
    lost = _lose_rows(whole)
    process = whole.start("purge", "--deleted-upstream", "--yes")
    wait_until(lambda: commits(whole.workspace, "purged"), process)
    process.kill()
    hashes = DeltaTable(str(whole.workspace / "purged")).to_pyarrow_table()
    assert hashes.num_rows == len(lost)
    assert places_of(whole.workspace, set(lost))
    assert made("purge", "--resume", "--yes").exit_code == 0
    assert places_of(whole.workspace, set(lost)) == set()
    check_recorded_rows(whole.workspace)
