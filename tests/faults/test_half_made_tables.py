"""What a first write that was killed has left: the next run makes the tables all the same."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from gio_spark.settings.load import load
from gio_spark.tables.stage_store import StageStore
from tests.faults.processes import (
    beside,
    check_recorded_rows,
    check_same_rows,
    job,
    published,
    publishes,
    rows,
)
from tests.pipeline import jobs

TABLES = (
    "embeddings", "runs", "claims", "publishes", "quarantine", "models", "centroids",
    "assignments", "scores", "plan", "metrics", "snapshot_6b0b7dae6fc5aa384a8b",
    "selection_3ceb83c0de14_6b0b7db0006e09e12e0d",
)  # fmt: skip
FIRST = f"{0:020d}.json"


def _empty_log(table: Path) -> None:
    (table / "_delta_log").mkdir(parents=True)


def _folder(table: Path) -> None:
    table.mkdir(parents=True)


def _orphan_beside_an_empty_log(table: Path) -> None:
    _empty_log(table)
    jobs.write(jobs.vector_target(3), table / "part-00000-c000.snappy.parquet")


def _orphan_without_a_log(table: Path) -> None:
    part = table / "fingerprint=0123456789abcdef" / "attempt=6b0b7dae6fc5aa384a8b"
    part.mkdir(parents=True)
    jobs.write(jobs.vector_target(3), part / "part-00000-c000.snappy.parquet")


def _commit_of_no_length(table: Path) -> None:
    _orphan_beside_an_empty_log(table)
    (table / "_delta_log" / FIRST).touch()


def _unfinished_commit_of_spark(table: Path) -> None:
    _orphan_beside_an_empty_log(table)
    name = f"{FIRST}.97a2bd4b-36ce-4f25-a7d8-27d4d9b1e0b6.tmp"
    (table / "_delta_log" / f".{name}").write_text('{"commitInfo":{"timest')
    (table / "_delta_log" / f".{name}.crc").write_bytes(b"crc\0")


def _unfinished_commit_of_delta_rs(table: Path) -> None:
    _orphan_beside_an_empty_log(table)
    name = "_commit_97a2bd4b-36ce-4f25-a7d8-27d4d9b1e0b6.json.tmp"
    (table / "_delta_log" / name).write_text('{"commitInfo":{"timest')
    (table / "_delta_log" / f"{FIRST}#1").write_text('{"commitInfo":{"timest')


def _checksum_alone(table: Path) -> None:
    _empty_log(table)
    (table / "_delta_log" / f".{FIRST}.crc").write_bytes(b"crc\0")


KINDS: list[Callable[[Path], None]] = [
    _folder,
    _empty_log,
    _orphan_beside_an_empty_log,
    _orphan_without_a_log,
    _commit_of_no_length,
    _unfinished_commit_of_spark,
    _unfinished_commit_of_delta_rs,
    _checksum_alone,
]
NAMES = [k.__name__.strip("_") for k in KINDS]


def _leave_mixed(workspace: Path, first: int = 0) -> None:
    """Half-made tables of every kind in turn."""
    for i, table in enumerate(TABLES):
        KINDS[(first + i) % len(KINDS)](workspace / table)


@pytest.mark.faults
@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
def test_a_run_makes_tables_of_which_a_killed_write_left_parts(undisturbed, tmp_path, kind):
    left = beside(undisturbed, "half-made", workspace=str(tmp_path / "ws"))
    for table in TABLES:
        kind(left.workspace / table)
    left.finish()
    check_same_rows(left.workspace, undisturbed.workspace)
    check_recorded_rows(left.workspace)
    assert "retention" not in left.finish().err


def test_a_run_makes_tables_of_which_killed_writes_left_parts_of_every_kind(spark, tmp_path):
    small = job(tmp_path, within_cluster="exact_count")
    _leave_mixed(small.workspace)
    assert jobs.go(load(small.config, [])).publication.number == 1
    assert published(small.workspace).num_rows == 30 == publishes(small.workspace)[-1]["rows"]
    check_recorded_rows(small.workspace)


@pytest.mark.faults
@pytest.mark.spark
def test_local_spark_makes_tables_of_which_killed_writes_left_parts(undisturbed, tmp_path):
    changes = {"engine": "spark", "within_cluster": "exact_count"}
    left = beside(undisturbed, "half-made-spark", workspace=str(tmp_path / "ws"), **changes)
    # In this turn the tables that every run appends to have the kinds that are hardest to read.
    _leave_mixed(left.workspace, first=4)
    left.finish()
    check_recorded_rows(left.workspace)
    assert published(left.workspace).num_rows == 30


@pytest.mark.faults
@pytest.mark.spark
def test_a_catalog_on_local_spark_makes_tables_of_which_folders_are_left(undisturbed, tmp_path):
    changes = {"engine": "spark", "within_cluster": "exact_count"}
    left = beside(undisturbed, "half-made-catalog", workspace="spark_catalog.default", **changes)
    warehouse = tmp_path / "spark-warehouse"
    _leave_mixed(warehouse, first=4)
    left.finish(cwd=tmp_path)
    check_recorded_rows(warehouse)
    assert published(warehouse).num_rows == 30
    # The catalog of a local Spark without a metastore ends with the process, and leaves its files.
    left.finish(cwd=tmp_path)
    check_recorded_rows(warehouse)
    assert published(warehouse).num_rows == 30
    shutil.rmtree(warehouse)


def test_files_of_a_writer_that_lives_stay_when_another_one_makes_the_table(spark, tmp_path):
    """Before its first commit, what it has written looks like what a killed one has left."""
    table = tmp_path / "ws" / "plan"
    _orphan_without_a_log(table)
    _unfinished_commit_of_delta_rs(table)
    before = {f: f.read_bytes() for f in table.rglob("*") if f.is_file()}
    store = StageStore(spark, str(tmp_path / "ws"))
    keys = "'0123456789abcdef' fingerprint", "'6b0b7dae6fc5aa384a8b' attempt"
    store.append(
        "plan",
        spark.range(3).selectExpr("id", *keys),
        partition_by=("fingerprint", "attempt"),
        note={},
    )
    assert {f: f.read_bytes() for f in before} == before
    assert rows(table).num_rows == 3
