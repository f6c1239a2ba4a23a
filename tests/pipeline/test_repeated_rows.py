"""Runs in which rows of scarce clusters repeat: counts, refresh, explanation, refusals."""

from __future__ import annotations

import json
from io import StringIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from rich.console import Console

from gio_spark import explode, read_selection
from gio_spark.cli.show import print_curation
from gio_spark.engine.progress import Progress
from gio_spark.errors import BudgetError, ConfigError, InputError
from gio_spark.pipeline.commands.explain_rows import explain_rows
from gio_spark.pipeline.refresh import refresh
from gio_spark.pipeline.run_records import RunSummary
from gio_spark.pipeline.stages.density_ratio import load_ratio
from gio_spark.pipeline.stages.input_checks import check_choices
from gio_spark.tables import Workspace
from tests.pipeline import jobs

pytestmark = pytest.mark.embedded

REPEAT = {"repeat": {"max": 4, "decay": 15}}
# The target's blob has 150 of the pool's 600 rows.
BUDGET = 400


@pytest.fixture(scope="module")
def job(spark, tmp_path_factory):
    folder = tmp_path_factory.mktemp("repeat")
    jobs.write(jobs.vector_pool(), folder / "pool.parquet")
    jobs.write(jobs.vector_target(), folder / "target.parquet")
    settings = jobs.settings(
        folder, budget=BUDGET, select=REPEAT, within_cluster="density_ratio", name="repeated"
    )
    return folder, settings, jobs.go(settings)


def repeats(rows: pa.Table) -> dict[str, int]:
    return dict(zip(rows["gio_id"].to_pylist(), rows["gio_repeat"].to_pylist(), strict=True))


def test_repeats_add_up_to_the_budget_and_only_rows_like_the_target_repeat(job):
    _, settings, run = job
    rows = jobs.picked(settings, run).to_pandas()
    assert rows["gio_repeat"].sum() == run.summary["spent"] == run.summary["copies"] == BUDGET
    assert rows["gio_repeat"].between(1, 4).all() and (rows["gio_repeat"] > 1).any()
    assert run.summary["selected_rows"] == len(rows) < 160
    assert (rows.loc[rows["gio_repeat"] > 1, "site"] == "site-0").mean() > 0.95
    plan = run.plan.set_index("cluster")
    by_cluster = rows.groupby("gio_cluster")
    taken = plan[plan["take"] > 0]
    assert (by_cluster["gio_repeat"].sum() == taken["copies"]).all()
    assert (by_cluster["gio_repeat"].count() == taken["take"]).all()
    assert by_cluster["gio_weight"].sum().to_numpy() == pytest.approx(taken["fractional"])
    assert rows["gio_weight"].sum() == pytest.approx(BUDGET, abs=2)
    # Rows out of reach of the ratio stay out, though the clusters have them.
    facts = run.plan
    assert (facts["take"] < facts["rows"])[facts["copies"] > facts["take"]].any()
    assert run.summary["certificate"][2] < 1e-9
    assert any(phrase.startswith("repetition: ") for phrase in run.summary["binding"])


def test_rows_within_reach_are_those_that_most_of_the_target_has(job, spark):
    folder, _, run = job
    workspace = Workspace(spark, str(folder / "ws"), writable=False)
    summary = RunSummary.model_validate(run.summary)
    model = explode.RatioModel.from_arrays(load_ratio(workspace, summary.keys.ratio).arrays)
    key, assigned = summary.keys.embeddings["target"], summary.keys.assignments["target"]
    content = workspace.read("embeddings", key).selectExpr("id", "vector AS content")
    target = explode.score(content, model, content="content", keep=()).toPandas()
    clusters = workspace.read("assignments", assigned).select("id", "cluster").toPandas()
    target = target.merge(clusters, on="id")
    pool = workspace.read("scores", summary.keys.scores).select("cluster", "log_ratio").toPandas()
    plan = run.plan.set_index("cluster")
    mass = plan["target_mass"]
    offset = np.log(mass[mass > 0]) - np.log(plan["rows"][mass > 0] / plan["rows"].sum())

    def inside(rows):
        rows = rows[rows["cluster"].isin(offset.index)]
        ratio = rows["log_ratio"].astype(float) - offset.loc[rows["cluster"]].to_numpy()
        return rows.assign(bin=np.floor(100 * ratio))

    # The largest limit that 95 % of the target's rows reach.
    limit = np.sort(inside(target)["bin"])[int(0.05 * len(target))]
    reached = inside(pool)
    fresh = reached[reached["bin"] >= limit].groupby("cluster").size()
    expected = fresh.reindex(offset.index).fillna(0).clip(lower=1).astype(int)
    repeated = plan.index[plan["copies"] > plan["take"]]
    assert len(repeated) and (plan["take"][repeated] == expected[repeated]).all()
    assert (plan["take"][offset.index] <= expected).all()
    facts = json.loads(
        jobs.table(folder / "ws", "runs").filter(pc.field("stage") == "plan")["detail"][0].as_py()
    )
    assert facts["fresh_rows"] == expected.sum() + plan["rows"].drop(offset.index).sum()


