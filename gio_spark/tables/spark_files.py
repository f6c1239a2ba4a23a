"""Files that the session's engine can open and this process cannot: s3a://, abfss://, dbfs:/, ...

Spark lists and reads them by its `binaryFile` source, with its own file systems and credentials.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from gio_spark.engine import bounded, describe
from gio_spark.engine.engine_errors import engine_errors, translated_error
from gio_spark.errors import InputError
from gio_spark.tables.identifiers import is_remote_path

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, DataFrameReader, SparkSession

# Schemes of which this process lists files itself, on every engine.
_LISTED_HERE = ("s3", "gs", "gcs")
_GLOB = re.compile(r"([\\{}\[\]*?])")
_ROOT = re.compile(r"[a-z][a-z0-9+.-]*:(?://[^/]*)?", re.IGNORECASE)


def is_listed_by_spark(spark: SparkSession, location: str) -> bool:
    """Whether Spark lists and opens the files of a location, with its own file systems.

    Those of schemes that Hadoop knows (s3a, abfss, hdfs, dbfs, ...), and of volumes of Databricks
    from outside of it.
    """
    if describe(spark).kind == "embedded":
        return False
    if is_remote_path(location):
        return location.partition(":")[0].lower() not in _LISTED_HERE
    return location.startswith("/Volumes/") and not Path(location).exists()


def without_scheme(path: str) -> str:
    """Path of a URI without its scheme and host."""
    return _ROOT.sub("", path, count=1).rstrip("/")


def literal_path(path: str) -> str:
    """Path of a file for Spark's readers, which take brackets, braces and stars for patterns."""
    return _GLOB.sub(r"\\\1", path)


def files_listed_by_spark(
    spark: SparkSession,
    location: str,
    most: int,
    *,
    by_content: bool = False,
    names: str = "*",
) -> list[tuple[str, int, tuple[tuple[str, str], ...]]]:
    """Path, length and marks of the files below a location, in order of their paths.

    Args:
        spark: Session.
        location: Folder or file.
        most: Largest number of files that is accepted.
        by_content: Whether a hash of all bytes is the mark, else the time of the last change.
        names: Pattern of names of files.

    Returns:
        Files; none where there is no such location.

    Raises:
        InputError: There are more files, or the location may not be read.
    """
    time = F.unix_micros("modificationTime").cast("string")
    mark = F.sha2("content", 256) if by_content else time
    try:
        with engine_errors(location=location):
            files = _binary_files(spark).option("pathGlobFilter", names).load(location)
            listed = files.select("path", "length", mark.alias("mark"))
            rows = bounded(listed, most, f"files in {location}").to_pylist()
    except InputError as error:
        if error.cause == "PATH_NOT_FOUND":
            return []
        raise
    name = "content" if by_content else "modified"
    found = [(row["path"], int(row["length"]), ((name, row["mark"]),)) for row in rows]
    return sorted(found)


def contents_read_by_spark(
    spark: SparkSession, locations: str | list[str], left_out: Sequence[str] = ()
) -> DataFrame:
    """Path and bytes of each file below a location, or of listed files; a file has at most 2 GB."""
    files = _binary_files(spark).load(locations)
    if left_out:
        files = files.where(~F.col("path").isin(list(left_out)))
    return files.select("path", "content")


def is_delta_for_spark(spark: SparkSession, quoted_name: str, location: str) -> bool:
    """Whether Spark finds a Delta table at a path.

    Raises:
        GioSparkError: The location may not be read, or its file system is not known.
    """
    try:
        detail = spark.sql(f"DESCRIBE DETAIL {quoted_name}").first()
    except Exception as error:
        condition = getattr(error, "getCondition", lambda: None)() or ""
        if condition.startswith("DELTA_") or condition == "PATH_NOT_FOUND":
            return False
        raise translated_error(error, location) or error from error
    return detail is not None and detail["format"] == "delta"


def _binary_files(spark: SparkSession) -> DataFrameReader:
    return spark.read.format("binaryFile").option("recursiveFileLookup", value=True)
