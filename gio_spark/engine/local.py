"""A local Spark with Delta, in a JVM on this machine."""

from __future__ import annotations

import os
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from gio_spark.engine.java import check_java
from gio_spark.engine.start_cache import (
    EXCLUDES,
    OPTIONS,
    PACKAGES,
    decided_elsewhere,
    excludes,
    quicker,
    remember_jars,
    spark_home,
)
from gio_spark.errors import MissingExtraError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# The work is done in Python workers; what the JVM does is many short jobs, and optimising code
# that runs but a few times takes a core from them: 200,000 texts take 44 s on two cores and 72 s of
# processor time, with the optimising compiler 51 s and 94 s. Without it the JVM would keep room for
# 48 MB of compiled code, which is full after half a minute: then it compiles nothing any more. The
# collector is the one of throughput: with the serial one a pass over a million vectors takes half
# as long again.
JVM_OPTIONS = "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=240m -XX:+UseParallelGC"


def start_local(conf: dict[str, str]) -> SparkSession:
    """Start (or get) a classic session with Delta Lake on all cores of this machine."""
    from pyspark import SparkContext
    from pyspark.sql import SparkSession
    from pyspark.util import is_remote_only

    if is_remote_only():
        raise MissingExtraError(
            "pyspark", "spark", "Local Spark (this environment has only the Connect client)"
        )
    check_java()
    # Workers must be this very interpreter: the first python3 on the path may lack the package.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    os.environ.setdefault("PYSPARK_DRIVER_PYTHON", sys.executable)
    builder = SparkSession.builder.appName("gio-spark")
    settings = start_settings(conf)
    for key, value in settings.items():
        builder = builder.config(key, value)
    # A JVM of an earlier session resolves nothing: what it has may be of other settings.
    new_jvm = SparkContext._gateway is None
    spark = builder.getOrCreate()
    if new_jvm and EXCLUDES in settings and not decided_elsewhere(conf):
        remember_jars(settings[PACKAGES], spark.conf.get("spark.jars", "") or "")
    return spark


def start_settings(conf: dict[str, str]) -> dict[str, str]:
    """Return all settings of a local start: local_conf, the caller's, what earlier starts left.

    Args:
        conf: The caller's settings. Where they say themselves where classes come from, nothing is
            left out of what is fetched and nothing is taken from earlier starts.
    """
    settings = {**local_conf(), **conf}
    if not decided_elsewhere(conf):
        return quicker(settings)
    return {k: v for k, v in settings.items() if k != EXCLUDES or k in conf}


def local_conf() -> dict[str, str]:
    """Return the settings of a local session: Delta, Arrow, UTC, one BLAS thread per worker."""
    cores = os.cpu_count() or 2
    settings = {
        "spark.master": f"local[{cores}]",
        "spark.driver.memory": os.environ.get("GIO_SPARK_DRIVER_MEMORY", "4g"),
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.log.level": "ERROR",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": str(2 * cores),
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        "spark.sql.execution.arrow.maxRecordsPerBatch": "8192",
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        # One machine, small logs: Delta's defaults start hundreds of tasks for each commit.
        "spark.databricks.delta.snapshotPartitions": "2",
        "spark.sql.sources.parallelPartitionDiscovery.parallelism": "4",
        OPTIONS: JVM_OPTIONS,
        "spark.python.daemon.module": "gio_spark.engine.daemon",
        "spark.executorEnv.OMP_NUM_THREADS": "1",
        "spark.executorEnv.OPENBLAS_NUM_THREADS": "1",
    }
    package = delta_package()
    if package is not None:
        settings[PACKAGES] = package
        jars = (file.name for file in (spark_home() / "jars").glob("*.jar"))
        settings[EXCLUDES] = ",".join(excludes(jars))
    return settings


def delta_package() -> str | None:
    """Return the Maven coordinate of Delta's jar for the installed versions.

    None if the jar is in Spark's own folder already: then nothing is downloaded.

    Raises:
        MissingExtraError: delta-spark is not installed and there is no jar either.
    """
    import pyspark

    if any((spark_home() / "jars").glob("delta-spark_*.jar")):
        return None
    try:
        delta = version("delta-spark")
    except PackageNotFoundError as error:
        raise MissingExtraError("delta-spark", "spark", "Local Spark with Delta Lake") from error
    line = ".".join(pyspark.__version__.split(".")[:2])
    # From 4.1 on the artefact names the line of Spark that it was built for.
    name = "delta-spark_2.13" if delta.startswith("4.0") else f"delta-spark_{line}_2.13"
    return f"io.delta:{name}:{delta}"
