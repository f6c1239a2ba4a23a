"""Caps and floors per source."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gio_spark.errors import BudgetError, ConfigError
from gio_spark.gio import SelectionProblem, budgeted_kl, select

NAMES = ("books", "news", "web")


def problem(budget=400, clusters=12, seed=0, **changes):
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 120, (clusters, 3))
    counts[:, 2] *= 3
    values = {
        "pool_centroids": rng.standard_normal((clusters, 2)).astype(np.float32),
        "sizes": counts.sum(axis=1),
        "target_mass": rng.gamma(1.0, size=clusters),
        "budget": budget,
        "source_counts": counts,
        "source_names": NAMES,
    }
    return SelectionProblem(**(values | changes))


def check(case, result):
    budget, counts = result.budget, case.source_counts
    take = result.take_by_source
    assert take.sum() == budget and (take >= 0).all() and (take <= counts).all()
    np.testing.assert_array_equal(take.sum(axis=1), result.take)
    for index, name in enumerate(NAMES):
        total = take[:, index].sum()
        assert total <= np.floor(case.caps.get(name, 1.0) * budget + 1e-9)
        assert total >= np.ceil(case.floors.get(name, 0.0) * budget - 1e-9)
    assert -1e-9 < result.certificate.gap < 1e-6


def test_a_binding_cap_is_met_certified_and_named():
    case = problem(budget=1400, caps={"web": 0.2})
    result = select("budgeted_kl", case)
    check(case, result)
    assert result.take_by_source[:, 2].sum() == 280
    assert any(text.startswith("cap of source web") for text in result.binding)
    free = select("budgeted_kl", problem(budget=1400))
    assert result.divergence > free.divergence


def test_a_binding_floor_is_met_certified_and_named():
    case = problem(budget=300, floors={"books": 0.6})
    result = select("budgeted_kl", case)
    check(case, result)
    assert result.take_by_source[:, 0].sum() == 180


def test_caps_or_floors_that_add_up_to_one_fix_the_share_of_every_source():
    shares = {"books": 0.25, "news": 0.25, "web": 0.5}
    for bounds in ({"caps": shares}, {"floors": shares}):
        case = problem(budget=400, **bounds)
        result = select("budgeted_kl", case)
        check(case, result)
        np.testing.assert_array_equal(result.take_by_source.sum(axis=0), [100, 100, 200])


def test_slack_bounds_leave_the_optimum_alone():
    case = problem(caps={"web": 0.95}, floors={"news": 0.01})
    result = select("budgeted_kl", case)
    check(case, result)
    plain = budgeted_kl(case.target_mass, case.sizes, 400)
    assert result.divergence == pytest.approx(plain.divergence, abs=1e-6)
    assert not any("source" in text for text in result.binding)


def test_a_cap_may_be_met_by_changing_sources_inside_clusters_for_free():
    counts = np.full((4, 3), 100)
    case = problem(
        200, 4, source_counts=counts, sizes=counts.sum(axis=1), target_mass=np.ones(4),
        caps={"web": 0.1},
    )  # fmt: skip
    result = select("budgeted_kl", case)
    check(case, result)
    assert result.divergence == pytest.approx(0, abs=1e-6)
    np.testing.assert_array_equal(result.take, [50, 50, 50, 50])


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10_000),
    st.floats(0.05, 1.0),
    st.floats(0.0, 0.4),
    st.floats(0.3, 1.0),
    st.floats(0.02, 0.9),
)
def test_certificate_and_bounds_hold_for_all_sorts_of_problems(seed, web, books, news, share):
    base = problem(seed=seed, caps={"web": web, "news": news}, floors={"books": books})
    try:
        largest = int(select("budgeted_kl", _with(base, int(base.sizes.sum()))).budget)
    except BudgetError as error:
        largest = int(error.largest)
    except ConfigError:
        return
    budget = max(1, int(share * largest))
    try:
        result = select("budgeted_kl", _with(base, budget))
    except BudgetError as error:  # whole rows may not allow every small budget
        assert error.largest > budget or largest == 0 or budget < 10
        return
    check(base, result)
    assert _beaten_by_random_plans(base, result, seed) is False


def _with(base, budget):
    fields = {name: getattr(base, name) for name in base.__dataclass_fields__}
    return SelectionProblem(**(fields | {"budget": budget}))


def _beaten_by_random_plans(case, result, seed):
    """Move mass at random between feasible plans of the same totals; none may be better."""
    rng = np.random.default_rng(seed)
    distribution, take = result.target_mass, result.take_by_source.astype(float)
    in_target = distribution > 0
    for _ in range(3):
        source = int(rng.integers(3))
        give, get = rng.choice(np.flatnonzero(in_target), 2)
        step = min(take[give, source], case.source_counts[get, source] - take[get, source])
        other = take.copy()
        other[give, source] -= step * rng.random()
        other[get, source] += take[give, source] - other[give, source]
        rows = other.sum(axis=1)[in_target]
        if (rows <= 0).any():
            continue
        value = np.sum(
            distribution[in_target] * np.log(distribution[in_target] * result.budget / rows)
        )
        if value < result.certificate.dual - 1e-9:
            return True
    return False


def test_impossible_bounds_are_refused():
    with pytest.raises(BudgetError, match="allow") as error:
        select("budgeted_kl", problem(budget=2000, caps={"web": 0.1}))
    largest = int(error.value.largest)
    result = select("budgeted_kl", problem(budget=largest, caps={"web": 0.1}))
    assert result.take.sum() == largest
    with pytest.raises(ConfigError, match="floor"):
        select("budgeted_kl", problem(caps={"web": 0.1}, floors={"web": 0.2}))
    with pytest.raises(ConfigError, match="floors add up"):
        select("budgeted_kl", problem(floors={"web": 0.6, "news": 0.6}))
    with pytest.raises(ConfigError, match="caps add up"):
        select("budgeted_kl", problem(caps=dict.fromkeys(NAMES, 0.2)))
    with pytest.raises(ConfigError, match="No source"):
        problem(caps={"wiki": 0.2})


def test_a_cap_of_zero_bars_a_source():
    counts = np.array([[50, 50, 0], [0, 0, 80], [50, 0, 50]])
    case = problem(
        60, 3, source_counts=counts, sizes=counts.sum(axis=1), target_mass=np.ones(3),
        caps={"web": 0.0},
    )  # fmt: skip
    result = select("budgeted_kl", case)
    assert result.take_by_source[:, 2].sum() == 0 and result.take.sum() == 60
    assert "sources_barred" in [notice.name for notice in result.notices]
    assert result.lost_mass == pytest.approx(1 / 3)


def tokens_of(case, seed=1):
    means = np.random.default_rng(seed).integers(1, 400, np.shape(case.source_counts))
    return np.asarray(case.source_counts) * means


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.1, 1.0), st.floats(0.0, 0.3), st.floats(0.02, 0.9))
def test_token_budgets_keep_caps_and_floors_to_within_one_row(seed, web, books, share):
    base = problem(seed=seed)
    tokens = tokens_of(base, seed)
    bounds = {
        "unit": "tokens", "source_tokens": tokens, "tokens": tokens.sum(axis=1),
        "caps": {"web": web}, "floors": {"books": books},
    }  # fmt: skip
    largest = largest_of(seed, tokens, bounds)
    budget = int(share * largest)
    if budget < 2000:
        return
    case = problem(budget, seed=seed, **bounds)
    result = select("budgeted_kl", case)
    cost = tokens / np.maximum(case.source_counts, 1)
    row = cost.max()
    spent = (result.take_by_source * cost).sum(axis=0)
    assert (result.take_by_source <= case.source_counts).all()
    np.testing.assert_array_equal(result.take_by_source.sum(axis=1), result.take)
    assert spent[2] <= web * budget + 1e-6
    assert spent[0] >= books * budget - row
    assert budget - 3 * row <= spent.sum() <= budget + 1e-6
    assert result.spent == pytest.approx(spent.sum()) and result.unit == "tokens"
    assert -1e-9 < result.certificate.gap < 1e-6


def largest_of(seed, tokens, bounds):
    try:
        return select("budgeted_kl", problem(int(tokens.sum()), seed=seed, **bounds)).budget
    except BudgetError as error:
        return error.largest


def test_token_budgets_with_slack_bounds_are_the_plain_token_plan():
    base = problem(clusters=8, seed=3)
    tokens = np.asarray(base.source_counts) * 25
    case = problem(
        40_000, 8, 3, unit="tokens", source_tokens=tokens, tokens=tokens.sum(axis=1),
        caps={"web": 0.99},
    )  # fmt: skip
    result = select("budgeted_kl", case)
    plain = budgeted_kl(case.target_mass, case.tokens, 40_000)
    assert result.divergence == pytest.approx(plain.divergence, abs=1e-6)
    np.testing.assert_allclose(result.fractional * 25, plain.rows, rtol=1e-3, atol=1)
    with pytest.raises(ConfigError, match="source_tokens"):
        select("budgeted_kl", problem(
            1000, 8, 3, unit="tokens", tokens=tokens.sum(axis=1), caps={"web": 0.5}
        ))  # fmt: skip
