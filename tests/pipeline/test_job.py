"""One whole job on vectors: its rows, its tables, its report, its record."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from gio_spark import curate
from gio_spark.settings.keywords import RunKeywords
from gio_spark.settings.run import SHORTHANDS, RunSettings
from tests.pipeline import jobs

pytestmark = pytest.mark.embedded

COLUMNS = {
    "embeddings": {
        "id",
        "vector",
        "reason",
        "content_hash",
        "row_hash",
        "tokens",
        "source",
        "quality",
        "event_time",
        "ingest_time",
        "label",
        "side",
        "embedder",
        "embedder_revision",
        "input_version",
        "fingerprint",
    },
    "models": {"model", "name", "type", "shape", "content", "fingerprint"},
    "centroids": {"side", "cluster", "vector", "rows", "tokens", "inertia", "fingerprint"},
    "assignments": {"id", "cluster", "distance", "tokens", "source", "fingerprint"},
    "plan": {"cluster", "rows", "take", "target_mass", "order", "divergence_after", "threshold"},
    "metrics": {"group", "metric", "value", "unit", "direction", "exactness", "rows", "nulls"},
    "runs": {"run", "stage", "fingerprint", "table", "version", "rows", "seconds", "finished"},
}
ADDED = ["gio_id", "gio_cluster", "gio_reason", "gio_log_ratio", "gio_input_version", "gio_run"]


def test_the_budget_is_met_to_the_row(job):
    rows = job.first.selected.toArrow()
    assert rows.num_rows == 100 == job.first.summary["selected_rows"]
    assert len(set(rows["gio_id"].to_pylist())) == 100
    assert job.first.plan["take"].sum() == 100


def test_the_selection_looks_like_the_target(job):
    sites = job.first.selected.toArrow()["site"].to_pylist()
    assert np.mean([s == "site-0" for s in sites]) > 0.95
    divergences = job.first.summary["divergences"]
    assert divergences["selection"] < 0.5 * divergences["random"]


def test_selected_rows_are_the_pools_own_columns_with_their_values_and_the_reason(job):
    rows = job.first.selected.toArrow()
    pool = jobs.vector_pool()
    assert rows.schema.names == [*pool.schema.names, *ADDED]
    pool_rows = {r["id"]: r for r in pool.to_pylist()}
    for row in rows.to_pylist():
        assert {name: row[name] for name in pool.schema.names} == pool_rows[row["id"]]
        assert row["gio_id"] == row["id"]
        assert row["gio_run"] == job.first.run_id
        assert row["gio_input_version"] == job.first.summary["versions"]["pool"]
        assert row["gio_reason"]


def test_every_stage_has_a_table_with_its_documented_columns(job):
    for name, columns in COLUMNS.items():
        assert columns <= set(jobs.table(job.workspace, name).schema.names), name
        assert job.first.tables[name] == str(job.workspace / name)
    assert "quarantine" not in job.first.tables  # made with the first bad row


def test_embeddings_hold_every_row_of_both_sides_once(job):
    rows = jobs.table(job.workspace, "embeddings").to_pylist()
    assert len(rows) == 680 == len({(r["side"], r["id"]) for r in rows})
    vectors = {r["id"]: r["vector"] for r in jobs.vector_pool().to_pylist()}
    for row in rows[:50]:
        if row["side"] == "pool":
            assert np.frombuffer(row["vector"], "<f4").tolist() == vectors[row["id"]]
    assert {(r["embedder"], r["reason"]) for r in rows} == {("vectors", None)}
    assert all(re.fullmatch("[0-9a-f]{32}", r["content_hash"]) for r in rows)


def test_figures_of_clusters_agree_with_the_assignments(job):
    assigned = jobs.table(job.workspace, "assignments").to_pandas()
    pool = assigned[assigned["id"].str.startswith("p")]
    centroids = jobs.table(job.workspace, "centroids").to_pandas()
    assert set(centroids["side"]) == {"fit", "pool", "target"}
    pool_clusters = centroids[centroids["side"] == "pool"].sort_values("cluster")
    counted = pool.groupby("cluster").agg(
        rows=("id", "size"), tokens=("tokens", "sum"), inertia=("distance", "sum")
    )
    counted = counted.reindex(pool_clusters["cluster"], fill_value=0)
    assert counted["rows"].tolist() == pool_clusters["rows"].tolist()
    assert counted["tokens"].tolist() == pool_clusters["tokens"].tolist()
    np.testing.assert_allclose(counted["inertia"], pool_clusters["inertia"], rtol=1e-4)
    plan = job.first.plan
    assert plan["rows"].tolist() == pool_clusters["rows"].tolist()
    assert (plan["take"] <= plan["rows"]).all()
    assert plan["target_mass"].sum() == pytest.approx(1, abs=1e-6)


def test_a_row_is_taken_from_the_cluster_that_it_is_assigned_to(job):
    assigned = jobs.table(job.workspace, "assignments").to_pandas().set_index("id")["cluster"]
    rows = job.first.selected.toArrow()
    assert assigned[rows["gio_id"].to_pylist()].tolist() == rows["gio_cluster"].to_pylist()
    taken = rows.to_pandas().groupby("gio_cluster").size()
    plan = job.first.plan.set_index("cluster")["take"]
    assert taken.to_dict() == plan[plan > 0].to_dict()


def test_metrics_are_given_for_pool_selection_and_random_rows(job):
    rows = jobs.table(job.workspace, "metrics").to_pylist()
    assert {r["group"].removeprefix("group=") for r in rows} == {"pool", "selected", "random"}
    assert {"volume", "variety", "scope", "coverage", "mismatch"} <= {r["metric"] for r in rows}


def test_every_stage_is_recorded_with_its_rows_and_the_version_it_wrote(job):
    rows = jobs.table(job.workspace, "runs").to_pylist()
    stages = {r["stage"]: r for r in rows}
    assert len(rows) == len(stages)
    assert {r["run"] for r in rows} == {job.first.run_id}
    assert stages["embed pool"]["rows"] == 600
    assert stages["select rows"]["rows"] == 100
    detail = json.loads(stages["run"]["detail"])
    assert detail["engine"].startswith("engine: embedded")
    assert detail["settings"]["budget"] == 100


def test_a_second_run_does_no_work_and_gives_the_same(job):
    assert job.first.did_work and not job.again.did_work
    assert job.again.run_id == job.first.run_id
    assert jobs.ids(job.again.selected) == jobs.ids(job.first.selected)
    assert job.again.plan.equals(job.first.plan)
    assert job.again.report == job.first.report


# ---- report ------------------------------------------------------------------------------------


def test_the_report_is_one_file_that_needs_nothing_else(job):
    page = job.first.report.read_text(encoding="utf-8")
    assert job.first.run_id in page
    loaded = re.findall(r"<(?:script|link|img|iframe)[^>]*?(?:src|href)=[\"']?([^\"'\s>]+)", page)
    assert all(one.startswith("data:") for one in loaded)
    assert "<svg" in page or "data:image" in page
    assert "@import" not in page
    assert not re.findall(r"url\(\s*['\"]?(?!data:|#)", page)


def test_the_figures_are_there_as_png_too(job):
    figures = list(job.first.report.parent.rglob("*.png"))
    assert len(figures) >= 3
    assert all(f.read_bytes()[:4] == b"\x89PNG" for f in figures)
    assert (job.first.report.parent / "plan.csv").exists()


# ---- record in MLflow --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tracked(job):
    """The run that MLflow has, read by MLflow's own client."""
    from mlflow.tracking import MlflowClient

    stores = list((job.workspace / "tracking").rglob("*.db"))
    uri = f"sqlite:///{stores[0]}" if stores else str(job.workspace / "tracking")
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("tests")
    (tracked_run,) = client.search_runs([experiment.experiment_id])
    return client, tracked_run


