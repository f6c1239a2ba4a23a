"""Examples in the docstrings of `gio_spark.tracking` give the results that they state."""

from __future__ import annotations

import doctest
import importlib

import pytest


@pytest.mark.parametrize("module", ["mlflow_client", "tracking_store"])
def test_examples_give_their_stated_results(module):
    results = doctest.testmod(importlib.import_module(f"gio_spark.tracking.{module}"))
    assert results.attempted > 0
    assert results.failed == 0
