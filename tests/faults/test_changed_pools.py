"""A pool that changes under a run: the rows of one version, or one line that says what changed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from deltalake import DeltaTable, write_deltalake

from gio_spark.engine.progress import Progress
from gio_spark.errors import GioSparkError
from gio_spark.pipeline import run
from tests.faults.acting_progress import ActingProgress
from tests.pipeline import jobs

STAGES = ["embed pool", "plan", "select rows"]


def _append(pool: Path) -> None:
    write_deltalake(pool, jobs.vector_pool(100, seed=7, name="n"), mode="append")


def _overwrite(pool: Path) -> None:
    write_deltalake(pool, jobs.vector_pool(600, seed=7, name="n"), mode="overwrite")


def _restore(pool: Path) -> None:
    DeltaTable(str(pool)).restore(0)


def _vacuum(pool: Path) -> None:
    _overwrite(pool)
    options = {"retention_hours": 0, "enforce_retention_duration": False, "dry_run": False}
    DeltaTable(str(pool)).vacuum(**options)


def _make_again(pool: Path) -> None:
    shutil.rmtree(pool)
    write_deltalake(pool, jobs.vector_pool(300, seed=7, name="m"))
    _append(pool)


def _rename(pool: Path) -> None:
    pool.rename(pool.with_name("elsewhere"))


def _rename_back(pool: Path) -> None:
    pool.with_name("elsewhere").rename(pool)


STAYING = [_append, _overwrite, _restore]
"""The version that was pinned can still be read."""

LOSING = [_vacuum, _make_again, _rename]
"""It cannot; where the pool was renamed, it comes back before the restart."""


@pytest.fixture
def pool(tmp_path) -> Path:
    """A pool as a Delta table with two versions."""
    place = tmp_path / "pool"
    write_deltalake(place, jobs.vector_pool(400, seed=1))
    write_deltalake(place, jobs.vector_pool(200, seed=3, name="q"), mode="append")
    jobs.write(jobs.vector_target(), tmp_path / "target.parquet")
    return place


def _rows(settings, progress=None):
    """Selected rows, without the id of their run."""
    curation = run(settings, until="explode", progress=progress or Progress("silent"))
    rows = jobs.picked(settings, curation)
    return rows.drop_columns(["gio_run"]).to_pylist()


def _settings(pool: Path, workspace: str):
    changes = {"pool": str(pool), "within_cluster": "density_ratio"}
    return jobs.settings(pool.parent, workspace=str(pool.parent / workspace), **changes)


@pytest.mark.faults
@pytest.mark.parametrize("action", STAYING, ids=lambda action: action.__name__.strip("_"))
@pytest.mark.parametrize("stage", STAGES)
def test_a_run_gives_the_rows_of_the_version_it_began_with(spark, pool, stage, action):
    expected = _rows(_settings(pool, "undisturbed"))
    settings = _settings(pool, "ws")
    assert _rows(settings, ActingProgress(stage, lambda: action(pool))) == expected
    # A restart is a run on the present version, as in a new workspace.
    assert _rows(settings) == _rows(_settings(pool, "present"))


@pytest.mark.faults
@pytest.mark.parametrize("action", LOSING, ids=lambda action: action.__name__.strip("_"))
@pytest.mark.parametrize("stage", STAGES)
def test_a_run_whose_version_is_gone_says_so_and_the_next_one_is_right(spark, pool, stage, action):
    settings = _settings(pool, "ws")
    with pytest.raises(GioSparkError) as refused:
        _rows(settings, ActingProgress(stage, lambda: action(pool)))
    message = str(refused.value)
    assert str(pool) in message and "\n" not in message and "Traceback" not in message, message
    if action is _rename:
        _rename_back(pool)
    rows = _rows(settings)
    assert rows == _rows(_settings(pool, "present"))
    assert len({row["gio_id"] for row in rows}) == len(rows) == 100
