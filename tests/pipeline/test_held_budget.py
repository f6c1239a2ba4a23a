"""The budget of a refresh: held on the present rows of the pool, or floating with them."""

from __future__ import annotations

import shutil

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from gio_spark import explode
from gio_spark.engine.progress import Progress
from gio_spark.errors import EmptySelectionError
from gio_spark.gio import budgeted_kl, integer_plan
from gio_spark.pipeline.refresh import refresh as refresh_pipeline
from gio_spark.pipeline.refresh_records import RefreshSummary
from gio_spark.pipeline.run_records import RunSummary
from gio_spark.pipeline.stages.plan import load_plan
from gio_spark.tables import Workspace
from tests.pipeline import jobs

pytestmark = pytest.mark.embedded

QUICK = {"gime": {"on_refresh": False}}


def refresh(settings):
    return refresh_pipeline(settings, progress=Progress("silent"))


def fewer_of_the_target(pool: pa.Table, share: float) -> pa.Table:
    """The pool without a share of the rows of the target's kind, spread over them."""
    random = np.random.default_rng(5)
    is_target = np.array([s == "site-0" for s in pool["site"].to_pylist()])
    return pool.filter(pa.array(~is_target | (random.random(pool.num_rows) > share)))


def newest(tables: Workspace) -> RefreshSummary:
    return RefreshSummary.of([r for r in tables.records() if r.stage == "refresh"][-1])


def ranked_rows(spark, config, keys) -> pa.Table:
    """Rows of a refresh with cluster, source, tokens, rank key and tie, best first."""
    tables = Workspace(spark, config.workspace)
    rows = tables.read("assignments", keys.assignments).select("id", "cluster", "source", "tokens")
    by_ratio = config.explode.within_cluster == "density_ratio"
    ordered = tables.read("scores", keys.scores) if by_ratio else rows
    ranks = explode.row_keys(ordered, settings=config.explode, seed=config.seed)
    ranked = rows.join(ranks.drop("cluster"), "id").toArrow()
    return ranked.sort_by([("rank_key", "descending"), ("tie", "descending")])


def first_rows(ranked: pa.Table, take: np.ndarray) -> set[str]:
    """Ids of the first rows of each cluster."""
    cluster = ranked["cluster"].to_numpy()
    chosen = [
        ranked["id"].take(pa.array(np.flatnonzero(cluster == c)[: take[c]])).to_pylist()
        for c in range(len(take))
    ]
    return {row for rows in chosen for row in rows}


def test_the_budget_in_rows_is_held_by_the_first_rows_of_each_cluster(spark, place):
    jobs.write(jobs.vector_target(40, blob=1, seed=8, name="u"), place / "second.parquet")
    targets = [
        {"location": str(place / "target.parquet"), "share": 3},
        {"location": str(place / "second.parquet"), "share": 1},
    ]
    config = jobs.settings(
        place, **QUICK, target=targets, within_cluster="density_ratio", select={"replay": 0.1},
        budget=160,
    )  # fmt: skip
    run = jobs.go(config)
    tables = Workspace(spark, config.workspace)
    plan = load_plan(tables, RunSummary.model_validate(run.summary).plan_key)

    # As many rows of other kinds come: every cluster still holds what the plan takes of it.
    pool = pa.concat_tables([
        jobs.vector_pool(), jobs.vector_rows("n", 200, 2, seed=21), jobs.vector_pool(80, 22, "m"),
    ])  # fmt: skip
    jobs.write(pool, place / "pool.parquet")
    done = refresh(config)
    assert (done.before, done.after, done.plan.spent) == (160, 160, 160)
    assert done.added == done.dropped > 0

    # The target's clusters run short; other clusters of the target make up for it.
    pool = fewer_of_the_target(pool, 0.6)
    jobs.write(pool, place / "pool.parquet")
    done = refresh(config)
    assert (done.after, done.plan.spent, done.budget) == (160, 160, "hold")

    tables.reload()
    summary = newest(tables)
    ranked = ranked_rows(spark, config, summary.keys)
    sizes = np.bincount(ranked["cluster"].to_numpy(), minlength=len(plan.table))
    mass = plan.table["target_mass"].to_numpy()
    short = sizes < plan.table["take"].to_numpy()
    assert short.any()
    take = integer_plan(np.where(sizes > 0, mass, 0), sizes, 160)
    assert set(jobs.picked(config, run)["gio_id"].to_pylist()) == first_rows(ranked, take)
    optimum = budgeted_kl(mass, sizes, 160)
    assert done.plan.divergence == pytest.approx(optimum.divergence, rel=1e-9)
    assert done.plan.certificate[2] == pytest.approx(0, abs=1e-9)
    assert summary.plan == done.plan
    # The plan of the refresh is the one that commands on its rows read.
    assert load_plan(tables, summary.keys.plan).table["take"].tolist() == take.tolist()

    # Back at the first pool, the selection is the run's, whatever came between.
    jobs.write(jobs.vector_pool(), place / "pool.parquet")
    assert refresh(config).after == 160
    assert jobs.picked(config, run)["gio_id"].to_pylist() == jobs.ids(run.selected)


