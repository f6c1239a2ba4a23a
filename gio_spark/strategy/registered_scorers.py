"""Scoring functions of users by name, which judge the strategies of a run in place of its rows."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa

from gio_spark.errors import ConfigError
from gio_spark.registry import Registry

#: (sampled rows that a candidate selects, seed) -> score, higher is better.
TableScorer = Callable[[pa.Table, int], float]
SCORERS: Registry[TableScorer] = Registry("scorer")


def register_entry(name: str, function: TableScorer) -> None:
    """Register a function as the scorer `name`; users call `gio_spark.register`.

    The function gets the sampled pool rows that a candidate selects, as an Arrow table with the
    columns of the pool and `id`, and a seed. It trains or measures what it likes, on held-out rows
    of its own, and returns one number; higher is better. A row that stands for many rows of the
    pool is listed repeatedly.

    Raises:
        ConfigError: The value is not a function, or the name is one of gio_spark's own.
    """
    if not callable(function):
        raise ConfigError(f"The scorer {name!r} is no function of a table and a seed.")
    SCORERS.add(name, function, owner=getattr(function, "__module__", None))
