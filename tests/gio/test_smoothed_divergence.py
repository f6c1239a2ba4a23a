"""Smoothed divergences of whole rows, against plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gio_spark.gio.smoothed_divergence import divergence_path, divergences, smoothed_kl


def plain_kl(p, counts):
    total, rows = sum(p), sum(c + 0.5 for c in counts)
    parts = zip(p, counts, strict=True)
    return sum(x / total * math.log(x / total / ((c + 0.5) / rows)) for x, c in parts if x > 0)


@pytest.mark.parametrize("seed", range(4))
def test_divergence_and_its_path_are_those_of_plain_loops(seed):
    rng = np.random.default_rng(seed)
    p = rng.random(7) * (rng.random(7) < 0.7)
    p[0] = 0.3
    counts = rng.integers(0, 40, 7)
    assert smoothed_kl(p, counts) == pytest.approx(plain_kl(p, counts), rel=1e-12)
    assert smoothed_kl(9 * p, counts) == pytest.approx(smoothed_kl(p, counts), rel=1e-12)
    order, taken, expected = rng.permutation(7), np.zeros(7, int), []
    for cluster in order:
        taken[cluster] = counts[cluster]
        expected.append(plain_kl(p, taken))
    np.testing.assert_allclose(divergence_path(p, counts, order), expected, rtol=1e-9, atol=1e-12)


def test_pool_random_rows_and_plan_have_their_own_divergence():
    p, sizes, take = np.array([0.5, 0.5, 0.0]), np.array([80, 10, 10]), np.array([5, 5, 0])
    values = divergences(p, sizes, take, seed=0)
    assert values["selection"] == pytest.approx(plain_kl(p, take))
    assert values["pool"] == pytest.approx(plain_kl(p, sizes))
    assert values["selection"] < values["random"]
    copies = np.array([10, 5, 0])
    repeated = divergences(p, sizes, take, seed=0, copies=copies)
    assert repeated["selection"] == pytest.approx(plain_kl(p, copies))


def test_a_distribution_without_mass_has_no_divergence():
    assert math.isnan(smoothed_kl(np.zeros(2), np.ones(2)))
    assert divergence_path(np.zeros(2), np.ones(2), np.array([0, 1])).tolist() == [0.0, 0.0]
