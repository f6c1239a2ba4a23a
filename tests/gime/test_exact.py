"""Exact sums, histograms and grid products: the same bits in any order."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gio_spark.gime import exact

floats = st.floats(allow_nan=False, allow_infinity=False, min_value=-1e150, max_value=1e150)


@settings(deadline=None)
@given(st.lists(floats, max_size=60))
def test_split_sum_is_correctly_rounded(values):
    assert exact.total(exact.split_sum(np.array(values))) == math.fsum(values)


@settings(max_examples=60, deadline=None)
@given(st.lists(floats, min_size=2, max_size=60), st.integers(1, 59), st.randoms())
def test_split_sums_merge_to_the_same_bits_in_any_order(values, cut, random):
    whole = exact.split_sum(np.array(values))
    random.shuffle(values)
    parts = [exact.split_sum(np.array(values[:cut])), exact.split_sum(np.array(values[cut:]))]
    merged = exact.merge_histograms(parts)
    assert exact.total(merged) == exact.total(whole)


@settings(deadline=None)
@given(st.lists(st.integers(-50, 50), max_size=80), st.integers(0, 80))
def test_histograms_add_key_by_key(keys, cut):
    keys = np.array(keys, np.int64)
    merged = exact.merge_histograms([exact.histogram(keys[:cut]), exact.histogram(keys[cut:])])
    assert np.array_equal(merged, exact.histogram(keys))


@settings(deadline=None)
@given(st.lists(floats.filter(lambda x: x == 0 or abs(x) > 1e-150), min_size=1, max_size=50))
def test_bins_keep_order_and_the_stated_relative_error(values):
    values = np.sort(np.array(values))
    keys = exact.log_bin(values)
    assert np.all(np.diff(keys) >= 0)
    middle = exact.bin_middle(keys)
    assert np.all(np.abs(middle - values) <= exact.BIN_ERROR * np.abs(values))


@pytest.mark.parametrize("d", [3, 64, 768, 4096])
def test_grid_products_are_exact_in_float32(d):
    rng = np.random.default_rng(d)
    a, b = exact.on_grid(rng.standard_normal((300, d))), exact.on_grid(rng.standard_normal((9, d)))
    b[0] = a[0]  # the largest product there is
    expected = a.astype(np.int64) @ b.astype(np.int64).T
    assert np.array_equal((a @ b.T).astype(np.int64), expected)
    order = rng.permutation(300)
    assert np.array_equal((a[order] @ b.T), (a @ b.T)[order])
    assert abs(expected[0, 0] / exact.GRID**2 - 1) < 0.02


def test_grid_cosines_are_near_the_true_ones():
    x = np.random.default_rng(0).standard_normal((200, 256))
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    grid = exact.on_grid(x)
    assert np.abs(grid @ grid.T / exact.GRID**2 - unit @ unit.T).max() < 1e-3


def test_gram_is_the_integer_product():
    rows = np.random.default_rng(1).integers(-4000, 4000, (5000, 16))
    assert np.array_equal(exact.gram(rows.astype(np.float64)), rows.T @ rows)


def test_a_zero_vector_stays_zero():
    assert not exact.on_grid(np.zeros((2, 5))).any()


@given(st.lists(st.integers(-(10**6), 10**6), max_size=60), st.booleans())
def test_keys_close_together_and_far_apart_are_counted_alike(keys, far):
    values = np.array(keys, np.int64) * (10**11 if far else 1)
    found, counts = np.unique(values, return_counts=True)
    np.testing.assert_array_equal(exact.histogram(values), np.stack([found, counts]))


def test_keys_at_both_ends_of_the_range_are_counted():
    ends = np.array([np.iinfo(np.int64).min, np.iinfo(np.int64).max])
    assert exact.histogram(ends).tolist() == [ends.tolist(), [1, 1]]
