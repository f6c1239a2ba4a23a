"""Quota reallocated under budgets in tokens and bounds on sources."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gio_spark.gime.metric_gate import ClusterStats, meet_thresholds, reallocate_quota
from gio_spark.gime.metric_thresholds import Threshold
from gio_spark.gime.quota_reallocation import QuotaLimits, reallocate


def drawn(seed: int, *, tokens: bool) -> tuple[np.ndarray, QuotaLimits, np.random.Generator]:
    """A plan that keeps random limits."""
    rng = np.random.default_rng(seed)
    clusters, sources = int(rng.integers(2, 12)), int(rng.integers(1, 4))
    sizes = rng.integers(0, 40, (clusters, sources))
    cost = rng.uniform(1, 30, sizes.shape) if tokens else np.ones(sizes.shape)
    take = rng.binomial(sizes, 0.4)
    spent = (take * cost).sum(axis=0)
    floor = spent * rng.uniform(0, 1, sources)
    cap = spent * rng.uniform(1, 1.5, sources)
    if not tokens:
        floor, cap = np.floor(floor), np.ceil(cap)
    return take, QuotaLimits(sizes, cost, float(spent.sum()), floor, cap), rng


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10**6), st.booleans(), st.booleans(), st.floats(0.01, 0.6))
def test_a_reallocation_keeps_budget_caps_floors_and_sizes(seed, tokens, keep_one, share):
    take, limits, rng = drawn(seed, tokens=tokens)
    need = rng.standard_normal(len(take))
    changed = reallocate(take, need, share * limits.budget, limits, keep_one=keep_one)
    row = limits.cost.max(axis=0) if tokens else np.zeros(take.shape[1])
    spent = limits.spent(changed)
    assert np.all((changed >= 0) & (changed <= limits.sizes))
    assert np.all(spent <= limits.cap + 1e-6) and np.all(spent >= limits.floor - row - 1e-6)
    assert spent.sum() <= limits.budget + 1e-6
    assert spent.sum() >= limits.budget - row.max() - 1e-6
    if keep_one:
        assert np.all(changed[take > 0] > 0)
    if not tokens:
        # What a move is for: rows are where they help at least as much as before.
        assert need @ changed.sum(axis=1) >= need @ take.sum(axis=1) - 1e-9


def test_a_source_at_its_cap_gains_a_row_only_for_one_that_it_gives_up():
    sizes = np.array([[50, 50], [50, 50]])
    take = np.array([[30, 0], [0, 10]])
    limits = QuotaLimits(sizes, np.ones((2, 2)), 40, np.array([0.0, 10.0]), np.array([30.0, 40.0]))
    changed = reallocate(take, np.array([-1.0, 1.0]), 20, limits)
    assert changed.sum() == 40 and changed[:, 0].sum() <= 30 and changed[:, 1].sum() >= 10
    assert changed[0].sum() == 10 and changed[1].sum() == 30


def test_long_rows_of_a_good_cluster_replace_more_short_rows():
    sizes, cost = np.array([[100], [100]]), np.array([[2.0], [10.0]])
    limits = QuotaLimits(sizes, cost, 100.0, np.zeros(1), np.array([100.0]))
    changed = reallocate(np.array([[50], [0]]), np.array([-1.0, 1.0]), 40, limits)
    assert changed.tolist() == [[30], [4]]


def quality(take: np.ndarray) -> dict[str, float]:
    counts = take.sum(axis=1) if take.ndim > 1 else take
    share = counts / counts.sum()
    return {
        "distortion": float(share @ np.array([0.9, 0.5, 0.1, 0.2])),
        "scope": float(np.mean(counts > 0)),
    }


MEANS = {"distortion": np.array([0.9, 0.5, 0.1, 0.2])}
THRESHOLDS = [
    Threshold("distortion", 0.4, "less", "high", 0.5, 0.9, 0.1),
    Threshold("scope", 0.75, "more", "moderate", 0.5, 0.25, 1.0),
]


def test_a_threshold_that_fails_is_met_under_a_budget_in_tokens():
    sizes, cost = np.array([40, 40, 40, 40]), np.array([5.0, 20.0, 10.0, 40.0])
    limits = QuotaLimits(sizes[:, None], cost[:, None], 400.0, np.zeros(1), np.array([400.0]))
    start = np.array([40, 10, 0, 0])
    stats = ClusterStats(sizes, None, MEANS, limits)
    take, verdict = meet_thresholds(start, stats, THRESHOLDS, quality, tries=60, share=0.1)
    assert not all(t.met(quality(start)[t.metric]) for t in THRESHOLDS)
    assert verdict.passed and verdict.tries > 0, verdict.why
    assert 400 - 40 <= take @ cost <= 400


def two_sources(floor: float) -> tuple[np.ndarray, ClusterStats]:
    """The bad clusters hold source 0 alone, the good ones source 1."""
    sizes = np.array([[40, 0], [40, 0], [0, 40], [0, 40]])
    limits = QuotaLimits(
        sizes, np.ones(sizes.shape), 60, np.array([floor, 0]), np.array([60.0, 60.0])
    )
    start = np.array([[40, 0], [20, 0], [0, 0], [0, 0]])
    return start, ClusterStats(sizes.sum(axis=1), None, MEANS, limits)


def test_a_threshold_that_fails_is_met_within_the_floors_of_sources():
    start, clusters = two_sources(floor=20)
    take, verdict = meet_thresholds(start, clusters, THRESHOLDS, quality, tries=60, share=0.1)
    assert verdict.passed, verdict.why
    assert take.sum() == 60 and take[:, 0].sum() >= 20


def test_a_threshold_that_a_floor_forbids_is_reported_with_the_best_value():
    start, clusters = two_sources(floor=58)
    take, verdict = meet_thresholds(start, clusters, THRESHOLDS, quality, tries=60, share=0.1)
    assert not verdict.passed
    assert take.sum() == 60 and take[:, 0].sum() >= 58
    # 38 rows of the first cluster are gone for the second, two for a good one: no plan has less.
    best = (18 * 0.9 + 40 * 0.5 + 2 * 0.1) / 60
    assert quality(take)["distortion"] == pytest.approx(best)
    assert f"reached {best:.6g}" in verdict.why


@pytest.mark.parametrize("metric", ["scope", "distortion"])
def test_rows_without_bounds_on_sources_keep_their_number(metric):
    take = np.array([60, 0, 0, 0])
    changed = reallocate_quota(
        take, metric, "less", ClusterStats(np.array([60, 30, 30, 30]), None, MEANS)
    )
    assert changed.shape == (4,) and changed.sum() == 60 and changed[0] < 60
