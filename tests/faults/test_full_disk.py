"""A disk that fills up: one line says so, and once there is room the next run goes on."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.faults.processes import (
    Job,
    beside,
    check_recorded_rows,
    check_same_rows,
    commits,
    has_record,
    wait_until,
)

pytestmark = pytest.mark.faults

MIB = 1 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    if sys.platform != "linux" or shutil.which("mount") is None:
        pytest.skip("needs Linux's tmpfs")
    words = ["mount", "-t", "tmpfs", "-o", f"size={8 * MIB}", "tmpfs", str(place)]
    mounted = subprocess.run(words, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"cannot mount a tmpfs: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(disk: Path, spare: int) -> Path:
    """Take all room of a disk but for some bytes; gives the file that takes it."""
    ballast = disk / "ballast"
    room = os.statvfs(disk)
    # A run that writes meanwhile may take the last room before the file does.
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        left = room.f_bavail * room.f_frsize - spare
        while left > 0:
            left -= file.write(bytes(min(left, MIB)))
    return ballast


def _says_where(job: Job, line: str) -> None:
    assert "No space" in line and str(job.workspace) in line, line


@pytest.mark.parametrize("spare_kib", [0, 24, 80, 160])
def test_a_disk_that_is_full_from_the_start_or_soon(undisturbed, disk, spare_kib):
    job = beside(undisturbed, "full", workspace=str(disk / "ws"))
    ballast = fill(disk, spare_kib << 10)
    _says_where(job, job.start(record_at_once=True).outcome().check_one_line())
    ballast.unlink()
    job.finish()
    check_same_rows(job.workspace, undisturbed.workspace)
    check_recorded_rows(job.workspace)


@pytest.mark.parametrize("stage", ["embed pool", "centroids", "plan"])
def test_a_disk_that_fills_up_after_a_stage(undisturbed, disk, stage):
    job = beside(undisturbed, "full", workspace=str(disk / "ws"))
    process = job.start(record_at_once=True)
    wait_until(lambda: has_record(job.workspace, stage), process)
    ballast = fill(disk, 0)
    _says_where(job, process.outcome().check_one_line())
    ballast.unlink()
    job.finish()
    check_same_rows(job.workspace, undisturbed.workspace)
    check_recorded_rows(job.workspace)


@pytest.mark.spark
def test_a_disk_that_fills_up_under_local_spark(undisturbed, disk):
    changes = {"engine": "spark", "within_cluster": "exact_count"}
    job = beside(undisturbed, "full-spark", workspace=str(disk / "ws"), **changes)
    process = job.start()
    wait_until(lambda: commits(job.workspace, "embeddings"), process)
    ballast = fill(disk, 0)
    _says_where(job, process.outcome().check_one_line())
    ballast.unlink()
    job.finish()
    check_recorded_rows(job.workspace)
    alone = beside(undisturbed, "alone", within_cluster="exact_count")
    alone.finish()
    check_same_rows(job.workspace, alone.workspace, "full-spark", "alone")
