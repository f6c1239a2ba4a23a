"""Work begun ahead: its result comes, and so does its error; what is lazy stays so."""

from __future__ import annotations

import threading

import pytest

from gio_spark.engine import ahead


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
