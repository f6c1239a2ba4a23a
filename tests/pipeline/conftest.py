"""Whole jobs that several test files look at; each runs once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline import jobs


@dataclass(frozen=True)
class Job:
    """A finished run and its repetition."""

    folder: Path
    first: Any
    again: Any
    settings: Any

    @property
    def workspace(self) -> Path:
        return self.folder / "ws"


@pytest.fixture(scope="session")
def job(spark, tmp_path_factory) -> Iterator[Job]:
    """A run on vectors with tracking, and the same run again."""
    folder = tmp_path_factory.mktemp("job")
    jobs.write(jobs.vector_pool(), folder / "pool.parquet")
    jobs.write(jobs.vector_target(), folder / "target.parquet")
    tracked = {"enabled": True, "experiment": "tests"}
    settings = jobs.settings(folder, tracking=tracked, report={"plots": True})
    first = jobs.go(settings)
    yield Job(folder, first, jobs.go(settings), settings)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with the inputs of a small job on vectors."""
    jobs.write(jobs.vector_pool(), tmp_path / "pool.parquet")
    jobs.write(jobs.vector_target(), tmp_path / "target.parquet")
    return tmp_path
