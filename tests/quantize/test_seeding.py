"""First centres."""

from __future__ import annotations

import hashlib
import itertools
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from gio_spark.kernels import group_centroids, nearest, search_nearest_two
from gio_spark.quantize import kmeans_seeding
from gio_spark.quantize.kmeans_seeding import first_centers, plus_plus, small_kmeans


def potential(x, chosen):
    return float(nearest(x, x[chosen])[1].astype(np.float64).sum())


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    places = rng.standard_normal((60, 10)) * 5
    return (places[rng.integers(0, 60, 4000)] + rng.standard_normal((4000, 10))).astype(np.float32)


def test_blocks_are_as_good_as_choosing_one_by_one(rows, monkeypatch):
    monkeypatch.setattr(kmeans_seeding, "_GREEDY_CLUSTERS", 0)
    blocks = [potential(rows, plus_plus(rows, 200, seed=s)) for s in range(5)]
    monkeypatch.setattr(kmeans_seeding, "_MAX_BLOCK_CANDIDATES", 1)
    single = [potential(rows, plus_plus(rows, 200, seed=s)) for s in range(5)]
    assert np.mean(blocks) < 1.05 * np.mean(single)


def test_cells_are_nearly_as_good(rows, monkeypatch):
    whole = potential(rows, plus_plus(rows, 400, seed=1, greedy=False))
    monkeypatch.setattr(kmeans_seeding, "_ONE_LEVEL_CLUSTERS", 100)
    chosen = first_centers(rows, 400, seed=1)
    assert len(np.unique(chosen)) == 400
    assert potential(rows, chosen) < 1.15 * whole


@pytest.mark.parametrize("greedy", [0, 512])
def test_rows_are_chosen_once_and_duplicates_never(rows, monkeypatch, greedy):
    monkeypatch.setattr(kmeans_seeding, "_GREEDY_CLUSTERS", greedy)
    doubled = np.repeat(rows[:40], 3, axis=0)
    chosen = plus_plus(doubled, 100, seed=3)
    assert len(chosen) == 40
    assert len(np.unique(doubled[chosen], axis=0)) == 40


def plain_greedy(x, clusters, seed):
    rng = np.random.default_rng([seed, 0x6B2B2B])
    square = ((x[:, None] - x[None]) ** 2).sum(axis=2)
    chosen = [int(rng.integers(len(x)))]
    gap = square[chosen[0]]
    while len(chosen) < clusters:
        mass = np.cumsum(gap)
        drawn = [
            int(np.flatnonzero(mass > u * mass[-1])[0])
            for u in rng.random(2 + int(np.log(clusters)))
        ]
        best = min(drawn, key=lambda row: np.minimum(gap, square[row]).sum())
        chosen.append(best)
        gap = np.minimum(gap, square[best])
    return chosen


@pytest.mark.parametrize("clusters", [1, 2, 8, 25])
def test_greedy_picks_equal_those_of_a_plain_loop(clusters):
    x = np.random.default_rng(1).integers(-40, 40, (60, 3)).astype(float)
    for seed in range(5):
        picks = plus_plus(x.astype(np.float32), clusters, seed=seed)
        assert picks.tolist() == plain_greedy(x, clusters, seed)


def test_picks_made_in_blocks_follow_the_law_of_one_by_one():
    x = np.array([[0.0], [1.0], [3.0], [7.0], [8.0]])
    square = (x - x.T) ** 2
    expected = Counter()
    for order in itertools.permutations(range(5), 4):
        odds = 1 / 5
        for place in range(1, 4):
            gap = square[list(order[:place])].min(axis=0)
            odds *= gap[order[place]] / gap.sum()
        expected[frozenset(order)] += odds
    draws = 1500
    sets = Counter(
        frozenset(plus_plus(x, 4, seed=seed, greedy=False).tolist()) for seed in range(draws)
    )
    for chosen, odds in expected.items():
        assert abs(sets[chosen] / draws - odds) < 4 * np.sqrt(odds * (1 - odds) / draws) + 1e-9


