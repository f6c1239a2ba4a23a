"""Every example in a docstring of the package runs and prints what the docstring shows."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

from gio_spark.errors import MissingExtraError

ROOT = Path(__file__).parent.parent
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
# Packages of extras, which an environment may lack.
EXTRAS = {
    "pysail",
    "deltalake",
    "delta",
    "wordllama",
    "model2vec",
    "sentence_transformers",
    "bm25s",
}


def modules_with_examples() -> list[str]:
    files = sorted((ROOT / "gio_spark").rglob("*.py"))
    with_examples = [file for file in files if ">>>" in file.read_text(encoding="utf-8")]
    parts = [file.relative_to(ROOT).with_suffix("").parts for file in with_examples]
    return [".".join(part for part in names if part != "__init__") for names in parts]


@pytest.mark.parametrize("name", modules_with_examples())
def test_examples_of_a_module_run_as_shown(name: str):
    try:
        module = importlib.import_module(name)
    except MissingExtraError as error:
        pytest.skip(str(error))
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in EXTRAS:
            raise
        pytest.skip(f"{error.name} is not installed")
    report: list[str] = []
    runner = doctest.DocTestRunner(optionflags=OPTIONS)
    for test in doctest.DocTestFinder(exclude_empty=True).find(module, name):
        runner.run(test, out=report.append)
    assert runner.failures == 0, "".join(report)
    assert runner.tries > 0, "no example was collected: is `>>>` outside a docstring?"


def test_there_are_examples():
    assert "gio_spark.kernels.rounding" in modules_with_examples()
