"""Budgeted KL: optimum, certificate, and invariances."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gio_spark.errors import BudgetError, InputError
from gio_spark.gio import budgeted_kl


def cases(clusters: int = 12):
    mass = st.lists(
        st.one_of(st.just(0.0), st.floats(1e-6, 1e3)), min_size=clusters, max_size=clusters
    )
    sizes = st.lists(st.integers(0, 10_000), min_size=clusters, max_size=clusters)
    return st.tuples(mass, sizes, st.floats(0.001, 1.0), st.integers(0, 2**31))


def feasible(mass, sizes, share):
    mass, sizes = np.array(mass), np.array(sizes)
    reach = sizes[mass > 0].sum()
    return mass, sizes, max(1, int(share * reach)), int(reach)


def test_fills_in_proportion_until_a_cluster_is_full():
    rows, divergence, _, gap = budgeted_kl([0.5, 0.3, 0.2], [10, 1000, 1000], 110)
    np.testing.assert_allclose(rows, [10, 60, 40])
    assert divergence == pytest.approx(
        0.5 * np.log(0.5 * 11) + 0.3 * np.log(0.3 * 110 / 60) + 0.2 * np.log(0.2 * 110 / 40)
    )
    assert abs(gap) < 1e-12


def test_ample_clusters_reach_zero_divergence():
    result = budgeted_kl([1, 2, 3], [600, 600, 600], 600)
    assert result.divergence == pytest.approx(0, abs=1e-12)
    np.testing.assert_allclose(result.rows, [100, 200, 300])


@settings(max_examples=150, deadline=None)
@given(cases())
def test_gap_budget_and_optimality(case):
    mass, sizes, budget, reach = feasible(*case[:3])
    if reach < 1 or budget > reach:
        return
    rows, divergence, dual, gap = budgeted_kl(mass, sizes, budget)
    assert -1e-9 < gap < 1e-9
    assert gap == divergence - dual
    assert rows.sum() == pytest.approx(budget, rel=1e-12)
    assert (rows <= sizes).all() and (rows[(mass == 0) | (sizes == 0)] == 0).all()
    in_target = (mass > 0) & (sizes > 0)
    distribution = np.where(in_target, mass, 0) / mass[in_target].sum()
    rng = np.random.default_rng(case[3])
    for _ in range(5):
        other = random_plan(rng, in_target, sizes, budget)
        value = np.sum(
            distribution[in_target]
            * np.log(distribution[in_target] * budget / np.maximum(other[in_target], 1e-300))
        )
        assert divergence <= value + 1e-9


def random_plan(rng, in_target, sizes, budget):
    plan = np.where(in_target, sizes * rng.random(len(sizes)), 0.0)
    if plan.sum() > budget:
        return plan * (budget / plan.sum())
    room = np.where(in_target, sizes - plan, 0.0)
    return plan + room * ((budget - plan.sum()) / max(room.sum(), 1e-300))


@settings(max_examples=80, deadline=None)
@given(cases())
def test_order_of_clusters_changes_nothing(case):
    mass, sizes, budget, reach = feasible(*case[:3])
    if reach < 1 or budget > reach:
        return
    shuffle = np.random.default_rng(case[3]).permutation(len(mass))
    one, two = budgeted_kl(mass, sizes, budget), budgeted_kl(mass[shuffle], sizes[shuffle], budget)
    np.testing.assert_allclose(one.rows[shuffle], two.rows, rtol=1e-12)
    assert one.divergence == pytest.approx(two.divergence, rel=1e-12, abs=1e-14)


@settings(max_examples=80, deadline=None)
@given(cases())
def test_twice_the_data_and_budget_is_exactly_twice_the_plan(case):
    mass, sizes, budget, reach = feasible(*case[:3])
    if reach < 1 or budget > reach:
        return
    one, two = budgeted_kl(mass, sizes, budget), budgeted_kl(2 * mass, 2 * sizes, 2 * budget)
    np.testing.assert_array_equal(2 * one.rows, two.rows)
    assert one.divergence == two.divergence


def test_a_budget_beyond_the_targets_clusters_names_the_largest():
    with pytest.raises(BudgetError) as error:
        budgeted_kl([0.5, 0.5, 0.0], [10, 20, 500], 31)
    assert error.value.largest == 30
    assert "replay" in str(error.value)
    rows = budgeted_kl([0.5, 0.5, 0.0], [10, 20, 500], 30).rows
    np.testing.assert_array_equal(rows, [10, 20, 0])


@pytest.mark.parametrize("budget", [0, -1, float("nan")])
def test_senseless_budgets_are_refused(budget):
    with pytest.raises(BudgetError):
        budgeted_kl([1.0], [10], budget)


def test_senseless_arrays_are_refused():
    with pytest.raises(InputError):
        budgeted_kl([1.0, 1.0], [10], 5)
    with pytest.raises(InputError):
        budgeted_kl([1.0, -1.0], [10, 10], 5)
    with pytest.raises(InputError):
        budgeted_kl([1.0, np.nan], [10, 10], 5)
