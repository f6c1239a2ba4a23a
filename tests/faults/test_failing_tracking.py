"""MLflow that is dead, slow, fails or refuses: the same rows, and one line that says so."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.faults.processes import beside, check_recorded_rows, check_same_rows
from tests.tracking.failing_server import failing_server
from tests.tracking.test_failing_store import BEGINS

pytestmark = pytest.mark.faults


@contextmanager
def _dead() -> Iterator[str]:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}"


@contextmanager
def _answers(code: int, **more) -> Iterator[str]:
    with failing_server(code, **more) as server:
        yield server.uri


STORES = {
    "dead": _dead,
    "slow": lambda: _answers(200, answers=BEGINS, delay=8.0),
    "500": lambda: _answers(500),
    "expired token": lambda: _answers(401),
    "500 after the start": lambda: _answers(500, answers=BEGINS),
    "token that expires after the start": lambda: _answers(401, answers=BEGINS),
}


@pytest.mark.parametrize("store", STORES)
def test_a_run_whose_tracking_fails_gives_the_same_rows_and_says_so(undisturbed, tmp_path, store):
    with STORES[store]() as uri:
        tracking = {"uri": uri, "wait_seconds": 5, "registered_model": "models"}
        job = beside(
            undisturbed, "untracked", workspace=str(tmp_path / "ws"), name="run", tracking=tracking
        )
        outcome = job.finish()
        said = outcome.err.splitlines()
        lines = [line for line in said if "The run goes on without its MLflow record." in line]
        assert len(lines) == 1 and uri in lines[0], outcome.err[-3000:]
        check_same_rows(job.workspace, undisturbed.workspace)
        check_recorded_rows(job.workspace)
        if store in ("dead", "500", "expired token"):
            stops = beside(
                undisturbed, "stops", workspace=str(tmp_path / "other"), name="run",
                tracking={**tracking, "on_error": "stop"},
            )  # fmt: skip
            assert uri in stops.start().outcome().check_one_line()
            stops.finish("run", "tracking.enabled=false")
            check_same_rows(stops.workspace, undisturbed.workspace)
