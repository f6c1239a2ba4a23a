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
from gio_spark.evaluate.run import ranks, tracked
from gio_spark.settings.load import build
from tests.pipeline import jobs

ASKED = {"methods": ["stratified", "nearest", "full"], "budgets": [0.1, 150], "seeds": 2}


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
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluate")
    jobs.write(table(jobs.vector_pool(), 1, clean=0.5), folder / "pool.parquet")
    jobs.write(table(jobs.vector_target(300), 2), folder / "target.parquet")
    jobs.write(table(jobs.vector_target(120, seed=5, name="h"), 3), folder / "held.parquet")
    return folder


def asked(folder, evaluate_settings, **changes):
    columns = {"id": "id", "vector": "vector", "source": "site", "label": "answer"}
    given = jobs.settings(folder, columns=columns, evaluate=evaluate_settings, **changes)
    return build(given.model_dump(mode="json"))


def go(spark, made):
    return evaluate(made, spark=spark, progress=Progress("silent"))


@pytest.fixture(scope="module")
def done(spark, place):
    made = asked(place, {**ASKED, "oracle": "right"},
                 tracking={"enabled": True, "experiment": "bake-off"})  # fmt: skip
    return go(spark, made), go(spark, made)


def test_every_method_is_judged_on_the_same_held_out_rows(done):
    first, again = done
    cells = first.cells
    assert set(cells["method"]) == {"random", "stratified", "nearest", "full"}
    assert set(cells["measure"]) == {"energy", "jsd", "coverage", "two_sample_auc",
                                     "proxy_linear"}  # fmt: skip
    assert sorted(cells["budget"].unique()) == [0.1, 0.25, 1.0]
    assert (cells["error"] == "").all()
    assert cells["value"].notna().all()
    energy = cells[cells["measure"] == "energy"].groupby("method")["value"].mean()
    assert energy["nearest"] < energy["random"]  # the target is one blob of four
    assert first.summary["computed"] == 13
    assert again.summary["computed"] == 0
    assert again.summary["reused"] == 13


def test_page_and_metrics_stand_beside_the_table(done, place):
    first, _ = done
    text = first.page.read_text(encoding="utf-8")
    assert "4 methods were compared on 1 task, at 3 budgets, with 2 seeds." in text
    assert "Ranks are by linear model alone" in text
    assert (first.page.parent / "evaluation.csv").exists()
    told = tracked(first.cells)
    assert told["energy/nearest/10pct"] == pytest.approx(
        first.cells.query("measure == 'energy' and method == 'nearest' and budget == .1")
        ["value"].mean()
    )  # fmt: skip
    assert "mean_rank/nearest" in told and "seconds/nearest" in told
    assert list((place / "ws" / "tracking").rglob("*")), "nothing was tracked"
    assert set(ranks(first.cells).methods) >= {"random", "stratified", "nearest"}


def test_the_terminal_shows_score_gain_rank_and_cost(done):
    first, _ = done
    out = Console(file=io.StringIO(), width=160)
    print_evaluation(out, first)
    text = out.file.getvalue()
    for part in ("linear model (higher is better)", "Gain over random: linear model",
                 "Ranks and costs", "also measured, see the page: energy distance",
                 str(first.page), "evaluations"):  # fmt: skip
        assert part in text
    # Full data is level: it has one budget of its own.
    assert text.count("full") == 2


def test_a_held_out_input_judges_instead_of_a_part_of_the_target(spark, place):
    made = asked(
        place, {**ASKED, "methods": ["nearest"], "measures": ["jsd"], "held_out_share": 0},
        held_out=[str(place / "held.parquet")],
        quantize={"max_passes": 3, "target_clusters": 4, "clusters": 12,
                  "contamination_cosine": 1.0},
    )  # fmt: skip
    out = go(spark, made)
    assert out.summary["target"] == "300 rows for the methods, 120 held out"


def test_frames_are_compared_without_files(spark, tmp_path):
    pool, target = (t.to_pandas() for t in (jobs.vector_pool(200), jobs.vector_target(150)))
    made = compare(
        pool, target, workspace=tmp_path / "ws", spark=spark,
        columns={"id": "id", "vector": "vector"}, tracking={"enabled": False},
        quantize={"max_passes": 2, "target_clusters": 2, "clusters": 8},
        evaluate={"methods": ["nearest"], "budgets": [20], "seeds": 1, "measures": ["energy"]},
    )  # fmt: skip
    value = made.cells.set_index("method")["value"]
    assert value["nearest"] < value["random"]


def test_a_method_of_ones_own_fails_as_a_row(spark, place):
    from gio_spark.evaluate.methods import base, method

    @method("mine_that_fails")
    def mine(dataset, budget, seed):
        """Fail."""
        raise RuntimeError("not today")

    try:
        out = go(spark, asked(place, {**ASKED, "methods": ["mine_that_fails"], "seeds": 1}))
    finally:
        base._METHODS.pop("mine_that_fails")
    failed = out.cells[out.cells["method"] == "mine_that_fails"]
    assert set(failed["error"]) == {"RuntimeError: not today"}
    assert "RuntimeError: not today" in out.page.read_text(encoding="utf-8")
    assert pd.notna(out.cells.loc[out.cells["method"] == "random", "value"]).all()


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
def test_bad_input_is_one_clear_message(spark, place, changes, error, message):
    with pytest.raises(error, match=message) as told:
        go(spark, asked(place, {**ASKED, **changes}))
    assert "\n" not in str(told.value)


def test_a_proxy_without_a_label_column_is_refused_before_anything_is_read(spark, tmp_path):
    made = jobs.settings(tmp_path, evaluate={**ASKED, "measures": ["proxy_linear"]})
    with pytest.raises(InputError, match=r"'proxy_linear' needs labels .* set columns.label"):
        go(spark, made)  # there is no file at all


def test_rows_without_labels_are_refused_where_a_proxy_was_asked_for(spark, place, tmp_path):
    pool = table(jobs.vector_pool(), 1)
    few = pa.array([None, *pool["answer"].to_pylist()[1:]])
    pool = pool.set_column(pool.column_names.index("answer"), "answer", few)
    jobs.write(pool, tmp_path / "pool.parquet")
    jobs.write(table(jobs.vector_target(300), 2), tmp_path / "target.parquet")
    made = asked(tmp_path, {**ASKED, "measures": ["proxy_linear"]})
    with pytest.raises(InputError, match="1 of the 600 sampled rows of the pool have no label"):
        go(spark, made)
