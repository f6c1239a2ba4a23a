"""Runs with `select.strategy: auto`: the choice, its record, and what is made of it later."""

from __future__ import annotations

import importlib
from io import StringIO

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from rich.console import Console

from gio_spark.cli.json_result import curation_facts, json_text
from gio_spark.cli.show import print_curation, print_planned_stages
from gio_spark.engine.progress import Progress
from gio_spark.errors import ConfigError
from gio_spark.pipeline.commands.explain_rows import explain_rows
from gio_spark.pipeline.commands.forecast import forecast
from gio_spark.pipeline.commands.score_table import score_table
from gio_spark.pipeline.refresh import refresh
from gio_spark.pipeline.run import plan_run
from gio_spark.pipeline.run_records import RunSummary
from gio_spark.pipeline.stage_runner import run_stages
from gio_spark.pipeline.stages import choose_strategy
from gio_spark.pipeline.stages.input_checks import check_choices
from gio_spark.pipeline.stages.open_inputs import open_context, opened_run, pin_inputs
from gio_spark.pipeline.stages.run_graph import run_graph
from gio_spark.pipeline.stages.sampled_rows import DatasetPart
from gio_spark.settings.inputs import InputSettings
from gio_spark.settings.strategy_settings import DEFAULT_STRATEGY, STRATEGIES
from gio_spark.strategy import strategy_sample
from gio_spark.strategy.strategy_choice import choose_strategy as choose
from tests.pipeline import jobs

pytestmark = pytest.mark.embedded
ROWS, TARGET, BUDGET = 2_400, 240, 400


def labelled_rows(name: str, rows: int, seed: int, *, target: bool) -> pa.Table:
    """Rows of three classes by their first number.

    The target is one of two groups of rows. The labels of the other group are in the reverse order,
    and those of the rows most like the target are drawn at random: quotas find the group, and a
    density ratio picks the rows in it from which nothing can be learned.
    """
    random = np.random.default_rng(seed)
    vectors = random.normal(size=(rows, 3)).astype(np.float32)
    labels = np.digitize(vectors[:, 0] + 0.3 * random.normal(size=rows), [-0.43, 0.43])
    if target:
        vectors[:, 2] *= 0.1
        vectors[:, 1] += 4
    else:
        is_other = random.random(rows) < 0.6
        vectors[:, 1] += np.where(is_other, -4, 4)
        labels[is_other] = 2 - labels[is_other]
        is_near = np.abs(vectors[:, 2]) < 0.7
        labels[is_near] = random.integers(0, 3, int(is_near.sum()))
    return pa.table(
        {
            "id": [f"{name}{i:05d}" for i in range(rows)],
            "vector": pa.array(list(vectors), pa.list_(pa.float32())),
            "class": [f"class-{label}" for label in labels],
        }
    )


def settings_of(folder, **changes):
    values = {
        "columns": {"source": None, "tokens": None, "label": "class"},
        "budget": BUDGET,
        "select": {"strategy": "auto"},
        "within_cluster": "density_ratio",
        "clusters": 8,
        "report": {"sample": 50, "examples": 0},
    }
    return jobs.settings(folder, **{**values, **changes})


@pytest.fixture(scope="module")
def job(spark, tmp_path_factory):
    folder = tmp_path_factory.mktemp("auto")
    jobs.write(labelled_rows("p", ROWS, 1, target=False), folder / "pool.parquet")
    jobs.write(labelled_rows("t", TARGET, 2, target=True), folder / "target.parquet")
    settings = settings_of(folder)
    jobs.go(settings, until="quantize")
    planned = plan_run(settings, progress=Progress("silent"))
    # Ends after the choice, so that the run below goes on with it.
    jobs.go(settings, until="select")
    settings = settings_of(folder, tracking={"enabled": True, "experiment": "auto"})
    return folder, settings, planned, jobs.go(settings)


