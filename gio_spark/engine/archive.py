"""Make the class archive that local Spark starts from: `python -m gio_spark.engine.archive`.

Half of a JVM's start is reading, checking and preparing some 20,000 classes of Spark and Delta. A
JVM can write down what it has prepared when it ends, and a later one maps that file into memory.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from gio_spark.engine.java import check_java
from gio_spark.engine.local import JVM_OPTIONS, delta_package, start_local
from gio_spark.engine.start_cache import (
    OPTIONS,
    SWITCH,
    archive_stem,
    class_folders,
    decided_elsewhere,
    finished_name,
    quoted,
    remembered_jars,
    whole_archive,
)
from gio_spark.errors import EngineError, GioSparkError

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import SparkSession

SECONDS = 600
LEFT_OVER_SECONDS = 3600
KEPT = 3
"""Archives that stay: environments side by side would else make theirs again and again."""


def make() -> None:
    """Make the archive of this machine's local Spark, unless it is there or turned off.

    Raises:
        EngineError: There is no suitable Java, or Spark or the JVM did not do its part.
        OSError: The cache folder cannot be written.
    """
    if decided_elsewhere({}):  # no start would take it
        return
    check_java()
    package = delta_package()
    if archive_stem([], JVM_OPTIONS) is None:
        return
    if package is not None and not remembered_jars(package):
        _child("--resolve")
    jars = remembered_jars(package) if package is not None else []
    stem = archive_stem(jars, JVM_OPTIONS)
    if stem is None or whole_archive(stem) is not None or (package is not None and not jars):
        return
    folders = class_folders()
    if folders:
        _say(f"No class archive for local Spark: {folders[0]} is on Java's class path")
        return
    stem.parent.mkdir(parents=True, exist_ok=True)
    _say(
        "Making the class archive for local Spark (once; about 30 s, 200 MB in "
        f"{stem.parent}; {SWITCH}=off does without)"
    )
    part = stem.with_name(f"{stem.name}-{os.getpid()}.part")
    try:
        _child("--into", str(part))
        archive = finished_name(stem, _settled(part))
        part.replace(archive)
    finally:
        part.unlink(missing_ok=True)
    remove_others(archive)


def _say(text: str) -> None:
    print(f"==> {text}", flush=True)  # noqa: T201 - a command of its own


def _settled(part: Path) -> int:
    """Return the size of a new archive, once all of it is on the disk."""
    if not part.is_file():
        raise EngineError("The JVM has written no class archive.")
    with part.open("rb") as file:
        os.fsync(file.fileno())  # else a crash of the machine could leave holes under its name
    return part.stat().st_size


def remove_others(archive: Path) -> None:
    """Remove all but the newest archives, and parts that a maker cut short has left."""
    others = [one for one in archive.parent.glob("classes-*.jsa") if one != archive]
    others.sort(key=lambda one: one.stat().st_mtime, reverse=True)
    for other in others[KEPT - 1 :]:
        other.unlink(missing_ok=True)
    for part in archive.parent.glob("classes-*.part"):
        if time.time() - part.stat().st_mtime > LEFT_OVER_SECONDS:
            part.unlink(missing_ok=True)


def _child(*words: str) -> None:
    command = [sys.executable, "-m", "gio_spark.engine.archive", *words]
    done = subprocess.run(  # noqa: S603 - this module, by this interpreter
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=SECONDS,
        check=False,
    )
    if done.returncode:
        last = done.stdout.strip().splitlines()[-1:]
        raise EngineError(f"the start for it ended with code {done.returncode}: {''.join(last)}")


def _resolve() -> None:
    """Start local Spark once, which fetches Delta's jars and remembers them."""
    start_local({}).stop()


def _write(part: Path) -> None:
    """Start local Spark, do what jobs do, and end when its JVM has written the archive."""
    from pyspark import SparkContext

    folder = Path(tempfile.mkdtemp(prefix="gio-spark-"))
    try:
        spark = start_local(
            {
                # Above 32 GB references are wider, and the archive would fit no usual start.
                "spark.driver.memory": "4g",
                OPTIONS: f"{JVM_OPTIONS} -XX:ArchiveClassesAtExit={quoted(part)}",
                "spark.sql.warehouse.dir": str(folder / "warehouse"),
            }
        )
        _typical_calls(spark, folder)
        spark.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    # The JVM ends when its standard input does, and writes the archive as the last thing.
    jvm = SparkContext._gateway.proc
    jvm.stdin.close()
    code = jvm.wait(timeout=SECONDS)
    if code:
        raise EngineError(f"The JVM ended with code {code} while it wrote the class archive.")


def _typical_calls(spark: SparkSession, folder: Path) -> None:
    """Do once what most jobs do: all classes that are met here go into the archive."""
    from pyspark.sql import functions as F

    numbers = list(range(1000))
    rows = pa.table(
        {
            "id": [f"r{number}" for number in numbers],
            "number": numbers,
            "part": [f"p{number % 4}" for number in numbers],
            "vector": [bytes(8)] * len(numbers),
        }
    )
    pq.write_table(rows, folder / "rows.parquet")
    df = spark.read.parquet(str(folder / "rows.parquet"))
    table = str(folder / "table")
    df.write.format("delta").partitionBy("part").save(table)
    for part in ("p0", "p1"):
        (
            df.where(F.col("part") == part)
            .write.format("delta")
            .mode("overwrite")
            .option("replaceWhere", f"part = '{part}'")
            .save(table)
        )
    df.withColumn("number", F.col("number") + 1000).write.format("delta").mode("append").save(table)
    kept = spark.read.format("delta").load(table)
    spark.read.format("delta").option("versionAsOf", 0).load(table).count()
    spark.sql(f"DESCRIBE HISTORY delta.`{table}` LIMIT 1").first()
    spark.sql(f"DESCRIBE DETAIL delta.`{table}`").first()

    def same(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        yield from batches

    def smallest(group: pa.Table) -> pa.Table:
        return group.slice(0, 1)

    def counted(frames: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        yield from frames

    some = kept.where((F.col("number") < 700) & F.col("part").isin("p1", "p2"))
    mapped = some.mapInArrow(same, some.schema)
    sums = mapped.groupBy("part").agg(F.count("*").alias("rows"), F.sum("number").alias("sum"))
    joined = mapped.join(sums, "part").join(df.select("id"), "id", "left_semi")
    joined.withColumn("hash", F.xxhash64("id")).orderBy("hash").limit(5).toArrow()
    mapped.groupBy("part").applyInArrow(smallest, some.schema).toArrow()
    mapped.mapInPandas(counted, some.schema).select("id").distinct().count()
    spark.createDataFrame(rows.to_pandas()).select("id", "number").collect()
    df.write.parquet(str(folder / "copy"))


def main() -> int:
    """Make the archive, or say in one line why there is none: it only makes starts quicker."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--resolve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.resolve:
        _resolve()
    elif asked.into is not None:
        _write(asked.into)
    else:
        try:
            make()
        except (GioSparkError, OSError, subprocess.SubprocessError) as error:
            print(f"warning: no class archive for local Spark: {error}", file=sys.stderr)  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
