"""Parquet files that are corrupt, cut short or gone: named, and no row lost or doubled."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from deltalake import write_deltalake

from gio_spark.engine.progress import Progress
from gio_spark.errors import GioSparkError
from gio_spark.pipeline import run
from tests.faults.acting_progress import ActingProgress
from tests.pipeline import jobs

pytestmark = pytest.mark.faults


def _corrupt(file: Path) -> None:
    content = bytearray(file.read_bytes())
    middle = len(content) // 2
    content[4:middle] = bytes(255 for _ in content[4:middle])
    file.write_bytes(bytes(content))


def _cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def _remove(file: Path) -> None:
    file.unlink()


KINDS: list[Callable[[Path], None]] = [_corrupt, _cut_short, _remove]
NAMES = [kind.__name__.strip("_") for kind in KINDS]


def _files_of(folder: Path) -> list[Path]:
    return sorted(f for f in folder.rglob("*.parquet") if "_delta_log" not in f.parts)


@pytest.fixture(params=["parquet", "delta"])
def pool(request, tmp_path) -> Path:
    """A pool of three files."""
    place = tmp_path / "pool"
    rows = jobs.vector_pool()
    if request.param == "parquet":
        jobs.write(rows, place, files=3)
    else:
        for first in (0, 200, 400):
            write_deltalake(place, rows.slice(first, 200), mode="append")
    jobs.write(jobs.vector_target(), tmp_path / "target.parquet")
    return place


def _settings(pool: Path, workspace: str = "ws"):
    changes = {"pool": str(pool), "within_cluster": "density_ratio"}
    return jobs.settings(pool.parent, workspace=str(pool.parent / workspace), **changes)


def _rows(settings, progress=None):
    curation = run(settings, until="explode", progress=progress or Progress("silent"))
    return (
        jobs.picked(settings, curation).drop_columns(["gio_run", "gio_input_version"]).to_pylist()
    )


@pytest.mark.parametrize("stage", ["", "embed pool", "select rows"])
@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
def test_a_broken_file_of_the_pool_is_named_and_a_whole_one_gives_the_same_rows(
    spark, pool, kind, stage
):
    expected = _rows(_settings(pool, "undisturbed"))
    file = _files_of(pool)[1]
    shutil.copy2(file, pool.parent / "whole")
    if not stage:
        kind(file)
    acting = ActingProgress(stage, lambda: kind(file))
    if stage or kind is not _remove or (pool / "_delta_log").exists():
        with pytest.raises(GioSparkError) as refused:
            _rows(_settings(pool), acting)
        message = str(refused.value)
        assert file.name in message and "\n" not in message, message
    else:  # a folder without the file is another input
        assert len(_rows(_settings(pool))) == 100
    shutil.copy2(pool.parent / "whole", file)
    assert _rows(_settings(pool)) == expected


@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
@pytest.mark.parametrize("table", ["embeddings", "assignments", "scores"])
def test_a_broken_file_of_a_stage_table_is_named_and_a_whole_one_gives_the_same_rows(
    spark, pool, table, kind
):
    expected = _rows(_settings(pool, "undisturbed"))
    settings = _settings(pool)
    folder = pool.parent / "ws" / table

    whole: dict[Path, bytes] = {}

    def damage() -> None:
        for file in _files_of(folder):
            whole[file] = file.read_bytes()
            kind(file)

    # The stage after the one that writes the table.
    stage = {"embeddings": "fit pool", "assignments": "centroids", "scores": "plan"}[table]
    with pytest.raises(GioSparkError) as refused:
        _rows(settings, ActingProgress(stage, damage))
    message = str(refused.value)
    assert str(folder) in message and "\n" not in message, message
    for file, content in whole.items():
        file.write_bytes(content)
    assert _rows(settings) == expected
