"""`gio-spark explain`, `diff` and `runs`."""

from __future__ import annotations

import json
import re

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from gio_spark.cli import app
from tests.pipeline import jobs

pytestmark = pytest.mark.embedded


@pytest.fixture(scope="module")
def selected(finished) -> list[str]:
    rows = jobs.selected(finished[0].folder / "ws")
    return sorted(rows["gio_id"].to_pylist())


def test_explain_prints_few_rows_in_full(finished, selected):
    project, *_ = finished
    done = project("explain", selected[0], "p00001", "nobody")
    assert done.exit_code == 0, done.stderr
    for words in (
        "selection: run-", "run@1 (current)", "pool.parquet at ", "embedder: vectors",
        f"{selected[0]}: taken", "rank score: ", "nobody: left out (not_in_pool)",
        "of the target",
    ):  # fmt: skip
        assert words in done.stdout, words


def test_explain_prints_one_json_object(finished, selected):
    project, *_ = finished
    done = project("explain", "--json", selected[0], "p00001")
    value = json.loads(done.stdout)
    assert [row["id"] for row in value["rows"]] == [selected[0], "p00001"]
    assert value["rows"][0]["rule"] == "selected" and value["selection"]["publish"] == 1


def test_explain_of_a_table_counts_rules_and_writes_rows(finished, selected):
    project, *_ = finished
    ids = project.folder / "ids.parquet"
    jobs.write(pa.table({"id": [*selected, "nobody"]}), ids)
    done = project("explain", "--table", str(ids))
    assert done.exit_code == 0 and re.search(r"selected +30", done.stdout), done.stderr
    written = project("explain", "--table", str(ids), "--output", str(project.folder / "why"))
    assert written.exit_code == 0 and f"rows: {project.folder}/why/rows" in written.stdout


def test_explain_refuses_what_it_cannot_do(finished):
    project, *_ = finished
    for words, text in (
        ((), "Give ids of rows, or --table"),
        (("a", "--table", "b"), "Give ids of rows, or --table"),
        (("a", "--output", "b"), "--output is for --table"),
        (("a", "--set", "budget=7"), "No finished run of this configuration"),
        (("a", "--run", "run-x"), "No finished run 'run-x'"),
    ):
        done = project("explain", *words)
        assert done.exit_code == 2 and text in done.stderr, (words, done.stderr)
        assert len(done.stderr.splitlines()) == 1


def test_diff_prints_a_table_and_writes_a_page(finished):
    project, first, _ = finished
    (run,) = re.findall(r"Run (run-\w+)", first.stdout)
    folder = project.folder / "difference"
    done = project("diff", run, "run@1", "--output", str(folder))
    assert done.exit_code == 0, done.stderr
    assert re.search(r"in both +30", done.stdout) and f"page: {folder}/diff.html" in done.stdout
    assert (folder / "diff.html").exists() and (folder / "rows").exists()
    value = json.loads(project("diff", run, "1", "--json").stdout)
    assert (value["rows_in"], value["rows_out"], value["rows_both"]) == (0, 0, 30)


def test_diff_names_the_selections_that_are_there(finished):
    project, *_ = finished
    done = project("diff", "run@1", "run@9")
    assert done.exit_code == 2 and len(done.stderr.splitlines()) == 1
    assert "no selection 'run@9'" in done.stderr and "Publishes: run@1." in done.stderr


def test_runs_lists_runs_of_a_workspace_or_a_configuration(finished):
    project, first, _ = finished
    (run,) = re.findall(r"Run (run-\w+)", first.stdout)
    assert run in project("runs").stdout
    words = ["runs", str(project.folder / "ws"), "--engine", "embedded"]
    assert run in CliRunner().invoke(app, words).stdout
