"""The nearest-centroid kernel: exact decisions at float32 speed."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import pairwise_distances_argmin_min

from gio_spark.errors import InputError
from gio_spark.kernels import Codebook, nearest, nearest_many, nearest_two, squared_distances


def exact(vectors, centroids):
    gap = vectors.astype(np.float64)[:, None, :] - centroids.astype(np.float64)[None]
    return (gap * gap).sum(axis=2)


def test_agrees_with_scikit_learn():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3000, 24)).astype(np.float32)
    c = rng.standard_normal((70, 24)).astype(np.float32)
    cluster, distance = nearest(x, c)
    expected, gap = pairwise_distances_argmin_min(x.astype(np.float64), c.astype(np.float64))
    assert cluster.dtype == np.int32
    assert distance.dtype == np.float32
    np.testing.assert_array_equal(cluster, expected)
    np.testing.assert_allclose(distance, gap**2, rtol=1e-6)


def test_ties_go_to_the_lowest_index():
    c = np.array([[1, 0], [0, 1], [1, 0], [-1, 0]], dtype=np.float32)
    cluster, distance = nearest(np.array([[1, 0], [0, 0], [0.5, 0.5]], dtype=np.float32), c)
    np.testing.assert_array_equal(cluster, [0, 0, 0])
    np.testing.assert_allclose(distance, [0, 1, 0.5])


def test_second_nearest_is_never_the_nearest_even_among_duplicates():
    c = np.array([[1, 0], [1, 0], [0, 1], [5, 5]], dtype=np.float32)
    first, gap, second, second_distance = nearest_two(
        np.array([[1, 0.0], [5, 4]], dtype=np.float32), c
    )
    np.testing.assert_array_equal(first, [0, 3])
    np.testing.assert_array_equal(second, [1, 0])
    np.testing.assert_allclose(gap, [0, 1])
    np.testing.assert_allclose(second_distance, [0, 32])


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 30), st.integers(1, 20),
    st.sampled_from([-50, 0, 50]),
)  # fmt: skip
def test_decisions_are_exact_on_near_ties(seed, rows, clusters, dimension, exponent):
    rng = np.random.default_rng(seed)
    # Few distinct values make ties and near ties common, at any scale.
    x = np.ldexp(rng.integers(-2, 3, (rows, dimension)).astype(np.float32) / 3, exponent)
    c = np.ldexp(rng.integers(-2, 3, (clusters, dimension)).astype(np.float32) / 3, exponent)
    c *= (1 + rng.integers(0, 2, clusters) * 1e-7).astype(np.float32)[:, None]
    cluster, _ = nearest(x, c)
    np.testing.assert_array_equal(cluster, exact(x, c).argmin(axis=1))
    if clusters > 1:
        first, _, second, _ = nearest_two(x, c)
        np.testing.assert_array_equal(first, cluster)
        gaps = exact(x, c)
        gaps[np.arange(rows), first] = np.inf
        np.testing.assert_array_equal(second, gaps.argmin(axis=1))
    many = min(clusters, 5)
    ranked = np.argsort(exact(x, c), axis=1, kind="stable")[:, :many]
    np.testing.assert_array_equal(nearest_many(x, c, many), ranked)


def test_one_huge_centroid_does_not_change_decisions():
    rng = np.random.default_rng(1)
    x = rng.standard_normal((500, 16)).astype(np.float32)
    c = rng.standard_normal((40, 16)).astype(np.float32)
    c[7] *= 1e6
    np.testing.assert_array_equal(nearest(x, c)[0], exact(x, c).argmin(axis=1))


def test_decisions_are_exact_where_float32_scores_are_wrong():
    """Far from the origin the scores cancel: their largest is not the nearest for many rows."""
    rng = np.random.default_rng(6)
    x = (1000 + rng.standard_normal((600, 24))).astype(np.float32)
    c = (1000 + rng.standard_normal((50, 24))).astype(np.float32)
    scores = x @ c.T - (exact(c, np.zeros((1, 24)))[:, 0] / 2).astype(np.float32)
    ranked = np.argsort(exact(x, c), axis=1)
    assert (scores.argmax(axis=1) != ranked[:, 0]).sum() > 100
    first, _, second, _ = nearest_two(x, c)
    np.testing.assert_array_equal(nearest(x, c)[0], ranked[:, 0])
    np.testing.assert_array_equal(np.stack([first, second], axis=1), ranked[:, :2])
    np.testing.assert_array_equal(nearest_many(x, c, 4), ranked[:, :4])


def binary_case():
    rng = np.random.default_rng(5)
    x = rng.integers(0, 2, (2500, 64)).astype(np.float32)
    x /= np.sqrt((x * x).sum(axis=1, keepdims=True))
    return x, x[:300].copy()


def test_same_bits_wherever_a_row_stands():
    x, c = binary_case()
    cluster, distance = nearest(x, c)
    codebook = Codebook(c)
    for size in (1, 7, 511, 513, 2048):
        parts = [nearest(x[s : s + size], codebook) for s in range(0, len(x), size)]
        np.testing.assert_array_equal(np.concatenate([p[0] for p in parts]), cluster)
        np.testing.assert_array_equal(np.concatenate([p[1] for p in parts]), distance)
    order = np.random.default_rng(2).permutation(len(x))
    np.testing.assert_array_equal(nearest(x[order], c)[0], cluster[order])


def digest() -> str:
    x, c = binary_case()
    first, gap, second, second_distance = nearest_two(x, c)
    return hashlib.sha256(
        b"".join(a.tobytes() for a in (first, gap, second, second_distance))
    ).hexdigest()


def can_run(core: str) -> bool:
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return {"SkylakeX": "avx512f", "Haswell": "avx2"}.get(core, "sse4_2") in flags


@pytest.mark.parametrize(
    ("core", "threads"), [("Haswell", 1), ("Haswell", 2), ("SkylakeX", 1), ("Nehalem", 1)]
)
def test_same_bits_with_every_blas_kernel(core, threads):
    if not can_run(core):
        pytest.skip(f"this processor cannot run OpenBLAS's {core} kernels")
    folder = Path(__file__).parent
    code = "from test_nearest_centroid import digest; print(digest())"
    env = {
        **os.environ,
        "OPENBLAS_CORETYPE": core,
        "OPENBLAS_NUM_THREADS": str(threads),
        "PYTHONPATH": os.pathsep.join([str(folder.parent.parent), str(folder)]),
    }
    completed = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    assert completed.stdout.strip() == digest()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30])
def test_unusable_values_are_refused(bad):
    x = np.ones((4, 3), dtype=np.float32)
    x[2, 1] = bad
    with pytest.raises(InputError, match="1 of 4 rows of a block hold NaN"):
        nearest(x, np.array([[1e9, 1e9, -1e9], [-1e9, -1e9, 1e9]], dtype=np.float32))


def test_unusable_centroids_are_refused():
    c = np.ones((2, 3), dtype=np.float32)
    c[0, 0] = np.nan
    with pytest.raises(InputError, match="centroids"):
        nearest(np.ones((1, 3), dtype=np.float32), c)


def test_other_dimension_is_refused():
    with pytest.raises(InputError, match="dimension 3"):
        nearest(np.ones((2, 3), dtype=np.float32), np.ones((2, 4), dtype=np.float32))


def test_more_neighbours_than_centroids_are_refused():
    with pytest.raises(InputError, match="4 nearest of 3"):
        nearest_many(np.ones((2, 3), np.float32), np.eye(3, dtype=np.float32), 4)


def test_no_rows_give_no_rows():
    cluster, distance = nearest(np.empty((0, 4), np.float32), np.ones((3, 4), np.float32))
    assert len(cluster) == len(distance) == 0


def test_distance_tile_is_close_and_never_negative():
    rng = np.random.default_rng(3)
    a = rng.standard_normal((50, 12)).astype(np.float32)
    tile = squared_distances(a, a)
    np.testing.assert_allclose(tile, exact(a, a), atol=2e-5)
    assert tile.min() >= 0
