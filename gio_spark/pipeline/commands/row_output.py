"""Rows of a command written by the engine into a folder of Parquet or CSV files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pyarrow import parquet

from gio_spark.errors import ConfigError, InputError
from gio_spark.tables.engine_paths import engine_path
from gio_spark.tables.identifiers import absolute, is_remote_path

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

ROWS = "rows"


def rows_folder(output: str) -> str:
    """Place of the rows in the folder of a command.

    Raises:
        InputError: There is something already: nothing is overwritten.
    """
    place = f"{absolute(output)}/{ROWS}"
    if not is_remote_path(place) and Path(place).exists():
        raise InputError(f"{place} is there already. Remove it, or name another folder.")
    return place


def write_rows(rows: DataFrame, place: str, file_format: str) -> None:
    """Write rows as a folder of Parquet files, or of CSV files with a header."""
    if not is_remote_path(place):
        Path(place).parent.mkdir(parents=True, exist_ok=True)
    path = engine_path(rows.sparkSession, place)
    writer = rows.write.mode("error")
    if file_format == "csv":
        writer.option("header", "true").csv(path)
    else:
        writer.parquet(path)
    if not is_remote_path(place) and not Path(place).exists():
        _write_empty(rows, Path(place), file_format)


def _write_empty(rows: DataFrame, place: Path, file_format: str) -> None:
    """Write one file without rows, where an engine writes no file for none."""
    place.mkdir()
    empty = rows.limit(0).toArrow()
    if file_format == "csv":
        header = ",".join(empty.schema.names)
        (place / "part-0.csv").write_text(f"{header}\n", encoding="utf-8")
    else:
        parquet.write_table(empty, place / "part-0.parquet")


def read_rows(spark: SparkSession, place: str, file_format: str) -> DataFrame:
    """Rows that `write_rows` wrote; those of CSV files are texts."""
    path = engine_path(spark, place)
    if file_format == "csv":
        return spark.read.option("header", "true").csv(path)
    return spark.read.parquet(path)


def check_format(file_format: str) -> None:
    """Refuse a format before any work.

    Raises:
        ConfigError: It is not parquet or csv.
    """
    if file_format not in ("parquet", "csv"):
        raise ConfigError(f"Unknown format {file_format!r}: use parquet or csv.")
