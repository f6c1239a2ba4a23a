"""Start of a local Spark with Delta, in a JVM on this machine."""

from __future__ import annotations

import os
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from gio_spark.engine.java_home import check_java
from gio_spark.errors import MissingExtraError
from gio_spark.process import environment

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# Most work runs in Python workers; the JVM runs many short jobs, and its optimizing compiler takes
# a core from the workers: 200,000 texts take 44 s on two cores and 72 s of processor time, with the
# optimizing compiler 51 s and 94 s. With tier 1 alone the code cache would default to 48 MB, which
# is full after half a minute and stops compilation. The parallel garbage collector is used because
# a pass over a million vectors takes 1.5 times as long with the serial one.
JVM_OPTIONS = "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=240m -XX:+UseParallelGC"

# Dependencies of Delta that Spark provides itself: excluding them reduces the first download from
# 89 MB to 20 MB and avoids copying these files at every start.
_PROVIDED_BY_SPARK = (
    "org.apache.hadoop:hadoop-client-*",
    "org.apache.parquet:parquet-*",
    "com.github.luben:zstd-jni",
)


def start_local(conf: dict[str, str]) -> SparkSession:
    """Start (or get) a classic session with Delta Lake on all cores of this machine.

    Args:
        conf: Settings of the caller, which override those of `local_conf`.
    """
    from pyspark.sql import SparkSession
    from pyspark.util import is_remote_only

    if is_remote_only():
        raise MissingExtraError(
            "pyspark", "spark", "Local Spark (this environment has only the Connect client)"
        )
    check_java()
    # Set by a Connect session, as that of the embedded engine is, and inherited from its process.
    # This one has no session, or it would be used.
    os.environ.pop("SPARK_CONNECT_MODE_ENABLED", None)
    builder = SparkSession.builder.appName("gio-spark")
    settings = local_conf()
    if "spark.jars.packages" in conf:
        settings.pop("spark.jars.excludes", None)
    for key, value in {**settings, **conf}.items():
        builder = builder.config(key, value)
    # Workers must use this interpreter: the first python3 on the path may lack the package. Spark
    # reads the variables at its start.
    with environment(PYSPARK_PYTHON=sys.executable, PYSPARK_DRIVER_PYTHON=sys.executable):
        return builder.getOrCreate()


def silence_jvm() -> None:
    """Let the JVM of this process log nothing more: that its end cuts queries short is no news."""
    core = sys.modules.get("pyspark.core.context")
    context = None if core is None else core.SparkContext._active_spark_context
    if context is not None:
        context.setLogLevel("OFF")


def local_conf() -> dict[str, str]:
    """Settings of a local session: Delta, Arrow, UTC, one BLAS thread per worker."""
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
        # Tools that read the files without Delta's log see instants; Spark's default, 96 bits, has
        # lost the time zone for them.
        "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        # Delta's defaults start hundreds of tasks per commit, too many for one machine.
        "spark.databricks.delta.snapshotPartitions": "2",
        "spark.sql.sources.parallelPartitionDiscovery.parallelism": "4",
        "spark.driver.extraJavaOptions": JVM_OPTIONS,
        "spark.executorEnv.OMP_NUM_THREADS": "1",
        "spark.executorEnv.OPENBLAS_NUM_THREADS": "1",
    }
    package = delta_package()
    if package is not None:
        settings |= {
            "spark.jars.packages": package,
            "spark.jars.excludes": ",".join(_PROVIDED_BY_SPARK),
        }
    return settings


def spark_home() -> Path:
    """Folder of the Spark installation."""
    import pyspark

    return Path(os.environ.get("SPARK_HOME") or Path(pyspark.__file__).parent)


def delta_package() -> str | None:
    """Maven coordinate of Delta's jar for the installed versions.

    None if the jar is in Spark's folder already, so that no download is needed.

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
    spark_minor = ".".join(pyspark.__version__.split(".")[:2])
    # From 4.1 on the artifact name contains the minor version of Spark.
    name = "delta-spark_2.13" if delta.startswith("4.0") else f"delta-spark_{spark_minor}_2.13"
    return f"io.delta:{name}:{delta}"
