"""The whole of `gio-spark evaluate` on small tables, on the embedded engine."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from rich.console import Console

from gio_spark.cli.evaluate import print_evaluation
from gio_spark.engine.progress import Progress
from gio_spark.errors import ConfigError, InputError
from gio_spark.evaluate import compare, evaluate
from gio_spark.evaluate.compare_methods import flat_metrics, rank_methods
from gio_spark.settings.load import build
from tests.pipeline import jobs

EVALUATE = {"methods": ["stratified", "nearest", "full"], "budgets": [0.1, 150], "seeds": 2}


def table(rows: pa.Table, seed: int, *, clean: float = 1.0) -> pa.Table:
    """Rows with labels that the vectors tell, and a column that says which labels are right."""
    rng = np.random.default_rng(seed)
    first = np.array([v[0].as_py() for v in rows["vector"]])
    label = (first > np.median(first)).astype(int)
    right = rng.random(len(label)) < clean
    label = np.where(right, label, rng.integers(0, 2, len(label)))
    rows = rows.append_column("answer", pa.array(label))
    return rows.append_column("right", pa.array(right.astype(float)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluate")
    jobs.write(table(jobs.vector_pool(), 1, clean=0.5), folder / "pool.parquet")
    jobs.write(table(jobs.vector_target(300), 2), folder / "target.parquet")
    jobs.write(table(jobs.vector_target(120, seed=5, name="h"), 3), folder / "held.parquet")
    return folder


def settings_of(folder, evaluate_settings, **changes):
    columns = {"id": "id", "vector": "vector", "source": "site", "label": "answer"}
    settings = jobs.settings(folder, columns=columns, evaluate=evaluate_settings, **changes)
    return build(settings.model_dump(mode="json"))


def run_evaluation(spark, settings):
    return evaluate(settings, spark=spark, progress=Progress("silent"))


@pytest.fixture(scope="module")
def evaluations(spark, folder):
    settings = settings_of(folder, {**EVALUATE, "oracle": "right"},
                 tracking={"enabled": True, "experiment": "bake-off"})  # fmt: skip
    return run_evaluation(spark, settings), run_evaluation(spark, settings)


def test_every_method_is_judged_on_the_same_held_out_rows(evaluations):
    first, rerun = evaluations
    trials = first.trials
    assert set(trials["method"]) == {"random", "stratified", "nearest", "full"}
    assert set(trials["measure"]) == {"energy", "jsd", "coverage", "two_sample_auc",
                                     "proxy_linear"}  # fmt: skip
    assert sorted(trials["budget"].unique()) == [0.1, 0.25, 1.0]
    assert (trials["error"] == "").all()
    assert trials["value"].notna().all()
    energy = trials[trials["measure"] == "energy"].groupby("method")["value"].mean()
    assert energy["nearest"] < energy["random"]  # the target is one blob of four
    assert first.summary["computed"] == 13
    assert rerun.summary["computed"] == 0
    assert rerun.summary["reused"] == 13


def test_page_and_metrics_stand_beside_the_table(evaluations, folder):
    first, _ = evaluations
    text = first.page.read_text(encoding="utf-8")
    assert "4 methods were compared on 1 task, at 3 budgets, with 2 seeds." in text
    assert "Ranks are by linear model alone" in text
    assert (first.page.parent / "evaluation.csv").exists()
    metrics = flat_metrics(first.trials)
    assert metrics["energy/nearest/10pct"] == pytest.approx(
        first.trials.query("measure == 'energy' and method == 'nearest' and budget == .1")
        ["value"].mean()
    )  # fmt: skip
    assert "mean_rank/nearest" in metrics and "seconds/nearest" in metrics
    assert list((folder / "ws" / "tracking").rglob("*")), "nothing was tracked"
    assert set(rank_methods(first.trials).methods) >= {"random", "stratified", "nearest"}


def test_the_terminal_shows_score_gain_rank_and_cost(evaluations):
    first, _ = evaluations
    console = Console(file=io.StringIO(), width=160)
    print_evaluation(console, first)
    text = console.file.getvalue()
    for part in ("linear model (higher is better)", "Gain over random: linear model",
                 "Ranks and costs", "also measured, see the page: energy distance",
                 str(first.page), "evaluations"):  # fmt: skip
        assert part in text
    # Full data is level: it has one budget of its own.
    assert text.count("full") == 2


def test_a_held_out_input_judges_and_auto_is_judged_by_a_part_of_the_target(spark, folder):
    settings = settings_of(
        folder, {"methods": ["auto"], "budgets": [250], "seeds": 1, "measures": ["jsd"],
                 "held_out_share": 0},
        held_out=[str(folder / "held.parquet")],
        quantize={"max_passes": 3, "target_clusters": 4, "clusters": 12,
                  "contamination_cosine": 1.0},
    )  # fmt: skip
    evaluation = run_evaluation(spark, settings)
    assert evaluation.summary["target"] == "300 rows for the methods, 120 held out"
    (note,) = evaluation.trials.loc[evaluation.trials["method"] == "auto", "note"]
    assert "Judge: AUC of a proxy, 225 target rows in 3 splits." in note
    strategy = note.split(":")[0]
    assert f"{strategy}: " in evaluation.page.read_text(encoding="utf-8")
    console = Console(file=io.StringIO(), width=160)
    print_evaluation(console, evaluation)
    assert f"auto at 41.6667 %: {strategy} (1)" in console.file.getvalue()


def test_frames_are_compared_without_files(spark, tmp_path):
    pool, target = (t.to_pandas() for t in (jobs.vector_pool(200), jobs.vector_target(150)))
    evaluation = compare(
        pool, target, workspace=tmp_path / "ws", spark=spark,
        columns={"id": "id", "vector": "vector"}, tracking={"enabled": False},
        quantize={"max_passes": 2, "target_clusters": 2, "clusters": 8},
        evaluate={"methods": ["nearest"], "budgets": [20], "seeds": 1, "measures": ["energy"]},
    )  # fmt: skip
    value = evaluation.trials.set_index("method")["value"]
    assert value["nearest"] < value["random"]


def test_proxies_see_categorical_columns_of_many_values(spark, tmp_path):
    rng = np.random.default_rng(0)
    effect = rng.normal(0, 2.5, 300)
    for name, rows in (("pool", 3_000), ("target", 600)):
        user = rng.integers(0, 300, rows)
        clicked = rng.random(rows) < 1 / (1 + np.exp(-effect[user]))
        jobs.write(
            pa.table(
                {
                    "id": [f"{name}{i}" for i in range(rows)],
                    "user": [f"u{i}" for i in user],
                    "hour": rng.integers(0, 24, rows).astype(float),
                    "clicked": clicked.astype(int),
                }
            ),
            tmp_path / f"{name}.parquet",
        )
    columns = {"id": "id", "numeric": ["hour"], "categorical": ["user"], "label": "clicked"}
    settings = jobs.settings(tmp_path).model_dump(mode="json") | {"columns": columns}
    settings["evaluate"] |= {
        "methods": ["full"], "budgets": [0.5], "seeds": 1, "measures": ["proxy_linear"],
    }  # fmt: skip
    trials = run_evaluation(spark, build(settings)).trials.set_index("method")
    # The embedding has 64 hashed columns for 300 users; the best possible score is about .87.
    assert trials.loc["full", "value"] > 0.78


def test_a_method_of_ones_own_fails_as_a_row(spark, folder):
    from gio_spark.strategy.methods import method, method_registry

    @method("mine_that_fails")
    def mine(dataset, budget, seed):
        """Fail."""
        raise RuntimeError("not today")

    try:
        evaluation = run_evaluation(
            spark, settings_of(folder, {**EVALUATE, "methods": ["mine_that_fails"], "seeds": 1})
        )
    finally:
        method_registry.METHODS.entries.pop("mine_that_fails")
    failed = evaluation.trials[evaluation.trials["method"] == "mine_that_fails"]
    assert set(failed["error"]) == {"RuntimeError: not today"}
    assert "RuntimeError: not today" in evaluation.page.read_text(encoding="utf-8")
    assert pd.notna(evaluation.trials.loc[evaluation.trials["method"] == "random", "value"]).all()


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"methods": ["nerest"]}, ConfigError, "did you mean 'nearest'"),
        ({"measures": ["enrgy"]}, ConfigError, "did you mean 'energy'"),
        ({"held_out_share": 0}, InputError, "no held-out target"),
        ({"budgets": [601]}, InputError, "601 rows are above the pool, which has 600"),
        ({"budgets": ["120 %"]}, ConfigError, "neither a whole number nor a share"),
        ({"methods": ["dsir"]}, InputError, "'dsir' needs columns.text of pool and targets"),
        ({"budgets": ["2k tokens"]}, InputError, "neither rows"),
        ({"methods": ["oracle"]}, InputError, "'oracle' needs evaluate.oracle: name the column"),
        ({"oracle": "rihgt"}, InputError, "'rihgt', which is no column of the pool"),
        ({"measures": ["cross_entropy"]}, InputError, "needs texts"),
        ({"held_out_share": 0.01}, InputError, "at least 50 held-out rows"),
    ],
)
def test_bad_input_is_one_clear_message(spark, folder, changes, error, message):
    with pytest.raises(error, match=message) as raised:
        run_evaluation(spark, settings_of(folder, {**EVALUATE, **changes}))
    assert "\n" not in str(raised.value)


def test_a_proxy_without_a_label_column_is_refused_before_anything_is_read(spark, tmp_path):
    settings = jobs.settings(tmp_path, evaluate={**EVALUATE, "measures": ["proxy_linear"]})
    with pytest.raises(InputError, match=r"'proxy_linear' needs labels .* set columns.label"):
        run_evaluation(spark, settings)  # there is no file at all


def test_rows_without_labels_are_refused_where_a_proxy_was_asked_for(spark, folder, tmp_path):
    pool = table(jobs.vector_pool(), 1)
    with_null = pa.array([None, *pool["answer"].to_pylist()[1:]])
    pool = pool.set_column(pool.column_names.index("answer"), "answer", with_null)
    jobs.write(pool, tmp_path / "pool.parquet")
    jobs.write(table(jobs.vector_target(300), 2), tmp_path / "target.parquet")
    settings = settings_of(tmp_path, {**EVALUATE, "measures": ["proxy_linear"]})
    with pytest.raises(InputError, match="1 of the 600 sampled rows of the pool have no label"):
        run_evaluation(spark, settings)