def test_the_run_is_recorded_with_its_settings(job, tracked):
    _, run = tracked
    assert run.info.status == "FINISHED"
    assert run.info.run_name == job.first.run_id
    assert run.data.params["budget"] == "100"
    assert run.data.params["quantize.clusters"] == "12"
    assert run.data.tags["gio.run"] == job.first.run_id
    assert run.data.tags["gio.engine"].startswith("engine: embedded")


def test_the_path_of_the_divergence_is_recorded_step_by_step(job, tracked):
    client, run = tracked
    points = client.get_metric_history(run.info.run_id, "divergence")
    order = job.first.plan[job.first.plan["order"] >= 0].sort_values("order")
    values = [p.value for p in sorted(points, key=lambda p: p.step)]
    np.testing.assert_allclose(values, order["divergence_after"])
    assert run.data.metrics["selected_rows"] == 100


def test_times_and_rows_of_the_stages_are_recorded(tracked):
    _, run = tracked
    text = " ".join(run.data.metrics)
    assert "embed" in text and "assign" in text


def test_inputs_are_recorded_with_their_versions(job, tracked):
    _, run = tracked
    inputs = {i.dataset.name: i for i in run.inputs.dataset_inputs}
    text = json.dumps(
        [
            [i.dataset.name, i.dataset.source, i.dataset.profile, i.dataset.digest]
            for i in inputs.values()
        ]
    )
    assert len(inputs) == 2
    for name in ("pool", "target"):
        assert job.first.summary["versions"][name] in text
        assert f"{name}.parquet" in text


