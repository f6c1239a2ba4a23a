"""An undisturbed workspace to compare with, made once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.processes import Job, Process, job


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A job that nothing happened to; others are put beside it."""
    whole = job(tmp_path_factory.mktemp("undisturbed"))
    whole.finish()
    return whole


@pytest.fixture(autouse=True)
def no_process_outlives_its_test() -> Iterator[None]:
    """Kill what a failed test has left running."""
    yield
    for process in Process.started:
        process.kill()
    Process.started.clear()
