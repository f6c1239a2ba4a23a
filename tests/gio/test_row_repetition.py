"""Budgeted KL where rows may repeat: optimum, certificate, whole copies, and the largest budget."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize

from gio_spark.errors import BudgetError, ConfigError
from gio_spark.gio import (
    Repetition,
    SelectionProblem,
    budgeted_kl,
    integer_plan,
    select,
)
from gio_spark.gio.selection_checks import failure_signs


def random_case(seed: int) -> tuple[np.ndarray, np.ndarray, Repetition, float]:
    """A small target distribution, sizes, a repetition, and a budget that it can meet."""
    rng = np.random.default_rng(seed)
    share = rng.dirichlet(np.full(5, 0.5))
    sizes = rng.integers(5, 60, 5).astype(float)
    repetition = Repetition(int(rng.integers(2, 6)), float(rng.choice([1.0, 3.0, 15.0])))
    return share, sizes, repetition, float(rng.uniform(0.1, 1.0) * repetition.most * sizes.sum())


def objective(share, sizes, repetition, copies) -> float:
    return float(share @ np.log(repetition.effective_rows(copies, sizes)))


def test_effective_rows_follow_the_scaling_law():
    repetition = Repetition(most=8, decay=15.0)
    sizes = np.array([10.0])
    copies = np.array([0.0, 7.0, 10.0, 40.0, 80.0])
    expected = [
        0,
        7,
        10,
        10 * (1 + 15 * (1 - np.exp(-3 / 15))),
        10 * (1 + 15 * (1 - np.exp(-7 / 15))),
    ]
    np.testing.assert_allclose(repetition.effective_rows(copies, sizes), expected, rtol=1e-12)
    # The slope is continuous at N and falls from 1.
    step = 1e-6
    slope = lambda r: float(  # noqa: E731
        (repetition.effective_rows(np.array([r + step]), sizes)
         - repetition.effective_rows(np.array([r - step]), sizes))[0] / (2 * step)
    )  # fmt: skip
    assert slope(10.0) == pytest.approx(1.0, abs=1e-6)
    assert slope(40.0) == pytest.approx(np.exp(-3 / 15), rel=1e-6)


@pytest.mark.filterwarnings("ignore:Values in x were outside bounds:RuntimeWarning")
@pytest.mark.parametrize("seed", range(12))
def test_optimum_and_certificate_agree_with_a_generic_convex_solver(seed):
    share, sizes, repetition, budget = random_case(seed)
    optimum = budgeted_kl(share, sizes, budget, repeat=repetition)
    assert optimum.rows.sum() == pytest.approx(budget, rel=1e-12)
    assert (optimum.rows <= repetition.most * sizes).all() and (optimum.rows >= 0).all()
    assert abs(optimum.gap) < 1e-10
    solved = minimize(
        lambda r: -objective(share, sizes, repetition, np.maximum(r, 1e-9)),
        budget * sizes / sizes.sum(),
        bounds=[(1e-6, repetition.most * n) for n in sizes],
        constraints={"type": "eq", "fun": lambda r: r.sum() - budget},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 1000},
    )
    value = objective(share, sizes, repetition, optimum.rows)
    assert value >= -solved.fun - 1e-9
    assert value == pytest.approx(-solved.fun, abs=1e-6)
    worth = repetition.effective_rows(optimum.rows, sizes)
    assert optimum.divergence == pytest.approx(float(share @ np.log(share * budget / worth)))


def test_a_budget_that_needs_no_repeats_gives_the_plan_without_repetition():
    share, sizes = [0.5, 0.3, 0.2], [1000, 1000, 1000]
    once = budgeted_kl(share, sizes, 900)
    repeated = budgeted_kl(share, sizes, 900, repeat=Repetition())
    np.testing.assert_allclose(repeated.rows, once.rows, rtol=1e-12)
    assert repeated.divergence == pytest.approx(once.divergence, abs=1e-12)
    np.testing.assert_array_equal(
        integer_plan(share, sizes, 901), integer_plan(share, sizes, 901, repeat=Repetition())
    )


def test_scarce_clusters_repeat_before_others_take_more_than_their_share():
    # Without repeats the scarce cluster ends at its 20 rows and the other takes the rest.
    np.testing.assert_allclose(budgeted_kl([0.5, 0.5], [20, 1000], 100).rows, [20, 80])
    rows = budgeted_kl([0.5, 0.5], [20, 1000], 100, repeat=Repetition(4, 15.0)).rows
    assert 40 < rows[0] < 50 and rows.sum() == pytest.approx(100)
    at_limit = budgeted_kl([0.5, 0.5], [20, 1000], 400, repeat=Repetition(4, 15.0)).rows
    np.testing.assert_allclose(at_limit, [80, 320])


@pytest.mark.parametrize("seed", range(6))
def test_whole_copies_are_the_best_of_all_plans(seed):
    rng = np.random.default_rng(seed)
    share, sizes = rng.dirichlet(np.ones(3)), rng.integers(1, 5, 3)
    repetition = Repetition(3, float(rng.choice([0.5, 2.0, 15.0])))
    budget = int(rng.integers(1, 3 * sizes.sum()))

    def value(plan) -> float:
        worth = repetition.effective_rows(np.asarray(plan, float), sizes.astype(float))
        return float(share @ np.log(worth + 0.5))

    plans = [
        (a, b, budget - a - b)
        for a in range(3 * sizes[0] + 1)
        for b in range(3 * sizes[1] + 1)
        if 0 <= budget - a - b <= 3 * sizes[2]
    ]
    plan = integer_plan(share, sizes, budget, repeat=repetition)
    assert plan.sum() == budget and (plan <= 3 * sizes).all()
    assert value(plan) == pytest.approx(max(map(value, plans)), abs=1e-12)


def problem(budget, **more) -> SelectionProblem:
    settings = {
        "pool_centroids": np.zeros((4, 2), np.float32),
        "sizes": np.array([20, 100, 500, 40]),
        "target_mass": np.array([0.6, 0.3, 0.1, 0.0]),
        "repeat": Repetition(4, 15.0),
    }
    return SelectionProblem(budget=budget, **{**settings, **more})


def test_copies_meet_the_budget_and_rows_are_those_that_are_there():
    result = select("budgeted_kl", problem(300))
    assert result.copies.sum() == result.spent == 300
    np.testing.assert_array_equal(result.take, np.minimum(result.copies, [20, 100, 500, 40]))
    assert result.copies[0] == 80 and result.take[0] == 20
    assert abs(result.certificate.gap) < 1e-9
    assert any(phrase.startswith("repetition: ") for phrase in result.binding)
    assert not failure_signs(result, [20, 100, 500, 40], np.eye(4), target_rows=10_000)[1:]


def test_rows_that_may_not_be_taken_stay_out_and_the_others_repeat():
    result = select("budgeted_kl", problem(100, fresh=np.array([10, 30, 500, 40])))
    assert result.take[0] == 10 and result.copies[0] == 40
    assert result.take[1] == 30 or result.copies[1] <= 30


def test_a_budget_in_tokens_counts_the_copies_tokens():
    tokens = np.array([200, 700, 5000, 400])
    case = problem(1500.0, unit="tokens", tokens=tokens)
    result = select("budgeted_kl", case)
    cost = tokens / case.sizes
    assert result.spent == pytest.approx(float(result.copies @ cost))
    assert 1500 - cost.max() < result.spent <= 1500
    assert result.copies[0] > result.take[0] == 20


def test_a_replay_share_lets_other_clusters_in_and_the_error_names_the_largest_budget():
    with pytest.raises(BudgetError, match="at most 2480") as error:
        select("budgeted_kl", problem(2500))
    assert error.value.largest == 4 * 620
    with pytest.raises(BudgetError, match="at most 2640"):
        select("budgeted_kl", problem(2700, replay=0.1))
    result = select("budgeted_kl", problem(2500, replay=0.1))
    assert result.copies.sum() == 2500 and result.copies[3] > 40


def test_what_repetition_cannot_be_combined_with_is_refused_by_name():
    sources = {"source_counts": np.ones((4, 1), int), "source_names": ("web",)}
    with pytest.raises(ConfigError, match="caps and floors"):
        problem(10, caps={"web": 0.5}, **sources)
    with pytest.raises(ConfigError, match="repeated rows"):
        select("published_exact", replace(problem(10), target_centroids=np.zeros((1, 2))))
    with pytest.raises(ConfigError, match="at least"):
        Repetition(most=0)
