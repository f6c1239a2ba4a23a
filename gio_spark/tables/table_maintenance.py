"""Maintenance of a workspace: retention, compaction, removal of dead files, sizes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gio_spark.engine import capabilities
from gio_spark.engine.engine_errors import engine_errors
from gio_spark.tables import delta
from gio_spark.tables.file_list import filesystem
from gio_spark.tables.publish_log import PublishLog, view_name
from gio_spark.tables.retention import Pruned, prune, vacuum
from gio_spark.tables.workspace import SELECTION, SNAPSHOT, STAGE_TABLES

if TYPE_CHECKING:
    from gio_spark.settings.run import RetentionSettings
    from gio_spark.tables.workspace import Workspace


@dataclass(frozen=True)
class TableSize:
    """Files of a table.

    Attributes:
        files: Number; in a folder those of the log and those that no version refers to included,
            in a catalog those of the newest version.
        bytes: Their size.
    """

    files: int
    bytes: int


@dataclass(frozen=True)
class MaintainedTable:
    """One table before and after maintenance; after is None where retention dropped it."""

    table: str
    before: TableSize
    after: TableSize | None


@dataclass(frozen=True)
class Maintenance:
    """What maintenance of a workspace did: sizes by table, and what retention removed."""

    tables: tuple[MaintainedTable, ...]
    pruned: Pruned

    @property
    def bytes_before(self) -> int:
        """Size of all tables before."""
        return sum(t.before.bytes for t in self.tables)

    @property
    def bytes_after(self) -> int:
        """Size of all tables after."""
        return sum(t.after.bytes for t in self.tables if t.after is not None)


def maintain(
    workspace: Workspace,
    settings: RetentionSettings,
    say: Callable[[str], None] = lambda text: None,
) -> Maintenance:
    """Apply retention, compact small files, and delete files that no version refers to.

    Rows are never changed. It may run beside runs and refreshes: appends do not conflict with
    compaction, and dead files are deleted once they are `retention.hours` old.

    Args:
        workspace: Where.
        settings: What is retained.
        say: Receives a line for each table.
    """
    before = {table: table_size(workspace, table) for table in own_tables(workspace)}
    pruned = prune(workspace, settings)
    maintained = []
    for table, size in before.items():
        if not workspace.store.exists(table, look=True):
            maintained.append(MaintainedTable(table, size, None))
            continue
        say(table)
        with engine_errors(location=workspace.place(table)):
            _compact(workspace, table)
            vacuum(workspace, table, settings.hours)
        maintained.append(MaintainedTable(table, size, table_size(workspace, table)))
    return Maintenance(tuple(maintained), pruned)


def own_tables(workspace: Workspace) -> list[str]:
    """Tables of the workspace that gio_spark makes; a schema may hold others."""
    # In a catalog the same name is a view, or a copy that the catalog maintains.
    published = [] if workspace.in_catalog else PublishLog(workspace).names()
    names = [
        *STAGE_TABLES,
        *workspace.store.names(SELECTION),
        *workspace.store.names(SNAPSHOT),
        *map(view_name, published),
    ]
    return [name for name in dict.fromkeys(names) if workspace.exists(name)]


def _compact(workspace: Workspace, table: str) -> None:
    place = workspace.place(table)
    if capabilities(workspace.spark).history:
        workspace.spark.sql(f"OPTIMIZE {delta.sql_name(workspace.spark, place)}").collect()
    else:
        delta.open_log(place).optimize.compact()


def table_size(workspace: Workspace, table: str) -> TableSize:
    """Files of a table."""
    place = workspace.place(table)
    if workspace.in_catalog:
        name = delta.sql_name(workspace.spark, place)
        row = workspace.spark.sql(f"DESCRIBE DETAIL {name}").collect()[0]
        return TableSize(int(row["numFiles"]), int(row["sizeInBytes"]))
    import pyarrow.fs as pafs

    store, path = filesystem(place)
    infos = store.get_file_info(pafs.FileSelector(path, recursive=True, allow_not_found=True))
    sizes = [info.size for info in infos if info.type == pafs.FileType.File]
    return TableSize(len(sizes), sum(sizes))
