"""Runs without quotas per cluster: the rows that rank highest in the whole pool."""

from __future__ import annotations

from io import StringIO

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from rich.console import Console

from gio_spark.cli.show import print_curation
from gio_spark.engine.progress import Progress
from gio_spark.errors import ConfigError
from gio_spark.pipeline.commands.explain_rows import explain_rows
from gio_spark.pipeline.refresh import refresh
from gio_spark.pipeline.stages.input_checks import check_choices
from gio_spark.settings.refresh import RefreshSettings
from tests.pipeline import jobs

pytestmark = pytest.mark.embedded
BUDGET = 100
# The settings of a job without those that a strategy decides.
OPEN = {"within_cluster": "density_ratio", "report": {"sample": 50, "examples": 0}}


@pytest.fixture(scope="module", params=["classifier_top", "knn_retrieval"])
def job(request, spark, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    jobs.write(jobs.vector_pool(), folder / "pool.parquet")
    jobs.write(jobs.vector_target(), folder / "target.parquet")
    settings = jobs.settings(
        folder, budget=BUDGET, select={"strategy": request.param}, name="top", **OPEN
    )
    return folder, settings, jobs.go(settings)


def test_the_rows_with_the_largest_ratios_are_taken_whatever_their_cluster(job):
    folder, settings, run = job
    scores = jobs.table(folder / "ws", "scores").to_pandas()
    best = scores.nlargest(BUDGET, "log_ratio")
    rows = jobs.picked(settings, run)
    assert rows.num_rows == BUDGET == run.summary["selected_rows"]
    ratios = rows["gio_log_ratio"].to_numpy()
    assert ratios.min() >= best["log_ratio"].min()
    assert (run.plan["take"] == run.plan["cluster"].map(
        best.groupby("cluster").size()).fillna(0)).mean() > 0.8  # fmt: skip
    assert run.summary["objective"] == "whole_pool"
    assert run.summary["certificate"] is None
    left_out = scores[~scores["id"].isin(rows["gio_id"].to_pylist())]["id"].iloc[0]
    explained = explain_rows(settings, [rows["gio_id"][0].as_py(), left_out])
    assert [row["taken"] for row in explained.rows] == [True, False]
    assert explained.rows[1]["rule"] in ("below_threshold", "no_allocation")
    assert "each chosen for how much it looks like the target" in run.report.read_text()
    terminal = StringIO()
    print_curation(Console(width=400, file=terminal), run, None)
    assert "whole_pool, all rows by density_ratio" in terminal.getvalue()
    assert "inside a cluster" not in terminal.getvalue()


def test_a_refresh_ranks_the_present_rows_by_the_frozen_ratio(job):
    folder, settings, run = job
    before = set(jobs.picked(settings, run)["gio_id"].to_pylist())
    pool = jobs.vector_pool()
    gone = pc.is_in(pool["id"], pa.array(sorted(before)[:10]))
    jobs.write(pool.filter(pc.invert(gone)), folder / "pool.parquet")
    refreshed = refresh(settings, progress=Progress("silent"))
    after = set(jobs.selected(folder / "ws", run.run_id)["gio_id"].to_pylist())
    scores = jobs.table(folder / "ws", "scores").to_pandas()
    following = scores[~scores["id"].isin(before)].nlargest(10, "log_ratio")
    assert (refreshed.dropped, refreshed.added, refreshed.after) == (10, 10, BUDGET)
    assert after - before == set(following["id"])
    assert refreshed.plan is not None and refreshed.plan.certificate is None


def test_with_a_floating_budget_new_rows_pass_the_threshold_of_the_run(job):
    folder, settings, run = job
    pool = pa.concat_tables([jobs.vector_pool(), jobs.vector_target(rows=40, seed=9, name="q")])
    jobs.write(pool, folder / "pool.parquet")
    floating = settings.model_copy(update={"refresh": RefreshSettings(budget="float")})
    refreshed = refresh(floating, progress=Progress("silent"))
    after = jobs.selected(folder / "ws", run.run_id)
    scores = jobs.table(folder / "ws", "scores").to_pandas().drop_duplicates("id")
    lowest = min(run.selected.select("gio_log_ratio").toArrow()["gio_log_ratio"].to_pylist())
    above = scores[scores["log_ratio"] > lowest]["id"]
    assert set(above) <= set(after["gio_id"].to_pylist())
    assert refreshed.after > BUDGET and run.plan["threshold"].nunique() == 1


def test_random_rows_are_a_draw_from_the_whole_pool(place, spark):
    settings = jobs.settings(place, select={"strategy": "random"}, within_cluster="exact_count")
    rows = jobs.picked(settings, jobs.select(settings))
    shares = rows.to_pandas()["site"].value_counts(normalize=True)
    assert rows.num_rows == BUDGET and len(shares) == jobs.BLOBS
    assert shares.between(0.1, 0.4).all()


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"select": {"strategy": "random", "source_caps": {"site-1": 0.2}}}, "source_caps"),
        ({"select": {"strategy": "random", "replay": 0.2}}, "select.replay"),
        ({"select": {"strategy": "random"}, "budget": "500 tokens"}, "a budget in tokens"),
        ({"select": {"objective": "whole_pool"}, "within_cluster": "hash_share"}, "hash_share"),
    ],
)
def test_what_needs_quotas_is_refused_by_name(tmp_path, changes, name):
    with pytest.raises(ConfigError, match=name):
        check_choices(jobs.settings(tmp_path, **changes))
