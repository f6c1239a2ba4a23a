"""Exact sums per cluster in any order."""

from __future__ import annotations

import numpy as np

from gio_spark.kernels import Grid, rounded_sums, sums_by_cluster


def test_sums_have_the_same_bits_in_any_order_and_cut():
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((5000, 9)) * 10.0 ** rng.integers(-3, 3, 9)).astype(np.float32)
    cluster = rng.integers(0, 11, 5000)
    grid = Grid.covering(np.abs(x).max(axis=0), len(x))
    expected = sums_by_cluster(grid.round(x), cluster, 11)
    order = rng.permutation(len(x))
    for pieces in (1, 4, 63):
        total = np.zeros_like(expected)
        for part in np.array_split(order, pieces):
            total += sums_by_cluster(grid.round(x[part]), cluster[part], 11)
        np.testing.assert_array_equal(total, expected)


def test_rounding_is_far_below_float32():
    rng = np.random.default_rng(1)
    x = rng.standard_normal((1000, 5)).astype(np.float32)
    grid = Grid.covering(np.abs(x).max(axis=0), 1_000_000)
    np.testing.assert_allclose(grid.round(x), x, atol=1e-8)


def test_values_far_above_the_scale_are_noticed():
    grid = Grid.covering(np.array([1.0, 1.0]), 100)
    assert grid.covers(np.array([1.0, 1.0]), 100)
    assert not grid.covers(np.array([1.0, 1e6]), 100)


def test_clusters_without_rows_have_zero_sums():
    sums = sums_by_cluster(np.ones((3, 2)), np.array([0, 2, 2]), 4)
    np.testing.assert_array_equal(sums, [[1, 1], [0, 0], [2, 2], [0, 0]])


def test_sums_of_rounded_rows_have_the_same_bits_in_blocks(monkeypatch):
    rng = np.random.default_rng(2)
    x = rng.standard_normal((500, 7)).astype(np.float32)
    cluster = rng.integers(0, 5, 500)
    grid = Grid.covering(np.abs(x).max(axis=0), 500)
    expected = sums_by_cluster(grid.round(x), cluster, 5)
    np.testing.assert_array_equal(rounded_sums(x, cluster, 5, grid), expected)
    monkeypatch.setattr("gio_spark.kernels.exact_sums._BLOCK", 64)
    np.testing.assert_array_equal(rounded_sums(x, cluster, 5, grid), expected)


def test_the_grid_is_the_finest_on_which_that_many_values_add_up_exactly():
    # 1.5 < 2 and 3 < 4, and 7 rows need 3 bits: sums below 2^4 and 2^5, in 52 bits.
    grid = Grid.covering([1.5, 3.0], 7)
    np.testing.assert_array_equal(grid.step, [2.0**-48, 2.0**-47])
    np.testing.assert_array_equal(grid.limit, [16.0, 32.0])
    np.testing.assert_array_equal(Grid.covering([1.5], 8).step, [2.0**-47])
    np.testing.assert_array_equal(Grid.covering([1.5], 0).step, Grid.covering([1.5], 1).step)
    assert Grid.covering([0.0], 1).step > 0


def test_sums_up_to_the_limit_are_covered_and_no_further():
    grid = Grid.covering([1.5, 3.0], 7)
    assert grid.covers(np.array([2.0, 4.0]), 8)
    assert not grid.covers(np.array([2.0, 4.0]), 9)
    assert not grid.covers(np.array([16.1, 0.0]), 0)


def test_values_halfway_between_steps_go_to_the_even_one():
    grid = Grid.covering([1.0], 1)
    values = np.array([[0.5], [1.5], [2.5], [-0.5], [-1.5], [3.25]]) * grid.step
    np.testing.assert_array_equal(grid.round(values)[:, 0] / grid.step, [0, 2, 2, 0, -2, 3])
