"""Partitions of stage tables: the columns that say which stage wrote a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import TYPE_CHECKING

from pyspark.sql import functions as F

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

# Tables whose rows are keyed by another column than `fingerprint`.
_KEY_OF = {"selected": "gio_run"}

Place = Mapping[str, str]
"""Partition column -> its value: hashes and labels of our own, nothing from outside."""


def key_of(table: str) -> str:
    """Return the column that keys a stage table's rows."""
    return _KEY_OF.get(table, "fingerprint")


def in_places(parts: Sequence[tuple[DataFrame, Place]]) -> DataFrame:
    """Return rows of the same columns in one frame, each with the columns of its place."""
    tagged = [df.withColumns({c: F.lit(v) for c, v in place.items()}) for df, place in parts]
    return reduce(lambda one, other: one.unionByName(other), tagged)


def predicate(places: Sequence[Place]) -> str:
    """Return the condition that a row is in one of the places, for `replaceWhere`."""
    each = [" AND ".join(f"{c} = '{v}'" for c, v in place.items()) for place in places]
    return each[0] if len(each) == 1 else " OR ".join(f"({one})" for one in each)


def column_types(df: DataFrame) -> set[tuple[str, str]]:
    """Return names and types of a frame's columns, in no order."""
    return {(f.name, f.dataType.simpleString()) for f in df.schema.fields}
