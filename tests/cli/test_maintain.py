"""`gio-spark maintain` changes no row, compacts small files and deletes dead ones."""

from __future__ import annotations

import json
import shutil

import pytest
from deltalake import DeltaTable
from typer.testing import CliRunner

from gio_spark.cli import app
from tests.cli.conftest import project
from tests.pipeline import jobs

pytestmark = pytest.mark.embedded


@pytest.fixture(scope="module")
def maintained(spark, tmp_path_factory):
    """A project of two runs, and the result of its maintenance with files of any age."""
    made = project(tmp_path_factory.mktemp("maintain"), retention={"runs": 1, "hours": 0})
    assert made("run", "retention.hours=168").exit_code == 0
    assert made("run", "budget=40", "retention.hours=168").exit_code == 0
    before = jobs.selected(made.folder / "ws").sort_by("gio_id")
    # As a writer leaves it that was killed before its commit.
    records = made.folder / "ws" / "runs"
    shutil.copy(next(records.glob("*.parquet")), records / "part-00000-killed.parquet")
    return made, before, made("maintain", "--json")


def test_rows_stay_and_files_become_fewer(maintained):
    made, before, done = maintained
    facts = json.loads(done.stdout)
    assert done.exit_code == 0, done.stderr
    assert facts["exit_reason"] == "done"
    records = made.folder / "ws" / "runs"
    assert len(DeltaTable(str(records)).file_uris()) == 1
    assert len(list(records.glob("*.parquet"))) == 1
    assert jobs.selected(made.folder / "ws").sort_by("gio_id").equals(before)
    assert {"embeddings", "plan", "publishes"} <= set(facts["tables"])


def test_a_run_after_it_has_nothing_to_do(maintained):
    made, *_ = maintained
    assert "0 of" in made("run", "budget=40", "retention.hours=168", "--dry-run").stdout


def test_the_table_names_files_and_sizes(maintained):
    made, *_ = maintained
    done = made("maintain")
    assert done.exit_code == 0
    assert "MB before" in done.stdout
    assert "embeddings" in done.stdout


def test_a_workspace_that_is_not_there_is_refused_and_not_made(tmp_path, spark):
    made = project(tmp_path)
    done = CliRunner().invoke(app, ["maintain", str(made.config)])
    assert done.exit_code == 2 and "No runs are recorded" in done.stderr
    assert not (tmp_path / "ws").exists()


def test_logs_hold_no_value_of_a_text(maintained):
    made, *_ = maintained
    for log in (made.folder / "ws").glob("*/_delta_log/*.json"):
        for line in log.read_text().splitlines():
            stats = json.loads(json.loads(line).get("add", {}).get("stats") or "{}")
            values = {**stats.get("minValues", {}), **stats.get("maxValues", {})}
            texts = {n for n, v in values.items() if isinstance(v, str)} - {"reason"}
            assert not texts, (log, texts)
