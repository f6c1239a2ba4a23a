from __future__ import annotations

import math

import numpy as np
import pytest

from gio_spark.errors import ConfigError
from gio_spark.evaluate import trials
from gio_spark.evaluate.measure_inputs import make_ruler
from gio_spark.evaluate.measures import MEASURES
from gio_spark.evaluate.methods import base, method
from gio_spark.evaluate.pack import digest, pack, unpack
from gio_spark.tables import Workspace

from .datasets import small_arena

MEASURED = [MEASURES["jsd"], MEASURES["energy"]]


def plan(**changes):
    given = {"task": "toy", "methods": ["random", "oracle"], "budgets": [0.1, 0.5],
             "seeds": [0, 1], "measures": MEASURED}  # fmt: skip
    return trials.Plan(**{**given, **changes})


@pytest.fixture
def broken():
    """A method that fails at large budgets, as long as it is marked broken."""
    state = {"calls": 0, "broken": True}

    @method("broken_for_tests")
    def run(dataset, budget, seed):
        """Fail."""
        state["calls"] += 1
        if state["broken"] and budget > 100:
            raise MemoryError("no room for so many")
        return np.arange(budget)

    yield state
    base._METHODS.pop("broken_for_tests")


def test_an_arena_survives_packing_to_the_bit():
    dataset = small_arena(50, sources=np.array(["a", "b"] * 25))
    arrays = pack(dataset)
    again = unpack(arrays)
    assert digest(pack(again)) == digest(arrays)
    assert again.texts.to_pylist() == dataset.texts.to_pylist()
    assert again.sources.tolist() == dataset.sources.tolist()
    assert again.tokens is None
    assert digest(pack(small_arena(50, seed=1))) != digest(arrays)


def test_null_and_sliced_texts_are_packed_too():
    import pyarrow as pa

    texts = pa.array(["gone", "kept", None, "älter"])[1:]
    dataset = small_arena(3, texts=texts)
    assert unpack(pack(dataset)).texts.to_pylist() == ["kept", "", "älter"]


def test_a_rerun_computes_only_what_is_missing_or_changed(spark, tmp_path):
    dataset = small_arena()
    first = trials.run_cells(spark, Workspace(spark, str(tmp_path)), dataset, plan())
    assert (first.computed, first.reused, first.left) == (8, 0, 0)
    assert len(first.table) == 16
    again = trials.run_cells(spark, Workspace(spark, str(tmp_path)), dataset, plan())
    assert (again.computed, again.reused) == (0, 8)
    at = ["method", "budget", "seed", "measure"]
    values = [t.table.sort_values(at)["value"].tolist() for t in (first, again)]
    assert values[0] == values[1]
    wider = plan(methods=["random", "oracle", "stratified"], seeds=[0, 1, 2])
    more = trials.run_cells(spark, Workspace(spark, str(tmp_path)), dataset, wider)
    assert (more.computed, more.reused) == (10, 8)
    measure = plan(measures=[*MEASURED, MEASURES["coverage"]])
    beside = trials.run_cells(spark, Workspace(spark, str(tmp_path)), dataset, measure)
    assert beside.computed == 8
    assert set(beside.table["measure"]) == {"jsd", "energy", "coverage"}
    other = trials.run_cells(spark, Workspace(spark, str(tmp_path)), small_arena(seed=3), plan())
    assert other.computed == 8


def test_a_run_that_is_stopped_keeps_its_finished_waves(spark, tmp_path):
    dataset = small_arena()
    wide = plan(seeds=range(6), budgets=[0.1])
    waves = []

    class OutOfTimeError(Exception):
        pass

    def on_wave(done, total, last):
        waves.append((done, total))
        if len(waves) == 2:
            raise OutOfTimeError

    with pytest.raises(OutOfTimeError):
        trials.run_cells(spark, Workspace(spark, str(tmp_path)), dataset, wide, slots=1,
                        on_wave=on_wave)  # fmt: skip
    assert waves == [(4, 12), (8, 12)]
    rest = trials.run_cells(spark, Workspace(spark, str(tmp_path)), dataset, wide, slots=1)
    assert (rest.computed, rest.reused) == (4, 8)
    late = trials.run_cells(spark, Workspace(spark, str(tmp_path)), dataset, plan(), stop_at=-1.0)
    assert late.computed == 0
    assert late.left == 4  # the smaller budget is there


