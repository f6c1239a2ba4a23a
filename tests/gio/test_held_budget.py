"""A plan's budget held on clusters of other sizes, against closed forms and the plan itself."""

from __future__ import annotations

import numpy as np
import pytest

from gio_spark.errors import BudgetError
from gio_spark.gio import SelectionProblem, hold_budget, integer_plan, select

MASS = np.array([0.4, 0.3, 0.2, 0.1])


def problem(sizes, budget=100.0, **changes):
    return SelectionProblem(np.eye(4, dtype=np.float32), np.asarray(sizes), MASS, budget, **changes)


def test_a_cluster_that_runs_short_is_made_up_for_in_proportion_to_the_target_mass():
    plan = select("budgeted_kl", problem([500] * 4))
    np.testing.assert_array_equal(plan.take, [40, 30, 20, 10])
    held = hold_budget(problem([10, 500, 500, 500]))
    # 90 rows over masses .3, .2, .1.
    np.testing.assert_array_equal(held.take, [10, 45, 30, 15])
    assert held.spent == 100 and held.certificate.gap == pytest.approx(0, abs=1e-12)
    share = MASS[1:] / MASS[1:].sum() * 0.9
    kl = 0.4 * np.log(0.4 / 0.1) + float(np.sum(MASS[1:] * np.log(MASS[1:] / share)))
    assert held.divergence == pytest.approx(kl, rel=1e-12)
    # A cluster that has grown is filled up again.
    np.testing.assert_array_equal(hold_budget(problem([900] * 4)).take, plan.take)


def test_mass_of_a_cluster_that_is_gone_is_lost_and_told():
    held = hold_budget(problem([0, 500, 500, 500], unreachable=0.1))
    np.testing.assert_array_equal(held.take, [0, 50, 33, 17])
    assert held.lost_mass == pytest.approx(0.1 + 0.9 * 0.4)


def test_a_budget_that_the_pool_no_longer_has_is_met_as_far_as_it_goes_and_told():
    held = hold_budget(problem([10, 20, 5, 5]))
    np.testing.assert_array_equal(held.take, [10, 20, 5, 5])
    assert [n.name for n in held.notices if n.name == "budget_short"]
    assert "The budget is 100 rows, but the present pool allows 40" in held.notices[-1].text
    caps = {"source_names": ("web", "books"), "caps": {"web": 0.5}, "floors": {"books": 0.5}}
    counts = np.array([[100, 10]] * 4)
    held = hold_budget(problem([110] * 4, source_counts=counts, **caps))
    assert held.budget == 80 and held.take_by_source.sum(axis=0).tolist() == [40, 40]
    with pytest.raises(BudgetError, match="caps and floors per source allow 0"):
        hold_budget(problem([100] * 4, source_counts=counts * [1, 0], **caps))


@pytest.mark.parametrize("tokens", [None, np.array([4000, 1500, 9000, 300])])
def test_quotas_of_another_plan_stay_where_the_clusters_hold_them(tokens):
    quotas = np.array([7, 3, 55, 35])
    sizes = np.array([400, 300, 900, 60])
    unit = {} if tokens is None else {"unit": "tokens", "tokens": tokens}
    cost = np.ones(4) if tokens is None else tokens / sizes
    budget = float(quotas @ cost)
    held = hold_budget(problem(sizes, budget, **unit), quotas)
    np.testing.assert_array_equal(held.take, quotas)
    assert held.spent == pytest.approx(budget)


def test_a_quota_that_cannot_be_met_goes_to_the_others_and_then_to_clusters_without_one():
    quotas = [60, 40, 0, 0]
    held = hold_budget(problem([30, 100, 100, 100]), quotas)
    np.testing.assert_array_equal(held.take, [30, 70, 0, 0])
    held = hold_budget(problem([30, 40, 100, 100]), quotas)
    np.testing.assert_array_equal(held.take, [30, 40, 20, 10])
    assert held.certificate.dual <= held.divergence


def test_held_rows_in_tokens_stay_within_the_budget():
    tokens = np.array([1000, 4000, 500, 2500])
    sizes = np.array([50, 100, 100, 100])
    held = hold_budget(problem(sizes, 2000.0, unit="tokens", tokens=tokens))
    assert 2000 - (tokens / sizes).max() <= held.spent <= 2000
    np.testing.assert_array_equal(held.take, integer_plan(MASS, sizes, 2000.0, cost=tokens / sizes))
