"""Bounds of metrics: when they are met, how they change, and which clusters they close."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from gio_spark.errors import BudgetError
from gio_spark.gime.metric_gate import (
    ClusterStats,
    cluster_bounds,
    judge,
    threshold_distance,
    urgency,
)
from gio_spark.gime.metric_profile import Constants
from gio_spark.gime.metric_selection import (
    MeanLimit,
    _clipped_rows,
    _round_rows,
    _row_order,
    bounded_kl,
    cluster_means,
    row_scores,
)
from gio_spark.gime.metric_thresholds import Threshold, response
from gio_spark.gime.tilted_subsets import Sample


def threshold(bound, direction="more", upper=None, kind="high", worst=0.0, best=1.0, metric="m"):
    return Threshold(metric, bound, direction, kind, 0.5, worst, best, upper)


def test_a_bound_is_met_within_a_billionth():
    assert threshold(0.5).met(0.5 - 0.9e-9) and not threshold(0.5).met(0.5 - 1.1e-9)
    assert threshold(100.0).met(100 - 0.9e-7) and not threshold(100.0).met(100 - 1.1e-7)
    assert threshold(0.5, "less").met(0.5 + 0.9e-9)
    assert not threshold(0.5, "less").met(0.5 + 1.1e-9)
    band = threshold(1.0, upper=2.0)
    assert [band.met(v) for v in (1 - 2e-9, 1 - 5e-10, 2 + 5e-10, 2 + 2e-9)] == [
        False, True, True, False,
    ]  # fmt: skip
    assert not any(threshold(-1e9).met(v) for v in (None, np.nan, np.inf))


def test_bands_are_tightened_by_a_quarter_of_their_width_at_most():
    band = threshold(1.0, upper=2.0, best=10.0)
    assert (band.tightened(0.01).bound, band.tightened(0.01).upper) == (1.1, 1.9)
    assert (band.tightened(0.5).bound, band.tightened(0.5).upper) == (1.25, 1.75)


def test_a_step_in_the_score_is_a_step_in_the_response():
    share = np.linspace(0, 1, 201)
    grid, middle, lower = response(share, (share >= 0.5).astype(float))
    np.testing.assert_allclose(grid, np.arange(41) / 40)
    assert np.flatnonzero(middle > 0.5)[0] == 20
    assert (lower <= middle + 1e-12).all() and lower[22] == 1.0 and lower[18] == 0.0


def test_distances_from_bounds_are_in_parts_of_what_is_attainable():
    far = threshold(0.8, worst=0.2, best=1.0)
    assert threshold_distance({"m": 0.4}, [far]) == pytest.approx(0.5)
    assert threshold_distance({"m": 0.9}, [far]) == 0.0
    assert threshold_distance({}, [far, threshold(0.5, metric="n")]) == 2e6
    flat = threshold(-4.0, worst=1.0, best=1.0)
    assert threshold_distance({"m": -6.0}, [flat]) == 0.5
    band = threshold(1.0, upper=2.0, best=10.0)
    assert threshold_distance({"m": 4.0}, [band]) == pytest.approx(0.2)
    assert threshold_distance({"m": 0.5}, [band]) == pytest.approx(0.05)


def test_failure_signs_begin_at_their_limits():
    def notes(values=(), **more):
        return judge({"m": 1.0}, [threshold(0.5)], repeats=values, **more).notes

    assert notes(score=0.949, full_score=1.0) and not notes(score=0.95, full_score=1.0)
    # Spreads of 2.1 and 1.9 % of the mean; two repeats say nothing.
    assert "2.1%" in notes((97.9, 100.0, 102.1))[0]
    assert not notes((98.1, 100.0, 101.9))
    assert not notes((50.0, 150.0))


def test_what_a_row_helps_is_read_from_target_means_or_emptiness():
    take, sizes = np.array([6, 2, 0, 0]), np.array([9, 9, 9, 0])
    target, means = np.array([0.25, 0.25, 0.5, 0.0]), {"delay": np.array([4.0, 2.0, 1.0, 0.0])}
    clusters = ClusterStats(sizes, target, means)
    for metric in ("coverage", "mismatch"):
        assert urgency(metric, "more", take, clusters).tolist() == [-0.5, 0.0, 0.5, 0.0]
    assert urgency("delay", "less", take, clusters).tolist() == [-4, -2, -1, 0]
    assert urgency("delay", "more", take, clusters).tolist() == [4, 2, 1, 0]
    even = urgency("scope", "more", take, clusters)
    np.testing.assert_allclose(even, [1 / 3 - 0.75, 1 / 3 - 0.25, 1 / 3, -np.inf])


def test_metrics_of_a_source_are_read_from_its_own_clusters():
    part = ClusterStats(np.array([1, 3, 0]))
    clusters = ClusterStats(np.array([50, 50, 0]), parts={"web": part})
    mine, name, own, times = clusters.of("web/scope", np.array([8, 4, 0]))
    assert mine is part and name == "scope"
    # The source has a quarter of its rows where the pool has half: half as many of it are taken.
    np.testing.assert_allclose(own, [4.0, 6.0, 0.0])
    np.testing.assert_allclose(times, [2.0, 2 / 3, 0.0])
    mine, name, own, times = clusters.of("books/scope", np.array([8, 4, 0]))
    assert mine is clusters and name == "books/scope"
    assert (own.tolist(), times.tolist()) == ([8, 4, 0], [1, 1, 1])


def test_clusters_far_beyond_a_bound_are_closed_where_the_others_meet_the_budget():
    means = {"delay": np.array([1.0, 2.0, 3.1]), "volume": np.array([10.0, 5.0, 1.0])}
    clusters = ClusterStats(np.array([40, 40, 40]), None, means)
    late = threshold(2.0, "less", worst=3.0, best=2.0, metric="delay")
    assert cluster_bounds([late], clusters, 80)[1].tolist() == [40, 40, 0]
    assert cluster_bounds([late], clusters, 81)[1].tolist() == [40, 40, 40]
    on_edge = threshold(2.1, "less", worst=3.1, best=2.1, metric="delay")
    assert cluster_bounds([on_edge], clusters, 80)[1].tolist() == [40, 40, 40]
    # Volume adds up: a budget of 10 rows of these clusters comes to 100, 50 and 10.
    small = threshold(60.0, "more", worst=20.0, best=60.0, metric="volume")
    assert cluster_bounds([small], clusters, 10)[1].tolist() == [40, 40, 0]
    moderate = threshold(2.0, "less", worst=3.0, best=2.0, kind="moderate", metric="delay")
    assert cluster_bounds([moderate], clusters, 80)[1].tolist() == [40, 40, 40]


def test_scope_needs_a_row_in_the_clusters_of_most_mass():
    scope = threshold(0.5, metric="scope")
    sizes = np.array([5, 9, 0, 7, 8])
    assert cluster_bounds([scope], ClusterStats(sizes), 10)[0].tolist() == [0, 1, 0, 1, 1]
    target = np.array([0.3, 0.1, 0.3, 0.2, 0.1])
    # Three of five clusters; of equal mass the larger one; never an empty one.
    assert cluster_bounds([scope], ClusterStats(sizes, target), 10)[0].tolist() == [1, 1, 0, 1, 0]
    assert cluster_bounds([scope], ClusterStats(sizes, target), 2)[0].tolist() == [1, 0, 0, 1, 0]


def test_the_bounded_kl_follows_the_target_between_its_bounds():
    target = np.array([0.5, 0.3, 0.2, 0.0])
    none, most = np.zeros(4, np.int64), np.array([100, 100, 100, 100])
    assert bounded_kl(target, none, most, 10).tolist() == [5, 3, 2, 0]
    # The first is full at 20; the others share 30 as 3 to 2, but the last keeps its 5.
    least = np.array([0, 0, 0, 5])
    assert bounded_kl(target, least, np.array([20, 99, 99, 99]), 50).tolist() == [20, 15, 10, 5]
    # The target's clusters hold 15: the rest goes to the other cluster.
    assert bounded_kl(target, none, np.array([5, 5, 5, 50]), 30).tolist() == [5, 5, 5, 15]
    halves = np.array([0.5, 0.5, 0.0, 0.0])
    assert bounded_kl(halves, none, np.array([5, 5, 30, 10]), 30).tolist() == [5, 5, 15, 5]
    assert bounded_kl(target, least, most * 0 + 5, 20).tolist() == [5, 5, 5, 5]
    with pytest.raises(BudgetError):
        bounded_kl(target, least, most * 0 + 5, 21)
    with pytest.raises(BudgetError):
        bounded_kl(target, least, most, 4)


def test_whole_rows_go_to_the_largest_remainders_within_bounds():
    none, most = np.zeros(4, np.int64), np.full(4, 9)
    rows = np.array([1.6, 2.3, 0.7, 3.4])
    assert _round_rows(rows, none, most, 8).tolist() == [2, 2, 1, 3]
    assert _round_rows(rows, none, np.array([1, 9, 9, 9]), 8).tolist() == [1, 2, 1, 4]
    assert _round_rows(rows, none, most, 12).tolist() == [3, 3, 2, 4]
    assert _round_rows(rows, np.array([0, 0, 2, 0]), most, 7).tolist() == [1, 1, 2, 3]


def test_prices_fill_clusters_up_to_their_sizes():
    p, least, most = np.array([0.6, 0.4, 0.2, 0.0]), np.array([0, 0, 1, 2]), np.full(4, 9)
    price = np.array([0.1, 0.0, -1.0, -1.0])
    np.testing.assert_allclose(_clipped_rows(p, price, least, most), [6.0, 9.0, 9.0, 2.0])


def test_the_excess_over_a_mean_limit_is_scaled_to_one():
    means = np.array([1.0, 3.0, 7.0])
    assert MeanLimit(means, 3.0, "less").excess.tolist() == [-0.5, 0.0, 1.0]
    assert MeanLimit(means, 3.0, "more").excess.tolist() == [0.5, 0.0, -1.0]
    assert MeanLimit(np.full(2, 3.0), 3.0, "less").excess.tolist() == [0.0, 0.0]


def test_rows_are_ordered_by_noise_and_the_scores_of_what_is_pursued():
    values = np.random.default_rng(5).standard_normal(200)
    clusters = np.arange(200) % 3
    noise = np.random.default_rng(9).gumbel(size=200)
    standard = (values - values.mean()) / values.std()
    for kind, strength in (("high", 2.0), ("moderate", 0.7)):
        for sign in (1, -1):
            order = _row_order({"m": values}, clusters, {"m": kind}, {"m": sign}, 9)
            score = noise + strength * sign * standard
            expected = sorted(range(200), key=lambda row: (clusters[row], -score[row]))
            assert order.tolist() == expected
    plain = _row_order({"m": values}, clusters, {}, {"m": 1}, 9)
    assert plain.tolist() == sorted(range(200), key=lambda row: (clusters[row], -noise[row]))


def test_rows_and_clusters_are_scored_from_their_columns():
    day = 86_400_000_000
    columns = {
        "cluster": [0, 0, 2, 2], "tokens": [10, None, 30, 50], "distance": [1.0, 2.0, None, 4.0],
        "quality": [0.5, 1.0, 0.25, None], "event_time": [0, day, 2 * day, 3 * day],
        "ingest_time": [day, 5 * day, 2 * day, 5 * day],
    }  # fmt: skip
    sample = Sample.from_arrow(pa.table(columns), "text", Constants({"clusters": 4}))
    scores = {name: values.tolist() for name, values in row_scores(sample).items()}
    # What is missing counts as no token, or as the median of the others.
    assert scores == {
        "volume": [10, 0, 30, 50], "granularity": [1, 2, 2, 4],
        "distortion": [0.5, 0.0, 0.75, 0.5], "delay": [1, 4, 0, 2],
    }  # fmt: skip
    means = cluster_means(sample, np.array([0, 0, 2, 2]), 4)
    assert means["volume"].tolist() == [5.0, 22.5, 40.0, 22.5]
    assert means["delay"].tolist() == [2.5, 1.75, 1.0, 1.75]
