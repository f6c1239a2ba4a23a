"""A refresh is recorded with MLflow like a run: parameters, inputs, stages, metrics, artifacts."""

from __future__ import annotations

import pytest

from gio_spark.pipeline.refresh import refresh
from gio_spark.pipeline.run import run
from gio_spark.settings.load import load
from gio_spark.tracking.mlflow_client import connect, mlflow_defaults
from gio_spark.tracking.tracking_store import resolve
from tests.cli.conftest import project
from tests.faults.processes import add_rows

pytestmark = pytest.mark.embedded


@pytest.fixture(scope="module")
def recorded(spark, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tracked")
    uri = str(folder / "mlruns")
    settings = load(project(folder, tracking={"uri": uri}).config)
    run(settings)
    add_rows(folder)
    refreshed = refresh(settings)
    store = resolve(uri, None, folder)
    with mlflow_defaults(store):
        client = connect(store)
        experiment = client.get_experiment_by_name("gio-spark").experiment_id
        runs = client.search_runs([experiment], order_by=["attributes.start_time ASC"])
        files = {r.info.run_id: _files(client, r.info.run_id) for r in runs}
    return refreshed, runs, files


def _files(client, run_id, folder=None):
    for file in client.list_artifacts(run_id, folder):
        if file.is_dir:
            return [*_files(client, run_id, file.path)]
    return [file.path for file in client.list_artifacts(run_id, folder)]


def test_both_are_finished_under_names_that_tell_them_apart(recorded):
    refreshed, runs, _ = recorded
    assert [r.info.status for r in runs] == ["FINISHED", "FINISHED"]
    assert [r.info.run_name for r in runs] == [
        refreshed.run_id, f"refresh 1 of {refreshed.run_id}",
    ]  # fmt: skip
    tags = runs[1].data.tags
    assert tags["gio.command"] == "refresh"
    assert tags["gio.run"] == refreshed.run_id
    assert tags["gio.published"] == "run 2"


def test_a_refresh_has_the_kinds_of_records_that_a_run_has(recorded):
    refreshed, (first, second), files = recorded
    assert second.data.params == first.data.params
    contexts = [{i.tags[0].value for i in one.inputs.dataset_inputs} for one in (first, second)]
    assert contexts == [{"pool", "target"}, {"pool"}]
    metrics = second.data.metrics
    assert metrics["new_rows"] == refreshed.new_rows == 100
    assert metrics["after"] == refreshed.after
    assert metrics["stage/assign pool/rows"] == 400
    assert any(name.startswith("gime/") for name in metrics)
    assert files[first.info.run_id]
    assert files[second.info.run_id] == [
        "refresh/openlineage-refresh-1.json",
        "refresh/refresh-1.json",
    ]


def test_a_server_that_is_down_holds_up_no_refresh(spark, tmp_path):
    settings = load(project(tmp_path, tracking={"uri": "http://127.0.0.1:9"}).config)
    curation = run(settings)
    assert curation.did_work
    add_rows(tmp_path)
    assert refresh(settings).new_rows == 100
