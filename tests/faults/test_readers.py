"""Readers of a published name while it is written: whole, judged selections and nothing else."""

from __future__ import annotations

import threading

import pytest

from gio_spark import read_selection
from tests.faults.processes import (
    add_rows,
    beside,
    commits,
    has_record,
    job,
    publishes,
    records,
    rows,
    wait_until,
)

pytestmark = pytest.mark.faults


class Reader:
    """A thread that reads what a name shows, over and over again."""

    def __init__(self, workspace, name) -> None:
        self.seen: list[tuple[int, str, int, frozenset[str]]] = []
        self.problems: list[str] = []
        self._workspace, self._name = workspace, name
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join(60)

    def _read(self) -> None:
        while not self._over.wait(0.02):
            events = publishes(self._workspace, self._name)
            if not events:
                continue
            event = events[-1]
            table = rows(self._workspace / event["table"])
            if table is None or table.num_rows != event["rows"]:
                self.problems.append(f"publish {event['number']} is not whole")
                continue
            ids = frozenset(table["gio_id"].to_pylist())
            if len(ids) != event["rows"]:
                self.problems.append(f"publish {event['number']} has doubled rows")
            self.seen.append((event["number"], event["run"], event["rows"], ids))


def test_a_reader_sees_whole_and_judged_selections_whatever_happens_to_writers(
    undisturbed, tmp_path
):
    workspace = str(tmp_path / "ws")
    first = beside(undisturbed, "first", workspace=workspace, name="shown")
    second = beside(undisturbed, "second", workspace=workspace, name="shown", budget=60)
    gate = {"thresholds": {"scope": 1.0, "mismatch": 1.0}, "moves": 0}
    held = beside(undisturbed, "held", workspace=workspace, name="shown", budget=50, gime=gate)
    with Reader(first.workspace, "shown") as reader:
        first.finish()
        for stage in ("plan", "select rows", "metrics", "run", "audit"):
            process = second.start(record_at_once=True)
            wait_until(lambda stage=stage: has_new(second, stage), process)
            process.kill()
        process = second.start()
        wait_until(lambda: commits(second.workspace, "publishes") > 2, process)
        process.kill()
        second.finish()
        outcome = held.start().outcome()
        assert outcome.code == 4 and "Traceback" not in outcome.err
    assert reader.problems == []
    # Each publish, in order, and nothing of the one whose gate failed.
    assert [n for n, _, _, _ in reader.seen] == sorted(n for n, _, _, _ in reader.seen)
    assert {(n, count) for n, _, count, _ in reader.seen} == {(1, 30), (2, 60)}
    assert len({(n, ids) for n, _, _, ids in reader.seen}) == 2


def has_new(second, stage):
    """Whether the second of two runs has recorded a stage, or one by its name is there twice."""
    return sum(r["stage"] == stage for r in records(second.workspace)) > 1


def test_a_reader_sees_whole_selections_while_refreshes_are_killed(spark, tmp_path):
    first = job(tmp_path, within_cluster="exact_count", gime={"on_refresh": True})
    with Reader(first.workspace, "run") as reader:
        first.finish()
        add_rows(tmp_path)
        for stage in ("refresh", "audit"):
            process = first.start("refresh", record_at_once=True)
            wait_until(
                lambda stage=stage: (
                    has_new(first, stage)
                    if stage == "audit"
                    else has_record(first.workspace, stage)
                ),
                process,
            )
            process.kill()
        first.finish("refresh")
    assert reader.problems == []
    events = publishes(first.workspace)
    assert {(n, c) for n, _, c, _ in reader.seen} <= {(e["number"], e["rows"]) for e in events}
    last = {i for n, _, _, ids in reader.seen if n == events[-1]["number"] for i in ids}
    shown = read_selection("run", workspace=first.workspace, spark=spark)
    assert last == set(shown.select("gio_id").toArrow()["gio_id"].to_pylist())
