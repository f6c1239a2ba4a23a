"""Checks and failure signs."""

from __future__ import annotations

import numpy as np
import pytest

from gio_spark.gio import SelectionProblem, cluster_radii, nearest_clusters, reach_limit, select
from gio_spark.gio.selection_checks import (
    FEW_CLUSTERS,
    failure_signs,
    mode_coverage,
    negative_consistency,
    quantization_consistency,
    self_consistency,
)


def codebook_of(rows, centroids):
    nearest, squared = nearest_clusters(rows, centroids, 1)
    counts = np.bincount(nearest[:, 0], minlength=len(centroids))
    inertia = np.bincount(nearest[:, 0], squared[:, 0], minlength=len(centroids))
    return nearest[:, 0], squared[:, 0], counts, cluster_radii(inertia, counts)


@pytest.fixture(scope="module")
def pool():
    rng = np.random.default_rng(0)
    middles = rng.standard_normal((60, 6)) * 4
    rows = middles[rng.integers(60, size=6000)] + 0.5 * rng.standard_normal((6000, 6))
    return rows, middles


def test_self_consistency_holds_for_a_sane_codebook(pool):
    rows, middles = pool
    cluster, _, counts, _ = codebook_of(rows, middles)
    first, second = (np.bincount(cluster[part::2], minlength=60) for part in (0, 1))
    verdict = self_consistency(first, second, counts)
    assert verdict.passed and verdict.figures["share"] >= 0.85


def test_self_consistency_fails_with_a_target_of_another_distribution(pool):
    rows, middles = pool
    cluster, _, counts, _ = codebook_of(rows, middles)
    few = np.where(np.arange(60) < 6, np.bincount(cluster, minlength=60), 0)
    assert not self_consistency(few, few, counts).passed


def test_negative_consistency_holds(pool):
    rows, middles = pool
    cluster, squared, _, radii = codebook_of(rows, middles)
    limit = reach_limit(squared, cluster, radii)
    assert negative_consistency(middles, radii, limit, rows[:200]).passed
    assert not negative_consistency(middles, radii, np.inf, rows[:200]).passed


def test_quantisation_consistency_tells_good_from_bad_codebooks(pool):
    rows, middles = pool
    assert quantization_consistency(rows[:2000], middles).passed
    assert not quantization_consistency(rows[:2000], middles[:3]).passed
    crowded = quantization_consistency(rows[:2000], middles, pool_rows=9 * len(middles))
    assert not crowded.passed and "Use at most" in crowded.remedy


def test_a_codebook_of_ordinary_vectors_in_many_dimensions_passes_and_another_one_fails():
    from sklearn.cluster import KMeans

    rng = np.random.default_rng(1)
    rows = rng.standard_normal((3000, 64)) * np.linspace(1, 0.1, 64)
    few = KMeans(40, n_init=1, random_state=0).fit(rows[:2000]).cluster_centers_
    verdict = quantization_consistency(rows[2000:], few)
    assert verdict.passed and verdict.figures["unexplained"] > 0.1
    other = quantization_consistency(rows[2000:], few + 1.0)
    assert not other.passed
    # What a failed check advises works: at least as many clusters as rows were drawn.
    again = KMeans(100, n_init=1, random_state=0).fit(rows[:2000]).cluster_centers_
    assert quantization_consistency(rows[2000:], again).passed


def test_mode_coverage_sees_a_missed_mode(pool):
    rows, middles = pool
    cluster, _, counts, radii = codebook_of(rows, middles)
    assert mode_coverage(middles, counts, rows[:3000], radii).passed
    missing = rows[cluster >= 5]
    verdict = mode_coverage(middles, counts, missing, radii)
    assert not verdict.passed and verdict.figures["missed"] == 5


def problem(seed=0, clusters=100, **changes):
    rng = np.random.default_rng(seed)
    values = {
        "pool_centroids": rng.standard_normal((clusters, 3)).astype(np.float32),
        "sizes": rng.integers(50, 500, clusters),
        "target_mass": rng.gamma(0.3, size=clusters),
        "budget": 2000,
        "target_centroids": rng.standard_normal((300, 3)),
    }
    return SelectionProblem(**(values | changes))


def signs(problem_case, name="budgeted_kl", rows=5000):
    notices = failure_signs(
        select(name, problem_case),
        problem_case.sizes,
        problem_case.pool_centroids,
        target_rows=rows,
    )
    return {notice.name for notice in notices}


def test_a_good_selection_shows_no_sign():
    assert signs(problem()) == set()


def test_the_published_optimum_is_unlike_the_target():
    rng = np.random.default_rng(0)
    modes = np.repeat(np.array([[0.0, 0, 0], [9, 0, 0], [0, 9, 0]]), 40, axis=0)
    points = modes + 0.5 * rng.standard_normal((120, 3))
    target = points[rng.choice(120, 400, p=np.repeat([0.6, 0.3, 0.1], 40) / 40)]
    mass = np.repeat([0.6, 0.3, 0.1], 40)
    case = problem(
        pool_centroids=points, sizes=np.full(120, 60), target_mass=mass, target_centroids=target
    )
    assert "selection_unlike_target" in signs(case, "published_exact")
    assert "selection_unlike_target" not in signs(case)


def test_rising_divergence_few_rows_and_few_clusters_are_named():
    assert "divergence_rises" in signs(problem(budget=20_000), "published_exact")
    assert "target_too_small" in signs(problem(), rows=12)
    assert "too_few_clusters" in signs(problem(clusters=FEW_CLUSTERS - 1, budget=300))
    assert "too_few_clusters" not in signs(problem(clusters=FEW_CLUSTERS, budget=300))


def test_every_sign_says_what_to_do():
    case = problem(clusters=8, budget=300)
    for notice in failure_signs(
        select("budgeted_kl", case), case.sizes, case.pool_centroids, target_rows=3
    ):
        assert notice.text and notice.remedy
