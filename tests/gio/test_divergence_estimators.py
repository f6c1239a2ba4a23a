"""Estimators against closed forms for Gaussians, and their exact properties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gio_spark.errors import InputError
from gio_spark.gio import (
    energy_distance,
    exact_path,
    jsd_histogram,
)
from tests.gio.references import published_divergence

N = 1500


def gaussians(d, shift, spread, seed=0, n=N):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)), shift + spread * rng.standard_normal((n, d))


def test_energy_distance_of_shifted_gaussians_on_the_line():
    """2 E|X-Y| - E|X-X'| - E|Y-Y'| with E|N(s, 2)| in closed form."""
    from scipy.stats import foldnorm

    x, y = gaussians(1, 1.0, 1.0, n=2000)
    gap = foldnorm.mean(1.0 / np.sqrt(2)) * np.sqrt(2)
    truth = 2 * gap - 2 * np.sqrt(2) * np.sqrt(2 / np.pi)
    assert energy_distance(x, y) == pytest.approx(truth, abs=0.08)
    assert energy_distance(x, y, unbiased=True) == pytest.approx(truth, abs=0.08)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 30), st.integers(2, 30))
def test_energy_distance_is_a_distance_and_ignores_copies_and_order(seed, n, m):
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((n, 3)), rng.standard_normal((m, 3)) + 0.5
    value = energy_distance(x, y)
    assert value >= -1e-12
    assert energy_distance(x, x) == pytest.approx(0, abs=1e-12)
    doubled = energy_distance(np.repeat(x, 2, axis=0), np.tile(y, (2, 1)))
    assert doubled == pytest.approx(value, rel=1e-10, abs=1e-12)
    shuffled = energy_distance(rng.permutation(x), rng.permutation(y))
    assert shuffled == pytest.approx(value, rel=1e-12, abs=1e-13)
    weighted = energy_distance(x, y, x_weights=np.full(n, 7.0))
    assert weighted == pytest.approx(value, rel=1e-12, abs=1e-13)


def test_energy_distances_of_few_rows_are_those_of_plain_loops():
    x, y = np.array([0.0, 1.0, 5.0, 9.0]), np.array([2.0, 4.0])

    def mean(a, b, *, pairs):
        return sum(abs(i - j) for i in a for j in b) / pairs

    cross = 2 * mean(x, y, pairs=8)
    assert energy_distance(x, y) == pytest.approx(cross - mean(x, x, pairs=16) - 0.5 * 2)
    unbiased = cross - mean(x, x, pairs=12) - mean(y, y, pairs=2)
    assert energy_distance(x, y, unbiased=True) == pytest.approx(unbiased)
    weighted = energy_distance(x, y, x_weights=[1, 0, 0, 1], y_weights=[3, 1])
    assert weighted == pytest.approx(energy_distance([0.0, 9.0], [2.0, 2.0, 2.0, 4.0]))
    with pytest.raises(InputError, match="not all zero"):
        energy_distance(x, y, y_weights=[0, 0])
    with pytest.raises(InputError, match="not negative"):
        energy_distance(x, y, y_weights=[1, -1])


def test_the_divergence_of_histograms_by_hand():
    half = 0.5 * np.log(1 / 0.75) + 0.5 * (0.5 * np.log(0.5 / 0.75) + 0.5 * np.log(0.5 / 0.25))
    assert jsd_histogram([4, 0], [1, 1]) == pytest.approx(half)
    assert jsd_histogram([1, 0], [0, 1]) == pytest.approx(np.log(2))
    assert 0 < jsd_histogram([1, 0], [0, 1], smoothing=1) < np.log(2)
    assert jsd_histogram([2, 2], [1, 1]) == 0


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31))
def test_row_order_changes_no_distance(seed):
    rng = np.random.default_rng(seed)
    x, w = rng.standard_normal((40, 4)), rng.standard_normal((30, 4)) + 0.3
    xs, ws = rng.permutation(x), rng.permutation(w)
    # Differences of near-equal terms: beside the relative bound, rounding of the terms.
    expected = pytest.approx(energy_distance(x, w), rel=1e-12, abs=5e-14)
    assert energy_distance(xs, ws) == expected


def test_exact_path_is_the_best_set_of_every_size():
    import itertools

    rng = np.random.default_rng(1)
    x, g = rng.standard_normal((20, 3)), rng.standard_normal((7, 3)) * 2
    order, divergence = exact_path(x, g, 3)
    for size in range(1, 8):
        values = [
            published_divergence(x, g[list(chosen)], 3)
            for chosen in itertools.combinations(range(7), size)
        ]
        assert divergence[size - 1] == pytest.approx(min(values), rel=1e-12)
    assert sorted(order) == list(range(7))


def test_exact_path_counts_initial_data_and_breaks_ties_by_index():
    rng = np.random.default_rng(2)
    x, initial = rng.standard_normal((30, 4)), rng.standard_normal((5, 4))
    g = np.repeat(rng.standard_normal((4, 4)), 2, axis=0)
    order, divergence = exact_path(x, g, initial=initial)
    assert all(order[i] + 1 == order[i + 1] for i in range(0, 8, 2))
    expected = published_divergence(x, np.concatenate([initial, g]))
    assert divergence[-1] == pytest.approx(expected, rel=1e-12)


def test_too_few_rows_are_refused():
    with pytest.raises(InputError, match="needs at least"):
        energy_distance(np.zeros((0, 2)), np.zeros((9, 2)))
    with pytest.raises(InputError, match="k must lie"):
        exact_path(np.zeros((5, 2)), np.zeros((9, 2)), 5)
    with pytest.raises(InputError, match="NaN"):
        energy_distance(np.full((5, 2), np.nan), np.zeros((9, 2)))
    with pytest.raises(InputError, match="dimension"):
        exact_path(np.zeros((9, 2)), np.zeros((9, 3)))