def test_readers_terminal_report_and_explanation_show_repeats(job):
    folder, settings, run = job
    published = read_selection("repeated", workspace=folder / "ws", engine="embedded")
    assert {"gio_repeat", "gio_weight"} <= set(published.columns)
    terminal = StringIO()
    print_curation(Console(width=200, file=terminal), run, None)
    assert f"{BUDGET} rows (gio_repeat" in terminal.getvalue()
    assert ("with repeats", f"{BUDGET:,} rows") in run.lines()
    page = run.report.read_text()
    assert f"they count as {BUDGET} rows" in page and "with repeats" in page
    counts = repeats(jobs.picked(settings, run))
    some = max(counts, key=lambda i: (counts[i], i))
    left_out = next(f"p{i:05d}" for i in range(600) if f"p{i:05d}" not in counts)
    explained = explain_rows(settings, [some, left_out])
    assert [row["repeat"] for row in explained.rows] == [counts[some], None]
    assert "copies, each row" in explained.rows[0]["why"]


def test_a_refresh_holds_the_budget_in_repeats_and_depends_on_the_present_rows_alone(job):
    folder, settings, run = job
    before = repeats(jobs.picked(settings, run))
    pool = pa.concat_tables(
        [jobs.vector_pool().slice(50), jobs.vector_pool(100, seed=11, name="n")]
    )
    jobs.write(pool, folder / "pool.parquet")
    refreshed = refresh(settings, progress=Progress("silent"))
    after = repeats(jobs.picked(settings, run))
    assert refreshed.after == len(after)
    assert sum(after.values()) == refreshed.plan.spent == BUDGET
    assert all(1 <= n <= 4 for n in after.values())
    assert any(i.startswith("n") for i in after) and after != before
    # The limit of the ratio is that of the run: back at its pool, the selection is the run's.
    jobs.write(jobs.vector_pool(), folder / "pool.parquet")
    refresh(settings, progress=Progress("silent"))
    assert repeats(jobs.picked(settings, run)) == before


def test_copies_count_in_tokens(place):
    config = jobs.settings(place, budget="8000 tokens", select=REPEAT)
    run = jobs.go(config)
    rows = jobs.picked(config, run).to_pandas()
    spent = (rows["words"] * rows["gio_repeat"]).sum()
    assert rows["gio_repeat"].max() > 1
    assert spent == run.summary["spent"] == pytest.approx(8000, rel=0.1)


def test_several_targets_and_a_replay_share(place):
    jobs.write(jobs.vector_target(40, blob=1, seed=3, name="u"), place / "other.parquet")
    targets = [
        {"location": str(place / "target.parquet"), "share": 3},
        {"location": str(place / "other.parquet"), "share": 1},
    ]
    config = jobs.settings(place, target=targets, budget=1300, select={**REPEAT, "replay": 0.1})
    rows = jobs.picked(config, jobs.select(config)).to_pandas()
    assert rows["gio_repeat"].sum() == 1300
    by_site = rows.groupby("site")["gio_repeat"].sum()
    assert set(by_site.index) == {f"site-{i}" for i in range(4)}
    assert by_site["site-0"] > by_site["site-1"] > by_site["site-2"]


def test_a_budget_above_all_repeats_names_the_largest(place):
    with pytest.raises(BudgetError, match="every row 4 times") as error:
        jobs.select(jobs.settings(place, budget=2300, select=REPEAT))
    largest = int(error.value.largest)
    config = jobs.settings(place, budget=largest, select=REPEAT)
    rows = jobs.picked(config, jobs.select(config)).to_pandas()
    assert rows["gio_repeat"].sum() == largest and (rows["gio_repeat"] == 4).all()
    with pytest.raises(InputError, match="2,400 with every row 4 times"):
        jobs.select(jobs.settings(place, budget=2401, select=REPEAT))


def test_settings_that_repetition_cannot_honor_are_refused_by_name(tmp_path):
    for block, name in [
        ({"select": {**REPEAT, "source_caps": {"a": 0.5}}}, "select.source_caps"),
        ({"select": {**REPEAT, "objective": "knn_kl"}}, "select.objective: knn_kl"),
        ({"select": REPEAT, "gime": {"thresholds": {"scope": 0.5}}}, "gime.thresholds"),
        ({"select": REPEAT, "gime": {"level": 0.95}}, "gime.level"),
        ({"select": REPEAT, "refresh": {"budget": "float"}}, "refresh.budget: float"),
    ]:
        with pytest.raises(ConfigError, match=f"select.repeat cannot .*{name}"):
            check_choices(jobs.settings(tmp_path, **block))


def test_settings_without_repetition_are_those_of_earlier_versions(tmp_path):
    assert "repeat" not in jobs.settings(tmp_path).model_dump(mode="json")["select"]
    select = jobs.settings(tmp_path, select=REPEAT).model_dump(mode="json")["select"]
    assert select["repeat"] == {"max": 4, "decay": 15.0}