def test_plan_and_report_are_artifacts(tracked):
    client, run = tracked
    artifacts = {a.path for a in client.list_artifacts(run.info.run_id, "report")}
    assert any(f.endswith(".html") for f in artifacts)
    assert any(f.endswith("plan.csv") for f in artifacts)


def test_a_curation_prints_as_a_short_summary(job):
    text = str(job.first)
    assert text == repr(job.first) and len(text.splitlines()) < 15
    for part in (job.first.run_id, "selected: 100 of 600 rows", "published: ", "nats (random rows"):
        assert part in text
    html = job.first._repr_html_()
    assert html.startswith("<table>") and "100 of 600 rows" in html


def test_terminal_report_and_tables_agree_on_counts(job):
    summary, page = job.first.summary, job.first.report.read_text(encoding="utf-8")
    take = jobs.table(job.workspace, "plan")["take"].to_numpy()
    clusters, with_rows = len(take), int((take > 0).sum())
    assert (summary["clusters"], summary["clusters_selected"]) == (clusters, with_rows)
    of_them = f"{with_rows} of them with rows selected"
    assert f"clusters: {clusters}, {of_them}" in str(job.first)
    assert f"{clusters} clusters, {of_them}" in page
    selected = jobs.table(job.workspace, "selected").num_rows
    usable = jobs.table(job.workspace, "assignments").num_rows
    pool, target = summary["pool_rows"], summary["target_rows"]
    assert (pool + target, selected) == (usable, summary["selected_rows"])
    assert f"selected: {selected} of {pool} rows" in str(job.first)
    assert f"From a pool of {pool} rows this run took {selected} " in page
    assert f"look like the target of {target} rows" in page
    assert not any(summary["quarantine"].values()) and "were quarantined" not in page


def test_keyword_settings_are_those_of_a_run():
    keywords = {"pool", "target", "budget", "workspace"}
    assert set(RunKeywords.__annotations__) == {*RunSettings.model_fields, *SHORTHANDS} - keywords


def test_settings_to_begin_with_are_overridden_by_keywords(tmp_path):
    pool = jobs.write(jobs.vector_pool(), tmp_path / "pool.parquet")
    target = jobs.write(jobs.vector_target(), tmp_path / "target.parquet")
    start = jobs.settings(tmp_path, seed=5, report={"title": "mine"})
    for settings in (start, start.model_dump(exclude_unset=True)):
        curation = curate(pool, target, 40, settings=settings, seed=6, workspace=tmp_path / "ws")
        used = curation.summary["settings"]
        assert (used["seed"], used["report"]["title"]) == (6, "mine")
        assert curation.summary["selected_rows"] == 40
