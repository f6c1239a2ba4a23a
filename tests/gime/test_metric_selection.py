"""Selection by metrics: quotas under limits, better rows inside clusters, one plan with the KL."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_sensitivity_analysis import CLUSTERS, noisy_labels

from gio_spark.errors import BudgetError
from gio_spark.gime import Constants
from gio_spark.gime.metric_selection import (
    MeanLimit,
    _target_distribution,
    bounded_kl,
    limited_kl,
    row_scores,
    select,
)
from gio_spark.gime.metric_thresholds import Threshold, pursued_metrics
from gio_spark.gime.tilted_subsets import Sample

SIGNS = {"distortion": -1, "scope": 1, "volume": 1, "mismatch": -1}


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 12), st.integers(0, 10**6), st.floats(0, 1))
def test_bounded_kl_keeps_its_bounds_and_beats_random_feasible_plans(k, seed, share):
    rng = np.random.default_rng(seed)
    most = rng.integers(0, 40, k)
    least = np.minimum(rng.integers(0, 3, k), most)
    budget = int(least.sum() + round(share * (most.sum() - least.sum())))
    p = rng.dirichlet(np.full(k, 0.5))
    plan = bounded_kl(p, least, most, budget)
    assert plan.sum() == budget
    assert np.all((plan >= least) & (plan <= most))

    def objective(rows):
        return -float(p @ np.log((rows + 0.5) / max(budget, 1)))

    for _ in range(5):  # moving rows between two clusters does not help by more than rounding can
        a, b = rng.integers(0, k, 2)
        if a != b and plan[a] - 2 >= least[a] and plan[b] + 2 <= most[b]:
            other = plan.copy()
            other[a] -= 2
            other[b] += 2
            assert objective(other) >= objective(plan) - 1e-9


def test_a_budget_outside_the_limits_is_an_error_with_the_largest():
    with pytest.raises(BudgetError) as raised:
        bounded_kl(np.ones(2) / 2, np.array([0, 0]), np.array([3, 4]), 9)
    assert raised.value.largest == 7


def test_the_target_is_followed_where_a_metric_of_it_matters_and_the_pool_elsewhere():
    sizes, target = np.array([16, 4, 4]), np.array([0.1, 0.2, 0.7])

    def followed(**pursued):
        return _target_distribution(sizes, target, pursued).tolist()

    assert followed(mismatch="high") == followed(coverage="moderate") == target.tolist()
    assert followed(distortion="high") == pytest.approx([4 / 6, 1 / 6, 1 / 6])
    assert followed(scope="high") == followed(variety="high") == [0.5, 0.25, 0.25]
    assert followed(scope="moderate") == pytest.approx([4 / 6, 1 / 6, 1 / 6])


def test_metrics_whose_improvement_did_harm_are_not_pursued():
    table = pd.DataFrame(
        {
            "metrics": ["distortion", "scope+mismatch", "volume", "delay"],
            "class": ["high", "moderate", "high", "low"],
            "change": [-0.1, 0.05, -0.2, 0.1],
        }
    )
    assert pursued_metrics(table, SIGNS) == {
        "distortion": "high", "scope": "moderate", "mismatch": "moderate"
    }  # fmt: skip
    # Moderate metrics alone are not pursued: selecting by them was worse than random rows.
    assert pursued_metrics(table[table["class"] != "high"], SIGNS) == {}
    assert pursued_metrics(table[table["metrics"] != "distortion"], SIGNS) == {}


def test_better_rows_are_selected_inside_clusters_and_the_verdict_passes():
    sample, _ = noisy_labels()
    clusters = sample.rows["cluster"].values
    threshold = Threshold("distortion", 0.3, "less", "high", 0.9, 0.6, 0.1)
    selected = select(sample, clusters, 300, [threshold], {"distortion": "high"}, SIGNS)
    assert len(set(selected.rows.tolist())) == 300
    assert selected.verdict.passed
    before = sample.metrics()["distortion"]
    assert sample.metrics(selected.rows)["distortion"] < before - 0.1
    assert np.array_equal(np.bincount(clusters[selected.rows], minlength=CLUSTERS), selected.take)


def test_the_same_seed_selects_the_same_rows():
    sample, _ = noisy_labels()
    clusters = sample.rows["cluster"].values
    pursued = {"distortion": "moderate"}
    first, second = (select(sample, clusters, 200, [], pursued, SIGNS, seed=4) for _ in range(2))
    assert np.array_equal(first.rows, second.rows)


def test_a_mass_of_the_budgeted_kl_is_followed_within_the_thresholds():
    sample, _ = noisy_labels()
    clusters = sample.rows["cluster"].values
    mass = np.zeros(CLUSTERS)
    mass[:3] = 1 / 3
    scope = Threshold("scope", 0.5, "more", "moderate", 0.5, 0.1, 1.0)
    selected = select(sample, clusters, 200, [scope], {}, SIGNS, target_mass=mass)
    assert np.count_nonzero(selected.take) >= CLUSTERS // 2
    assert selected.take[:3].sum() > 180
    assert selected.verdict.passed


def test_set_metrics_have_no_row_scores():
    sample, _ = noisy_labels()
    assert set(row_scores(sample)) == {"volume", "distortion"}


def test_without_tokens_and_quality_rows_are_scored_by_their_missing_fields():
    fields = {"numeric:a": [1.0, None, 3.0, 4.0], "numeric:b": [None, None, 1.0, 2.0]}
    table = pa.table({"cluster": [0, 0, 1, 1], **fields})
    scores = row_scores(Sample.from_arrow(table, "tabular", Constants({"clusters": 2}), table))
    assert scores["distortion"].tolist() == [0.5, 1.0, 0.0, 0.0]
    assert scores["volume"].tolist() == [0.5, 0.0, 1.0, 1.0]


@settings(max_examples=25, deadline=None)
@given(st.integers(4, 12), st.integers(0, 10_000))
def test_the_kl_under_bounds_on_means_beats_every_plan_that_keeps_them(k, seed):
    rng = np.random.default_rng(seed)
    distribution = rng.dirichlet(np.ones(k))
    sizes = rng.integers(50, 300, k)
    budget = int(sizes.sum() * 0.2)
    means = rng.random(k)
    none = np.zeros(k, np.int64)
    free = bounded_kl(distribution, none, sizes, budget)
    # Half of the way from what the free plan has to the least that is possible.
    order = np.argsort(means)
    least, left = 0.0, budget
    for cluster in order:
        least += means[cluster] * min(left, sizes[cluster])
        left -= min(left, sizes[cluster])
    bound = (float(free @ means) + least) / 2 / budget
    take = limited_kl(distribution, none, sizes, budget, [MeanLimit(means, bound, "less")])
    assert take.sum() == budget and (take >= 0).all() and (take <= sizes).all()
    assert take @ means / budget <= bound + k / budget
    value = divergence(distribution, take)
    for _ in range(200):
        # Random plans around it that keep the bound are never better by more than rounding.
        other = take.copy()
        a, b = rng.integers(0, k, 2)
        step = int(rng.integers(1, 8))
        other[a] += step
        other[b] -= step
        if other.min() < 0 or (other > sizes).any() or other @ means / budget > bound:
            continue
        assert divergence(distribution, other) >= value - 0.02


def divergence(distribution, take):
    share = (take + 0.5) / (take + 0.5).sum()
    return float(np.sum(distribution * np.log(distribution / share)))


def test_bounds_on_means_that_hold_already_change_nothing():
    distribution, sizes = np.array([0.5, 0.3, 0.2]), np.array([50, 50, 50])
    none = np.zeros(3, np.int64)
    loose = [MeanLimit(np.array([1.0, 2.0, 3.0]), 2.9, "less")]
    free = bounded_kl(distribution, none, sizes, 40)
    np.testing.assert_array_equal(limited_kl(distribution, none, sizes, 40, loose), free)
    tight = [MeanLimit(np.array([1.0, 2.0, 3.0]), 1.0, "less")]
    met = limited_kl(distribution, none, sizes, 40, tight)
    assert met @ np.array([1.0, 2.0, 3.0]) < free @ np.array([1.0, 2.0, 3.0])
