"""PySpark's daemon of a local engine, with what workers import loaded once: forks share it.

Every Python worker would else spend a second of its core on the same imports.
"""

from __future__ import annotations

import contextlib
import gc
from importlib import import_module

from pyspark.daemon import manager

MODULES = (
    "numpy",
    "pandas",
    "pyarrow.compute",
    "pyspark.worker",
    "gio_spark.embed.apply",
    "gio_spark.quantize",
    "gio_spark.explode.scorers",
    "gio_spark.gime",
)


def load() -> None:
    """Import what the package's map functions import; what is missing is left to them."""
    for name in MODULES:
        with contextlib.suppress(ImportError):
            import_module(name)
    gc.freeze()  # a collection in a worker would else write to, and so copy, every shared page


if __name__ == "__main__":
    load()
    manager()
