"""The common interface of objectives, and the four special cases of the budgeted KL."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from gio_spark import register
from gio_spark.errors import BudgetError, ConfigError, EmptySelectionError, InputError
from gio_spark.gio import (
    SelectionProblem,
    SelectionResult,
    budgeted_kl,
    objectives,
    select,
)
from gio_spark.gio.ranking import from_order
from gio_spark.gio.selection_problem import OBJECTIVES


def problem(**changes):
    rng = np.random.default_rng(3)
    values = {
        "pool_centroids": rng.standard_normal((6, 4)).astype(np.float32),
        "sizes": np.array([100, 200, 0, 400, 50, 250]),
        "target_mass": np.array([4.0, 3.0, 0.0, 2.0, 1.0, 0.0]),
        "budget": 100,
        "target_centroids": rng.standard_normal((40, 4)).astype(np.float32),
    }
    return SelectionProblem(**(values | changes))


def names(result):
    return [notice.name for notice in result.notices]


def test_plan_meets_the_budget_and_is_certified():
    result = select("budgeted_kl", problem())
    assert result.take.sum() == 100 == result.spent
    assert abs(result.certificate.gap) < 1e-9
    assert result.certificate.primal == result.divergence
    np.testing.assert_allclose(result.fractional, [40, 30, 0, 20, 10, 0])
    np.testing.assert_array_equal(result.take, [40, 30, 0, 20, 10, 0])
    np.testing.assert_array_equal(result.order, [0, 1, 3, 4])
    assert (np.diff(result.divergence_path) < 0).all()
    assert result.binding == ()


def test_binding_capacity_is_named():
    result = select("budgeted_kl", problem(budget=600))
    assert result.take[0] == 100 and result.take.sum() == 600
    assert result.binding[0].startswith("capacity: 3 of 4 clusters")


def test_share_means_share_of_the_pool():
    assert select("budgeted_kl", problem(budget=0.1)).take.sum() == 100


def test_a_target_out_of_reach_selects_nothing():
    result = select("budgeted_kl", problem(unreachable=0.995))
    assert result.take.sum() == 0 and names(result) == ["target_out_of_reach"]


def test_more_clusters_than_rows_can_carry_is_told_as_that():
    few = problem(sizes=np.array([2, 1, 0, 1, 1, 0]), unreachable=0.96, budget=2)
    (notice,) = select("budgeted_kl", few).notices
    assert "5 rows lie in 4 clusters, 1.2 rows each" in notice.remedy
    assert "embedder" not in notice.remedy
    (usual,) = select("budgeted_kl", problem(unreachable=0.96)).notices
    assert "same embedder" in usual.remedy


def test_a_target_half_out_of_reach_warns_and_follows_the_rest():
    result = select("budgeted_kl", problem(unreachable=0.4))
    assert names(result) == ["target_partly_out_of_reach"] and result.lost_mass == 0.4
    np.testing.assert_array_equal(result.take, select("budgeted_kl", problem()).take)


def test_mass_on_empty_clusters_is_reported_never_spread():
    mass = np.array([4.0, 3.0, 1.0, 2.0, 1.0, 0.0])
    result = select("budgeted_kl", problem(target_mass=mass))
    assert result.lost_mass == pytest.approx(1 / 11)
    assert names(result) == ["target_partly_out_of_reach"]
    np.testing.assert_array_equal(result.take, [40, 30, 0, 20, 10, 0])
    quiet = select("budgeted_kl", problem(target_mass=np.array([40, 30, 1, 20, 10, 0.0])))
    assert names(quiet) == [] and 0 < quiet.lost_mass < 0.05


def test_all_mass_on_empty_clusters_selects_nothing():
    result = select("budgeted_kl", problem(target_mass=np.array([0, 0, 1.0, 0, 0, 0])))
    assert result.take.sum() == 0 and result.lost_mass == 1.0


def test_a_budget_beyond_the_targets_clusters_needs_a_replay_share():
    with pytest.raises(BudgetError, match="replay") as error:
        select("budgeted_kl", problem(budget=800))
    assert error.value.largest == 750
    assert select("budgeted_kl", problem(budget=750)).take.sum() == 750
    result = select("budgeted_kl", problem(budget=800, replay=0.2))
    assert result.take.sum() == 800 and result.take[5] > 0


def test_replay_of_one_is_the_pools_own_distribution():
    result = select("budgeted_kl", problem(replay=1.0))
    np.testing.assert_allclose(result.fractional, np.array([100, 200, 0, 400, 50, 250]) / 10)
    assert result.divergence == pytest.approx(0, abs=1e-12)


def test_small_budgets_reach_as_many_clusters_as_there_are_rows():
    rng = np.random.default_rng(0)
    mass, sizes = rng.gamma(0.5, size=400), np.full(400, 50)
    points = rng.standard_normal((400, 2)).astype(np.float32)
    result = select("budgeted_kl", SelectionProblem(points, sizes, mass, 100))
    assert result.take.sum() == 100 and np.isfinite(result.divergence_path).all()
    assert "budget_too_small_for_clusters" in names(result)


def test_token_budget_follows_the_targets_token_mass():
    tokens = np.array([1000, 2000, 0, 8000, 5000, 250])
    result = select("budgeted_kl", problem(tokens=tokens, unit="tokens", budget=2000))
    means = np.array([10, 10, 1, 20, 100, 1.0])
    np.testing.assert_allclose(result.fractional * means, [800, 600, 0, 400, 200, 0])
    assert 2000 - 100 <= result.spent <= 2000
    assert (np.abs(result.take - result.fractional) <= 1.5).all()
    rows = budgeted_kl(problem().target_mass, tokens, 2000).rows
    np.testing.assert_allclose(result.fractional, rows / means)


def test_quality_weights_enter_the_target_distribution():
    quality = np.array([0.5, 1.0, 1.0, 1.0, 1.0, 1.0])
    result = select("budgeted_kl", problem(quality=quality, budget=80))
    np.testing.assert_allclose(result.fractional, [20, 30, 0, 20, 10, 0])
    with pytest.raises(EmptySelectionError):
        select("budgeted_kl", problem(quality=np.zeros(6)))


def test_auto_takes_kappa_of_the_pool_and_the_smaller_of_two_estimates():
    assert select("budgeted_kl", problem(budget="auto", options={"kappa": 0.2})).take.sum() == 200
    both = {"kappa": 0.2, "heldout_budget": 150.0}
    assert select("budgeted_kl", problem(budget="auto", options=both)).take.sum() == 150
    result_of_all = select("budgeted_kl", problem(budget="auto", options={"kappa": 1.0}))
    assert result_of_all.take.sum() == 750
    none = select("budgeted_kl", problem(budget="auto", options={"kappa": 0.0}))
    assert none.take.sum() == 0 and names(none) == ["auto_selects_nothing"]
    with pytest.raises(ConfigError, match="kappa"):
        select("budgeted_kl", problem(budget="auto"))


@pytest.mark.parametrize("budget", [0, -5, 1001, 1e9, float("nan")])
def test_budgets_that_cannot_be_met_say_what_can(budget):
    with pytest.raises(BudgetError) as error:
        select("budgeted_kl", problem(budget=budget))
    assert error.value.largest == 1000


def test_published_objective_selects_entire_clusters_until_the_budget():
    result = select("published_exact", problem(budget=300))
    assert result.take.sum() == 300
    sizes = problem().sizes
    result_of_all = result.order[:-1]
    np.testing.assert_array_equal(result.take[result_of_all], sizes[result_of_all])
    assert result.take[2] == 0


def test_an_early_stop_is_said_where_budget_is_left():
    case = problem(budget=300)
    order, path = np.array([0, 1]), np.array([2.0, 1.0])
    met = from_order("published", case, order, path, stopped=True)
    assert met.spent == 300 and "stopped_before_budget" not in names(met)
    short = from_order("published", case, order[:1], path[:1], stopped=True)
    assert short.spent == 100 and "stopped_before_budget" in names(short)
    with pytest.raises(BudgetError, match="hold 100"):
        from_order("published", case, order[:1], path[:1])


def test_the_published_algorithm_looks_at_five_neighbours_or_all_others():
    def path(**changes):
        return select("published", problem(budget=300, **changes)).divergence_path.tolist()

    assert path() == path(options={"k": 5}) != path(options={"k": 6})
    few = problem().target_centroids[:4]
    assert path(target_centroids=few) == path(target_centroids=few, options={"k": 3})


def test_rows_of_a_ranking_of_all_rows_are_taken_as_they_are():
    ranked = np.array([10, 0, 0, 60, 30, 0])
    result = select("whole_pool", problem(options={"take": ranked}))
    assert result.take.tolist() == ranked.tolist() and result.certificate is None
    with pytest.raises(ConfigError, match="needs options"):
        select("whole_pool", problem())
    with pytest.raises(ConfigError, match="replay"):
        select("whole_pool", problem(options={"take": ranked}, replay=0.1))


def test_a_pool_has_a_cluster_or_is_refused():
    one = problem(pool_centroids=np.ones((1, 4), np.float32), sizes=np.array([200]),
                  target_mass=np.array([1.0]))  # fmt: skip
    assert select("budgeted_kl", one).take.tolist() == [100]
    assert one.seed == 0
    none = {"pool_centroids": np.ones((0, 4), np.float32), "sizes": np.ones(0, int),
            "target_mass": np.ones(0)}  # fmt: skip
    with pytest.raises(InputError, match="no clusters"):
        problem(**none)


def test_published_objective_may_stop_by_itself():
    result = select("published_exact", problem(budget=1000, options={"stop": "increase"}))
    assert (np.diff(result.divergence_path) <= 0).all()
    if result.take.sum() < 1000:
        assert "stopped_before_budget" in names(result)


def test_a_users_own_objective_is_found_by_name():
    @register("objective", "largest_first")
    def largest_first(case: SelectionProblem) -> SelectionResult:
        base = select("budgeted_kl", case)
        return dataclasses.replace(base, objective="largest_first")

    try:
        assert "largest_first" in objectives()
        assert select("largest_first", problem()).objective == "largest_first"
    finally:
        del OBJECTIVES.entries["largest_first"]


def test_unknown_names_list_the_known_ones():
    with pytest.raises(ConfigError, match="budgeted_kl"):
        select("best", problem())
    with pytest.raises(ConfigError, match="stop"):
        select("published_exact", problem(options={"stopp": 1}))


@pytest.mark.parametrize(
    "changes",
    [
        {"sizes": np.ones(5)},
        {"target_mass": np.full(6, np.nan)},
        {"quality": -np.ones(6)},
        {"pool_centroids": np.zeros((0, 4))},
    ],
)
def test_impossible_arrays_are_refused(changes):
    with pytest.raises(InputError):
        problem(**changes)


@pytest.mark.parametrize(
    "changes", [{"unit": "bytes"}, {"unit": "tokens"}, {"replay": 1.5}, {"caps": {"web": 0.5}}]
)
def test_contradicting_settings_are_refused(changes):
    with pytest.raises(ConfigError):
        problem(**changes)


def test_the_published_algorithm_is_an_objective_too():
    case = problem(budget=300, options={"v_init": "jump"}, seed=4)
    result = select("published", case)
    assert result.take.sum() == 300 and len(set(result.order)) == len(result.order)
    np.testing.assert_array_equal(result.take, select("published", case).take)
    stops = problem(budget=300, options={"stop_criterion": "data_size", "max_data_size": 0.4})
    assert len(select("published", stops).order) == 2
    with pytest.raises(ConfigError, match="stop_criterion"):
        select("published", problem(options={"stop_criterium": "increase"}))
