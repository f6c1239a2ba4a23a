"""The graph of stages: what they declare is what they do, and the runner derives the rest."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import pytest

from gio_spark.engine.progress import Progress
from gio_spark.pipeline.run import plan_run
from gio_spark.pipeline.run_state import RunState
from gio_spark.pipeline.stage_runner import Stage, run_stages, setting, stages_for
from gio_spark.pipeline.stages.open_inputs import open_context, pin_inputs
from gio_spark.pipeline.stages.run_graph import PARTS, run_graph
from tests.pipeline import jobs

pytestmark = pytest.mark.embedded

SILENT = Progress("silent")


@pytest.fixture
def place(tmp_path):
    jobs.write(jobs.vector_pool(), tmp_path / "pool.parquet")
    jobs.write(jobs.vector_target(), tmp_path / "target.parquet")
    return tmp_path


class WatchedState(RunState):
    """A state that notes which attributes are read and set."""

    def __getattribute__(self, name):
        value = object.__getattribute__(self, name)
        notes = object.__getattribute__(self, "__dict__")
        if not name.startswith("_") and "read" in notes:
            notes["read"].add(name)
        return value

    def __setattr__(self, name, value):
        object.__getattribute__(self, "__dict__").get("written", set()).add(name)
        object.__setattr__(self, name, value)


# What every stage may use: names of inputs and their fingerprints, and counts made of datasets.
ALWAYS = {"has", "get", "run_rows", "keys", "inputs", "embedder", "removed", "verdict"}
DERIVED = {"pool_rows": "datasets", "quarantined": "datasets"}


def declared(names):
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"within_cluster": "density_ratio", "quantize": {"duplicates": "exact"}},
        {"gime": {"thresholds": {"scope": 0.01}, "screen": 20, "sample": 300}},
    ],
    ids=["plain", "ratio and duplicates", "thresholds"],
)
def test_stages_read_and_set_what_they_declare(place, changes):
    settings = jobs.settings(place, **changes)
    ctx = open_context(settings, progress=SILENT)
    ctx.run = "run-watched"
    opened = pin_inputs(ctx).open()
    state = WatchedState(opened.inputs, opened.embedder, opened.keys)
    graph, undeclared = run_graph(settings), []

    def watching(stage, work):
        """Note what a stage reads and sets; a query that it asks for is another stage."""

        def watched(first, now):
            notes = now.__dict__
            outer = {name: notes.pop(name) for name in ("read", "written") if name in notes}
            notes["read"], notes["written"] = set(), set()
            try:
                return work(first, now)
            finally:
                read, written = notes.pop("read"), notes.pop("written")
                allowed = declared((*stage.inputs, *stage.reads, *stage.outputs)) | ALWAYS
                allowed |= {name for name, of in DERIVED.items() if of in allowed}
                undeclared.extend((stage.name, "reads", n) for n in read - allowed)
                set_by_it = written - declared(stage.outputs) - ALWAYS
                undeclared.extend((stage.name, "sets", n) for n in set_by_it)
                notes.update(outer)

        return watched

    def watched(stage):
        kind = "query" if stage.query else "run"
        return replace(stage, **{kind: watching(stage, getattr(stage, kind))})

    run_stages(ctx, [watched(stage) for stage in graph], state, [PARTS["metrics"]])
    assert undeclared == []


def queries_only(**outputs):
    """Stages that each note their name in `done` when they are run."""
    done = []

    def stage(name, inputs, output):
        def run(step, state):
            done.append(name)
            setattr(state, output, name)

        return Stage(name, run, inputs=inputs, outputs=(output,))

    return [stage(name, *parts) for name, parts in outputs.items()], done


def test_the_order_follows_from_inputs_however_stages_are_listed(place):
    ctx = open_context(jobs.settings(place), progress=SILENT, dry=True)
    parts = {
        "first": ((), "plan"),
        "second": (("plan",), "scores"),
        "third": (("plan", "scores"), "report"),
        "not needed": (("report",), "metrics"),
    }
    for names in permutations(parts):
        stages, done = queries_only(**{name: parts[name] for name in names})
        state = RunState({}, None)
        run_stages(ctx, stages, state, ["report"])
        assert done == ["first", "second", "third"]
        # What is there already is not made again, nor what only led to it.
        again = RunState({}, None, keys={"scores": "given", "plan": "given"})
        again.scores = again.plan = "given"
        assert [s.name for s in stages_for(stages, again, ["report"])] == ["third"]


def test_a_key_follows_settings_and_inputs_and_nothing_else(place):
    ctx = open_context(jobs.settings(place), progress=SILENT, dry=True)
    other = open_context(jobs.settings(place, budget=50), progress=SILENT, dry=True)
    by_budget = Stage("one", inputs=("plan",), settings=("budget", "target.*.share"))
    by_seed = Stage("one", inputs=("plan",), settings=("seed",))
    assert by_budget.key(ctx, {"plan": "a"}) != by_budget.key(other, {"plan": "a"})
    assert by_seed.key(ctx, {"plan": "a"}) == by_seed.key(other, {"plan": "a"})
    assert by_seed.key(ctx, {"plan": "a"}) != by_seed.key(ctx, {"plan": "b"})
    assert by_seed.key(ctx, {}) is None
    assert setting(ctx.settings, "target.*.share") == [1.0]


def test_a_query_is_made_once_and_only_where_a_stage_asks_for_it(place):
    ctx = open_context(jobs.settings(place), progress=SILENT, dry=True)
    calls = []
    query = Stage(
        "query", query=lambda _ctx, _state: calls.append(1) or 7, outputs=("target_mass",)
    )

    def use(step, state):
        state.report = state.target_mass() + state.target_mass()

    def leave(step, state):
        state.plan = 0

    stages = [
        query,
        Stage("uses it", use, inputs=("target_mass",), outputs=("report",)),
        Stage("leaves it", leave, inputs=("target_mass",), outputs=("plan",)),
    ]
    state = RunState({}, None)
    run_stages(ctx, stages, state, ["plan"])
    assert calls == []
    run_stages(ctx, stages, state, ["report"])
    assert state.report == 14 and calls == [1]


def test_the_dry_run_tells_what_is_complete_and_does_nothing(place):
    settings = jobs.settings(place)
    before = plan_run(settings, progress=SILENT)
    names = [stage.name for stage in before]
    assert names[:2] == ["fit embedder", "embed pool"] and names[-1] == "report"
    assert not any(stage.complete for stage in before)
    assert not (place / "ws" / "embeddings").exists()
    jobs.select(settings)
    after = {stage.name: stage.complete for stage in plan_run(settings, progress=SILENT)}
    assert {n for n, complete in after.items() if not complete} == {"metrics", "report"}
    other = plan_run(jobs.settings(place, budget=50), progress=SILENT)
    todo = {stage.name for stage in other if not stage.complete}
    assert todo == {"plan", "select rows", "metrics", "report"}
