"""Differences between selections: counts that add up, and selections that are not there."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from gio_spark.engine.progress import Progress
from gio_spark.errors import ConfigError, InputError
from gio_spark.pipeline import run as run_pipeline
from gio_spark.pipeline.commands.diff_selections import SelectionDiff, diff_selections
from gio_spark.pipeline.refresh import refresh
from gio_spark.tables import PublishLog, Workspace
from tests.pipeline import jobs

SILENT = Progress("silent")


def write_inputs(folder: Path) -> None:
    jobs.write(jobs.vector_pool(), folder / "pool.parquet")
    jobs.write(jobs.vector_target(), folder / "target.parquet")


def check_counts(diff: SelectionDiff, before: pa.Table, after: pa.Table) -> None:
    """Compare a difference with the same counts over the rows."""
    old, new = (set(t["gio_id"].to_pylist()) for t in (before, after))
    assert (diff.rows_a, diff.rows_b) == (len(old), len(new))
    assert (diff.rows_in, diff.rows_out) == (len(new - old), len(old - new))
    assert diff.rows_both == len(old & new)
    for column, table in (("gio_cluster", diff.clusters), ("site", diff.sources)):
        assert table is not None
        group = column.removeprefix("gio_").replace("site", "source")
        by_group = {line[group]: line for line in table.to_dict("records")}
        for name, rows, only in (
            ("rows_a", before, old), ("rows_b", after, new),
            ("rows_in", after, new - old), ("rows_out", before, old - new),
        ):  # fmt: skip
            values = [r[column] for r in rows.to_pylist() if r["gio_id"] in only]
            assert {g: line[name] for g, line in by_group.items() if line[name]} == {
                value: values.count(value) for value in set(values)
            }
    means = diff.means.set_index("column").loc["words"]
    assert np.isclose(means["mean_a"], np.mean(before["words"].to_pylist()), rtol=1e-5)
    assert np.isclose(means["mean_b"], np.mean(after["words"].to_pylist()), rtol=1e-5)
    came = [r["words"] for r in after.to_pylist() if r["gio_id"] in new - old]
    assert np.isclose(means["mean_in"], np.mean(came), rtol=1e-5)


def check_refresh(folder: Path, spark, engine: str) -> None:
    """A run and its refresh, compared by run and by publish."""
    write_inputs(folder)
    settings = jobs.settings(folder, engine=engine, gime={"on_refresh": False})
    run = run_pipeline(settings, spark=spark, progress=SILENT)
    before = jobs.picked(settings, run)
    pool = pa.concat_tables([jobs.vector_pool().slice(100), jobs.vector_pool(200, 11, "n")])
    jobs.write(pool, folder / "pool.parquet")
    refresh(settings, spark=spark, progress=SILENT)
    after = jobs.picked(settings, run)
    diff = diff_selections(
        settings, "selection@1", run.run_id, output=str(folder / "a diff"), spark=spark
    )
    assert (diff.a.label, diff.b.label) == ("selection@1", run.run_id)
    check_counts(diff, before, after)
    rows = pq.read_table(diff.output).to_pylist()
    assert sorted(r["id"] for r in rows if r["change"] == "in") == sorted(
        set(after["gio_id"].to_pylist()) - set(before["gio_id"].to_pylist())
    )
    assert len(rows) == diff.rows_in + diff.rows_out
    page = diff.page.read_text()
    assert "From selection@1 to" in page and "By cluster" in page and "By source" in page


@pytest.mark.embedded
def test_a_run_and_its_refresh_differ_by_what_the_refresh_changed(spark, folder):
    check_refresh(folder, spark, "embedded")


@pytest.mark.faults  # minutes
@pytest.mark.spark
@pytest.mark.timeout(900)
def test_a_run_and_its_refresh_differ_alike_on_local_spark(local_spark, folder):
    check_refresh(folder, local_spark, "spark")


@pytest.mark.embedded
class TestTwoRuns:
    """Two finished runs of one workspace, under one name."""

    @pytest.fixture(scope="class")
    def runs(self, spark, tmp_path_factory):
        folder = tmp_path_factory.mktemp("compared")
        write_inputs(folder)
        settings = jobs.settings(folder, name="mine")
        other = jobs.settings(folder, name="mine", budget=60)
        return folder, settings, jobs.go(settings), jobs.go(other)

    def test_runs_with_one_codebook_compare_by_cluster(self, runs):
        _, settings, first, second = runs
        diff = diff_selections(settings, first.run_id, second.run_id)
        before, after = (jobs.selected(Path(settings.workspace), r.run_id) for r in (first, second))
        assert (diff.rows_a, diff.rows_b) == (100, 60) and diff.clusters is not None
        assert diff.rows_out == len(
            set(before["gio_id"].to_pylist()) - set(after["gio_id"].to_pylist())
        )
        assert diff.page is None and diff.output == ""
        plain = diff.plain()
        assert plain["a"]["run"] == first.run_id and plain["rows_b"] == 60

    def test_a_number_is_a_publish_of_the_name_and_a_name_the_current_one(self, runs):
        _, settings, first, second = runs
        diff = diff_selections(settings, "1", "mine")
        assert [diff.a.label, diff.b.label] == ["mine@1", "mine@2"]
        assert [diff.a.run, diff.b.run] == [first.run_id, second.run_id]
        same = diff_selections(settings, "mine@2", second.run_id)
        assert (same.rows_in, same.rows_out, same.rows_both) == (0, 0, 60)

    def test_other_codebooks_do_not_compare_by_cluster(self, runs):
        folder, settings, first, _ = runs
        third = jobs.go(jobs.settings(folder, name="third", clusters=9))
        diff = diff_selections(settings, first.run_id, "third")
        assert diff.b.run == third.run_id and diff.clusters is None and diff.sources is not None

    def test_ids_are_written_as_csv_once(self, runs):
        folder, settings, *_ = runs
        diff = diff_selections(settings, "1", "2", output=str(folder / "d"), file_format="csv")
        rows = ds.dataset(diff.output, format="csv").to_table()
        assert rows.num_rows == diff.rows_in + diff.rows_out
        assert set(rows.column_names) == {"id", "change"}
        sources = pc.read_csv(folder / "d" / "sources.csv")
        assert sum(sources["rows_a"].to_pylist()) == 100
        with pytest.raises(InputError, match="is there already"):
            diff_selections(settings, "1", "2", output=str(folder / "d"))
        with pytest.raises(ConfigError, match="Unknown format 'xlsx'"):
            diff_selections(settings, "1", "2", output=str(folder / "e"), file_format="xlsx")

    def test_a_selection_that_is_not_there_is_one_error_that_names_the_others(self, runs, spark):
        folder, settings, first, _ = runs
        for text in ("mine@7", "run-nothing", "9", "mine@", "mine@x", "nobody@1"):
            with pytest.raises(InputError, match=rf"no selection '{text}'.*{first.run_id}.*mine@1"):
                diff_selections(settings, "mine@1", text)
        copy = folder / "copy"
        shutil.copytree(settings.workspace, copy)
        gone = jobs.settings(folder, name="mine", workspace=str(copy))
        table = PublishLog(Workspace(spark, str(copy))).find("mine", 1).table
        shutil.rmtree(copy / table)
        with pytest.raises(InputError, match=r"no selection 'mine@1'.*Publishes: mine@2"):
            diff_selections(gone, "mine@1", "mine@2")
