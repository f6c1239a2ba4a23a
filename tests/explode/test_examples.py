"""Examples in the docstrings of `gio_spark.explode` give the results that they state."""

from __future__ import annotations

import doctest
import importlib

import pytest


@pytest.mark.parametrize(
    "module",
    [
        "bloom_filter",
        "calibration",
        "density_ratio",
        "exact_thresholds",
        "rank_keys",
        "text_features",
    ],
)
def test_examples_give_their_stated_results(module):
    results = doctest.testmod(importlib.import_module(f"gio_spark.explode.{module}"))
    assert results.attempted > 0
    assert results.failed == 0
