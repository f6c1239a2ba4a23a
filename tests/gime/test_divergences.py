"""Formulas of divergences on cases that are worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gio_spark.gime.divergences import population_stability


def counts(keys, rows):
    return np.array([keys, rows], dtype=np.int64)


def test_the_stability_index_smooths_every_bin_by_half_a_row():
    # Rows 1 and 3 against 2 and 2: shares 1.5/5 and 3.5/5 against one half each.
    index = population_stability(counts([0, 1], [1, 3]), counts([0, 1], [2, 2]))
    assert index == pytest.approx(-0.2 * math.log(0.3 / 0.5) + 0.2 * math.log(0.7 / 0.5))
    # A bin that one side lacks counts half a row there: 4.5/5 and 0.5/5 against 0.5/5 and 4.5/5.
    apart = population_stability(counts([3], [4]), counts([8], [4]))
    assert apart == pytest.approx(2 * 0.8 * math.log(9))
    assert population_stability(counts([5, 6], [2, 7]), counts([5, 6], [2, 7])) == 0.0
