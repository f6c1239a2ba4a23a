"""Where stage tables lie, and one commit into one of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyspark.sql import functions as F

from gio_spark.engine import capabilities, describe
from gio_spark.engine.told import worker_errors
from gio_spark.errors import ConcurrentRunError, ConfigError, EngineError
from gio_spark.tables import delta
from gio_spark.tables.aliases import engine_path
from gio_spark.tables.chunks import CHUNK
from gio_spark.tables.files import check_writable
from gio_spark.tables.names import absolute, is_remote_path, is_schema, parts
from gio_spark.tables.partitions import Place, column_types, predicate

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

# Tables of long stages, which may be written in chunks (see `write_chunks`).
CHUNKED = ("embeddings", "assignments", "scores")

# The least and greatest value of each column of each file are for readers who look for values.
# Stages look for partitions, and what they write is read whole: gathering them would cost a tenth
# of a commit and more. Of embeddings the log is asked how many rows have a reason.
_FOR_READERS = ("selected", "quarantine")
_COUNTED = {"embeddings": "reason"}

# Digits of vectors and hashes are noise: Snappy takes one percent of them away, and a fortieth of
# the processor time of a whole run to put in and out again.
_INCOMPRESSIBLE = ("embeddings",)


class StageStore:
    """The tables of a workspace as Delta knows them: places, shapes, commits.

    What it takes and raises is what `Workspace` does.
    """

    def __init__(self, spark: SparkSession, location: str) -> None:
        self.spark = spark
        self.in_catalog = is_schema(location)
        if self.in_catalog and not capabilities(spark).persistent_catalog:
            raise EngineError(
                f"The workspace {location!r} is a schema, and names of tables end with the "
                "session on the embedded engine. Give a folder, or run with engine: spark."
            )
        if self.in_catalog and len(parts(location)) > 2:
            raise ConfigError(
                f"The workspace {location!r} must be catalog.schema or a folder (with a slash)."
            )
        self.location = location if self.in_catalog else absolute(location)
        if not self.in_catalog and not is_remote_path(self.location):
            check_writable(Path(self.location))
        self._embedded = describe(spark).kind == "embedded"
        self._known: set[str] = set()
        self._types: dict[str, set[tuple[str, str]]] = {}

    def place(self, table: str) -> str:
        """Return the path or name of a stage table."""
        return f"{self.location}.{table}" if self.in_catalog else f"{self.location}/{table}"

    def exists(self, table: str) -> bool:
        """Tell whether a stage table has been made."""
        if table in self._known:
            return True
        if self.in_catalog:
            found = self.spark.catalog.tableExists(delta.sql_name(self.spark, self.place(table)))
        else:
            found = delta.is_delta(self.place(table))
        if found:
            self._known.add(table)
        return found

    def version(self, table: str) -> int:
        """Return the newest version of a stage table, -1 where it was never made."""
        if not table or not self.exists(table):
            return -1
        if not self.in_catalog:
            return delta.newest_version(self.place(table))
        return delta.pin(self.spark, self.place(table), None).version

    def read(self, table: str) -> DataFrame:
        """Return a whole stage table."""
        return delta.read(self.spark, self.place(table))

    def takes_chunks(self, table: str) -> bool:
        """Tell whether a table has the column of chunks; one made before there were any has not."""
        if table not in CHUNKED:
            return False
        return not self.exists(table) or any(n == CHUNK for n, _ in self._stored_types(table))

    def commit(
        self,
        table: str,
        out: DataFrame,
        replaced: Sequence[Place],
        columns: Sequence[str],
        note: Mapping[str, Any],
    ) -> None:
        """Write rows in place of those in the given partitions, in one commit.

        Args:
            table: Stage table.
            out: Rows with the columns of their partitions.
            replaced: Partitions whose rows are taken away.
            columns: What the table is partitioned by.
            note: For the commit's metadata.

        Raises:
            ConcurrentRunError: Another commit changed the same rows.
        """
        writer = (
            out.write.format("delta")
            .mode("overwrite")
            .partitionBy(*columns)
            .option("userMetadata", json.dumps(note))
        )
        if table in _INCOMPRESSIBLE and not self._embedded:
            writer = writer.option("compression", "uncompressed")
        types = column_types(out)
        if not self.exists(table):
            writer = writer.options(**self._properties(table))
        elif self._stored_types(table) == types:
            # One commit takes the old rows away and puts the new ones in.
            writer = writer.option("replaceWhere", predicate(replaced))
        else:
            # Rows of another shape (a pool with other columns, a newer format) make a new
            # table; what was there stays in its history.
            writer = writer.option("overwriteSchema", "true")
        self._save(writer, table)
        self._types[table] = types

    def append(self, table: str, rows: DataFrame, note: Mapping[str, Any]) -> None:
        """Add rows to a table, in one commit."""
        writer = rows.write.format("delta").mode("append")
        self._save(writer.option("userMetadata", json.dumps(note)), table)

    def overwrite(self, table: str, rows: DataFrame) -> None:
        """Write a frame as it is in place of all that a table holds."""
        self._save(rows.write.format("delta").mode("overwrite"), table)

    def rows_in(self, table: str, place: Place) -> int:
        """Return the rows that the table holds in a partition, after a commit to it."""
        if not self.in_catalog:
            found = delta.committed_rows(self.place(table), place)
            if found is not None:
                return found
        df = self.read(table)
        for column, value in place.items():
            df = df.where(F.col(column) == value)
        return int(df.count())

    def _properties(self, table: str) -> dict[str, str]:
        """Return the properties that a table is made with."""
        if table in _FOR_READERS or self._embedded:
            return {}
        if table in _COUNTED:
            return {"delta.dataSkippingStatsColumns": _COUNTED[table]}
        return {"delta.dataSkippingNumIndexedCols": "0"}

    def _stored_types(self, table: str) -> set[tuple[str, str]]:
        if table not in self._types:
            self._types[table] = column_types(self.read(table))
        return self._types[table]

    def _save(self, writer: Any, table: str) -> None:
        try:
            with worker_errors():
                if self.in_catalog:
                    writer.saveAsTable(delta.sql_name(self.spark, self.place(table)))
                else:
                    writer.save(engine_path(self.spark, self.place(table)))
        except Exception as error:
            text = str(error)
            if "Concurrent" in text or "concurrent" in text:
                raise ConcurrentRunError(
                    f"Another run wrote {self.place(table)} at the same time. Run again; what is "
                    "complete is not computed twice."
                ) from error
            raise
        self._known.add(table)
