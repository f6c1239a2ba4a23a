"""Examples in the docstrings of `gio_spark.evaluate` give the results that they state."""

from __future__ import annotations

import doctest
import importlib

import pytest


@pytest.mark.parametrize(
    "module",
    [
        "compare_methods",
        "dataset_arrays",
        "measure_inputs",
        "measures",
        "methods.baselines",
        "methods.dsir",
        "methods.hash_draws",
        "methods.method_registry",
        "methods.neighbor_lists",
        "methods.optimal_transport",
        "word_pair_model",
    ],
)
def test_examples_give_their_stated_results(module):
    results = doctest.testmod(importlib.import_module(f"gio_spark.evaluate.{module}"))
    assert results.attempted > 0
    assert results.failed == 0
