"""GIME: eleven information metrics as mergeable states, for any table and any grouping."""

from __future__ import annotations

from gio_spark.gime.compute import (
    freeze,
    merge_states,
    metrics,
    partitions_of,
    replace_partitions,
    states,
    target_states,
    values,
)
from gio_spark.gime.profile import (
    METRICS,
    Accumulator,
    Constants,
    Metric,
    Profile,
    Value,
    get_profile,
    register,
)
from gio_spark.gime.rows import Column, Rows
from gio_spark.gime.spatiotemporal import SPATIOTEMPORAL
from gio_spark.gime.state import State, merge
from gio_spark.gime.tabular import TABULAR
from gio_spark.gime.text import TEXT

__all__ = [
    "METRICS",
    "SPATIOTEMPORAL",
    "TABULAR",
    "TEXT",
    "Accumulator",
    "Column",
    "Constants",
    "Metric",
    "Profile",
    "Rows",
    "State",
    "Value",
    "freeze",
    "get_profile",
    "merge",
    "merge_states",
    "metrics",
    "partitions_of",
    "register",
    "replace_partitions",
    "states",
    "target_states",
    "values",
]