def test_a_share_is_one_of_the_present_rows_with_thresholds_by_hash(spark, place):
    config = jobs.settings(place, **QUICK, within_cluster="hash_share", budget=0.2)
    run = jobs.go(config)
    jobs.write(
        pa.concat_tables([jobs.vector_pool(), jobs.vector_pool(600, 31, "n")]),
        place / "pool.parquet",
    )
    done = refresh(config)
    assert done.plan.budget == 240
    assert abs(done.after - 240) < 4 * np.sqrt(240) and done.plan.spent == done.after
    tables = Workspace(spark, config.workspace)
    summary = newest(tables)
    ranked = ranked_rows(spark, config, summary.keys)
    plan = load_plan(tables, summary.keys.plan).table
    cluster = ranked["cluster"].to_numpy()
    share = plan["take"].to_numpy() / np.maximum(plan["rows"].to_numpy(), 1)
    passing = (2**53 - 1 - ranked["rank_key"].to_numpy()) < np.rint(share * 2**53)[cluster]
    expected = ranked["id"].filter(pa.array(passing)).to_pylist()
    assert sorted(expected) == jobs.picked(config, run)["gio_id"].to_pylist()
    # Nothing has to be drawn again: rows of a cluster of which more is taken stay.
    assert done.dropped < done.added


def test_tokens_caps_and_floors_are_held_with_sources_that_came_and_went(spark, place):
    bounds = {"source_caps": {"site-0": 0.5}, "source_floors": {"site-1": 0.2}, "replay": 0.4}
    config = jobs.settings(place, **QUICK, budget="2500 tokens", select=bounds)
    run = jobs.go(config)
    assert abs(run.summary["spent"] - 2500) < 250
    pool = fewer_of_the_target(jobs.vector_pool(), 0.7)
    pool = pool.filter(pc.not_equal(pool["site"], "site-3"))
    other = jobs.vector_rows("n", 60, 0, seed=41)
    other = other.set_column(2, "site", pa.array(["site-9"] * 60))
    jobs.write(pa.concat_tables([pool, other]), place / "pool.parquet")
    done = refresh(config)
    rows = jobs.picked(config, run)
    words = np.array(rows["words"].to_pylist())
    site = np.array(rows["site"].to_pylist())
    assert done.plan.unit == "tokens" and done.plan.spent == words.sum()
    # A plan knows the mean tokens of each cluster and source alone.
    assert abs(words.sum() - 2500) < 250
    assert words[site == "site-0"].sum() <= 0.5 * 2500 + 250
    assert words[site == "site-1"].sum() >= 0.2 * 2500 - 250
    # A source that the run has not seen takes part.
    assert "site-9" in site
    ranked = ranked_rows(spark, config, newest(Workspace(spark, config.workspace)).keys)
    chosen = np.isin(ranked["id"].to_numpy(zero_copy_only=False), rows["gio_id"].to_numpy())
    strata = [f"{c}/{s}" for c, s in zip(ranked["cluster"].to_pylist(),
                                         ranked["source"].to_pylist(), strict=True)]  # fmt: skip
    for stratum in set(strata):
        taken = chosen[[s == stratum for s in strata]]
        assert taken[: taken.sum()].all(), stratum


def test_a_floating_budget_keeps_the_thresholds_and_tells_what_it_comes_to(spark, place):
    config = jobs.settings(place, **QUICK, budget=100, refresh={"budget": "float"})
    run = jobs.go(config)
    shutil.copytree(place / "ws", place / "held")
    pool = pa.concat_tables([jobs.vector_pool(), jobs.vector_pool(200, seed=11, name="n")])
    jobs.write(pool, place / "pool.parquet")
    done = refresh(config)
    assert (done.budget, done.dropped) == ("float", 0)
    assert done.after == done.plan.spent == done.plan.rows > 100 == done.plan.budget
    assert done.plan.certificate[1] <= done.plan.divergence
    assert newest(Workspace(spark, config.workspace)).keys.plan == ""
    # The rule is part of what a refresh is: with another one there is something to do.
    hold = jobs.settings(place, **QUICK, budget=100)
    again = refresh(hold)
    assert (again.did_work, again.before, again.after) == (True, done.after, 100)
    assert (again.new_rows, again.changed_rows, again.gone_rows) == (0, 0, 0)
    held = jobs.picked(config, run)["gio_id"].to_pylist()
    alone = jobs.settings(place, **QUICK, budget=100, workspace=str(place / "held"))
    refresh(alone)
    assert jobs.picked(alone, run)["gio_id"].to_pylist() == held
    # The pool loses all rows of the target's clusters.
    jobs.write(pool.filter(pc.not_equal(pool["site"], "site-0")), place / "pool.parquet")
    with pytest.raises(EmptySelectionError, match="passes the plan"):
        refresh(config)
    with pytest.raises(EmptySelectionError, match="has no counterpart in the pool"):
        refresh(hold)
    assert jobs.picked(config, run)["gio_id"].to_pylist() == held


def test_an_automatic_budget_keeps_the_rows_that_the_plan_decided_on(place):
    config = jobs.settings(place, **QUICK, budget="auto", within_cluster="density_ratio")
    run = jobs.go(config)
    rows = run.summary["selected_rows"]
    more = pa.concat_tables([jobs.vector_pool(), jobs.vector_pool(300, seed=11, name="n")])
    jobs.write(more, place / "pool.parquet")
    assert refresh(config).after == rows
    jobs.write(fewer_of_the_target(jobs.vector_pool(), 0.8), place / "pool.parquet")
    done = refresh(config)
    assert done.after < rows
    assert [n.name for n in done.plan.notices if n.name == "budget_short"]


def test_an_objective_without_a_certificate_has_none_after_a_refresh(place):
    config = jobs.settings(place, **QUICK, objective="energy_distance")
    assert jobs.go(config).summary["certificate"] is None
    jobs.write(
        pa.concat_tables([jobs.vector_pool(), jobs.vector_pool(80, 22, "m")]),
        place / "pool.parquet",
    )
    done = refresh(config)
    assert (done.plan.certificate, done.plan.spent) == (None, 100)