def test_the_choice_is_that_of_the_function_on_the_same_sample(job):
    _, settings, _, run = job
    facts = RunSummary.model_validate(run.summary).strategy
    ctx = open_context(settings, progress=Progress("silent"), dry=True)
    with opened_run(ctx, pin_inputs(ctx), {}) as state:
        names = ["assignments.pool", "cluster_stats", "target_mass"]
        run_stages(ctx, run_graph(settings), state, names)
        dataset, ids = choose_strategy.strategy_dataset(ctx, state, BUDGET)
    assert len(ids) == dataset.rows
    assert dataset.rows == ROWS and dataset.weights is None
    assert (np.diff(dataset.hashes.astype(np.float64)) >= 0).all()
    names = tuple(one.name for one in facts.candidates)
    again = choose(dataset, BUDGET, settings.seed, names=names)
    assert facts.strategy != DEFAULT_STRATEGY
    assert (again.strategy, again.reason, again.judge) == (
        facts.strategy,
        facts.reason,
        facts.judge,
    )
    for one, other in zip(again.figures, facts.candidates, strict=True):
        assert (one.name, one.gain, one.gain_error) == (other.name, other.gain, other.gain_error)
    assert {one.name for one in facts.candidates} <= set(STRATEGIES)


def test_a_table_is_scored_by_the_chosen_strategy(job, tmp_path):
    folder, settings, _, run = job
    pool = InputSettings(location=str(folder / "pool.parquet"))
    scored = score_table(settings, pool, str(tmp_path / "scores"), progress=Progress("silent"))
    table = DeltaTable(scored.output).to_pyarrow_table()
    taken = table.filter(table["gio_keep"])["gio_id"].to_pylist()
    assert sorted(taken) == jobs.ids(run.selected)


def test_the_run_selects_what_a_run_of_the_chosen_strategy_selects(job):
    folder, _, _, run = job
    strategy = run.summary["strategy"]["strategy"]
    within_cluster = STRATEGIES[strategy]["explode.within_cluster"]
    named = settings_of(folder, select={"strategy": strategy}, within_cluster=within_cluster)
    assert jobs.picked_ids(named) == jobs.ids(run.selected)
    assert run.summary["settings"]["select"]["strategy"] == "auto"
    objective = STRATEGIES[strategy]["select.objective"]
    assert run.summary["objective"] == objective
    assert (run.summary["certificate"] is None) == (objective == "whole_pool")


def test_a_choice_is_made_once_and_is_part_of_the_plan(job):
    _, settings, planned, run = job
    stages = {stage.name: stage for stage in planned}
    assert not stages["strategy"].complete and stages["assign pool"].complete
    assert [s.name for s in planned].index("strategy") < [s.name for s in planned].index("plan")
    assert jobs.stages_done(run)["strategy"] and jobs.stages_done(run)["plan"]
    again = jobs.go(settings)
    assert not again.did_work and again.run_id == run.run_id
    planned_again = plan_run(settings, progress=Progress("silent"))
    terminal = StringIO()
    print_planned_stages(Console(width=200, file=terminal), planned_again)
    assert all(stage.complete for stage in planned_again)
    assert f"strategy: {run.summary['strategy']['strategy']}: " in terminal.getvalue()


def test_terminal_page_json_tracker_and_explanation_show_the_choice(job):
    folder, settings, _, run = job
    facts = RunSummary.model_validate(run.summary).strategy
    terminal = StringIO()
    print_curation(Console(width=400, file=terminal), run, None)
    assert facts.line in terminal.getvalue()
    page = run.report.read_text()
    assert facts.strategy in page and "gain over the default" in page
    assert f'"strategy": "{facts.strategy}"' in json_text(curation_facts(run))
    explained = explain_rows(settings, ["p00000", jobs.ids(run.selected)[0]])
    assert explained.selection.strategy == facts.line
    assert explained.rows[1]["taken"]
    import mlflow

    with_store = mlflow.MlflowClient(f"sqlite:///{folder}/ws/tracking/mlflow.db")
    experiment = with_store.get_experiment_by_name("auto")
    tracked = with_store.search_runs([experiment.experiment_id])[0].data
    assert tracked.tags["gio.strategy"] == facts.strategy
    assert tracked.metrics[f"strategy/{facts.strategy}"] == facts.candidates[0].gain


