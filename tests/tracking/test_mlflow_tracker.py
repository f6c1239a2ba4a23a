"""Against real MLflow: its file store, and once its SQLite store."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from gio_spark.settings.tracking import TrackingSettings
from gio_spark.tracking import MlflowTracker, NullTracker, TrackedInput, TrackedStage, tracker

INPUTS = (
    TrackedInput(name="pool", location="/data/pool", format="delta", version=0, context="pool"),
    TrackedInput(
        name="tickets", location="main.s.t", format="delta", version="41", context="target"
    ),
    TrackedInput(
        name="more", location="https://u:hunter2@h/m.jsonl", format="jsonl", version="9f86d0",
        context="target",
    ),
)  # fmt: skip


def file_tracker(folder: Path, **settings) -> MlflowTracker:
    run_tracker = tracker(TrackingSettings(uri=str(folder / "mlruns"), **settings), folder)
    assert isinstance(run_tracker, MlflowTracker)
    return run_tracker


def read_run(run_tracker: MlflowTracker):
    from gio_spark.tracking.mlflow_client import connect, mlflow_defaults

    with mlflow_defaults(run_tracker.store):
        client = connect(run_tracker.store)
    return client, client.get_run(run_tracker.run_id)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    page = folder / "report"
    page.mkdir()
    (page / "report.html").write_text("<p>fine</p>")
    (folder / "plan.csv").write_text("cluster,take\n1,2\n")
    run_tracker = file_tracker(folder, tags={"team": "data"})
    run_tracker.check()
    run_tracker.start("run-1", {"engine": "embedded", "uri": "http://me:hunter2@host"})
    run_tracker.params(
        {"budget": 0.1, "quantize": {"clusters": 5}, "api_key": "hunter2", "none": None,
         "columns": {"numeric": ["a", "b"], "tokens": "n"}, "odd key (§)": "x", "long": "y" * 9000,
         **{f"p{i}": i for i in range(150)}}
    )  # fmt: skip
    run_tracker.inputs(INPUTS)
    run_tracker.metrics({"divergence": 0.5, "broken": float("nan")})
    run_tracker.path("path", np.linspace(3, 1, 5000), range(0, 50_000, 10))
    run_tracker.stage(TrackedStage(name="embed", seconds=1.5, rows=100))
    run_tracker.artifact(page, "report")
    run_tracker.artifact(folder / "plan.csv")
    outcome = run_tracker.end()
    return run_tracker, outcome, *read_run(run_tracker)


def test_a_finished_run_is_recorded_whole(recorded):
    run_tracker, outcome, _, run = recorded
    assert outcome.problem is None
    assert outcome.run_id == run_tracker.run_id == run.info.run_id
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "run-1"
    assert run.data.tags["engine"] == "embedded"
    assert run.data.tags["team"] == "data"


def test_parameters_are_flat_clipped_and_free_of_secrets(recorded):
    _, _, _, run = recorded
    params = run.data.params
    assert params["quantize.clusters"] == "5"
    assert params["columns.numeric"] == "a, b"
    assert params["columns.tokens"] == "n"
    assert params["api_key"] == "***"
    assert len(params["long"]) == 500
    assert params["p149"] == "149"
    assert "hunter2" not in str(run.to_dictionary())


def test_the_divergence_path_is_a_metric_by_step_with_first_and_last_point(recorded):
    _, _, client, run = recorded
    path = sorted(client.get_metric_history(run.info.run_id, "path"), key=lambda m: m.step)
    assert len(path) == 1000
    assert (path[0].step, path[0].value) == (0, 3.0)
    assert (path[-1].step, path[-1].value) == (49_990, 1.0)


def test_stages_and_numbers_are_metrics_and_what_is_not_finite_is_left_out(recorded):
    _, _, _, run = recorded
    assert run.data.metrics["stage/embed/seconds"] == 1.5
    assert run.data.metrics["stage/embed/rows"] == 100
    assert run.data.metrics["divergence"] == 0.5
    assert "broken" not in run.data.metrics


def test_inputs_are_datasets_with_context_and_version_even_version_zero(recorded):
    _, _, _, run = recorded
    datasets = {i.dataset.name: i for i in run.inputs.dataset_inputs}
    assert {n: i.tags[0].value for n, i in datasets.items()} == {
        "pool": "pool", "tickets": "target", "more": "target",
    }  # fmt: skip
    source = {n: json.loads(i.dataset.source) for n, i in datasets.items()}
    assert source["pool"] == {"path": "/data/pool", "delta_table_version": 0}
    assert source["tickets"] == {"delta_table_name": "main.s.t", "delta_table_version": 41}
    assert datasets["pool"].dataset.source_type == "delta_table"
    assert source["more"]["version"] == "9f86d0"


def test_plan_and_report_are_artifacts(recorded):
    _, _, client, run = recorded
    assert [f.path for f in client.list_artifacts(run.info.run_id, "report")] == [
        "report/report.html"
    ]
    assert "plan.csv" in [f.path for f in client.list_artifacts(run.info.run_id)]


def test_nothing_is_reported_home(tmp_path):
    # A process of its own: here another test may have used MLflow without this package.
    program = (
        "import sys; from pathlib import Path\n"
        "from tests.tracking.test_mlflow_tracker import file_tracker\n"
        "with file_tracker(Path(sys.argv[1])) as run_tracker:\n"
        "    run_tracker.start('run')\n"
        "from mlflow.telemetry import get_telemetry_client\n"
        "assert get_telemetry_client() is None\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_no_global_mlflow_state_is_touched(recorded):
    import mlflow

    assert mlflow.active_run() is None
    assert not {name for name in os.environ if name.startswith("MLFLOW_")}


def test_an_error_inside_the_run_closes_its_record_as_failed(tmp_path):
    with pytest.raises(RuntimeError, match="stage"), file_tracker(tmp_path) as run_tracker:
        run_tracker.start("run")
        raise RuntimeError("a stage failed")
    _, run = read_run(run_tracker)
    assert run.info.status == "FAILED"


def test_a_store_that_fails_midway_is_said_once_and_loses_nothing(tmp_path, caplog):
    run_tracker = file_tracker(tmp_path)
    run_tracker.start("run")
    run_id = run_tracker.run_id
    run_tracker.artifact(tmp_path / "there is no such file.html")
    run_tracker.metrics({"after": 1.0})
    with caplog.at_level(logging.WARNING):
        outcome = run_tracker.end()
    assert outcome.run_id == run_id
    assert "could not record there is no such file.html" in outcome.problem
    messages = [r for r in caplog.records if r.name.startswith("gio_spark.tracking")]
    assert len(messages) <= 1


def test_a_slow_store_is_not_waited_for_longer_than_asked(tmp_path):
    run_tracker = file_tracker(tmp_path, wait_seconds=0.2)
    gate = threading.Event()
    run_tracker.start("run")
    assert run_tracker._start_call.result(timeout=60)
    run_tracker._submit("wait", gate.wait)
    outcome = run_tracker.end()
    gate.set()
    assert "no answer within" in outcome.problem


def test_a_second_run_goes_to_the_same_experiment_and_end_can_be_called_twice(tmp_path):
    runs = []
    for name in ("a", "b"):
        run_tracker = file_tracker(tmp_path, experiment="mine")
        run_tracker.start(name)
        assert run_tracker.end() == run_tracker.end()
        runs.append(read_run(run_tracker)[1])
    assert runs[0].info.experiment_id == runs[1].info.experiment_id
    assert runs[0].info.run_id != runs[1].info.run_id


def test_switched_off_nothing_is_recorded_and_all_calls_work(tmp_path):
    with tracker(TrackingSettings(enabled=False), tmp_path) as run_tracker:
        assert isinstance(run_tracker, NullTracker)
        run_tracker.check()
        run_tracker.start("run")
        run_tracker.params({"a": 1})
        run_tracker.inputs(INPUTS)
        run_tracker.path("p", [1.0])
        run_tracker.stage(TrackedStage(name="embed", seconds=1))
        run_tracker.artifact(tmp_path / "x")
        assert run_tracker.run_id is None
    assert run_tracker.end().enabled is False
    assert list(tmp_path.iterdir()) == []


def test_the_sqlite_store_works_and_keeps_artifacts_beside_it(tmp_path):
    (tmp_path / "plan.csv").write_text("cluster,take\n")
    run_tracker = tracker(TrackingSettings(), tmp_path / "work")
    run_tracker.start("run", {"engine": "embedded"})
    run_tracker.inputs(INPUTS)
    run_tracker.path("path", [2.0, 1.0])
    run_tracker.artifact(tmp_path / "plan.csv")
    outcome = run_tracker.end()
    assert outcome.problem is None
    client, run = read_run(run_tracker)
    assert run.info.status == "FINISHED"
    assert [m.value for m in client.get_metric_history(run.info.run_id, "path")] == [2.0, 1.0]
    assert list((tmp_path / "work" / "mlartifacts").rglob("plan.csv"))
    assert not (Path.cwd() / "mlruns").exists()
