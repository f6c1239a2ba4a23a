"""Small commits beside the work that follows them: a commit is mostly the engine's planning."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gio_spark.engine.ahead import beside
from gio_spark.engine.info import describe

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


class Behind:
    """Writes in a thread beside the caller's, one after another, in the order they were begun.

    After one that failed none of the later ones is made. On the embedded engine, whose work shares
    this process's cores, each is made at once.

    Args:
        spark: Session that the writes use; job groups and tags go along.
    """

    def __init__(self, spark: SparkSession) -> None:
        self._spark = spark
        self._pending: dict[str, Callable[[], None]] = {}
        self._last: Callable[[], None] | None = None

    def has(self, table: str) -> bool:
        """Tell whether a write to a table was begun that nobody has waited for."""
        return table in self._pending

    def begin(self, table: str, write: Callable[[], None]) -> None:
        """Begin a write.

        Raises:
            Exception: What it raised, on the embedded engine.
        """
        if describe(self._spark).kind == "embedded":
            write()
            return
        before = self._last

        def after_the_others() -> None:
            if before is not None:
                before()
            write()

        self._last = self._pending[table] = beside(self._spark, after_the_others)

    def settle(self, table: str | None = None) -> None:
        """Wait for the writes to a table, or for all; raises what they or earlier ones raised."""
        waited = self._last if table is None else self._pending.get(table)
        if waited is None:
            return
        try:
            waited()
        finally:
            if table is None:
                self._pending, self._last = {}, None
            elif self._pending.get(table) is waited:  # else another was begun in the meantime
                del self._pending[table]
