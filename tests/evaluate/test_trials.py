from __future__ import annotations

import math

import numpy as np
import pytest

from gio_spark.errors import ConfigError
from gio_spark.evaluate import trials
from gio_spark.evaluate.dataset_arrays import content_hash, dataset_from_arrays, dataset_to_arrays
from gio_spark.evaluate.measure_inputs import prepare_measure_inputs
from gio_spark.evaluate.measures import MEASURES
from gio_spark.registry import load_modules
from gio_spark.strategy.methods import method, method_registry
from gio_spark.tables import Workspace

from .small_datasets import small_dataset

MEASURED = [MEASURES["jsd"], MEASURES["energy"]]


def toy_plan(**changes):
    settings = {"task": "toy", "methods": ["random", "oracle"], "budgets": [0.1, 0.5],
             "seeds": [0, 1], "measures": MEASURED}  # fmt: skip
    return trials.TrialPlan(**{**settings, **changes})


@pytest.fixture
def broken():
    """A method that fails at large budgets, as long as it is marked broken."""
    state = {"calls": 0, "broken": True}

    @method("broken_for_tests")
    def select_rows(dataset, budget, seed):
        """Fail."""
        state["calls"] += 1
        if state["broken"] and budget > 100:
            raise MemoryError("no room for so many")
        return np.arange(budget)

    yield state
    method_registry.METHODS.entries.pop("broken_for_tests")


def test_a_dataset_survives_packing_to_the_bit():
    dataset = small_dataset(50, sources=np.array(["a", "b"] * 25))
    arrays = dataset_to_arrays(dataset)
    restored = dataset_from_arrays(arrays)
    assert content_hash(dataset_to_arrays(restored)) == content_hash(arrays)
    assert restored.texts.to_pylist() == dataset.texts.to_pylist()
    assert restored.sources.tolist() == dataset.sources.tolist()
    assert restored.tokens is None
    assert content_hash(dataset_to_arrays(small_dataset(50, seed=1))) != content_hash(arrays)


def test_null_and_sliced_texts_are_packed_too():
    import pyarrow as pa

    texts = pa.array(["gone", "kept", None, "älter"])[1:]
    dataset = small_dataset(3, texts=texts)
    assert dataset_from_arrays(dataset_to_arrays(dataset)).texts.to_pylist() == [
        "kept",
        "",
        "älter",
    ]


def test_a_rerun_computes_only_what_is_missing_or_changed(spark, tmp_path):
    dataset = small_dataset()
    first = trials.run_trials(spark, Workspace(spark, str(tmp_path)), dataset, toy_plan())
    assert (first.computed, first.reused, first.remaining) == (8, 0, 0)
    assert len(first.table) == 16
    again = trials.run_trials(spark, Workspace(spark, str(tmp_path)), dataset, toy_plan())
    assert (again.computed, again.reused) == (0, 8)
    columns = ["method", "budget", "seed", "measure"]
    values = [t.table.sort_values(columns)["value"].tolist() for t in (first, again)]
    assert values[0] == values[1]
    wider = toy_plan(methods=["random", "oracle", "stratified"], seeds=[0, 1, 2])
    extended = trials.run_trials(spark, Workspace(spark, str(tmp_path)), dataset, wider)
    assert (extended.computed, extended.reused) == (10, 8)
    with_coverage = toy_plan(measures=[*MEASURED, MEASURES["coverage"]])
    results = trials.run_trials(spark, Workspace(spark, str(tmp_path)), dataset, with_coverage)
    assert results.computed == 8
    assert set(results.table["measure"]) == {"jsd", "energy", "coverage"}
    other = trials.run_trials(
        spark, Workspace(spark, str(tmp_path)), small_dataset(seed=3), toy_plan()
    )
    assert other.computed == 8


def test_a_run_that_is_stopped_keeps_its_finished_waves(spark, tmp_path):
    dataset = small_dataset()
    wide = toy_plan(seeds=range(6), budgets=[0.1])
    waves = []

    class OutOfTimeError(Exception):
        pass

    def on_wave(done, total, last):
        waves.append((done, total))
        if len(waves) == 2:
            raise OutOfTimeError

    with pytest.raises(OutOfTimeError):
        trials.run_trials(spark, Workspace(spark, str(tmp_path)), dataset, wide, slots=1,
                        on_wave=on_wave)  # fmt: skip
    assert waves == [(4, 12), (8, 12)]
    resumed = trials.run_trials(spark, Workspace(spark, str(tmp_path)), dataset, wide, slots=1)
    assert (resumed.computed, resumed.reused) == (4, 8)
    stopped = trials.run_trials(
        spark, Workspace(spark, str(tmp_path)), dataset, toy_plan(), stop_at=-1.0
    )
    assert stopped.computed == 0
    assert stopped.remaining == 4  # the smaller budget is there


