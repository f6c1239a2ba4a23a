"""Ids to purge: of a table, of rows that meet a condition, or of rows that the inputs have lost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING

import pyarrow as pa
from pyspark.sql import functions as F

from gio_spark.engine import bounded
from gio_spark.errors import GioSparkError, InputError
from gio_spark.pipeline.commands.table_rows import find_pin, open_table
from gio_spark.pipeline.run_records import RunSummary
from gio_spark.settings.inputs import InputSettings
from gio_spark.settings.run import RunSettings
from gio_spark.tables import SELECTION, Record, Workspace, open_input, quoted, quoted_column
from gio_spark.tables.delta import is_readable_otherwise
from gio_spark.tables.purge_list import ID_HASH, id_hash

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from gio_spark.settings.columns import Columns

MOST_IDS = 500_000
"""Ids of one purge; their hashes pass through the driver."""


@dataclass(frozen=True)
class PurgeRequest:
    """Rows to purge, by one of three ways; none of them: those of an earlier, unfinished purge.

    Attributes:
        ids: Table or files with a column `id`.
        where: SQL condition on the columns of the pool.
        deleted_upstream: Rows of the workspace that the inputs no longer have.
        max_share: Share of the stored rows of an input above which `deleted_upstream` stops.
    """

    ids: str | None = None
    where: str | None = None
    deleted_upstream: bool = False
    max_share: float = 0.2


@dataclass(frozen=True)
class RequestedIds:
    """Hashes of the ids to purge, and tables that a condition could not be applied to."""

    hashes: pa.Table
    unsearched: tuple[str, ...] = ()


def requested_ids(
    workspace: Workspace,
    settings: RunSettings,
    request: PurgeRequest,
    present: Mapping[str, DataFrame],
    snapshot_ids: Mapping[str, str],
) -> RequestedIds:
    """Hashes of the ids of a purge.

    Args:
        workspace: Where.
        settings: Of the runs.
        request: Which rows.
        present: Dataset -> ids and columns that its input has now.
        snapshot_ids: Snapshot -> its column of ids.

    Raises:
        InputError: A table or a condition cannot be used, the ids are too many, or an input has
            lost more rows than `max_share`.
    """
    unsearched: tuple[str, ...] = ()
    if request.ids is not None:
        ids = _listed_ids(workspace, request.ids)
    elif request.where is not None:
        ids, unsearched = _matching_ids(workspace, request.where, present["pool"], snapshot_ids)
    elif request.deleted_upstream:
        ids = _lost_ids(workspace, settings, request.max_share, present)
    else:
        return RequestedIds(pa.table({ID_HASH: pa.array([], pa.string())}))
    hashes = ids.where(F.col("id").isNotNull()).select(id_hash("id").alias(ID_HASH)).distinct()
    return RequestedIds(bounded(hashes, MOST_IDS, "ids of one purge"), unsearched)


def present_rows(
    workspace: Workspace, settings: RunSettings, request: PurgeRequest
) -> tuple[dict[str, DataFrame], tuple[str, ...]]:
    """Rows of each input as it is now, with their `id`; malformed lines have an id alone.

    Returns:
        Dataset -> rows, and a message for each input that cannot be read and is not needed.

    Raises:
        InputError: An input that the request needs cannot be read.
    """
    rows, problems = {}, []
    for name, one in settings.datasets().items():
        needed = request.deleted_upstream or (request.where is not None and name == "pool")
        try:
            rows[name] = _rows_of(workspace, one, one.columns or settings.columns, name)
        except GioSparkError as error:
            if needed:
                raise
            problems.append(str(error))
    return rows, tuple(problems)


def _rows_of(workspace: Workspace, one: InputSettings, columns: Columns, name: str) -> DataFrame:
    if is_readable_otherwise(workspace.spark, one.location):
        if columns.id is None:
            raise InputError(
                f"{name}: {one.location} is a view without a column of ids: name columns.id."
            )
        view = workspace.spark.read.table(quoted(one.location))
        return view.withColumn("id", F.col(quoted_column(columns.id)).cast("string"))
    opened = open_input(workspace.spark, one, columns, name)
    if opened.bad is None:
        return opened.rows
    bad = opened.bad.select("id").where(F.col("id").isNotNull())
    return opened.rows.unionByName(bad, allowMissingColumns=True)


def _listed_ids(workspace: Workspace, table: str) -> DataFrame:
    source = InputSettings(location=table)
    pinned = find_pin(workspace.spark, source, "ids")
    opened = open_table(workspace.spark, source, pinned, {"id": "id"}, "ids")
    if "id" not in opened.rows.columns:
        columns = ", ".join(opened.rows.columns[:20])
        raise InputError(f"{table} has no column 'id'. It has: {columns}.")
    return opened.rows.select(F.col("id").cast("string").alias("id"))


def _matching_ids(
    workspace: Workspace, where: str, pool: DataFrame, snapshot_ids: Mapping[str, str]
) -> tuple[DataFrame, tuple[str, ...]]:
    """Ids that meet a condition: of the pool as it is now, of selections and of snapshots."""
    try:
        ids = pool.where(F.expr(where)).select("id")
        _ = ids.schema
    except Exception as error:
        first = str(error).splitlines()[0][:300]
        raise InputError(f"--where: {where!r} cannot be applied to the pool: {first}") from error
    unsearched = []
    columns = dict.fromkeys(workspace.store.names(SELECTION), "gio_id") | dict(snapshot_ids)
    for table, column in columns.items():
        if not workspace.exists(table):
            continue
        rows = workspace.read_table(table)
        try:
            more = rows.where(F.expr(where)).select(F.col(quoted_column(column)).cast("string"))
            ids = ids.unionByName(more.toDF("id"))
            _ = ids.schema
        except Exception:  # noqa: BLE001 - each engine has its own error for a missing column
            unsearched.append(table)
    return ids, tuple(unsearched)


def _lost_ids(
    workspace: Workspace,
    settings: RunSettings,
    max_share: float,
    present: Mapping[str, DataFrame],
) -> DataFrame:
    """Stored ids of each input that the input no longer has.

    Raises:
        InputError: They are too many to be deletions: the input is another one, or was emptied.
    """
    lost = []
    for name, one in settings.datasets().items():
        stored = _stored_ids(workspace, name, one.location)
        if stored is None:
            continue
        gone = stored.join(present[name].select("id"), "id", "left_anti")
        stored_rows, gone_rows = int(stored.count()), int(gone.count())
        if gone_rows > max_share * stored_rows:
            raise InputError(
                f"{name}: {one.location} no longer has {gone_rows:,} of the {stored_rows:,} rows "
                f"that the workspace holds of it, which is more than {max_share:g}. If they were "
                "deleted on purpose, give --max-share; else look at the input first."
            )
        lost.append(gone)
    if not lost:
        raise InputError(
            f"{workspace.location} holds no rows of the inputs of these settings: nothing can be "
            "compared. Give the settings of the run."
        )
    return reduce(lambda left, right: left.unionByName(right), lost)


def _stored_ids(workspace: Workspace, name: str, location: str) -> DataFrame | None:
    """Ids of all rows that the workspace holds of one input."""
    records = workspace.records()
    finished = [RunSummary.of(r) for r in records if r.stage == "run"]
    runs = {s.run for s in finished if _location(s, name) == location}
    places = {location, *(s.inputs[name] for s in finished if s.run in runs)}
    embedded = [
        r for r in records if r.stage == f"embed {name}" and r.detail.get("location") in places
    ]
    runs |= {r.run for r in embedded}
    ids = []
    attempts = _attempts(embedded, "embeddings")
    if attempts:
        rows = workspace.read_table("embeddings").where(F.col("attempt").isin(attempts))
        ids.append(rows.select("id"))
    attempts = _attempts((r for r in records if r.run in runs), "quarantine")
    if attempts:
        rows = workspace.read_table("quarantine").where(F.col("attempt").isin(attempts))
        ids.append(rows.where(F.col("side") == F.lit(name)).select("id"))
    if name == "pool":
        tables = {r.table for r in records if r.run in runs and r.table.startswith(SELECTION)}
        ids += [
            workspace.read_table(t).select(F.col("gio_id").alias("id"))
            for t in sorted(tables)
            if workspace.store.exists(t, look=True)
        ]
    if not ids:
        return None
    every = reduce(lambda left, right: left.unionByName(right), ids)
    return every.where(F.col("id").isNotNull()).distinct()


def _location(summary: RunSummary, name: str) -> str | None:
    datasets = RunSettings.model_validate(summary.settings).datasets()
    return datasets[name].location if name in datasets else None


def _attempts(records: Iterable[Record], table: str) -> list[str]:
    named = (tokens for r in records for tokens in r.attempts.get(table, {}).values())
    return sorted({token for tokens in named for token in tokens})
