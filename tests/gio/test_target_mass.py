"""Target mass on the pool's codebook."""

from __future__ import annotations

import inspect
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gio_spark.errors import ConfigError, InputError
from gio_spark.gio import (
    TargetMass,
    cluster_radii,
    kernel_mass,
    kernel_width,
    mix_targets,
    nearest_clusters,
    reach_limit,
    relative_reach,
)
from gio_spark.gio.target_mass import STEPS
from gio_spark.settings.quantize import QuantizeSettings


@pytest.fixture(scope="module")
def codebook():
    rng = np.random.default_rng(5)
    pool = rng.standard_normal((4000, 8)).astype(np.float32)
    centroids = pool[:50].copy()
    nearest, squared = nearest_clusters(pool, centroids, 1)
    cluster, squared = nearest[:, 0], squared[:, 0]
    rows = np.bincount(cluster, minlength=50)
    radii = cluster_radii(np.bincount(cluster, squared, minlength=50), rows)
    return centroids, rows, radii, reach_limit(squared, cluster, radii)


def test_nearest_clusters_are_the_nearest():
    rng = np.random.default_rng(0)
    rows, points = rng.standard_normal((300, 7)), rng.standard_normal((40, 7))
    nearest, squared = nearest_clusters(rows, points, 5)
    full = ((rows[:, None, :].astype(np.float32) - points.astype(np.float32)) ** 2).sum(-1)
    np.testing.assert_array_equal(nearest, np.argsort(full, axis=1)[:, :5])
    np.testing.assert_allclose(squared, np.sort(full, axis=1)[:, :5], rtol=1e-5)


def test_ties_go_to_the_lowest_cluster():
    points = np.array([[5.0, 5.0], [1.0, 0.0], [-1.0, 0.0], [1.0, 0.0]])
    nearest, _ = nearest_clusters(np.zeros((1, 2)), points, 3)
    np.testing.assert_array_equal(nearest, [[1, 2, 3]])


def test_width_zero_counts_rows(codebook):
    centroids, *_ = codebook
    rows = np.random.default_rng(1).standard_normal((500, 8))
    mass = kernel_mass(rows, centroids, 0.0)
    nearest, _ = nearest_clusters(rows, centroids, 1)
    np.testing.assert_array_equal(mass.mass, np.bincount(nearest[:, 0], minlength=50))
    assert mass.rows == 500 and mass.unreachable == 0


def test_a_wider_kernel_spreads_but_keeps_the_weight(codebook):
    centroids, *_ = codebook
    rows = np.random.default_rng(1).standard_normal((20, 8))
    weights = np.arange(1, 21)
    narrow = kernel_mass(rows, centroids, 0.0, weights=weights).mass
    wide = kernel_mass(rows, centroids, 3.0, weights=weights).mass
    assert (wide > 0).sum() > (narrow > 0).sum()
    assert wide.sum() == pytest.approx(weights.sum(), rel=1e-6)


def test_the_kernel_falls_as_the_exponential_of_the_excess_over_the_width():
    points = np.array([[0.0], [1.0], [3.0]])
    parts = np.exp([0.0, -1 / 2, -9 / 2])
    mass = kernel_mass(np.zeros((1, 1)), points, 2.0, weights=[5.0]).mass
    np.testing.assert_allclose(mass, 5 * parts / parts.sum(), atol=1 / STEPS)


def test_the_mass_is_that_of_a_plain_loop_over_rows_and_clusters():
    rng = np.random.default_rng(8)
    rows, points = rng.integers(0, 9, (30, 3)), rng.integers(0, 9, (12, 3))
    widths, weights = rng.uniform(0.5, 20, 12), rng.uniform(0.5, 2, 30)
    expected = np.zeros(12)
    for row, weight in zip(rows, weights, strict=True):
        squared = [sum((int(a) - int(b)) ** 2 for a, b in zip(row, p, strict=True)) for p in points]
        near = sorted(range(12), key=lambda j: (squared[j], j))[:4]
        parts = [math.exp(-(squared[j] - squared[near[0]]) / widths[j]) for j in near]
        for cluster, part in zip(near, parts, strict=True):
            expected[cluster] += weight * part / sum(parts)
    mass = kernel_mass(rows, points, widths, neighbors=4, weights=weights).mass
    np.testing.assert_allclose(mass, expected, atol=30 / STEPS)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 99))
def test_batches_and_order_do_not_matter(seed, cut):
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((100, 6)).astype(np.float32)
    points = rng.standard_normal((30, 6)).astype(np.float32)
    expected = kernel_mass(rows, points, 0.7)
    parts = [kernel_mass(part, points, 0.7) for part in (rows[cut:], rows[:cut])]
    merged = parts[0].merge(parts[1]).merge(TargetMass.empty(30))
    np.testing.assert_array_equal(expected.fixed, merged.fixed)
    assert merged.rows == 100


def test_out_of_reach_far_half_and_same_distribution(codebook):
    centroids, _, radii, limit = codebook
    rng = np.random.default_rng(2)
    same = rng.standard_normal((2000, 8))
    far = same + 300
    reach = {"radii": radii, "limit": limit}
    assert kernel_mass(far, centroids, 0.1, **reach).unreachable > 0.99
    assert kernel_mass(same, centroids, 0.1, **reach).unreachable < 0.03
    half = kernel_mass(np.concatenate([same, far]), centroids, 0.1, **reach)
    assert 0.48 < half.unreachable < 0.53
    assert half.rows_out_of_reach >= 2000


def test_clusters_of_one_row_or_of_duplicates_still_reach():
    radii = cluster_radii([0.0, 8.0], [1, 8])
    assert 0 < radii[0] < radii[1]
    flat = cluster_radii([0.0, 0.0], [5, 5])
    np.testing.assert_array_equal(relative_reach([0.0, 1.0], [0, 1], flat), [0.0, np.inf])


def test_width_follows_the_datas_scale_and_shrinks_with_rows():
    near = np.sort(np.random.default_rng(0).random((50, 5)), axis=1)
    assert kernel_width(4 * near, 10, 10) == pytest.approx(4 * kernel_width(near, 10, 10))
    assert kernel_width(near, 10, 1000) == pytest.approx(0.1 * kernel_width(near, 10, 10))
    assert kernel_width(near[:, :1], 1, 50) == 0.0


def test_targets_mix_by_share_not_by_rows():
    one = kernel_mass(np.zeros((1000, 2)), np.array([[0.0, 0], [1, 1]]), 0.0)
    two = kernel_mass(np.ones((10, 2)), np.array([[0.0, 0], [1, 1]]), 0.0)
    mass, lost = mix_targets([one, two], [3, 1])
    np.testing.assert_allclose(mass, [0.75, 0.25])
    assert lost == 0
    with pytest.raises(ConfigError):
        mix_targets([one], [1, 2])
    with pytest.raises(InputError):
        mix_targets([TargetMass.empty(2)], [1])


def test_settings_and_function_spread_over_as_many_clusters():
    default = inspect.signature(kernel_mass).parameters["neighbors"].default
    assert default == QuantizeSettings().neighbors


def test_a_limit_needs_radii():
    with pytest.raises(ConfigError, match="cluster_radii"):
        kernel_mass(np.zeros((1, 2)), np.zeros((1, 2)), 0.0, limit=2.0)
