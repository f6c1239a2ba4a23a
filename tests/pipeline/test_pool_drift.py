"""Drift of the inputs of a refresh: its figures, the decision, and what follows from it."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from gio_spark.engine.progress import Progress
from gio_spark.pipeline.commands.plan_refresh import plan_refresh
from gio_spark.pipeline.kmeans_checkpoints import fitted_state
from gio_spark.pipeline.refresh import refresh as refresh_pipeline
from gio_spark.pipeline.refresh_records import DriftFigures, RefreshSummary
from gio_spark.pipeline.run_records import RunSummary
from gio_spark.pipeline.stages.pool_drift import _auc, decide
from gio_spark.settings.refresh import DriftSettings
from gio_spark.tables import Workspace
from tests.pipeline import jobs

pytestmark = pytest.mark.embedded

QUICK = {"gime": {"on_refresh": False}, "within_cluster": "density_ratio"}


def figures(**changes):
    values = {"share_shift": 0.05, "lost_mass": 0.01, "rows": 5000, "inertia_ratio": 1.2,
              "auc": 0.8, "auc_before": 0.85}  # fmt: skip
    return DriftFigures(**{**values, **changes})


@pytest.mark.parametrize(
    ("changes", "action"),
    [
        ({}, "keep"),
        ({"share_shift": 0.3}, "replan"),
        ({"auc": 0.7, "auc_before": 0.85}, "replan"),
        ({"auc": 1.0, "auc_before": 0.85}, "replan"),
        ({"auc": None}, "keep"),
        ({"changed_targets": ("target-2",)}, "replan"),
        ({"inertia_ratio": 2.0}, "requantize"),
        ({"inertia_ratio": 2.0, "share_shift": 0.5}, "requantize"),
        ({"inertia_ratio": 9.0, "auc": 0.5, "rows": 199}, "keep"),
        ({"lost_mass": 0.2, "inertia_ratio": 9.0}, "stop"),
    ],
)
def test_the_strongest_action_that_a_figure_asks_for_is_taken(changes, action):
    decision = decide(figures(**changes), DriftSettings())
    assert decision.action == action
    assert bool(decision.reasons) == (action != "keep")
    assert decision.figures == figures(**changes)


def test_each_figure_can_be_left_out_of_the_decision():
    drifted = figures(share_shift=1.0, lost_mass=1.0, inertia_ratio=9.0, auc=0.0,
                      changed_targets=("target",))  # fmt: skip
    none = dict.fromkeys(("share_shift", "lost_mass", "inertia_ratio", "auc_shift"))
    assert decide(drifted, DriftSettings(target="keep", **none)).action == "keep"
    stopped = decide(drifted, DriftSettings(target="stop", **none))
    assert stopped.action == "stop" and "changed since the run: target" in stopped.reasons[0]


def test_the_auc_of_two_histograms_counts_ties_half():
    random = np.random.default_rng(0)
    above, below = random.integers(-3, 9, 200), random.integers(-6, 5, 300)
    counts = [dict(zip(*map(np.ndarray.tolist, np.unique(x, return_counts=True)), strict=True))
              for x in (above, below)]  # fmt: skip
    pairs = above[:, None] - below[None, :]
    expected = (pairs > 0).mean() + 0.5 * (pairs == 0).mean()
    assert _auc(*counts) == pytest.approx(expected, rel=1e-12)
    assert _auc({}, counts[0]) is None


@pytest.fixture(scope="module")
def outcomes(spark, tmp_path_factory):
    """A run, and refreshes of pools and targets that have drifted more and more."""
    place = tmp_path_factory.mktemp("drift")
    pool = jobs.vector_pool()
    jobs.write(pool, place / "pool.parquet")
    jobs.write(jobs.vector_target(), place / "target.parquet")
    config = jobs.settings(place, **QUICK)

    def refresh():
        return refresh_pipeline(config, progress=Progress("silent"))

    made = {"run": jobs.go(config)}
    # Rows of a cluster of the target are gone.
    tables = Workspace(spark, config.workspace)
    run = RunSummary.model_validate(made["run"].summary)
    rows = tables.read("assignments", run.keys.assignments["pool"]).toArrow()
    of_target = rows["cluster"].to_numpy()[: len(rows)]
    first = np.bincount(of_target[np.isin(rows["id"], jobs.ids(made["run"].selected))]).argmax()
    gone = rows["id"].filter(pa.array(of_target == first))
    jobs.write(pool.filter(pa.array(~np.isin(pool["id"], gone))), place / "pool.parquet")
    made["stop"], made["stop again"] = refresh(), refresh()
    # Little noise.
    jobs.write(pa.concat_tables([pool, jobs.vector_pool(40, 8, "n")]), place / "pool.parquet")
    made["keep"] = refresh()
    # Another target.
    jobs.write(jobs.vector_target(blob=1, seed=4), place / "target.parquet")
    made["dry"] = plan_refresh(config, progress=Progress("silent"))
    made["replan"], made["nothing"] = refresh(), refresh()
    # Many rows of a kind that no cluster is near to.
    far = jobs.vector_rows("f", 260, 0, seed=9)
    moved = [(np.asarray(v, np.float32) + 40).tolist() for v in far["vector"].to_pylist()]
    far = far.set_column(1, "vector", pa.array(moved, pa.list_(pa.float32())))
    jobs.write(pa.concat_tables([pool, far]), place / "pool.parquet")
    made["requantize"] = refresh()
    tables.reload()
    return SimpleNamespace(**made | {"made": made, "tables": tables, "settings": config})


def summary_of(outcomes, run) -> RunSummary:
    records = [r for r in outcomes.tables.records(run) if r.stage == "run"]
    return RunSummary.of(records[-1])


def test_a_selection_that_lost_a_part_of_the_target_is_not_published(outcomes):
    stopped, again = outcomes.stop, outcomes.made["stop again"]
    assert stopped.drift.action == "stop" and stopped.drift.figures.lost_mass > 0.2
    assert stopped.drift.figures.lost_mass == pytest.approx(stopped.plan.lost_mass, abs=0.02)
    assert stopped.publication.number is None
    assert "drift: share of the target without rows" in stopped.publication.failed
    assert not again.did_work and again.publication.failed == stopped.publication.failed


def test_a_little_drift_keeps_the_plan_and_is_recorded(outcomes):
    kept = outcomes.keep
    assert kept.drift.action == "keep" and kept.publication.number == 2
    assert 0 < kept.drift.figures.share_shift < 0.1
    # Rows are too few to be judged, but their figures are there.
    assert kept.drift.figures.rows >= 40 and kept.drift.figures.inertia_ratio < 1.5
    assert abs(kept.drift.figures.auc - kept.drift.figures.auc_before) < 0.3
    record = [r for r in outcomes.tables.records(kept.run_id) if r.stage == "refresh"][-1]
    assert RefreshSummary.of(record).drift == kept.drift
    # The dry run of the next refresh says what is known so far.
    assert outcomes.dry.drift == kept.drift
    assert outcomes.dry.changed_targets == ("target",) and not outcomes.dry.is_current


def test_another_target_is_planned_on_the_same_codebook_as_a_new_run(outcomes):
    done = outcomes.replan
    assert done.drift.action == "replan" and done.follows == outcomes.run.run_id
    old, new = (summary_of(outcomes, run) for run in (done.follows, done.run_id))
    assert new.keys.fit == old.keys.fit and new.plan_key != old.plan_key
    assert new.basis == {"run": old.run, "fit": old.keys.fit, "action": "replan"}
    assert done.after == 100 and done.publication.number == 3
    assert (done.new_rows, done.gone_rows) == (0, 0) and done.added == done.dropped > 90
    # Nothing of the pool was embedded or assigned again.
    skipped = {name for name, _, _, was_complete in new.stages if was_complete}
    assert {"embed pool", "assign pool"} <= skipped
    decision = [r for r in outcomes.tables.records(old.run) if r.stage == "drift"]
    assert decision[-1].detail["run"] == done.run_id
    assert decision[-1].detail["figures"]["changed_targets"] == ["target"]
    nothing = outcomes.nothing
    assert (nothing.did_work, nothing.run_id, nothing.after) == (False, done.run_id, 100)


def test_rows_of_a_kind_that_no_cluster_knows_have_the_codebook_fitted_from_the_present_one(
    outcomes,
):
    done = outcomes.requantize
    assert done.drift.action == "requantize" and done.drift.figures.inertia_ratio > 2
    old, new = (summary_of(outcomes, run) for run in (done.follows, done.run_id))
    before, after = (fitted_state(outcomes.tables, one.keys.fit).centroids for one in (old, new))
    assert after.shape == before.shape and new.keys.fit != old.keys.fit
    # A cluster has moved to the new kind.
    assert before.max() < 30 < after.max()
    assert new.basis["action"] == "requantize"
