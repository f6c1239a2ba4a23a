"""Metrics that change together, and maxima inside a sweep, against closed forms."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from gio_spark.gime.metric_factors import inflation, merged_factors, turning_point


def columns_of_correlation(r):
    x = np.array([1.0, -1.0, 1.0, -1.0])
    z = np.array([1.0, 1.0, -1.0, -1.0])
    return np.stack([x, r * x + np.sqrt(1 - r * r) * z], axis=1)


@pytest.mark.parametrize("r", [0.0, 0.5, -0.9, 0.99])
def test_inflation_of_two_columns_is_one_over_one_less_the_squared_correlation(r):
    value = 1 / (1 - r * r)
    np.testing.assert_allclose(inflation(columns_of_correlation(r)), [value, value], rtol=1e-5)
    assert inflation(columns_of_correlation(r)[:, :1]).tolist() == [1.0]


def test_metrics_are_merged_above_an_inflation_of_ten():
    for r, merged in ((0.948, False), (0.949, True), (-0.949, True)):
        table = pd.DataFrame(columns_of_correlation(r) * [1.0, 5.0] + 7.0, columns=["a", "b"])
        table["constant"], table["gap"] = 3.0, [1.0, np.nan, 2.0, 5.0]
        factors = merged_factors(table)
        assert [f.name for f in factors] == (["a+b"] if merged else ["a", "b"])
        assert factors[0].vif == pytest.approx(1 / (1 - r * r), rel=1e-4)
    together = factors[0]
    assert together.signs.tolist() == [1.0, -1.0]
    np.testing.assert_allclose(together.mean, [7.0, 7.0])
    np.testing.assert_allclose(together.spread, [1.0, 5.0])
    standard = columns_of_correlation(-0.949)
    np.testing.assert_allclose(together.value(table), (standard[:, 0] - standard[:, 1]) / 2)


def test_a_single_metric_keeps_its_unit():
    table = pd.DataFrame({"a": [3.0, 5.0, 10.0]})
    (factor,) = merged_factors(table)
    assert factor.value(table).tolist() == [3.0, 5.0, 10.0]
    assert factor.vif == 1.0


def wave(n=40):
    return np.where(np.arange(n) % 2 == 0, 1.0, -1.0)


def test_the_top_of_a_parabola_is_the_turning_point_and_its_band_one_error_wide():
    value = np.linspace(0.0, 10.0, 41)
    score = 3 - 0.02 * (value - 6) ** 2 + 0.01 * wave(41)
    middle, low, high = turning_point(value, score)
    assert middle == pytest.approx(6.0, abs=0.02)
    # The band ends where the parabola is an error of 0.01 below its top.
    error = 0.01 * np.sqrt(41 / 38)
    assert high - middle == pytest.approx(np.sqrt(error / 0.02), rel=0.02)
    assert middle - low == pytest.approx(high - middle)


@pytest.mark.parametrize("top", [0.5, 9.5, -3.0])
def test_a_top_near_an_end_of_the_sweep_is_no_turning_point(top):
    value = np.linspace(0.0, 10.0, 41)
    assert turning_point(value, 3 - 0.02 * (value - top) ** 2 + 0.001 * wave(41)) is None


def test_valleys_few_points_and_equal_values_have_no_turning_point():
    value = np.linspace(0.0, 10.0, 41)
    assert turning_point(value, 0.02 * (value - 5) ** 2 + 0.001 * wave(41)) is None
    few = np.linspace(0.0, 10.0, 9)
    score = 3 - 0.5 * (few - 5) ** 2 + 0.001 * wave(9)
    assert turning_point(few[:7], score[:7]) is None
    assert turning_point(few, np.r_[score[:8], np.nan]) is not None
    assert turning_point(few, np.r_[score[:7], np.nan, np.nan]) is None
    assert turning_point(np.ones(20), wave(20)) is None
