"""The budgeted KL in whole rows."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gio_spark.errors import BudgetError
from gio_spark.gio import budgeted_kl, integer_plan


def value(mass, plan):
    used = mass > 0
    return float(np.sum(mass[used] * np.log(plan[used] + 0.5)))


def greedy(mass, sizes, budget):
    plan = np.zeros(len(mass), dtype=int)
    for _ in range(budget):
        gain = np.where(plan < sizes, mass * np.log1p(1 / (plan + 0.5)), -1.0)
        plan[int(np.argmax(gain))] += 1
    return plan


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0.01, 1.0), st.integers(0, 4)), min_size=1, max_size=4),
    st.floats(0, 1),
)
def test_no_plan_is_better(clusters, share):
    mass, sizes = (np.array(column) for column in zip(*clusters, strict=True))
    budget = int(share * sizes.sum())
    plan = integer_plan(mass, sizes, budget)
    assert plan.sum() == budget and (plan <= sizes).all() and (plan >= 0).all()
    best = max(
        value(mass, np.array(other))
        for other in itertools.product(*(range(s + 1) for s in sizes))
        if sum(other) == budget
    )
    assert value(mass, plan) >= best - 1e-12


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([0.0, 0.1, 0.2, 0.4, 0.7]), st.integers(0, 40)),
        min_size=2,
        max_size=30,
    ),
    st.floats(0, 1),
)
def test_equals_the_greedy_loop_with_ties_to_the_lowest_cluster(clusters, share):
    mass, sizes = (np.array(column) for column in zip(*clusters, strict=True))
    budget = int(share * sizes[mass > 0].sum())
    np.testing.assert_array_equal(
        integer_plan(mass, sizes, budget), greedy(mass, np.where(mass > 0, sizes, 0), budget)
    )


def test_stays_near_the_fractional_optimum_at_scale():
    rng = np.random.default_rng(0)
    mass, sizes = rng.gamma(0.5, size=5000), rng.integers(0, 10**6, 5000)
    budget = 10**8
    plan = integer_plan(mass, sizes, budget)
    assert plan.sum() == budget
    rows = budgeted_kl(mass, sizes, budget).rows
    # r + 1/2 follows p, so r itself may differ by the half rows spread over all clusters.
    assert (np.abs(plan - rows) <= 1.5 + rows * len(mass) / budget).all()


def test_a_cost_per_row_is_met_to_within_one_row():
    rng = np.random.default_rng(1)
    mass, sizes = rng.random(200), rng.integers(1, 300, 200)
    cost = rng.uniform(5, 400, 200)
    budget = 0.3 * float(sizes @ cost)
    plan = integer_plan(mass, sizes, budget, cost=cost)
    spent = float(plan @ cost)
    assert budget - cost.max() <= spent <= budget


def test_equal_clusters_share_and_the_lowest_gets_the_rest():
    np.testing.assert_array_equal(integer_plan([1, 1, 1], [9, 9, 9], 7), [3, 2, 2])


def test_a_budget_too_large_names_the_largest():
    with pytest.raises(BudgetError) as error:
        integer_plan([1, 0], [5, 5], 6)
    assert error.value.largest == 5
