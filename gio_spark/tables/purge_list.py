"""List of purged rows: hashes of their ids, which a purge deletes and later runs leave out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from gio_spark.tables.identifiers import quoted_column

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import Column, DataFrame

    from gio_spark.tables.workspace import Workspace

TABLE = "purged"
ID_HASH = "id_hash"
"""Column with the SHA-256 of an id, 64 hexadecimal characters."""
PURGE = "purge"
"""Stage of the records that say which inputs still hold purged rows."""

MATCH = "_purged"
"""Column that `with_hash_match` adds."""


def id_hash(column: str) -> Column:
    """Hash of the ids in a column."""
    return F.sha2(F.col(quoted_column(column)).cast("string"), 256)


class PurgeList:
    """Hashes of the ids of all rows that were ever purged from a workspace.

    The list holds no id. It is written before anything is deleted, so that a purge that was killed
    is completed by the next one, and it stays, so that no later run brings the rows back.

    Args:
        workspace: Whose.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    @property
    def exists(self) -> bool:
        """Whether rows were ever purged."""
        return self._workspace.exists(TABLE)

    def hashes(self) -> DataFrame:
        """Listed hashes, each once, in the column `id_hash`."""
        return self._workspace.read_table(TABLE).select(ID_HASH).distinct()

    def add(self, hashes: pa.Table, purge: str) -> int:
        """Add hashes that are not listed yet, in one commit; returns their number.

        Args:
            hashes: Column `id_hash`, each once.
            purge: Token of the purge.
        """
        rows = self._workspace.frame(hashes)
        if self.exists:
            rows = rows.join(self.hashes(), ID_HASH, "left_anti")
        count = int(rows.count())
        if count:
            tagged = rows.withColumn(PURGE, F.lit(purge))
            self._workspace.store.append_again(TABLE, tagged, note={PURGE: purge})
        return count

    def mark(self, location: str) -> str:
        """Digest of the purged rows that an input still had at the newest purge; "" for none.

        It is part of the identity of the input: without the rows, it is another one.
        """
        if not self.exists:
            return ""
        marks = [
            r.detail["still_in"][location]["digest"]
            for r in self._workspace.records()
            if r.stage == PURGE and location in r.detail["still_in"]
        ]
        return str(marks[-1]) if marks else ""


def without_hashed(rows: DataFrame, column: str, hashes: DataFrame) -> DataFrame:
    """Rows whose id is not among the hashes; the small side is broadcast on every engine."""
    marked = with_hash_match(rows, column, hashes)
    return marked.where(F.col(MATCH).isNull()).drop(MATCH)


def only_hashed(rows: DataFrame, column: str, hashes: DataFrame) -> DataFrame:
    """Rows whose id is among the hashes."""
    marked = with_hash_match(rows, column, hashes)
    return marked.where(F.col(MATCH).isNotNull()).drop(MATCH)


def with_hash_match(rows: DataFrame, column: str, hashes: DataFrame) -> DataFrame:
    """Rows with a column `_purged`: the hash of the id where it is listed, else null."""
    listed = hashes.select(F.col(ID_HASH).alias(MATCH))
    key = "_id_hash"
    hashed = rows.withColumn(key, id_hash(column))
    return F.broadcast(listed).join(hashed, listed[MATCH] == hashed[key], "right_outer").drop(key)


def count_matches(rows: DataFrame, column: str, hashes: DataFrame) -> DataFrame:
    """One row: `total` rows, and `purged` of them whose id is among the hashes."""
    matched = with_hash_match(rows.select(F.col(quoted_column(column)).alias("id")), "id", hashes)
    return matched.agg(F.count(F.lit(1)).alias("total"), F.count(MATCH).alias("purged"))
