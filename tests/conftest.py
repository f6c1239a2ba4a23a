"""Sessions shared by all tests. One engine per process: `make test` runs the markers in turn."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from gio_spark.engine import describe, session

# Spark's two APIs cannot be told apart within one process once a Connect session has been made, so
# tests that need a JVM run in a pytest process of their own (`pytest -m spark`).


# A shell that starts tests in the background has them, and what they start, ignore Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    """A session on the embedded engine."""
    yield session("embedded")


@pytest.fixture(scope="session")
def local_spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """A classic session on local Spark with Delta."""
    folder = tmp_path_factory.mktemp("local-spark")
    spark = session("spark", **{"spark.sql.warehouse.dir": str(folder / "warehouse")})
    assert describe(spark).kind == "local"
    yield spark
    spark.stop()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of the test's own."""
    return tmp_path
