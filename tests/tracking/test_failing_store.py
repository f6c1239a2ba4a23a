"""A store that is down, fails or refuses: the run goes on and says so, or stops where asked to."""

from __future__ import annotations

import logging
import socket
import threading
import time

import pytest

from gio_spark.errors import TrackingError
from gio_spark.settings.load import load
from gio_spark.settings.tracking import TrackingSettings
from gio_spark.tracking import end_open_records, tracker
from gio_spark.tracking.mlflow_client import connect, mlflow_defaults
from tests.tracking.failing_server import failing_server

# As much of a server as a run needs to begin; everything after that fails.
BEGINS = {
    "experiments/search": {"experiments": []},
    "experiments/get-by-name": {
        "experiment": {"experiment_id": "1", "name": "x", "lifecycle_stage": "active"}
    },
    "runs/create": {"run": {"info": {"run_id": "r", "run_uuid": "r", "experiment_id": "1"}}},
}


def closed_port() -> str:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{held.getsockname()[1]}"


def record(watch, calls=3):
    with watch:
        watch.start("run")
        for i in range(calls):
            watch.metrics({"a": float(i)})
    return watch.end()


def test_a_dead_server_is_said_once_and_not_asked_again(tmp_path, caplog):
    watch = tracker(TrackingSettings(uri=closed_port()), tmp_path)
    began = time.monotonic()
    with caplog.at_level(logging.WARNING):
        watch.check()
        outcome = record(watch)
    assert time.monotonic() - began < 20
    assert "does not answer" in outcome.problem
    own = [r for r in caplog.records if r.name.startswith("gio_spark.tracking")]
    assert len(own) == 1 and "goes on without" in own[0].getMessage()


@pytest.mark.parametrize("code", [403, 500])
def test_a_server_that_refuses_is_asked_a_few_times_and_no_more(tmp_path, code):
    with failing_server(code) as server:
        watch = tracker(TrackingSettings(uri=server.uri), tmp_path)
        watch.check()
        asked = len(server.requests)
        assert "does not answer" in record(watch).problem
        assert len(server.requests) == asked


def test_a_server_that_fails_after_the_start_costs_seconds_and_the_run_is_closed(tmp_path):
    ends = {"runs/get": BEGINS["runs/create"], "runs/update": {}}
    with failing_server(500, answers={**BEGINS, **ends}) as server:
        watch = tracker(TrackingSettings(uri=server.uri), tmp_path)
        watch.check()
        began = time.monotonic()
        outcome = record(watch)
        assert time.monotonic() - began < 40
        assert "could not record the metrics" in outcome.problem
        assert server.requests[-1].endswith("runs/update")


def test_stop_ends_the_run_before_any_work_or_at_the_next_record(tmp_path):
    settings = TrackingSettings(uri=closed_port(), on_error="stop")
    with pytest.raises(TrackingError, match="does not answer"):
        tracker(settings, tmp_path).check()
    with failing_server(403, answers=BEGINS) as server:
        settings = TrackingSettings(uri=server.uri, on_error="stop")
        with pytest.raises(TrackingError, match=r"tracking\.on_error is stop"):
            record(tracker(settings, tmp_path))


def files(folder, **settings):
    return tracker(TrackingSettings(uri=str(folder / "mlruns"), **settings), folder)


def status(watch):
    with mlflow_defaults(watch.store):
        return connect(watch.store).get_run(watch.run_id).info.status


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupted_run_is_closed_as_killed(tmp_path, error):
    with pytest.raises(error), files(tmp_path) as watch:
        watch.start("run")
        assert watch.run_id is not None
        raise error
    assert status(watch) == "KILLED"


def test_open_records_are_closed_as_killed_whatever_comes_after(tmp_path):
    watch = files(tmp_path)
    with pytest.raises(RuntimeError, match="engine"), watch:
        watch.start("run")
        assert watch.run_id is not None
        end_open_records()
        raise RuntimeError("the engine is gone")
    assert status(watch) == "KILLED"


def test_a_run_that_is_interrupted_is_not_begun_any_more(tmp_path):
    watch = files(tmp_path)
    gate = threading.Event()
    begin = threading.Timer(3.0, gate.set)
    begin.start()
    watch.start("run")
    watch._executor.submit(gate.wait)
    began = time.monotonic()
    watch.end("KILLED")
    assert time.monotonic() - began < 2.9
    begin.join()


def test_what_a_store_does_is_no_part_of_what_a_run_is(tmp_path):
    from gio_spark.pipeline.stages.open_inputs import identity

    config = tmp_path / "run.yml"
    config.write_text("pool: /p\ntarget: /t\n")
    runs = [load(config, words) for words in ([], ["tracking.on_error=stop"])]
    assert identity(runs[0]) == identity(runs[1])
