"""Exact sums, histograms and grid products: the same bits in any order."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gio_spark.gime import mergeable_sums

floats = st.floats(allow_nan=False, allow_infinity=False, min_value=-1e150, max_value=1e150)


@settings(deadline=None)
@given(st.lists(floats, max_size=60))
def test_split_sum_is_correctly_rounded(values):
    assert mergeable_sums.total(mergeable_sums.split_sum(np.array(values))) == math.fsum(values)


@settings(max_examples=60, deadline=None)
@given(st.lists(floats, min_size=2, max_size=60), st.integers(1, 59), st.randoms())
def test_split_sums_merge_to_the_same_bits_in_any_order(values, cut, random):
    at_once = mergeable_sums.split_sum(np.array(values))
    random.shuffle(values)
    parts = [
        mergeable_sums.split_sum(np.array(values[:cut])),
        mergeable_sums.split_sum(np.array(values[cut:])),
    ]
    merged = mergeable_sums.merge_histograms(parts)
    assert mergeable_sums.total(merged) == mergeable_sums.total(at_once)


@settings(deadline=None)
@given(st.lists(st.integers(-50, 50), max_size=80), st.integers(0, 80))
def test_histograms_add_key_by_key(keys, cut):
    keys = np.array(keys, np.int64)
    merged = mergeable_sums.merge_histograms(
        [mergeable_sums.histogram(keys[:cut]), mergeable_sums.histogram(keys[cut:])]
    )
    assert np.array_equal(merged, mergeable_sums.histogram(keys))


@settings(deadline=None)
@given(st.lists(floats.filter(lambda x: x == 0 or abs(x) > 1e-150), min_size=1, max_size=50))
def test_bins_keep_order_and_the_stated_relative_error(values):
    values = np.sort(np.array(values))
    keys = mergeable_sums.log_bin(values)
    assert np.all(np.diff(keys) >= 0)
    middle = mergeable_sums.bin_middle(keys)
    assert np.all(np.abs(middle - values) <= mergeable_sums.BIN_ERROR * np.abs(values))


@pytest.mark.parametrize("d", [3, 64, 768, 4096])
def test_grid_products_are_exact_in_float32(d):
    rng = np.random.default_rng(d)
    a, b = (
        mergeable_sums.on_grid(rng.standard_normal((300, d))),
        mergeable_sums.on_grid(rng.standard_normal((9, d))),
    )
    b[0] = a[0]  # the largest product there is
    expected = a.astype(np.int64) @ b.astype(np.int64).T
    assert np.array_equal((a @ b.T).astype(np.int64), expected)
    order = rng.permutation(300)
    assert np.array_equal((a[order] @ b.T), (a @ b.T)[order])
    assert abs(expected[0, 0] / mergeable_sums.GRID**2 - 1) < 0.02


def test_grid_cosines_are_near_the_true_ones():
    x = np.random.default_rng(0).standard_normal((200, 256))
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    grid = mergeable_sums.on_grid(x)
    assert np.abs(grid @ grid.T / mergeable_sums.GRID**2 - unit @ unit.T).max() < 1e-3


def test_gram_is_the_integer_product():
    rows = np.random.default_rng(1).integers(-4000, 4000, (5000, 16))
    assert np.array_equal(mergeable_sums.gram(rows.astype(np.float64)), rows.T @ rows)


def test_a_zero_vector_stays_zero():
    assert not mergeable_sums.on_grid(np.zeros((2, 5))).any()


@given(st.lists(st.integers(-(10**6), 10**6), max_size=60), st.booleans())
def test_keys_close_together_and_far_apart_are_counted_alike(keys, far):
    values = np.array(keys, np.int64) * (10**11 if far else 1)
    distinct_keys, counts = np.unique(values, return_counts=True)
    np.testing.assert_array_equal(
        mergeable_sums.histogram(values), np.stack([distinct_keys, counts])
    )


def test_keys_at_both_ends_of_the_range_are_counted():
    ends = np.array([np.iinfo(np.int64).min, np.iinfo(np.int64).max])
    assert mergeable_sums.histogram(ends).tolist() == [ends.tolist(), [1, 1]]


def test_stored_limbs_are_the_halves_of_the_mantissa_under_their_exponent():
    # 1 is 2^52 * 2^(1-53): 2^25 in the upper limb, at exponent 1.
    assert mergeable_sums.split_sum(np.array([1.0])).tolist() == [[2 * 1101 + 1], [2**25]]
    below = np.nextafter(1.0, 0.0)
    expected = [[2 * 1100, 2 * 1100 + 1], [2**27 - 1, 2**26 - 1]]
    assert mergeable_sums.split_sum(np.array([below])).tolist() == expected


def test_stored_bins_are_sixty_fourths_of_an_octave():
    values = [0.0, 1.0, 1 + 1 / 64, np.nextafter(1 + 1 / 64, 0), 2.0, -1.0, np.nextafter(2, 0)]
    one = 1101 * 64 + 1
    assert mergeable_sums.log_bin(values).tolist() == [
        0,
        one,
        one + 1,
        one,
        one + 64,
        -one,
        one + 63,
    ]
    middles = mergeable_sums.bin_middle(np.array([0, one, one + 63, -one]))
    assert middles.tolist() == [0.0, 1 + 1 / 128, 2 - 1 / 128, -1 - 1 / 128]
    assert mergeable_sums.BIN_ERROR == 1 / 128


def test_a_quantile_is_the_first_key_that_reaches_its_share():
    counted = np.array([[1, 5, 9], [2, 3, 5]])
    shares = (0.0, 0.2, 0.2001, 0.5, 0.5001, 1.0)
    assert [mergeable_sums.key_quantile(counted, share) for share in shares] == [1, 1, 5, 5, 9, 9]


def test_rows_are_scaled_to_a_grid_of_four_thousand_steps():
    rows = np.array([[3.0, 4.0], [0.0, -0.1], [0.0, 0.0], [1.0, 1.0]], np.float32)
    grid = mergeable_sums.on_grid(np.tile(rows, (100, 1)))
    expected = [[2400, 3200], [0, -4000], [0, 0], [2828, 2828]]
    np.testing.assert_array_equal(grid, np.tile(expected, (100, 1)))
    known = mergeable_sums.on_grid(rows, np.array([25.0, 0.01, 0.0, 2.0]))
    np.testing.assert_array_equal(known, expected)


def test_sums_of_many_grid_rows_are_those_of_whole_numbers():
    grid = mergeable_sums.on_grid(np.random.default_rng(2).standard_normal((9000, 3)))
    summed, squares = mergeable_sums.grid_sums(grid)
    at_once = grid.astype(np.int64)
    assert summed.tolist() == at_once.sum(axis=0).tolist()
    assert squares == (at_once * at_once).sum()


def test_projections_are_rounded_to_the_grid():
    low = mergeable_sums.project(np.float32([[2400, 3200]]), np.float32([[4000, 0], [2000, 1000]]))
    assert low.tolist() == [[2400.0, 2000.0]]


def test_weighted_keys_add_up():
    counted = mergeable_sums.histogram(np.array([5, -2, 5, 9]), np.array([1, 10, 3, 0]))
    assert counted.tolist() == [[-2, 5, 9], [10, 4, 0]]
