"""Two-level search."""

from __future__ import annotations

import numpy as np
import pytest

from gio_spark.kernels import (
    Codebook,
    agreement,
    find,
    find_two,
    group_centroids,
    nearest,
    nearest_two,
)


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


def test_a_single_cell_is_exact(case):
    x, centroids = case
    book = group_centroids(centroids, cells=1)
    for mine, exact in zip(find_two(x, book), nearest_two(x, centroids), strict=True):
        np.testing.assert_array_equal(mine, exact)
    assert agreement(x, book)["agreement"] == 1.0


def test_same_bits_wherever_a_row_stands(case):
    x, centroids = case
    book = group_centroids(centroids)
    whole = find_two(x, book)
    order = np.random.default_rng(1).permutation(len(x))
    for size in (1000, 37):
        parts = [find_two(x[order[s : s + size]], book) for s in range(0, len(x), size)]
        for i in range(4):
            np.testing.assert_array_equal(np.concatenate([p[i] for p in parts]), whole[i][order])
    np.testing.assert_array_equal(find(x, book)[0], whole[0])


def test_second_is_another_cluster_even_in_cells_of_one():
    centroids = np.array([[0.0], [10], [20], [30]], dtype=np.float32)
    first, _, second, beyond = find_two([[1.0], [29.0]], group_centroids(centroids, cells=4))
    np.testing.assert_array_equal(first, [0, 3])
    np.testing.assert_array_equal(second, [1, 2])
    np.testing.assert_allclose(beyond, [81, 81])


def test_duplicates_among_centroids_are_grouped():
    centroids = np.repeat(np.eye(3, dtype=np.float32), 10, axis=0)
    cluster, distance = find(np.eye(3, dtype=np.float32), group_centroids(centroids))
    np.testing.assert_array_equal(cluster, [0, 10, 20])
    assert distance.max() == 0


def test_a_codebook_is_searched_exactly(case):
    x, centroids = case
    np.testing.assert_array_equal(find(x, Codebook(centroids))[0], nearest(x, centroids)[0])


def test_second_level_candidates_count_once():
    # Every centroid stands in both cells, so each is found twice.
    rng = np.random.default_rng(4)
    centroids = rng.standard_normal((12, 3)).astype(np.float32)
    book = group_centroids(centroids, cells=2)
    x = rng.standard_normal((50, 3)).astype(np.float32)
    for mine, exact in zip(find_two(x, book), nearest_two(x, centroids), strict=True):
        np.testing.assert_array_equal(mine, exact)
