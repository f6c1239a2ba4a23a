"""The commands, from a first configuration to a refresh."""

from __future__ import annotations

import re

import pyarrow as pa
import pytest
import yaml
from typer.testing import CliRunner

from gio_spark.cli import app
from tests.pipeline import jobs

pytestmark = pytest.mark.embedded


def invoke(*words):
    return CliRunner().invoke(app, [str(w) for w in words])


def test_init_writes_an_example_once(folder):
    file = folder / "gio-spark.yml"
    done = invoke("init", file)
    assert done.exit_code == 0 and "gio-spark validate" in done.stdout
    assert yaml.safe_load(file.read_text())["budget"] == 0.1
    again = invoke("init", file)
    assert again.exit_code == 2 and "--force" in again.stderr
    assert invoke("init", file, "--force").exit_code == 0
    nowhere = invoke("init", folder / "no" / "such" / "folder.yml")
    assert nowhere.exit_code == 2 and "Cannot write" in nowhere.stderr


def test_validate_prints_plan_and_forecast_and_runs_nothing(make):
    made = make()
    done = made("validate", "budget=20%")
    assert done.exit_code == 0, done.stderr
    assert done.stdout.startswith("engine: embedded")
    for word in (
        "300",
        "60",
        "parquet",
        "vectors",
        "budgeted_kl",
        "core-hours",
        "memory of the process",
        "20 % of the pool, 60 rows",
        "The configuration is valid",
    ):
        assert word in done.stdout, word
    assert not (made.folder / "ws" / "runs").exists()


def test_run_tells_what_it_selected_and_where_it_is(finished):
    made, first, _ = finished
    assert first.exit_code == 0, first.stderr
    assert "30 of 300 rows" in first.stdout
    assert f"selected: {made.folder / 'ws' / 'selection_'}" in first.stdout
    assert "published: run, publish 1" in first.stdout
    (page,) = re.findall(r"report: (\S+)", first.stdout)
    assert page.endswith(".html")
    assert jobs.table(made.folder / "ws", "selected").num_rows == 30


def test_a_second_run_says_that_nothing_was_left_to_do(finished):
    _, first, again = finished
    assert again.exit_code == 0
    assert "Nothing was left to do: every stage was complete" in again.stdout
    assert "Nothing was left to do" not in first.stdout


def test_show_lists_the_runs_and_tells_what_one_did(finished):
    made, first, _ = finished
    (run,) = re.findall(r"Run (run-\w+)", first.stdout)
    listed = invoke("show", "--workspace", made.folder / "ws", "--engine", "embedded")
    assert listed.exit_code == 0 and run in listed.stdout
    told = invoke("show", run, "--workspace", made.folder / "ws", "--engine", "embedded")
    assert told.exit_code == 0
    for word in ("30 of 300 rows", "assign pool", "select rows", "pool.parquet", "report:"):
        assert word in told.stdout, word


def test_show_of_what_is_not_there_is_clear(finished, folder):
    made, _, _ = finished
    where = ("--workspace", made.folder / "ws", "--engine", "embedded")
    unknown = invoke("show", "run-of-nobody", *where)
    assert unknown.exit_code == 2 and "No run 'run-of-nobody' is recorded here" in unknown.stderr
    empty = invoke("show", "--workspace", folder / "none", "--engine", "embedded")
    assert empty.exit_code == 2 and "No runs are recorded" in empty.stderr
    assert not (folder / "none").exists()


@pytest.mark.parametrize("stage", ["embed", "quantize", "select", "explode"])
def test_every_stage_has_a_command_of_its_own(make, stage):
    made = make()
    done = made(stage)
    assert done.exit_code == 0, done.stderr
    assert f"{stage} is done" in done.stdout
    again = made(stage)
    assert f"{stage} is complete already" in again.stdout
    selections = list((made.folder / "ws").glob("selection_*"))
    assert len(selections) == (1 if stage == "explode" else 0)
    assert not (made.folder / "ws" / "publishes").exists()


def test_refresh_tells_what_changed(make):
    made = make()
    assert made("run").exit_code == 0
    more = jobs.vector_pool(100, seed=8, name="n")
    pool = pa.concat_tables([jobs.vector_pool(300).slice(50), more])
    jobs.write(pool, made.folder / "pool.parquet")
    done = made("refresh")
    assert done.exit_code == 0, done.stderr
    assert re.search(r"new rows in the pool\s+100\b", done.stdout)
    assert re.search(r"rows gone from the pool\s+50\b", done.stdout)
    again = made("refresh")
    assert "Nothing to do: the inputs have not changed" in again.stdout


def test_nothing_to_select_has_an_exit_code_of_its_own(make):
    # A target far from all of the pool.
    far = jobs.vector_target(60).to_pylist()
    for row in far:
        row["vector"] = [x + 1e4 for x in row["vector"]]
    made = make()
    table = pa.Table.from_pylist(far, schema=jobs.vector_target().schema)
    jobs.write(table, made.folder / "target.parquet")
    done = made("run")
    assert done.exit_code == 3, (done.exit_code, done.stderr)
    assert "nothing selected" in done.stderr


@pytest.mark.parametrize("words", [("purge", "--ids"), ("score", "--output=./scores")])
def test_a_file_that_is_missing_is_called_so(finished, words):
    made, _, _ = finished
    done = made(*words, "missing.parquet")
    assert done.exit_code == 2
    assert "There is no file or folder 'missing.parquet' in " in done.stderr
