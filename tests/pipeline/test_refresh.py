"""A selection brought up to date with a pool that has changed."""

from __future__ import annotations

import shutil

import numpy as np
import pyarrow as pa
import pytest

from gio_spark.engine.progress import Progress
from gio_spark.errors import InputError, TooManyBadRowsError
from gio_spark.pipeline.refresh import refresh as refresh_pipeline
from tests.pipeline import jobs

pytestmark = pytest.mark.embedded


def refresh(settings):
    return refresh_pipeline(settings, progress=Progress("silent"))


def grown(pool: pa.Table, gone: int, new: int) -> pa.Table:
    """The pool without its first rows and with new ones."""
    return pa.concat_tables([pool.slice(gone), jobs.vector_pool(new, seed=11, name="n")])


@pytest.mark.parametrize("rule", ["exact_count", "density_ratio"])
def test_new_rows_are_judged_by_the_frozen_plan_and_gone_rows_are_dropped(place, rule):
    made = jobs.settings(place, within_cluster=rule)
    run = jobs.go(made)
    before = set(jobs.ids(run.selected))
    embedded = jobs.table(place / "ws", "embeddings").num_rows
    plan = jobs.table(place / "ws", "plan").sort_by("cluster")
    centroids = jobs.table(place / "ws", "centroids").num_rows

    jobs.write(grown(jobs.vector_pool(), gone=100, new=200), place / "pool.parquet")
    done = refresh(made)
    assert (done.new_rows, done.gone_rows, done.bad_rows) == (200, 100, 0)
    assert done.did_work and done.run_id == run.run_id

    rows = jobs.picked(made, run)
    after = set(rows["gio_id"].to_pylist())
    gone = {i for i in before if i < "p00100"}
    assert before - after == gone
    assert (done.before, done.dropped) == (100, len(gone))
    assert after - before == {i for i in after if i.startswith("n")}
    assert done.added == len(after - before) > 0
    assert done.after == len(after) == rows.num_rows
    # About as large a share of new rows as of old ones, and of the target's kind.
    assert 15 <= done.added <= 60
    assert np.mean([s == "site-0" for s in rows["site"].to_pylist()]) > 0.9
    # Only the new rows were embedded; codebook and plan are what they were.
    assert jobs.table(place / "ws", "embeddings").num_rows == embedded + 200
    assert jobs.table(place / "ws", "plan").sort_by("cluster").equals(plan)
    assert jobs.table(place / "ws", "centroids").num_rows == centroids
    # Rows that stayed say which version they were read from; new ones say the newer.
    assert len(set(rows["gio_input_version"].to_pylist())) == 2
    own = {r["id"]: r["note"] for r in grown(jobs.vector_pool(), 100, 200).to_pylist()}
    assert all(own[r["gio_id"]] == r["note"] for r in rows.to_pylist())

    again = refresh(made)
    assert not again.did_work
    assert set(jobs.picked(made, run)["gio_id"].to_pylist()) == after


def test_a_pool_that_goes_back_to_files_it_had_is_followed(place):
    made = jobs.settings(place)
    run = jobs.go(made)
    path = place / "pool.parquet"
    chosen = {"first": set(jobs.ids(run.selected))}
    shutil.copy2(path, place / "first.kept")
    for name, pool in [("more", grown(jobs.vector_pool(), 0, 100)),
                       ("less", jobs.vector_pool().slice(50))]:  # fmt: skip
        jobs.write(pool, path)
        shutil.copy2(path, place / f"{name}.kept")
        assert refresh(made).did_work
        chosen[name] = set(jobs.picked(made, run)["gio_id"].to_pylist())
    assert chosen["more"] != chosen["less"]
    for name in ("more", "first"):
        shutil.copy2(place / f"{name}.kept", path)
        assert refresh(made).did_work
        assert set(jobs.picked(made, run)["gio_id"].to_pylist()) == chosen[name]


def test_selections_of_earlier_runs_stay(place):
    made = [jobs.settings(place, seed=seed) for seed in range(5)]
    runs = [jobs.go(one) for one in made]
    for one, run in zip(made, runs, strict=True):
        assert len(jobs.picked(one, run)) == run.summary["selected_rows"]


def test_a_pool_may_change_again_and_again(place):
    made = jobs.settings(place)
    run = jobs.go(made)
    pool = jobs.vector_pool()
    jobs.write(grown(pool, 0, 100), place / "pool.parquet")
    first = refresh(made)
    assert (first.new_rows, first.gone_rows) == (100, 0)
    # Some of the new ones go, others come, one that was gone before comes back.
    more = jobs.vector_pool(50, seed=12, name="m")
    jobs.write(pa.concat_tables([pool, more]), place / "pool.parquet")
    second = refresh(made)
    assert second.new_rows == 50
    selected = jobs.picked(made, run)["gio_id"].to_pylist()
    assert not [i for i in selected if i.startswith("n")]
    assert second.after == len(selected)
    jobs.write(grown(pool, 0, 100), place / "pool.parquet")
    third = refresh(made)
    assert third.did_work
    found = jobs.picked(made, run)["gio_id"].to_pylist()
    assert third.after == len(found)
    assert [i for i in found if i.startswith("n")]


def test_nothing_is_done_for_a_pool_that_is_as_it_was(place):
    made = jobs.settings(place)
    jobs.go(made)
    done = refresh(made)
    assert not done.did_work
    assert (done.before, done.after, done.new_rows) == (100, 100, 0)


def test_unusable_new_rows_are_counted_and_too_many_leave_the_selection_as_it_was(place):
    made = jobs.settings(place)
    run = jobs.go(made)
    before = jobs.ids(run.selected)
    rows = jobs.vector_pool(100, seed=11, name="n").to_pylist()
    for row in rows[:10]:
        row["vector"] = None
    new = pa.Table.from_pylist(rows, schema=jobs.vector_pool().schema)
    jobs.write(pa.concat_tables([jobs.vector_pool(), new]), place / "pool.parquet")
    assert refresh(made).bad_rows == 10
    worse = [{**row, "id": "w" + row["id"], "vector": None} for row in rows]
    both = pa.concat_tables(
        [jobs.vector_pool(), pa.Table.from_pylist(worse, schema=jobs.vector_pool().schema)]
    )
    jobs.write(both, place / "pool.parquet")
    with pytest.raises(
        TooManyBadRowsError, match=r"pool: 100 of 100 new rows of .*vector.\) cannot be used"
    ):
        refresh(made)
    kept = set(jobs.picked(made, run)["gio_id"].to_pylist())
    assert set(before) <= kept


def test_a_refresh_needs_a_finished_run_of_the_same_settings(place):
    with pytest.raises(InputError, match=r"No finished run .* Run `gio-spark run` first"):
        refresh(jobs.settings(place))
