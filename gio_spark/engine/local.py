"""A local Spark with Delta, in a JVM on this machine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from gio_spark.errors import EngineError, MissingExtraError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

JAVA_NEEDED = 17


def start_local(conf: dict[str, str]) -> SparkSession:
    """Start (or get) a classic session with Delta Lake on all cores of this machine."""
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
    for key, value in {**local_conf(), **conf}.items():
        builder = builder.config(key, value)
    return builder.getOrCreate()


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
        # The work is done in Python workers; what the JVM does is many short jobs, and optimising
        # code that runs but a few times takes a core from them: 200,000 texts take 64 s on two idle
        # cores instead of 66 s, and 59 s of JVM time instead of 81 s. The collector is the one of
        # throughput: with the serial one a pass over a million vectors takes half as long again.
        "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=240m -XX:+UseParallelGC",
        "spark.executorEnv.OMP_NUM_THREADS": "1",
        "spark.executorEnv.OPENBLAS_NUM_THREADS": "1",
    }
    package = delta_package()
    if package is not None:
        settings["spark.jars.packages"] = package
    return settings


def delta_package() -> str | None:
    """Return the Maven coordinate of Delta's jar for the installed versions.

    None if the jar is in Spark's own folder already: then nothing is downloaded.

    Raises:
        MissingExtraError: delta-spark is not installed and there is no jar either.
    """
    import pyspark

    home = Path(os.environ.get("SPARK_HOME") or Path(pyspark.__file__).parent)
    if any((home / "jars").glob("delta-spark_*.jar")):
        return None
    try:
        delta = version("delta-spark")
    except PackageNotFoundError as error:
        raise MissingExtraError("delta-spark", "spark", "Local Spark with Delta Lake") from error
    line = ".".join(pyspark.__version__.split(".")[:2])
    # From 4.1 on the artefact names the line of Spark that it was built for.
    name = "delta-spark_2.13" if delta.startswith("4.0") else f"delta-spark_{line}_2.13"
    return f"io.delta:{name}:{delta}"


def check_java() -> None:
    """Raise a clear error where no suitable Java is found.

    Raises:
        EngineError: Java is missing or too old.
    """
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home) / "bin" / "java") if home else shutil.which("java")
    advice = (
        "Install Java 17 or 21 (Debian and Ubuntu: apt-get install openjdk-17-jre-headless; "
        "macOS: brew install openjdk@17), or use engine: embedded, which needs no Java."
    )
    if java is None or not Path(java).exists():
        raise EngineError(f"Local Spark needs Java, and none was found. {advice}")
    shown = subprocess.run(  # noqa: S603 - the path is JAVA_HOME's or the first java on the path
        [java, "-version"], capture_output=True, text=True, timeout=60, check=False
    ).stderr
    match = re.search(r'version "(\d+)', shown)
    if match is None or int(match.group(1)) < JAVA_NEEDED:
        found = match.group(1) if match else "an unknown version"
        raise EngineError(f"Local Spark needs Java {JAVA_NEEDED} or newer, found {found}. {advice}")
