"""An undisturbed workspace to compare with, made once."""

from __future__ import annotations

import pytest

from tests.faults.processes import Job, job


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A job that nothing happened to; others are put beside it."""
    whole = job(tmp_path_factory.mktemp("undisturbed"))
    whole.finish()
    return whole
