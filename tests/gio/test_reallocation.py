"""Changed allocations of a plan, against figures worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from gio_spark.gio import SelectionProblem, select
from gio_spark.gio.reallocation import reallocation_bounds, with_allocation

LAW = np.array([0.5, 0.3, 0.2])
SIZES = np.array([50, 60, 70])


def problem(**changes):
    return SelectionProblem(np.eye(3), SIZES, LAW, **({"budget": 20} | changes))


def whole_row_divergence(take, cost=1.0):
    share = cost * (np.asarray(take) + 0.5)
    return float(np.sum(LAW * np.log(LAW * share.sum() / share)))


def test_reallocated_rows_are_counted_and_the_divergence_is_that_of_the_new_plan():
    plan = select("budgeted_kl", problem())
    np.testing.assert_array_equal(plan.take, [10, 6, 4])
    changed = with_allocation(problem(), plan, np.array([7, 8, 5]), "{} rows were moved")
    np.testing.assert_array_equal(changed.take, [7, 8, 5])
    assert changed.divergence == pytest.approx(whole_row_divergence([7, 8, 5]), rel=1e-12)
    assert changed.divergence_path[-1] == changed.divergence
    assert changed.certificate.primal == changed.divergence
    assert changed.certificate.dual == plan.certificate.dual
    assert changed.certificate.gap == changed.divergence - plan.certificate.dual
    assert changed.spent == 20
    assert changed.binding == (*plan.binding, "3 rows were moved")


def test_the_same_rows_are_the_same_plan():
    plan = select("budgeted_kl", problem())
    assert with_allocation(problem(), plan, plan.take.copy(), "{} rows were moved") is plan


def test_a_new_allocation_in_tokens_spends_the_mean_tokens_of_its_rows():
    tokens = {"unit": "tokens", "tokens": SIZES * [1, 2, 3], "budget": 60}
    plan = select("budgeted_kl", problem(**tokens))
    changed = with_allocation(problem(**tokens), plan, np.array([9, 9, 9]), "{}")
    assert changed.spent == 9 * (1 + 2 + 3)
    assert changed.divergence == pytest.approx(
        whole_row_divergence([9, 9, 9], [1, 2, 3]), rel=1e-12
    )


SOURCES = {
    "source_names": ("web", "books"), "source_counts": np.array([[20, 30], [40, 20], [60, 10]]),
    "caps": {"web": 0.65}, "floors": {"books": 0.15},
}  # fmt: skip


def test_an_allocation_changed_between_sources_counts_rows_of_each():
    plan = select("budgeted_kl", problem(**SOURCES))
    take = plan.take_by_source + np.array([[-2, 2], [1, -1], [0, 0]])
    changed = with_allocation(problem(**SOURCES), plan, take, "{} rows")
    np.testing.assert_array_equal(changed.take_by_source, take)
    np.testing.assert_array_equal(changed.take, take.sum(axis=1))
    assert changed.binding[-1] == "3 rows"
    assert changed.spent == 20
    assert changed.divergence == pytest.approx(whole_row_divergence(changed.take), rel=1e-12)


def test_reallocation_bounds_are_whole_rows_of_caps_and_floors():
    plan = select("budgeted_kl", problem(**SOURCES, budget=30))
    rows, cost, floor, cap = reallocation_bounds(problem(**SOURCES, budget=30), plan)
    np.testing.assert_array_equal(rows, SOURCES["source_counts"])
    np.testing.assert_array_equal(cost, np.ones((3, 2)))
    # Of 30 rows, 0.15 are 4.5, so 5 at least; 0.65 are 19.5, so 19 at most.
    np.testing.assert_array_equal(floor, [0, 5])
    np.testing.assert_array_equal(cap, [19, 30])


def test_without_sources_the_budget_is_the_only_bound():
    rows, cost, floor, cap = reallocation_bounds(problem(), select("budgeted_kl", problem()))
    np.testing.assert_array_equal(rows, SIZES[:, None])
    np.testing.assert_array_equal(cost, np.ones((3, 1)))
    np.testing.assert_array_equal([floor, cap], [[0], [20]])
