"""From raw scores to log density ratios, against small cases worked out by hand."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from gio_spark.explode.calibration import (
    Calibration,
    CalibrationCurve,
    chance_auc,
    fit_curve,
    fold_offsets,
    measure_calibration,
)


def test_offsets_bring_each_folds_mean_ratio_to_one():
    scores, fold = np.log([1.0, 3.0, 5.0, 0.5]), np.array([0, 0, 2, 2])
    # Means 2 and 2.75; fold 1 has no rows and gets the mean of all, 9.5 / 4.
    np.testing.assert_allclose(fold_offsets(scores, fold, 3), -np.log([2.0, 2.375, 2.75]))
    np.testing.assert_allclose(fold_offsets(scores + 1e4, fold, 3) + 1e4, -np.log([2, 2.375, 2.75]))
    # Scores so far apart that the larger one's exponential is no number.
    wide = fold_offsets(np.array([0.0, 2000.0]), np.zeros(2, int), 1)
    np.testing.assert_allclose(wide, -2000 + np.log(2))


def test_a_curve_interpolates_leans_and_ends_one_span_beyond_its_knots():
    curve = CalibrationCurve(np.array([1.0, 3.0, 5.0]), np.array([-1.0, 0.0, 4.0]), 0.1)
    raw = np.array([1.0, 2.0, 4.0, 5.0, 8.0, 9.0, 100.0, -3.0, -100.0])
    expected = [-0.9, -0.3, 2.4, 4.5, 4.8, 4.9, 4.9, -1.3, -1.3]
    np.testing.assert_allclose(curve(raw), expected, rtol=1e-12)
    assert not curve.flat
    assert CalibrationCurve(np.array([1.0, 3.0]), np.zeros(2), 0.0).flat


def test_the_curve_of_two_scores_is_the_log_of_the_smoothed_shares():
    few, many = np.zeros(40), np.zeros(40)
    few[:10], many[:30] = 1.0, 1.0
    curve = fit_curve(many, few)
    np.testing.assert_allclose(curve.raw, [0.0, 1.0])
    rise = np.log(30.5 / 10.5)
    np.testing.assert_allclose(curve.log_ratio, [-rise, rise])
    assert curve.order_slope == pytest.approx(0.02 * 2 * rise)


def test_the_curve_weighs_both_sides_alike_whatever_their_sizes():
    target, pool = np.repeat([0.0, 1.0], [10, 30]), np.repeat([0.0, 1.0], [1200, 400])
    curve = fit_curve(target, pool)
    expected = np.log([10.5, 30.5]) - np.log(41) - np.log([1200.5, 400.5]) + np.log(1601)
    np.testing.assert_allclose(curve.log_ratio, expected)


def test_the_curve_has_a_knot_for_twenty_rows_and_thirty_at_most():
    for rows, knots in ((59, 2), (60, 3), (100, 5), (5000, 30)):
        # Densities 2s and 2 - 2s: the ratio rises, and both together are uniform on 0 to 1.
        even = (np.arange(rows) + 0.5) / rows
        curve = fit_curve(np.sqrt(even), 1 - np.sqrt(even))
        middles = (np.arange(knots) + 0.5) / knots
        np.testing.assert_allclose(curve.raw, middles, atol=0.02)


def test_scores_that_fall_with_the_target_say_nothing():
    curve = fit_curve(np.zeros(50), np.ones(50))
    assert curve.flat and curve.order_slope == 0.0
    np.testing.assert_array_equal(curve(np.array([-1.0, 0.5, 3.0])), np.zeros(3))


def test_measured_figures_equal_a_plain_loop():
    target = np.array([-1.0, 0.0, 0.5, 0.5, 2.0, 3.0])
    pool = np.array([-3.0, -2.0, -1.0, 0.0, 0.5, -40.0, -2.0, 1.0, 2.0])
    calibration = measure_calibration(target, pool, bins=2)
    pairs = [(t > p) + 0.5 * (t == p) for t in target for p in pool]
    assert calibration.auc == pytest.approx(np.mean(pairs))
    loss = [np.log1p(np.exp(-target)).mean(), np.log1p(np.exp(np.maximum(pool, -30))).mean()]
    assert calibration.log_loss == pytest.approx(np.mean(loss), rel=1e-12)
    share_of = {"target": 1 / (1 + np.exp(-target)), "pool": 1 / (1 + np.exp(-pool))}
    for b in range(2):
        low, high = calibration.low[b], calibration.high[b]
        in_target = (target >= low) & (target <= high)
        in_pool = (pool >= low) & (pool <= high)
        assert calibration.target_rows[b] == in_target.sum()
        assert calibration.pool_rows[b] == in_pool.sum()
        weights = in_target.sum() / 6, in_pool.sum() / 9
        assert calibration.observed[b] == pytest.approx(weights[0] / sum(weights))
        both = share_of["target"][in_target].sum() / 6 + share_of["pool"][in_pool].sum() / 9
        assert calibration.predicted[b] == pytest.approx(both / sum(weights))
    assert (calibration.low.tolist(), calibration.high.tolist()) == ([-40.0, 0.5], [0.0, 3.0])


def test_bins_are_ten_unless_told_otherwise():
    scores = np.random.default_rng(0).standard_normal(500)
    assert len(measure_calibration(scores, scores + 0.1).low) == 10


def test_the_error_weighs_bins_by_their_rows():
    rows = np.array([3, 0]), np.array([0, 1])
    half = np.array([0.5, 0.5])
    calibration = Calibration(half, half, *rows, half, np.array([0.3, 0.9]), 0.5, 0.7)
    assert calibration.error == pytest.approx((3 * 0.2 + 0.4) / 4)
    none = np.zeros(2, dtype=np.int64)
    assert Calibration(half, half, none, none, half, half, 0.5, 0.7).error == 0.0


def test_the_auc_of_chance_has_the_deviation_of_all_orders_of_the_rows():
    # All orders of two target rows among three pool rows are equally likely.
    below = [sum(ranks) - 3 for ranks in combinations((1, 2, 3, 4, 5), 2)]
    assert np.mean(below) / 6 == pytest.approx(0.5)
    assert chance_auc(2, 3) == pytest.approx(0.5 + 3 * np.std(below) / 6)
