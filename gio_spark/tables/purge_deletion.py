"""Deletion of purged rows from the tables of a workspace, with every older version of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import uuid4

from pyspark.sql import functions as F

from gio_spark.engine import bounded, capabilities
from gio_spark.engine.engine_errors import engine_errors
from gio_spark.tables import delta
from gio_spark.tables.identifiers import quoted_column
from gio_spark.tables.log_truncation import truncate_log
from gio_spark.tables.publish_log import PublishLog, view_name
from gio_spark.tables.purge_list import ID_HASH, count_matches, id_hash, only_hashed
from gio_spark.tables.retention import vacuum
from gio_spark.tables.table_maintenance import own_tables, table_size
from gio_spark.tables.workspace import SELECTION, SNAPSHOT, STAGE_TABLES

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from gio_spark.tables.workspace import Workspace

# Embeddings come last: what other steps look up about a purged row stands there.
_STAGE_ROWS = ("quarantine", "scores", "assignments", "replaced", "embeddings")
# States of metrics are sums and sketches over rows; the next refresh makes them anew.
_STATES = "metric_states"
# Tables beside those of rows that had something of a row.
_OTHERS = (_STATES, "models", "centroids", "runs")
_WORD = "[^A-Za-z0-9_.:/@-]+"
_MALFORMED = "malformed"
_MOST_COUNTS = 1


@dataclass(frozen=True)
class RowTable:
    """A table with one row per row of an input, and its column of ids."""

    name: str
    column: str


@dataclass(frozen=True)
class AffectedTable:
    """Purged rows in a table.

    Attributes:
        table: Name of the table.
        rows: Number of them.
        total: All rows of the table.
        bytes: About their size: their share of the table's files.
    """

    table: str
    rows: int
    total: int
    bytes: int


def row_tables(workspace: Workspace, snapshot_ids: Mapping[str, str]) -> list[RowTable]:
    """Tables of the workspace with rows of inputs, in the order in which they are purged.

    Args:
        workspace: Where.
        snapshot_ids: Snapshot -> its column of ids.
    """
    names = [*own_tables(workspace), *_copies_in_catalog(workspace)]
    snapshots = [RowTable(name, snapshot_ids[name]) for name in names if name in snapshot_ids]
    stages = [RowTable(name, "id") for name in _STAGE_ROWS if name in names]
    others = set(names) - set(STAGE_TABLES)
    selections = sorted(name for name in others if not name.startswith(SNAPSHOT))
    return [*snapshots, *(RowTable(name, "gio_id") for name in selections), *stages]


def _copies_in_catalog(workspace: Workspace) -> list[str]:
    """Tables of a catalog that copy a published selection; other names are views of one."""
    if not workspace.in_catalog:
        return []
    names = map(view_name, PublishLog(workspace).names())
    return [
        name
        for name in dict.fromkeys(names)
        if workspace.exists(name)
        and not delta.is_readable_otherwise(workspace.spark, workspace.place(name))
    ]


def count_affected(workspace: Workspace, table: RowTable, hashes: DataFrame) -> AffectedTable:
    """Count the purged rows of a table."""
    rows = workspace.read_table(table.name)
    counts = bounded(count_matches(rows, table.column, hashes), _MOST_COUNTS, "counts").to_pylist()
    total, purged = int(counts[0]["total"]), int(counts[0]["purged"])
    size = table_size(workspace, table.name).bytes if purged else 0
    return AffectedTable(table.name, purged, total, round(size * purged / max(1, total)))


def delete_rows(workspace: Workspace, table: RowTable, hashes: DataFrame) -> None:
    """Delete the purged rows of a table in one commit; the commit names no id."""
    place = workspace.place(table.name)
    with _view(hashes) as view:
        merge = (
            f"MERGE INTO {delta.sql_name(workspace.spark, place)} t USING {view} s "
            f"ON sha2(CAST(t.{quoted_column(table.column)} AS STRING), 256) = s.{ID_HASH} "
            "WHEN MATCHED THEN DELETE"
        )
        with engine_errors(location=place):
            workspace.spark.sql(merge).collect()


def details_that_name(workspace: Workspace, hashes: DataFrame) -> DataFrame:
    """Details in quarantine that name a purged row, each once.

    A detail is the id of the row that another one is a copy of, or a malformed line; of a line any
    word may be an id.
    """
    rows = workspace.read_table("quarantine").where(F.col("detail").isNotNull())
    lines = rows.where(F.col("reason").startswith(_MALFORMED)).select("detail")
    words = lines.select("detail", F.explode(F.split("detail", _WORD)).alias("word"))
    named = only_hashed(words, "word", hashes).select("detail")
    others = only_hashed(rows.select("detail"), "detail", hashes)
    return named.unionByName(others.select("detail")).distinct()


def clear_details(workspace: Workspace, hashes: DataFrame) -> int:
    """Empty the details in quarantine that name a purged row; returns how many differ."""
    if not workspace.exists("quarantine"):
        return 0
    details = details_that_name(workspace, hashes).select(id_hash("detail").alias(ID_HASH))
    count = int(details.count())
    if count == 0:
        return 0
    place = workspace.place("quarantine")
    with _view(details) as view:
        merge = (
            f"MERGE INTO {delta.sql_name(workspace.spark, place)} t USING {view} s "
            f"ON sha2(t.detail, 256) = s.{ID_HASH} WHEN MATCHED THEN UPDATE SET t.detail = NULL"
        )
        with engine_errors(location=place):
            workspace.spark.sql(merge).collect()
    return count


def update_rows(
    workspace: Workspace,
    table: str,
    keys: Sequence[str],
    changes: DataFrame,
    columns: Sequence[str],
) -> None:
    """Set columns of the rows that have the same keys as a changed row, in one commit."""
    place = workspace.place(table)
    with _view(changes) as view:
        assignments = ", ".join(f"t.{quoted_column(c)} = s.{quoted_column(c)}" for c in columns)
        same = " AND ".join(f"t.{quoted_column(k)} = s.{quoted_column(k)}" for k in keys)
        merge = f"MERGE INTO {delta.sql_name(workspace.spark, place)} t USING {view} s ON {same} "
        with engine_errors(location=place):
            workspace.spark.sql(f"{merge}WHEN MATCHED THEN UPDATE SET {assignments}").collect()


def erase_old_files(workspace: Workspace, tables: Iterable[RowTable]) -> None:
    """Delete every file that the newest version of a table does not refer to, whatever its age.

    Older versions of these tables become unreadable where they had other files, and what killed
    writers have left is gone as well.

    Args:
        workspace: Where.
        tables: Tables with rows of inputs; those with models and records follow.
    """
    if workspace.exists(_STATES):
        delta.delete_rows(workspace.spark, workspace.place(_STATES))
    _drop_unfinished(workspace)
    for table in (*(t.name for t in tables), *_OTHERS):
        if workspace.exists(table):
            with engine_errors(location=workspace.place(table)):
                _write_deletions(workspace, table)
                vacuum(workspace, table, 0)
                if _has_old_statistics(workspace, table):
                    truncate_log(workspace, table)


def _write_deletions(workspace: Workspace, table: str) -> None:
    """Rewrite files in which a deletion vector hides rows."""
    if not capabilities(workspace.spark).history:
        return
    name = delta.sql_name(workspace.spark, workspace.place(table))
    detail = workspace.spark.sql(f"DESCRIBE DETAIL {name}").collect()[0]
    if "deletionVectors" in (detail["tableFeatures"] or ()):
        workspace.spark.sql(f"REORG TABLE {name} APPLY (PURGE)").collect()


def _has_old_statistics(workspace: Workspace, table: str) -> bool:
    """Whether the log may hold numbers of deleted rows: selections have statistics of them."""
    listed = not (workspace.in_catalog or workspace.store.by_spark)
    written_once = 1  # version 0 is the empty table
    return listed and table.startswith(SELECTION) and workspace.version(table) > written_once


def _drop_unfinished(workspace: Workspace) -> None:
    """Drop what killed writers have left of tables without a commit."""
    store = workspace.store
    if workspace.in_catalog or store.by_spark:
        return
    for name in (*STAGE_TABLES, *store.names(SELECTION), *store.names(SNAPSHOT)):
        if not store.exists(name):
            store.drop(name)


@contextmanager
def _view(rows: DataFrame) -> Iterator[str]:
    """Name of a temporary view of some rows."""
    view = f"gio_spark_{uuid4().hex}"
    rows.createOrReplaceTempView(view)
    try:
        yield view
    finally:
        rows.sparkSession.catalog.dropTempView(view)
