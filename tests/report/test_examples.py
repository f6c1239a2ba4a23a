"""Examples in the docstrings of `gio_spark.report` give the results that they state."""

from __future__ import annotations

import doctest
import importlib

import pytest


@pytest.mark.parametrize(
    "module",
    ["evaluation_plots", "report_data", "text_format", "thumbnails", "trial_statistics"],
)
def test_examples_give_their_stated_results(module):
    results = doctest.testmod(importlib.import_module(f"gio_spark.report.{module}"))
    assert results.attempted > 0
    assert results.failed == 0
