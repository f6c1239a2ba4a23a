"""Search through a two-level codebook, and the groups of its centroids."""

from __future__ import annotations

import numpy as np
import pytest

from gio_spark.kernels import (
    PROBES,
    Codebook,
    TwoLevelCodebook,
    agreement,
    group_centroids,
    nearest,
    nearest_two,
    search_nearest,
    search_nearest_two,
)
from gio_spark.kernels.balanced_halving import balanced_groups


@pytest.fixture(scope="module")
def case():
    rng = np.random.default_rng(0)
    places = rng.standard_normal((30, 12)) * 3
    centroids = places[rng.integers(0, 30, 900)] + rng.standard_normal((900, 12))
    x = centroids[rng.integers(0, 900, 3000)] + 0.5 * rng.standard_normal((3000, 12))
    return x.astype(np.float32), centroids.astype(np.float32)


def test_agrees_with_exact_search_nearly_always(case):
    x, centroids = case
    measured = agreement(x, group_centroids(centroids))
    assert measured["rows"] == 3000
    assert measured["agreement"] > 0.95
    assert 0 <= measured["excess"] < 0.02


def test_a_single_group_is_exact(case):
    x, centroids = case
    codebook = group_centroids(centroids, groups=1)
    for approximate, exact in zip(
        search_nearest_two(x, codebook), nearest_two(x, centroids), strict=True
    ):
        np.testing.assert_array_equal(approximate, exact)
    assert agreement(x, codebook)["agreement"] == 1.0


def test_same_bits_wherever_a_row_stands(case):
    x, centroids = case
    codebook = group_centroids(centroids)
    all_at_once = search_nearest_two(x, codebook)
    order = np.random.default_rng(1).permutation(len(x))
    for size in (1000, 37):
        parts = [
            search_nearest_two(x[order[s : s + size]], codebook) for s in range(0, len(x), size)
        ]
        for i in range(4):
            np.testing.assert_array_equal(
                np.concatenate([p[i] for p in parts]), all_at_once[i][order]
            )
    np.testing.assert_array_equal(search_nearest(x, codebook)[0], all_at_once[0])


def test_second_is_another_cluster_even_in_groups_of_one():
    centroids = np.array([[0.0], [10], [20], [30]], dtype=np.float32)
    first, _, second, second_distance = search_nearest_two(
        [[1.0], [29.0]], group_centroids(centroids, groups=4)
    )
    np.testing.assert_array_equal(first, [0, 3])
    np.testing.assert_array_equal(second, [1, 2])
    np.testing.assert_allclose(second_distance, [81, 81])


def test_duplicates_among_centroids_are_grouped():
    centroids = np.repeat(np.eye(3, dtype=np.float32), 10, axis=0)
    cluster, distance = search_nearest(np.eye(3, dtype=np.float32), group_centroids(centroids))
    np.testing.assert_array_equal(cluster, [0, 10, 20])
    assert distance.max() == 0


def test_a_codebook_is_searched_exactly(case):
    x, centroids = case
    np.testing.assert_array_equal(
        search_nearest(x, Codebook(centroids))[0], nearest(x, centroids)[0]
    )


def test_second_level_candidates_count_once():
    # Every centroid stands in both groups, so each is a candidate twice.
    rng = np.random.default_rng(4)
    centroids = rng.standard_normal((12, 3)).astype(np.float32)
    codebook = group_centroids(centroids, groups=2)
    x = rng.standard_normal((50, 3)).astype(np.float32)
    for approximate, exact in zip(
        search_nearest_two(x, codebook), nearest_two(x, centroids), strict=True
    ):
        np.testing.assert_array_equal(approximate, exact)


def test_more_groups_searched_agree_more_often(case):
    rng = np.random.default_rng(7)
    # Without structure at all: the hardest case.
    centroids = rng.standard_normal((2500, 48)).astype(np.float32)
    x = (centroids[rng.integers(0, 2500, 1500)] + 0.6 * rng.standard_normal((1500, 48))).astype(
        np.float32
    )
    codebook = group_centroids(centroids)
    agreements = [
        agreement(
            x, TwoLevelCodebook(codebook.centroids, codebook.group_centers, codebook.groups, probes)
        )["agreement"]
        for probes in (1, 2, PROBES, 12, len(codebook.group_centers))
    ]
    assert (
        agreements == sorted(agreements) and agreements[0] < agreements[2] and agreements[-1] == 1.0
    )


def test_groups_stay_balanced_where_a_few_centroids_lie_near_the_middle():
    rng = np.random.default_rng(2)
    centroids = rng.standard_normal((4000, 96)).astype(np.float32)
    centroids[:40] *= 0.2
    rows = [len(members) for members in group_centroids(centroids).members]
    assert max(rows) < 4 * np.mean(rows)


@pytest.mark.parametrize(("rows", "groups"), [(1000, 16), (1000, 23), (7, 7), (5, 1)])
def test_halved_groups_have_similar_sizes(rows, groups):
    x = np.random.default_rng(0).standard_normal((rows, 6)).astype(np.float32)
    counts = np.bincount(balanced_groups(x, groups), minlength=groups)
    assert len(counts) == groups and counts.min() >= 1
    assert counts.max() <= 2 * counts.min() + 1


def test_rows_that_are_all_the_same_are_halved_too():
    counts = np.bincount(balanced_groups(np.ones((64, 3), np.float32), 8))
    np.testing.assert_array_equal(counts, [8] * 8)


@pytest.mark.parametrize("rows", [40, 3000])
def test_groups_are_halved_along_the_direction_of_most_variance(rows):
    rng = np.random.default_rng(3)
    along = rng.standard_normal(rows)
    x = np.outer(along, [3.0, -4.0, 12.0]) + 0.01 * rng.standard_normal((rows, 3)) + 5
    group = balanced_groups(x.astype(np.float32), 4)
    quarter = np.argsort(np.argsort(x @ [3.0, -4.0, 12.0])) * 4 // rows
    labels = group[np.argsort(quarter, kind="stable")].reshape(4, -1)
    assert (labels == labels[:, :1]).all()
    # Group 1 splits off 0, then 2 off 0 and 3 off 1; which end is which is up to the direction.
    halves = labels[:, 0].reshape(2, 2)
    assert sorted(np.sort(halves, axis=1).tolist()) == [[0, 2], [1, 3]]