def test_a_refresh_follows_the_choice_of_the_run(job):
    folder, settings, _, run = job
    before = jobs.ids(run.selected)
    pool = labelled_rows("p", ROWS, 1, target=False)
    more = labelled_rows("q", 5, 3, target=True)
    jobs.write(pa.concat_tables([pool, more]), folder / "pool.parquet")
    first = refresh(settings, progress=Progress("silent"))
    jobs.write(pool, folder / "pool.parquet")
    second = refresh(settings, progress=Progress("silent"))
    assert first.did_work and second.did_work and first.after == second.after == BUDGET
    rows = jobs.selected(folder / "ws", run.run_id)
    assert sorted(rows["gio_id"].to_pylist()) == before
    records = jobs.table(folder / "ws", "runs").to_pylist()
    assert sum(one["stage"] == "strategy" for one in records) == 1


def test_without_a_judge_the_default_is_kept_and_said(place, spark):
    changes = {"select": {"strategy": "auto"}, "within_cluster": "density_ratio"}
    run = jobs.select(jobs.settings(place, **changes))
    records = jobs.table(place / "ws", "runs").to_pylist()
    chosen = next(one["detail"] for one in records if one["stage"] == "strategy")
    assert DEFAULT_STRATEGY in chosen and "no judge is known" in chosen
    default = jobs.settings(place, within_cluster="density_ratio")
    assert jobs.picked_ids(default) == jobs.ids(run.selected)


def test_ways_that_do_not_honour_the_settings_drop_out(tmp_path):
    settings = settings_of(tmp_path, budget="100 tokens", columns={"tokens": "words"})
    dropped = choose_strategy.dropped_strategies(settings)
    assert set(dropped) == {"classifier_top", "classifier_resample", "knn_retrieval", "random"}
    assert "a budget in tokens" in dropped["random"]
    assert not choose_strategy.dropped_strategies(settings_of(tmp_path))


def test_settings_that_auto_decides_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"auto chooses explode\.within_cluster"):
        check_choices(settings_of(tmp_path, within_cluster="exact_count"))


def test_a_large_pool_is_sampled_where_the_target_is(spark, tmp_path, monkeypatch):
    monkeypatch.setattr(strategy_sample, "SAMPLE_ROWS", 200)
    monkeypatch.setattr(strategy_sample, "LARGE_SAMPLE_ROWS", 400)
    monkeypatch.setattr(strategy_sample, "_ENOUGH_SELECTED", 100)
    jobs.write(labelled_rows("p", 1_200, 1, target=False), tmp_path / "pool.parquet")
    jobs.write(labelled_rows("t", TARGET, 2, target=True), tmp_path / "target.parquet")
    settings = settings_of(tmp_path)
    ctx = open_context(settings, progress=Progress("silent"))
    with opened_run(ctx, pin_inputs(ctx), {}) as state:
        names = ["assignments.pool", "cluster_stats", "target_mass"]
        run_stages(ctx, run_graph(settings), state, names)
        dataset, ids = choose_strategy.strategy_dataset(ctx, state, 30)
        again, same_ids = choose_strategy.strategy_dataset(ctx, state, 30)
        usual, _ = choose_strategy.strategy_dataset(ctx, state, 1_100)
    sizes = np.asarray(state.cluster_stats().rows)
    rates = strategy_sample.sampling_rates(sizes, dataset.target_mass, small_budget=True)
    assert ids.equals(same_ids) and np.array_equal(dataset.weights, again.weights)
    assert dataset.rows == pytest.approx(400, abs=80)
    drawn = np.bincount(dataset.cluster, minlength=len(sizes))
    error = np.sqrt(rates * (1 - rates) * sizes)
    assert (np.abs(drawn - rates * sizes) <= 5 * error + 1e-9).all()
    assert dataset.weights * rates[dataset.cluster] == pytest.approx(
        dataset.weights[0] * rates[dataset.cluster[0]]
    )
    assert dataset.weights.sum() == pytest.approx(1_200)
    # A larger budget is tried on rows that all stand for equally many.
    assert usual.rows == pytest.approx(200, abs=60) and np.ptp(usual.weights) < 1e-9


