"""Background queries: their result comes, and so does their error; what is put off stays so."""

from __future__ import annotations

import threading

import pytest

from gio_spark.engine import run_concurrently, run_in_background, run_lazily


def failing():
    raise ValueError("no such thing")


@pytest.mark.embedded
def test_work_that_is_put_off_is_done_once_and_only_when_it_is_asked_for(spark):
    done = []
    result = run_lazily(spark, lambda: done.append(1) or len(done))
    broken = run_lazily(spark, failing)
    assert done == []
    assert (result(), result(), done) == (1, 1, [1])
    with pytest.raises(ValueError, match="no such thing"):
        broken()


@pytest.mark.spark
def test_queries_go_on_side_by_side_and_hand_on_results_and_errors(local_spark):
    both = threading.Barrier(2, timeout=60)

    def count(rows):
        both.wait()  # neither gets past this unless the other has begun as well
        return local_spark.range(rows).count()

    assert run_concurrently(local_spark, [lambda: count(3), lambda: count(5)]) == [3, 5]
    broken = run_in_background(local_spark, failing)
    for _ in range(2):
        with pytest.raises(ValueError, match="no such thing"):
            broken()
