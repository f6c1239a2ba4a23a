"""Figures from counts and moments, against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gio_spark.gime.divergences import (
    aligned,
    effective_classes,
    entropy_bits,
    frechet,
    jensen_shannon_bits,
    label_disagreement,
    mean_pairwise_cosine,
    moments,
    pairs,
    population_stability,
    spectral_classes,
    total_variation,
    transport,
)


def histogram(counts):
    return np.array([list(counts), list(counts.values())], dtype=np.int64)


def test_stability_smooths_every_bin_by_half_a_row():
    # Shares (3.5, 0.5) / 4 and (0.5, 1.5) / 2: the index is 5/8 (ln 7/2 - ln 1/6).
    value = population_stability(histogram({0: 3}), histogram({1: 1}))
    assert value == pytest.approx(5 / 8 * math.log(21), rel=1e-12)


def test_entropy_of_unequal_classes_in_bits():
    assert entropy_bits(np.array([2, 0, 1, 1])) == 1.5
    assert effective_classes(np.array([2, 0, 1, 1])) == pytest.approx(2**1.5)
    assert effective_classes(np.full(7, 3)) == pytest.approx(7)


def test_divergences_of_histograms_over_the_union_of_their_keys():
    one, other = histogram({3: 2}), histogram({3: 1, 8: 1})
    # Halfway lie (3/4, 1/4): its entropy less half a bit.
    half_way = 0.75 * math.log2(4 / 3) + 0.25 * 2
    assert jensen_shannon_bits(one, other) == pytest.approx(half_way - 0.5)
    assert total_variation(one, other) == 0.5
    assert jensen_shannon_bits(one, histogram({4: 9})) == 1.0
    assert total_variation(one, histogram({4: 9})) == 1.0
    assert jensen_shannon_bits(other, other) == 0.0
    first, second = aligned(histogram({}), histogram({2: 4}))
    assert (first.tolist(), second.tolist()) == ([0.0], [1.0])


def test_transport_moves_shares_along_the_line():
    ones = np.ones(2)
    assert transport(np.array([0.0]), ones[:1], np.array([3.0]), ones[:1] * 5) == 3.0
    assert transport(np.array([0.0, 2.0]), ones, np.array([1.0]), ones[:1]) == 1.0
    halves = transport(np.array([0.0, 4.0]), np.array([3, 1]), np.array([0.0, 4.0]), ones)
    assert halves == 1.0


def test_pairs_of_rows_in_one_class():
    assert pairs(np.array([3, 2, 1, 0])) == 4


def test_mean_cosine_and_moments_equal_those_of_single_rows():
    rows = np.array([[2400, 3200, 0], [0, 4000, 0], [-2400, 3200, 0], [0, 0, 4000]])
    summed, second = rows.sum(axis=0), rows.T @ rows
    cosines = [(a @ b) / 4000**2 for i, a in enumerate(rows) for b in rows[:i]]
    value = mean_pairwise_cosine(4, summed, int((rows * rows).sum()))
    assert value == pytest.approx(np.mean(cosines))
    mean, covariance = moments(4, summed, second)
    np.testing.assert_allclose(mean, rows.mean(axis=0) / 4000)
    np.testing.assert_allclose(covariance, np.cov(rows.T / 4000, bias=True), atol=1e-15)


def test_spectral_classes_count_directions_that_are_filled_evenly():
    assert spectral_classes(np.diag([2.0, 2.0, 0.0])) == 2.0
    assert spectral_classes(np.diag([3.0, 1.0])) == 1.6
    assert spectral_classes(np.zeros((2, 2))) == 1.0


def test_frechet_distance_of_gaussians_with_common_axes():
    one = np.array([1.0, 0.0]), np.diag([4.0, 9.0])
    other = np.array([3.0, 1.0]), np.diag([1.0, 16.0])
    # Squared gaps of means, and of standard deviations along each axis.
    assert frechet(one, other) == pytest.approx(4 + 1 + (2 - 1) ** 2 + (3 - 4) ** 2)
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    turned = [(turn @ mean, turn @ cov @ turn.T) for mean, cov in (one, other)]
    assert frechet(*turned) == pytest.approx(7)
    assert frechet(one, one) == pytest.approx(0, abs=1e-12)


def test_disagreement_is_the_share_of_labels_that_are_not_the_most_frequent_of_their_cluster():
    classes = {(0 << 8) | 1: 5, (0 << 8) | 7: 2, (3 << 8) | 1: 1, (3 << 8) | 2: 1, (4 << 8): 1}
    assert label_disagreement(histogram(classes), 8) == pytest.approx(3 / 10)