def test_a_method_that_fails_is_a_row_that_is_tried_again(spark, tmp_path, broken):
    dataset = small_dataset()
    plan = toy_plan(methods=["random", "broken_for_tests"], seeds=[0])
    results = trials.run_trials(spark, Workspace(spark, str(tmp_path)), dataset, plan)
    failed = results.table[results.table["error"] != ""]
    assert set(failed["method"]) == {"broken_for_tests"}
    assert set(failed["budget"]) == {0.5}
    assert failed["error"].tolist() == ["MemoryError: no room for so many"] * 2
    assert all(math.isnan(v) for v in failed["value"])
    broken["broken"] = False
    repaired = trials.run_trials(spark, Workspace(spark, str(tmp_path)), dataset, plan)
    assert repaired.computed == 1
    assert (repaired.table["error"] == "").all()
    assert len(repaired.table) == 8


def test_full_data_is_one_trial_whatever_budgets_and_seeds(spark, tmp_path):
    results = trials.run_trials(
        spark, Workspace(spark, str(tmp_path)), small_dataset(), toy_plan(methods=["full"])
    )
    assert results.table["budget"].tolist() == [1.0, 1.0]
    assert results.table["rows"].tolist() == [400, 400]


def test_a_measure_that_fails_is_an_error_of_its_own(spark, tmp_path):
    dataset = small_dataset(texts=None)
    plan = toy_plan(methods=["random"], seeds=[0], measures=[MEASURES["cross_entropy"], *MEASURED])
    results = trials.run_trials(spark, Workspace(spark, str(tmp_path)), dataset, plan)
    errors = results.table.set_index(["measure", "budget"])["error"]
    assert "no texts" in errors["cross_entropy", 0.1]
    assert errors["jsd", 0.1] == ""


def test_methods_of_ones_own_come_from_a_module_that_executors_import_too(spark, tmp_path):
    with pytest.raises(ConfigError, match=r"cannot import 'no\.such\.module'"):
        load_modules(("no.such.module",))
    plan = toy_plan(methods=["first_rows"], seeds=[0], modules=("tests.evaluate.user_method",))
    load_modules(plan.modules)
    results = trials.run_trials(spark, Workspace(spark, str(tmp_path)), small_dataset(), plan)
    assert (results.table["error"] == "").all()
    method_registry.METHODS.entries.pop("first_rows")


def test_a_method_that_takes_its_worker_along_spares_the_others(spark, tmp_path):
    @method("deadly_for_tests")
    def deadly(dataset, budget, seed):
        """Die of what no method may raise."""
        raise AssertionError("boom")

    plan = toy_plan(methods=["random", "deadly_for_tests"], seeds=[0])
    try:
        results = trials.run_trials(spark, Workspace(spark, str(tmp_path)), small_dataset(), plan)
    finally:
        method_registry.METHODS.entries.pop("deadly_for_tests")
    errors = results.table.groupby("method")["error"].first()
    assert errors["random"] == ""
    assert errors["deadly_for_tests"].startswith("The executor failed")
    assert len(results.table) == 8


@pytest.mark.spark
def test_trials_on_local_spark_are_those_of_this_process(local_spark, tmp_path):
    dataset = small_dataset()
    results = trials.run_trials(
        local_spark, Workspace(local_spark, str(tmp_path)), dataset, toy_plan(seeds=[0])
    )
    inputs = prepare_measure_inputs(dataset)
    for name in ("random", "oracle"):
        group = {"method": name, "seed": 0, "budgets": "0.1,0.5", "measures": "jsd,energy"}
        expected = trials.compute_group(dataset, inputs, group)
        values = results.table[results.table["method"] == name].set_index(["budget", "measure"])[
            "value"
        ]
        spark_values = [
            values[b, m] for b, m in zip(expected["budget"], expected["measure"], strict=True)
        ]
        assert spark_values == pytest.approx(expected["value"], abs=1e-9)
