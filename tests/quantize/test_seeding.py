"""First centres."""

from __future__ import annotations

import numpy as np
import pytest

from gio_spark.kernels import nearest
from gio_spark.quantize import seeding
from gio_spark.quantize.seeding import first_centres, plus_plus


def potential(x, chosen):
    return float(nearest(x, x[chosen])[1].astype(np.float64).sum())


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    places = rng.standard_normal((60, 10)) * 5
    return (places[rng.integers(0, 60, 4000)] + rng.standard_normal((4000, 10))).astype(np.float32)


def test_blocks_are_as_good_as_choosing_one_by_one(rows, monkeypatch):
    monkeypatch.setattr(seeding, "_GREEDY_CLUSTERS", 0)
    blocks = [potential(rows, plus_plus(rows, 200, seed=s)) for s in range(5)]
    monkeypatch.setattr(seeding, "_MOST_PER_BLOCK", 1)
    single = [potential(rows, plus_plus(rows, 200, seed=s)) for s in range(5)]
    assert np.mean(blocks) < 1.05 * np.mean(single)


def test_cells_are_nearly_as_good(rows, monkeypatch):
    whole = potential(rows, plus_plus(rows, 400, seed=1))
    monkeypatch.setattr(seeding, "_ONE_LEVEL_CLUSTERS", 100)
    chosen = first_centres(rows, 400, seed=1)
    assert len(np.unique(chosen)) == 400
    assert potential(rows, chosen) < 1.15 * whole


@pytest.mark.parametrize("greedy", [0, 512])
def test_rows_are_chosen_once_and_duplicates_never(rows, monkeypatch, greedy):
    monkeypatch.setattr(seeding, "_GREEDY_CLUSTERS", greedy)
    doubled = np.repeat(rows[:40], 3, axis=0)
    chosen = plus_plus(doubled, 100, seed=3)
    assert len(chosen) == 40
    assert len(np.unique(doubled[chosen], axis=0)) == 40


def test_nothing_comes_from_nothing():
    assert len(plus_plus(np.empty((0, 3), np.float32), 5, seed=0)) == 0
