"""Estimators against closed forms for Gaussians, and their exact properties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import gammaln

from gio_spark.errors import ConfigError, InputError
from gio_spark.gio import (
    energy_distance,
    exact_path,
    frechet_distance,
    intrinsic_dimension,
    jsd_histogram,
    kl_histogram,
    knn_divergence,
    mmd,
    published_divergence,
)

N = 1500


def gaussians(d, shift, spread, seed=0, n=N):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)), shift + spread * rng.standard_normal((n, d))


def true_kl(d, shift, spread):
    """KL(N(0, I) || N(shift, spread^2 I))."""
    return 0.5 * d * (1 / spread**2 + shift**2 / spread**2 - 1 + 2 * np.log(spread))


@pytest.mark.parametrize("form", ["plain", "digamma", "bias_reduced"])
@pytest.mark.parametrize(("d", "shift", "spread"), [(1, 1.0, 1.0), (2, 0.5, 1.5), (4, 0.3, 1.2)])
def test_knn_divergence_of_gaussians(form, d, shift, spread):
    x, w = gaussians(d, shift, spread)
    found = knn_divergence(x, w, form=form)
    assert found == pytest.approx(true_kl(d, shift, spread), abs=0.1 + 0.06 * (d > 2))


def test_knn_divergence_of_equal_laws_is_near_zero():
    x, w = gaussians(3, 0.0, 1.0)
    assert abs(knn_divergence(x, w)) < 0.06


def test_digamma_corrects_unequal_k():
    x, w = gaussians(2, 0.5, 1.5)
    truth = true_kl(2, 0.5, 1.5)
    assert knn_divergence(x, w, 3, form="digamma", k_selection=10) == pytest.approx(truth, abs=0.1)
    with pytest.raises(ConfigError, match="digamma"):
        knn_divergence(x, w, 3, k_selection=10)


def test_knn_and_published_divergence_by_hand():
    x, w = np.array([[0.0], [1.0], [3.0]]), np.array([[0.5], [2.0]])
    rho, nu = np.array([1, 1, 2]), np.array([0.5, 0.5, 1.0])
    assert knn_divergence(x, w, 1) == pytest.approx(np.log(nu / rho).mean() + np.log(2 / 2))
    pairs = np.abs(x - w.T)
    by_hand = np.log(pairs + 1e-8).mean() - np.log(rho + 1e-8).mean()
    by_hand += np.log(1) - np.log(2) + np.log(2) - gammaln(3) / 2
    assert published_divergence(x, w, 1) == pytest.approx(by_hand)


def test_copies_change_each_divergence_as_documented():
    """Two copies of every row: neighbour numbers double, so k answers to 2k."""
    x, w = gaussians(3, 0.4, 1.3, n=200)
    xx, ww = np.repeat(x, 2, axis=0), np.repeat(w, 2, axis=0)
    # Its own copy is a row's first neighbour, so the 4th lies where the 2nd lay; so it does in
    # W. Only the constant changes, from log(m/(n-1)) to log(2m/(2n-1)).
    n = len(x)
    assert knn_divergence(xx, ww, 4, form="digamma") == pytest.approx(
        knn_divergence(x, w, 2) + np.log((n - 1) / (n - 0.5)), rel=1e-9
    )
    # Published: the mean over pairs stays, the self term takes the (k/2)-th neighbour.
    path = published_divergence(xx, ww, 4)
    m = len(w)
    expected = published_divergence(x, w, 2)
    expected += np.log(4 / 2) + np.log((n - 1) / (2 * n - 1)) + np.log(2)
    expected += gammaln(m + 1) / m - gammaln(2 * m + 1) / (2 * m)
    assert path == pytest.approx(expected, rel=1e-9)


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


def test_mmd_of_shifted_gaussians():
    d, shift, h = 2, 0.8, 1.0
    x, y = gaussians(d, shift, 1.0, n=2000)
    base = (h**2 / (h**2 + 2)) ** (d / 2)
    truth = 2 * base * (1 - np.exp(-d * shift**2 / (2 * (h**2 + 2))))
    assert mmd(x, y, bandwidth=h) == pytest.approx(truth, abs=0.02)
    assert mmd(x, y, bandwidth=h, unbiased=True) == pytest.approx(truth, abs=0.02)
    assert mmd(x, x, bandwidth=h) == pytest.approx(0, abs=1e-12)
    assert mmd(x, y) > 0.01


def test_frechet_distance_of_gaussians():
    d, shift, spread = 4, 0.5, 1.5
    x, y = gaussians(d, shift, spread, n=20_000)
    assert frechet_distance(x, y) == pytest.approx(d * (shift**2 + (spread - 1) ** 2), rel=0.05)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-8)


def test_histogram_divergences_of_binned_gaussians():
    edges = np.linspace(-8, 9, 171)
    x, y = gaussians(1, 1.0, 1.0, n=200_000)
    p, q = (np.histogram(rows, edges)[0] for rows in (x, y))
    assert kl_histogram(p, q, smoothing=1e-3) == pytest.approx(0.5, abs=0.02)
    assert 0 < jsd_histogram(p, q) < np.log(2)
    assert kl_histogram([1, 1], [1, 0]) == np.inf
    assert jsd_histogram([1, 0], [0, 1]) == pytest.approx(np.log(2))
    assert kl_histogram([2, 2], [1, 1]) == 0


@pytest.mark.parametrize("method", ["two_nn", "mle"])
@pytest.mark.parametrize("d", [1, 2, 5])
def test_intrinsic_dimension_of_a_flat_inside_space(method, d):
    rng = np.random.default_rng(d)
    rows = rng.standard_normal((2000, d)) @ rng.standard_normal((d, 12))
    assert intrinsic_dimension(rows, method=method) == pytest.approx(d, rel=0.17)
    copies = np.repeat(rows[:400], 2, axis=0)
    assert np.isfinite(intrinsic_dimension(copies, method=method))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31))
def test_row_order_changes_no_divergence(seed):
    rng = np.random.default_rng(seed)
    x, w = rng.standard_normal((40, 4)), rng.standard_normal((30, 4)) + 0.3
    xs, ws = rng.permutation(x), rng.permutation(w)
    measures = {
        "plain": lambda a, b: knn_divergence(a, b, 3),
        "digamma": lambda a, b: knn_divergence(a, b, 3, form="digamma"),
        "bias_reduced": lambda a, b: knn_divergence(a, b, 3, form="bias_reduced"),
        "published": lambda a, b: published_divergence(a, b, 3),
        "energy": energy_distance,
        "mmd": mmd,
        "frechet": frechet_distance,
    }
    for name, measure in measures.items():
        # Differences of near-equal terms: beside the relative bound, rounding of the terms.
        assert measure(xs, ws) == pytest.approx(measure(x, w), rel=1e-12, abs=5e-14), name


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
    x, held = rng.standard_normal((30, 4)), rng.standard_normal((5, 4))
    g = np.repeat(rng.standard_normal((4, 4)), 2, axis=0)
    order, divergence = exact_path(x, g, initial=held)
    assert all(order[i] + 1 == order[i + 1] for i in range(0, 8, 2))
    whole = published_divergence(x, np.concatenate([held, g]))
    assert divergence[-1] == pytest.approx(whole, rel=1e-12)


def test_too_few_rows_are_refused():
    with pytest.raises(InputError, match="needs at least"):
        knn_divergence(np.zeros((5, 2)), np.zeros((9, 2)), 5)
    with pytest.raises(InputError, match="k must lie"):
        exact_path(np.zeros((5, 2)), np.zeros((9, 2)), 5)
    with pytest.raises(InputError, match="NaN"):
        energy_distance(np.full((5, 2), np.nan), np.zeros((9, 2)))
    with pytest.raises(InputError, match="dimension"):
        exact_path(np.zeros((9, 2)), np.zeros((9, 3)))