def test_a_method_that_fails_is_a_row_that_is_tried_again(spark, tmp_path, broken):
    dataset = small_arena()
    mine = plan(methods=["random", "broken_for_tests"], seeds=[0])
    out = trials.run_cells(spark, Workspace(spark, str(tmp_path)), dataset, mine)
    failed = out.table[out.table["error"] != ""]
    assert set(failed["method"]) == {"broken_for_tests"}
    assert set(failed["budget"]) == {0.5}
    assert failed["error"].tolist() == ["MemoryError: no room for so many"] * 2
    assert all(math.isnan(v) for v in failed["value"])
    broken["broken"] = False
    mended = trials.run_cells(spark, Workspace(spark, str(tmp_path)), dataset, mine)
    assert mended.computed == 1
    assert (mended.table["error"] == "").all()
    assert len(mended.table) == 8


def test_full_data_is_one_cell_whatever_budgets_and_seeds(spark, tmp_path):
    out = trials.run_cells(
        spark, Workspace(spark, str(tmp_path)), small_arena(), plan(methods=["full"])
    )
    assert out.table["budget"].tolist() == [1.0, 1.0]
    assert out.table["rows"].tolist() == [400, 400]


def test_a_measure_that_fails_is_an_error_of_its_own(spark, tmp_path):
    dataset = small_arena(texts=None)
    mine = plan(methods=["random"], seeds=[0], measures=[MEASURES["cross_entropy"], *MEASURED])
    out = trials.run_cells(spark, Workspace(spark, str(tmp_path)), dataset, mine)
    wrong = out.table.set_index(["measure", "budget"])["error"]
    assert "no texts" in wrong["cross_entropy", 0.1]
    assert wrong["jsd", 0.1] == ""


def test_methods_of_ones_own_come_from_a_module_that_executors_import_too(spark, tmp_path):
    with pytest.raises(ConfigError, match=r"cannot import 'no\.such\.module'"):
        trials.load_modules(("no.such.module",))
    mine = plan(methods=["first_rows"], seeds=[0], modules=("tests.evaluate.own_method",))
    trials.load_modules(mine.modules)
    out = trials.run_cells(spark, Workspace(spark, str(tmp_path)), small_arena(), mine)
    assert (out.table["error"] == "").all()
    base._METHODS.pop("first_rows")


def test_a_method_that_takes_its_worker_along_spares_the_others(spark, tmp_path):
    @method("deadly_for_tests")
    def deadly(dataset, budget, seed):
        """Die of what no method may raise."""
        raise AssertionError("boom")

    mine = plan(methods=["random", "deadly_for_tests"], seeds=[0])
    try:
        out = trials.run_cells(spark, Workspace(spark, str(tmp_path)), small_arena(), mine)
    finally:
        base._METHODS.pop("deadly_for_tests")
    wrong = out.table.groupby("method")["error"].first()
    assert wrong["random"] == ""
    assert wrong["deadly_for_tests"].startswith("The executor failed")
    assert len(out.table) == 8


@pytest.mark.spark
def test_cells_on_local_spark_are_those_of_this_process(local_spark, tmp_path):
    dataset = small_arena()
    out = trials.run_cells(
        local_spark, Workspace(local_spark, str(tmp_path)), dataset, plan(seeds=[0])
    )
    ruler = make_ruler(dataset)
    for name in ("random", "oracle"):
        group = {"method": name, "seed": 0, "budgets": "0.1,0.5", "measures": "jsd,energy"}
        here = trials.compute_group(dataset, ruler, group)
        there = out.table[out.table["method"] == name].set_index(["budget", "measure"])["value"]
        told = [there[b, m] for b, m in zip(here["budget"], here["measure"], strict=True)]
        assert told == pytest.approx(here["value"], abs=1e-9)
