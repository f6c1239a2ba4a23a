"""First centres."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gio_spark.kernels import find_two, group_centroids, nearest
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


def test_nothing_comes_from_nothing():
    assert len(plus_plus(np.empty((0, 3), np.float32), 5, seed=0)) == 0


def digest() -> str:
    rng = np.random.default_rng(6)
    # Values on a coarse grid: ties and near ties are common.
    x = (rng.integers(0, 3, (3000, 24)) / 3).astype(np.float32)
    parts = [
        x[first_centers(x, 700, seed=2)],
        small_kmeans(x, 30, seed=3),
        group_centroids(x).cells,
        *find_two(x, group_centroids(x[:900])),
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