def test_a_registered_scorer_judges_and_groups_stay_together(spark, tmp_path):
    for name, rows, seed, target in (("pool", 1_200, 1, False), ("target", TARGET, 2, True)):
        table = labelled_rows(name[0], rows, seed, target=target)
        vectors = np.array(table["vector"].to_pylist())
        numbers = np.arange(rows) // 4
        documents = [None if n == 0 else f"{'' if target else 'p'}{n}" for n in numbers]
        table = table.append_column("height", pa.array(vectors[:, 1]))
        table = table.append_column("width", pa.array(np.abs(vectors[:, 2])))
        table = table.append_column("document", pa.array(documents))
        jobs.write(table, tmp_path / f"{name}.parquet")
    columns = {"source": None, "tokens": None, "group": "document"}
    settings = settings_of(
        tmp_path,
        budget=200,
        columns=columns,
        modules=["tests.pipeline.user_scorer"],
        select={"strategy": "auto", "scorer": "high-and-wide"},
    )
    ctx = open_context(settings, progress=Progress("silent"))
    with opened_run(ctx, pin_inputs(ctx), {}) as state:
        run_stages(ctx, run_graph(settings), state, ["strategy"])
        facts = state.strategy
        dataset, _ = choose_strategy.strategy_dataset(ctx, state, 200)
        target = state.datasets.targets[0]
        documents = target.source.rows.select("id", "document")
        sides = [
            DatasetPart(ctx, target, 0.3, side, "parts").rows().join(documents, "id").toPandas()
            for side in (True, False)
        ]
    assert facts.judge == "own score"
    assert facts.strategy in {*STRATEGIES} - {DEFAULT_STRATEGY, "random"}
    names = [one.name for one in facts.candidates if not one.problem]
    assert "upper-rows" in names
    assert "upper-rows, which a run cannot carry out, is better" in facts.reason
    from tests.pipeline.user_scorer import tables

    assert {"id", "class", "height", "document"} <= set(tables[0].column_names)
    assert sum(map(len, sides)) == TARGET and min(map(len, sides)) > 20
    shared = set(sides[0]["document"].dropna()) & set(sides[1]["document"].dropna())
    assert not shared
    # Rows without a group are groups of their own.
    assert len(set(dataset.target_groups)) == TARGET // 4 - 1 + 4
    assert len(set(dataset.groups)) == 1_200 // 4 - 1 + 4


def test_scorers_that_cannot_be_used_are_refused(tmp_path):
    unknown = settings_of(tmp_path, select={"strategy": "auto", "scorer": "none-such"})
    with pytest.raises(ConfigError, match="No scorer is called 'none-such'"):
        check_choices(unknown)
    without_auto = settings_of(tmp_path, select={"scorer": "high-and-wide"})
    importlib.import_module("tests.pipeline.user_scorer")
    with pytest.raises(ConfigError, match=r"set select\.strategy to auto"):
        check_choices(without_auto)


def test_a_forecast_has_the_time_and_the_memory_of_the_choice(tmp_path):
    def of(budget, strategy):
        settings = settings_of(tmp_path, budget=budget, select={"strategy": strategy})
        return forecast(
            pool=1_000_000, targets={"target": 2_000}, clusters=200, dimension=32,
            embedder="vectors", settings=settings, engine="local",
        )  # fmt: skip

    usual, small, without = of(0.1, "auto"), of(5_000, "auto"), of(0.1, "default")
    assert "strategy" not in without.core_seconds
    assert 0 < usual.core_seconds["strategy"] < small.core_seconds["strategy"]
    assert without.driver_bytes < usual.driver_bytes < small.driver_bytes < 2**31