def test_a_center_moves_to_its_only_row_and_stays_where_it_has_none():
    x = np.array([[1.0], [11.0], [12.0]], np.float32)
    centers = np.array([[0.0], [10.0], [99.0]], np.float32)
    assert kmeans_seeding.lloyd(x, centers, steps=1).tolist() == [[1.0], [11.5], [99.0]]


def test_lloyd_steps_equal_a_plain_loop():
    rng = np.random.default_rng(2)
    x = rng.standard_normal((80, 2)).astype(np.float32)
    centres = np.concatenate([x[:4], [[50.0, 50.0]]]).astype(np.float32)
    moved = centres.astype(np.float64)
    for _ in range(3):
        cluster = ((x[:, None] - moved[None]) ** 2).sum(axis=2).argmin(axis=1)
        for c in np.unique(cluster):
            moved[c] = x[cluster == c].mean(axis=0, dtype=np.float64)
    np.testing.assert_allclose(kmeans_seeding.lloyd(x, centres, steps=3), moved, rtol=1e-5)
    four = kmeans_seeding.lloyd(x, x[plus_plus(x, 5, seed=1)], steps=4)
    np.testing.assert_array_equal(small_kmeans(x, 5, seed=1), four)
    assert len(small_kmeans(x[:3], 5, seed=1)) == 3


def test_the_first_sample_is_16_rows_a_cluster_within_its_bytes():
    assert kmeans_seeding.sample_rows(10, 100) == 8192
    assert kmeans_seeding.sample_rows(512, 100) == 8192
    assert kmeans_seeding.sample_rows(1000, 100) == 16_000
    # 256 MiB hold 1,024 rows of 65,536 numbers.
    assert kmeans_seeding.sample_rows(100, 65_536) == 1024
    assert kmeans_seeding.sample_rows(600, 65_536) == 1200
    assert kmeans_seeding.sample_rows(100, 100, 50) == 50
    assert kmeans_seeding.sample_bytes(1000, 100) == 6_400_000


def test_cells_get_centres_in_proportion_largest_remainders_first():
    assert kmeans_seeding._proportional_quotas(np.array([5, 3, 2]), 4).tolist() == [2, 1, 1]
    assert kmeans_seeding._proportional_quotas(np.array([1, 1, 1]), 2).tolist() == [1, 1, 0]
    assert kmeans_seeding._proportional_quotas(np.array([4, 0, 1]), 9).tolist() == [4, 0, 1]


def test_nothing_comes_from_nothing():
    assert len(plus_plus(np.empty((0, 3), np.float32), 5, seed=0)) == 0


def digest() -> str:
    rng = np.random.default_rng(6)
    # Values on a coarse grid: ties and near ties are common.
    x = (rng.integers(0, 3, (3000, 24)) / 3).astype(np.float32)
    parts = [
        x[first_centers(x, 700, seed=2)],
        small_kmeans(x, 30, seed=3),
        group_centroids(x).groups,
        *search_nearest_two(x, group_centroids(x[:900])),
    ]
    return hashlib.sha256(b"".join(np.ascontiguousarray(p).tobytes() for p in parts)).hexdigest()


@pytest.mark.parametrize("core", ["Haswell", "SkylakeX", "Nehalem"])
def test_same_centres_with_every_blas_kernel(core):
    if {"SkylakeX": "avx512f", "Haswell": "avx2", "Nehalem": "sse4_2"}[core] not in Path(
        "/proc/cpuinfo"
    ).read_text():
        pytest.skip(f"this processor cannot run OpenBLAS's {core} kernels")
    here = Path(__file__).parent
    env = {
        **os.environ,
        "OPENBLAS_CORETYPE": core,
        "PYTHONPATH": os.pathsep.join([str(here.parent.parent), str(here)]),
    }
    code = "from test_seeding import digest; print(digest())"
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == digest()
