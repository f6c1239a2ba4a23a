"""Writes begun behind the caller: in order, waited for where asked, none after one that fails."""

from __future__ import annotations

import threading

import pytest

from gio_spark.engine import Behind


class Trace:
    """Writes that tell when they were made; `gate` holds back the first until it is opened."""

    def __init__(self):
        self.made = []
        self.gate = threading.Event()

    def write(self, name, *, waits=False, fails=False):
        def do():
            if waits:
                assert self.gate.wait(60)
            if fails:
                raise OSError(f"no room for {name}")
            self.made.append(name)

        return do


@pytest.mark.embedded
def test_the_embedded_engine_writes_at_once(spark):
    trace, behind = Trace(), Behind(spark)
    behind.begin("plan", trace.write("a"))
    assert trace.made == ["a"]
    assert not behind.has("plan")
    with pytest.raises(OSError, match="no room for b"):
        behind.begin("plan", trace.write("b", fails=True))
    behind.settle()


@pytest.mark.spark
def test_writes_are_made_in_the_order_they_were_begun_and_waited_for_by_table(local_spark):
    trace, behind = Trace(), Behind(local_spark)
    behind.begin("models", trace.write("a", waits=True))
    behind.begin("plan", trace.write("b"))
    behind.begin("models", trace.write("c"))
    assert behind.has("models") and behind.has("plan")
    assert trace.made == []
    behind.settle("runs")  # nothing was written to it: nothing to wait for
    assert trace.made == []
    trace.gate.set()
    behind.settle("models")
    assert trace.made == ["a", "b", "c"]
    assert not behind.has("models")
    behind.settle()
    assert not behind.has("plan")


@pytest.mark.spark
def test_who_waited_for_one_write_does_not_hide_the_next_one(local_spark):
    trace, other, behind = Trace(), Trace(), Behind(local_spark)
    behind.begin("models", trace.write("a", waits=True))
    reader = threading.Thread(target=behind.settle, args=("models",))
    reader.start()
    behind.begin("models", other.write("b", waits=True))
    trace.gate.set()
    reader.join(60)
    assert behind.has("models")
    other.gate.set()
    behind.settle("models")
    assert other.made == ["b"]


@pytest.mark.spark
def test_after_a_write_that_failed_nothing_is_written_and_each_who_waits_is_told(local_spark):
    trace, behind = Trace(), Behind(local_spark)
    behind.begin("models", trace.write("a", fails=True))
    behind.begin("plan", trace.write("b"))
    behind.begin("runs", trace.write("c"))
    for table in ("plan", None):
        with pytest.raises(OSError, match="no room for a"):
            behind.settle(table)
    assert trace.made == []
    behind.begin("plan", trace.write("d"))  # who was told of it all may begin anew
    behind.settle()
    assert trace.made == ["d"]
