"""Rows with a duplicate id: one of them is selected by a hash of all its columns."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

from pyspark.sql import functions as F
from pyspark.sql import types as T

from gio_spark.engine import bounded, row_hash
from gio_spark.tables.identifiers import quoted_column

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame


def free_name(name: str, taken: Iterable[str]) -> str:
    """Name that no column has (case does not count): the name itself, or with underscores added."""
    lower = {column.lower() for column in taken}
    while name.lower() in lower:
        name += "_"
    return name


def split_doubles(rows: DataFrame) -> tuple[DataFrame, DataFrame]:
    """Split rows into one row per id and the others.

    Only rows with a doubled id are shuffled. Which one stays depends on content alone: the one with
    the smallest hash of all its columns; rows with equal hashes are equal.

    Args:
        rows: `id STRING` and any other columns.
    """
    from pyspark.sql import Window

    doubled = rows.groupBy("id").count().where("count > 1 AND id IS NOT NULL").select("id")
    names = [column for column in rows.columns if column != "id"]
    key, rank = free_name("_key", names), free_name("_rank", names)
    doubles = rows.join(doubled, "id", "left_semi").withColumn(key, _row_hash(rows, names))
    order = Window.partitionBy("id").orderBy(key)
    ranked = doubles.withColumn(rank, F.row_number().over(order))
    columns = ["id", *map(quoted_column, names)]
    singles = rows.join(doubled, "id", "left_anti").select(*columns)
    first = ranked.where(F.col(rank) == 1).select(*columns)
    return singles.unionByName(first), ranked.where(F.col(rank) > 1).select("id")


def frame_digest(df: DataFrame) -> str:
    """Hash of a frame's rows, independent of their order, as the name of its snapshot."""
    key = _row_hash(df, df.columns)
    parts = df.select(
        F.count(F.lit(1)).alias("n"),
        F.sum(F.shiftrightunsigned(key, 33)).alias("high"),
        F.sum(key.bitwiseAND(F.lit((1 << 31) - 1))).alias("low"),
        F.bit_xor(key).alias("xor"),
    )
    row = bounded(parts, 1, "the snapshot's digest").to_pylist()[0]
    text = f"{row}\0{df.schema.simpleString()}"
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _row_hash(df: DataFrame, names: list[str]) -> Column:
    types = {field.name: field.dataType for field in df.schema.fields}
    columns = [_hashable(F.col(quoted_column(name)), types[name]) for name in names]
    return row_hash(df, *columns) if columns else F.lit(0)


def _hashable(column: Column, kind: T.DataType) -> Column:
    """Column as Spark hashes it: maps as lists of their entries, variants as JSON."""
    if not _has_map_or_variant(kind):
        return column
    if isinstance(kind, T.MapType):
        entry = T.StructType().add("key", kind.keyType).add("value", kind.valueType)
        return _hashable(F.map_entries(column), T.ArrayType(entry))
    if isinstance(kind, T.ArrayType) and _has_map_or_variant(kind.elementType):
        element = kind.elementType
        return F.transform(column, lambda item: _hashable(item, element))
    if isinstance(kind, T.StructType):
        return F.struct(*(_hashable(column.getField(f.name), f.dataType) for f in kind.fields))
    return F.to_json(column)


def _has_map_or_variant(kind: T.DataType) -> bool:
    if isinstance(kind, T.StructType):
        return any(_has_map_or_variant(field.dataType) for field in kind.fields)
    if isinstance(kind, T.ArrayType):
        return _has_map_or_variant(kind.elementType)
    return isinstance(kind, T.MapType | T.VariantType)
