"""Work begun ahead: its result comes, and so does its error; what is lazy stays so."""

from __future__ import annotations

import gc
import sys
import threading

import pyarrow as pa
import pytest

from gio_spark.engine import ahead, map_arrow, slots
from gio_spark.engine.load import loading


def failing():
    raise ValueError("no such thing")


@pytest.mark.embedded
def test_the_embedded_engine_works_when_it_is_asked_and_only_once(spark):
    done = []
    asked = ahead(spark, lambda: done.append(1) or len(done))
    never = ahead(spark, failing)
    assert done == []
    assert (asked(), asked(), done) == (1, 1, [1])
    with pytest.raises(ValueError, match="no such thing"):
        never()


@pytest.mark.spark
def test_queries_go_on_side_by_side_and_hand_on_results_and_errors(local_spark):
    both = threading.Barrier(2, timeout=60)

    def count(rows):
        both.wait()  # neither gets past this unless the other has begun as well
        return local_spark.range(rows).count()

    one, other = (ahead(local_spark, lambda n=n: count(n)) for n in (3, 5))
    assert (one(), other(), one()) == (3, 5, 3)
    broken = ahead(local_spark, failing)
    for _ in range(2):
        with pytest.raises(ValueError, match="no such thing"):
            broken()


@pytest.mark.spark
def test_workers_of_a_local_engine_start_with_the_package_loaded(local_spark):
    def look(batches):
        import sys

        for _ in batches:
            there = [name in sys.modules for name in ("gio_spark.gime", "gio_spark.quantize")]
            yield pa.table({"loaded": there})

    rows = local_spark.range(0, slots(local_spark), 1, slots(local_spark))
    assert set(map_arrow(rows, look, "loaded boolean").toArrow()["loaded"].to_pylist()) == {True}


def test_nothing_is_collected_while_modules_are_imported_and_again_afterwards():
    with loading(["colorsys"]):
        assert not gc.isenabled()
    assert gc.isenabled()
    gc.disable()
    try:
        with loading(["colorsys"]):
            pass
        assert not gc.isenabled()  # whoever has turned it off keeps it so
    finally:
        gc.enable()


def test_modules_are_there_when_the_block_ends_and_missing_ones_are_no_error():
    sys.modules.pop("colorsys", None)
    with loading(["colorsys", "no_such_module_anywhere"]):
        pass
    assert "colorsys" in sys.modules
