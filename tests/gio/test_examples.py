"""The examples in the docstrings run and print what they say."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

from gio_spark import gio, kernels

MODULES = [
    f"{package.__name__}.{module.name}"
    for package in (gio, kernels)
    for module in pkgutil.iter_modules(package.__path__)
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_docstrings_run(name):
    module = importlib.import_module(name)
    examples = doctest.DocTestFinder(exclude_empty=True).find(module, name)
    runner = doctest.DocTestRunner()
    for example in examples:
        runner.run(example)
    assert runner.summarize(verbose=False).failed == 0


def test_functions_that_users_call_have_an_example():
    for function in (gio.select, gio.budgeted_kl, gio.mixture_share, gio.kernel_mass):
        assert ">>>" in function.__doc__
