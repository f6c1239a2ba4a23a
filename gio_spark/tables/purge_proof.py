"""Proof of a purge: every remaining data file and readable version, decoded and searched."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from pyspark.sql import functions as F

from gio_spark.engine import bounded, map_arrow
from gio_spark.errors import WorkspaceError
from gio_spark.tables import delta
from gio_spark.tables.file_list import filesystem
from gio_spark.tables.purge_deletion import RowTable, details_that_name
from gio_spark.tables.purge_list import ID_HASH, MATCH, count_matches

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from gio_spark.tables.workspace import Workspace

_MOST_TABLES = 100_000
_BATCH_ROWS = 65_536


@dataclass(frozen=True)
class TableProof:
    """Search of one table for purged rows.

    Attributes:
        table: Name.
        files: Data files that were decoded; 0 where the versions were read instead.
        versions: Versions that were read; 0 where all files of the table were decoded.
        rows: Rows in them.
        purged: Purged rows among them; 0 after a purge.
    """

    table: str
    files: int
    versions: int
    rows: int
    purged: int


def prove_tables(
    workspace: Workspace, tables: Sequence[RowTable], hashes: DataFrame
) -> list[TableProof]:
    """Decode every data file of the tables and look for purged ids.

    A version of a table consists of files of its folder, and a version whose files are gone cannot
    be read. So a folder is searched file by file, whether a version refers to the file or not. In a
    catalog, where files cannot be listed, and where columns have other names in the files, each
    version that still opens is read.

    Args:
        workspace: Where.
        tables: Tables with rows of inputs, and their columns of ids.
        hashes: Hashes of the purged ids.
    """
    listed = not (workspace.in_catalog or workspace.store.by_spark)
    files = {t.name: data_files(workspace, t.name) if listed else [] for t in tables}
    by_file = [t for t in tables if listed and _has_column(workspace, files[t.name], t.column)]
    by_version = [t for t in tables if t not in by_file]
    return [
        *_prove_files(workspace, by_file, files, hashes),
        *(_prove_versions(workspace, table, hashes) for table in by_version),
    ]


def count_details(workspace: Workspace, hashes: DataFrame) -> int:
    """Number of details in quarantine that name a purged row."""
    if not workspace.exists("quarantine"):
        return 0
    return int(details_that_name(workspace, hashes).count())


def data_files(workspace: Workspace, table: str) -> list[str]:
    """Paths of all Parquet files below a table's folder, those of its log left out."""
    store, path = filesystem(workspace.place(table))
    infos = store.get_file_info(pafs.FileSelector(path, recursive=True, allow_not_found=True))
    return [
        info.path
        for info in infos
        if info.path.endswith(".parquet") and "/_delta_log/" not in info.path
    ]


def _has_column(workspace: Workspace, files: Sequence[str], column: str) -> bool:
    """Whether files have a column under its own name; Delta's column mapping renames it."""
    store, _ = filesystem(workspace.location)
    if not files:
        return True
    with store.open_input_file(files[0]) as file:
        return column in pq.read_schema(file).names


def _prove_files(
    workspace: Workspace,
    tables: Sequence[RowTable],
    files: Mapping[str, Sequence[str]],
    hashes: DataFrame,
) -> list[TableProof]:
    work = [
        {"table": table.name, "column": table.column, "path": path}
        for table in tables
        for path in files[table.name]
    ]
    if not work:
        return [TableProof(table.name, 0, 0, 0, 0) for table in tables]
    location = workspace.location
    schema = pa.schema([(name, pa.string()) for name in ("table", "column", "path")])
    frame = workspace.spark.createDataFrame(pa.Table.from_pylist(work, schema=schema))

    def read(batches: Iterator[pa.RecordBatch]) -> Iterator[dict[str, list[Any]]]:
        store, _ = filesystem(location)
        for batch in batches:
            for row in batch.to_pylist():
                with store.open_input_file(row["path"]) as file:
                    parts = pq.ParquetFile(file).iter_batches(_BATCH_ROWS, columns=[row["column"]])
                    for part in parts:
                        ids = part.column(0).to_pylist()
                        yield {"table": [row["table"]] * len(ids), ID_HASH: list(map(_hashed, ids))}

    decoded = map_arrow(
        frame.repartition(max(1, min(len(work), 1024))),
        read,
        pa.schema([("table", pa.string()), (ID_HASH, pa.string())]),
        batch_rows=1,
    )
    listed = hashes.select(F.col(ID_HASH).alias(MATCH))
    matched = F.broadcast(listed).join(decoded, listed[MATCH] == decoded[ID_HASH], "right_outer")
    counts = matched.groupBy("table").agg(
        F.count(F.lit(1)).alias("rows"), F.count(MATCH).alias("purged")
    )
    by_table = {r["table"]: r for r in bounded(counts, _MOST_TABLES, "tables").to_pylist()}
    return [
        TableProof(
            t.name,
            len(files[t.name]),
            0,
            int(by_table.get(t.name, {}).get("rows", 0)),
            int(by_table.get(t.name, {}).get("purged", 0)),
        )
        for t in tables
    ]


def _hashed(value: Any) -> str | None:
    return None if value is None else hashlib.sha256(str(value).encode()).hexdigest()


def _prove_versions(workspace: Workspace, table: RowTable, hashes: DataFrame) -> TableProof:
    place = workspace.place(table.name)
    newest = workspace.version(table.name)
    rows = purged = versions = 0
    for version in range(newest, -1, -1):
        try:
            df = delta.read(workspace.spark, place, version)
            counted = bounded(count_matches(df, table.column, hashes), 1, "counts").to_pylist()[0]
        except Exception as error:
            if version == newest:
                raise WorkspaceError(f"{place} cannot be read after the purge: {error}") from error
            continue  # its files or its log are gone
        versions += 1
        rows += int(counted["total"])
        purged += int(counted["purged"])
    return TableProof(table.name, 0, versions, rows, purged)
