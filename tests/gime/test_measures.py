"""Figures from counts and moments, against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gio_spark.gime.divergences import population_stability


def histogram(counts):
    return np.array([list(counts), list(counts.values())], dtype=np.int64)


def test_stability_smooths_every_bin_by_half_a_row():
    # Shares (3.5, 0.5) / 4 and (0.5, 1.5) / 2: the index is 5/8 (ln 7/2 - ln 1/6).
    value = population_stability(histogram({0: 3}), histogram({1: 1}))
    assert value == pytest.approx(5 / 8 * math.log(21), rel=1e-12)
