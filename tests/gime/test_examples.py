"""The examples in the docstrings of the metrics run and print what they say."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

from gio_spark import gime

MODULES = [f"gio_spark.gime.{module.name}" for module in pkgutil.iter_modules(gime.__path__)]


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_metric_docstrings_run(name):
    module = importlib.import_module(name)
    runner = doctest.DocTestRunner()
    for example in doctest.DocTestFinder(exclude_empty=True).find(module, name):
        runner.run(example)
    assert runner.summarize(verbose=False).failed == 0


def test_functions_of_thresholds_have_an_example():
    for function in (gime.judge, gime.bounded_kl, gime.limited_kl, gime.manual_thresholds):
        assert ">>>" in function.__doc__
