from __future__ import annotations

import io
import time

import pytest

from gio_spark.engine import map_arrow
from gio_spark.engine.progress import Progress, Stage, duration, quantity, watch


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def a_stage(seconds_ago: float, **facts) -> Stage:
    return Stage("embed", began=time.monotonic() - seconds_ago, **facts)


def test_tests_see_nothing():
    stream = io.StringIO()
    progress = Progress(stream=stream)
    with progress.stage("embed", 10) as stage:
        stage.update(10)
    progress.summary()
    assert stream.getvalue() == ""


def test_a_log_gets_plain_lines_without_terminal_codes():
    stream = io.StringIO()
    progress = Progress("lines", stream=stream, every=0.02)
    progress.say("engine: embedded [2 cores]")
    with progress.stage("embed", 1000) as stage:
        stage.update(400)
        time.sleep(0.1)
        stage.done("hashed n-grams", rows=1000)
    text = stream.getvalue()
    assert "engine: embedded [2 cores]" in text
    assert "400 of 1,000 rows" in text
    assert "left" in text
    assert "1,000 rows" in text.splitlines()[-1]
    assert "hashed n-grams" in text.splitlines()[-1]
    assert "\x1b" not in text


def test_a_terminal_gets_a_live_line_and_one_lasting_line_a_stage():
    stream = Terminal()
    progress = Progress("live", stream=stream)
    with progress.stage("embed", 10) as stage:
        stage.update(10)
    assert stream.getvalue().count("10 rows,") >= 1
    assert stream.getvalue().endswith("\n")


@pytest.mark.parametrize(("wanted", "mode"), [("silent", "silent"), ("lines", "lines")])
def test_the_environment_decides_over_the_terminal(monkeypatch, wanted, mode):
    monkeypatch.setenv("GIO_SPARK_PROGRESS", wanted)
    assert Progress(stream=Terminal()).mode == mode


def test_outside_tests_a_terminal_is_live_and_a_file_gets_lines(monkeypatch):
    monkeypatch.delenv("PYTEST_CURRENT_TEST", raising=False)
    monkeypatch.delenv("GIO_SPARK_PROGRESS", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert Progress(stream=Terminal()).mode == "live"
    assert Progress(stream=io.StringIO()).mode == "lines"


def test_time_left_follows_rows_then_tasks_then_forecast():
    assert a_stage(10, total=100, rows=25).seconds_left == pytest.approx(30, rel=0.01)
    assert a_stage(10, tasks=(5, 10)).seconds_left == pytest.approx(10, rel=0.01)
    assert a_stage(10, forecast_seconds=25).seconds_left == pytest.approx(15, rel=0.01)
    assert a_stage(30, forecast_seconds=25).seconds_left is None
    assert a_stage(30).seconds_left is None


def test_an_error_marks_the_stage_as_failed_and_passes_through():
    stream = io.StringIO()
    progress = Progress("lines", stream=stream)
    with pytest.raises(ValueError, match="boom"), progress.stage("embed"):
        raise ValueError("boom")
    assert "failed after" in stream.getvalue()
    progress.summary()
    assert "failed" in stream.getvalue().splitlines()[-2]


def test_a_skipped_stage_says_so_and_costs_no_time_in_the_summary():
    stream = io.StringIO()
    progress = Progress("lines", stream=stream)
    with progress.stage("embed") as stage:
        stage.skip()
    progress.summary()
    assert "skipped, up to date" in stream.getvalue()
    assert stream.getvalue().splitlines()[-1].split() == ["all", "0.0", "s"]


def test_tasks_of_a_connect_session_are_watched(spark):
    stage = Stage("scan")
    with watch(spark, stage):
        assert spark.range(1000).count() == 1000
    with watch(None, stage), watch(object(), stage):
        pass


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.04, "0.0 s"), (9.96, "10 s"), (59.6, "1 min 00 s"), (61, "1 min 01 s"),
     (3599.7, "1 h 00 min"), (7322, "2 h 02 min")],
)  # fmt: skip
def test_durations_are_said_as_people_say_them(seconds, said):
    assert duration(seconds) == said


def test_quantities_are_short():
    assert [quantity(v) for v in (0.5, 999.4, 1234, 999_950, 45_600_000, 2e9)] == [
        "0.5", "999", "1.23k", "1M", "45.6M", "2G",
    ]  # fmt: skip


def test_a_rate_over_next_to_no_time_is_not_told():
    assert a_stage(2.0, rows=1000).rate == pytest.approx(500, rel=0.1)
    assert a_stage(0.0, rows=1000, ended=time.monotonic()).rate is None


def test_steps_tell_the_share_where_no_rows_do():
    stage = a_stage(10)
    stage.step(2, 10)
    assert stage.share == 0.2 and stage.seconds_left == pytest.approx(40, rel=0.01)


def test_rows_of_a_map_are_counted_while_it_runs(spark):
    stage = a_stage(10, total=4000)
    seen = []

    def give(batches):
        for batch in batches:
            seen.append(stage.rows_done)
            yield {"id": batch["id"]}

    with stage.counting():
        frame = map_arrow(spark.range(4000).repartition(1), give, "id bigint", batch_rows=500)
        assert frame.toArrow().num_rows == 4000
        assert stage.rows_done == 4000
    assert stage.rows == 4000 and stage.share == 1.0
    # Maps that are built outside of the block are none of the stage's.
    map_arrow(spark.range(10), give, "id bigint").toArrow()
    assert stage.rows_done == 4000


def test_a_log_gets_its_first_line_after_two_seconds_and_then_one_each_half_minute():
    stream = io.StringIO()
    progress = Progress("lines", stream=stream)
    with progress.stage("embed", 1000) as stage:
        stage.update(250)
        time.sleep(2.3)
    first, last = stream.getvalue().splitlines()
    assert "25%, 250 of 1,000 rows" in first and "left" in first
    assert "250 rows" in last
