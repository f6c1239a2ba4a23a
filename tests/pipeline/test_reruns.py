"""What is done again when something changes or breaks, and what is not."""

from __future__ import annotations

import json

import pyarrow.compute as pc
import pytest

from gio_spark.errors import EngineError
from gio_spark.pipeline.stages import cluster, plan, select_rows
from tests.pipeline import jobs

pytestmark = pytest.mark.embedded

PLAN_AND_LATER = {"plan", "select rows"}
FIT_AND_LATER = {"fit pool", "assign pool", "assign target", "centroids", *PLAN_AND_LATER}


def test_only_what_depends_on_a_changed_setting_is_done_again(place):
    first = jobs.select(jobs.settings(place))
    assert {"embed pool", "quarantine", *FIT_AND_LATER} <= jobs.done(first)

    # The same again: nothing.
    again = jobs.select(jobs.settings(place))
    assert again.run_id == first.run_id
    assert jobs.done(again) == set() and not again.did_work

    # Another budget: another plan.
    other = jobs.select(jobs.settings(place, budget=50))
    assert other.run_id != first.run_id
    assert jobs.done(other) == PLAN_AND_LATER
    assert len(jobs.picked(jobs.settings(place, budget=50), other)) == 50

    # Another seed: another codebook, on the same embeddings.
    assert jobs.done(jobs.select(jobs.settings(place, seed=1))) == FIT_AND_LATER

    # What is shown and where it is tracked changes no rows.
    assert jobs.done(jobs.select(jobs.settings(place, report={"title": "x"}))) == set()

    # Back to the first settings: all is still there.
    back = jobs.select(jobs.settings(place))
    assert jobs.done(back) == set()
    assert len(jobs.picked(jobs.settings(place), back)) == 100


def test_changed_input_is_embedded_again_and_the_other_side_is_not(place):
    jobs.select(jobs.settings(place))
    jobs.write(jobs.vector_target(blob=1), place / "target.parquet")
    changed = jobs.done(jobs.select(jobs.settings(place)))
    assert {"embed target", "plan", "select rows"} <= changed
    assert not {"embed pool", "fit pool", "assign pool"} & changed


@pytest.mark.parametrize(
    ("module", "name", "unfinished"),
    [
        (cluster, "write_centroids", {"centroids", "plan", "select rows"}),
        (plan, "make_plan", {"plan", "select rows"}),
        (select_rows, "select_rows", {"select rows"}),
    ],
)
def test_a_run_that_died_goes_on_after_its_last_complete_stage(
    place, monkeypatch, module, name, unfinished
):
    def die(*_args, **_more):
        raise EngineError("the cluster went away")

    with monkeypatch.context() as broken:
        broken.setattr(module, name, die)
        with pytest.raises(EngineError, match="went away"):
            jobs.select(jobs.settings(place))
    resumed = jobs.select(jobs.settings(place))
    assert jobs.done(resumed) == unfinished
    assert len(jobs.picked(jobs.settings(place), resumed)) == 100


def test_a_fit_that_died_goes_on_from_its_last_pass(place, monkeypatch):
    monkeypatch.setattr(cluster, "COMMIT_SECONDS", 0.0)
    changes = {"quantize": {"max_passes": 6, "patience": 6, "tolerance": 0.0, "batch_rows": 200}}
    complete = jobs.settings(place, workspace=str(place / "whole"), **changes)
    save = cluster.save_state
    passes = []

    def save_and_die(ctx, state, key):
        save(ctx, state, key)
        passes.append(state.passes)
        if state.passes == 3:
            raise EngineError("killed")

    cut = jobs.settings(place, **changes)
    with monkeypatch.context() as broken:
        broken.setattr(cluster, "save_state", save_and_die)
        broken.setattr("gio_spark.quantize.kmeans_one_task.VALUES", 0)  # a job for each pass
        with pytest.raises(EngineError, match="killed"):
            jobs.select(cut)
    with monkeypatch.context() as watched:
        watched.setattr(
            cluster,
            "save_state",
            lambda ctx, state, key: (passes.append(state.passes), save(ctx, state, key))[1],
        )
        resumed = jobs.select(cut)
    assert min(passes[passes.index(3) + 1 :]) > 3
    assert jobs.picked(cut, resumed)["gio_id"].to_pylist() == jobs.picked_ids(complete)


def test_every_pass_is_an_attempt_that_no_reader_of_a_run_meets(place, monkeypatch):
    monkeypatch.setattr(cluster, "COMMIT_SECONDS", 0.0)
    monkeypatch.setattr("gio_spark.quantize.kmeans_one_task.VALUES", 0)  # a job for each pass
    changes = {"quantize": {"max_passes": 3, "tolerance": 0.0, "batch_rows": 200}}
    jobs.select(jobs.settings(place, **changes))
    states = jobs.table(place / "ws", "centroids").filter(pc.field("side") == "fit")
    columns = (states[c].to_pylist() for c in ("attempt", "state"))
    passes = {
        attempt: json.loads(state)["passes"]
        for attempt, state in zip(*columns, strict=True)
        if state is not None
    }
    assert sorted(passes.values()) == [0, 1, 2, 3]
    runs = jobs.table(place / "ws", "runs").to_pylist()
    (fit,) = [r for r in runs if r["stage"] == "fit pool"]
    ((attempt,),) = json.loads(fit["attempts"])["centroids"].values()
    assert passes[attempt] == 3
    (published,) = [r for r in runs if r["stage"] == "centroids"]
    mine = jobs.table(place / "ws", "centroids").filter(
        pc.field("fingerprint") == published["fingerprint"]
    )
    assert set(mine["side"].to_pylist()) == {"pool", "target"}
    last = states.filter(pc.field("attempt") == attempt).sort_by("cluster")
    pool = mine.filter(pc.field("side") == "pool").sort_by("cluster")
    assert last["vector"].equals(pool["vector"])


def test_rows_that_were_deleted_from_a_stage_table_are_made_again(place, spark):
    first = jobs.select(jobs.settings(place))
    spark.sql(f"DELETE FROM delta.`{place}/ws/assignments` WHERE id = 'p00003'")
    again = jobs.select(jobs.settings(place))
    assert jobs.done(again) == {"assign pool"}
    newest = [
        r for r in jobs.table(place / "ws", "runs").to_pylist() if r["stage"] == "assign pool"
    ]
    attempts = json.loads(max(newest, key=lambda r: r["finished"])["attempts"])["assignments"]
    ((token,),) = attempts.values()
    rows = jobs.table(place / "ws", "assignments").filter(pc.field("attempt") == token)
    assert rows.num_rows == 600 == len(set(rows["id"].to_pylist()))
    assert again.run_id == first.run_id


def test_a_run_that_stops_after_explode_gives_its_rows(place):
    part = jobs.select(jobs.settings(place))
    assert jobs.ids(part.selected) == jobs.picked(jobs.settings(place), part)["gio_id"].to_pylist()
    assert len(jobs.ids(part.selected)) == 100


@pytest.mark.parametrize("stage", ["embed", "quantize", "select"])
def test_a_run_may_stop_after_a_stage_and_go_on_later(place, stage):
    part = jobs.go(jobs.settings(place), until=stage)
    assert "select rows" not in jobs.stages_done(part)
    assert not list((place / "ws").glob("selection_*"))
    complete = jobs.select(jobs.settings(place))
    assert not jobs.done(complete) & set(jobs.stages_done(part))
