"""Removal of rows that can be computed again, of replaced selections, and of forgotten runs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

from gio_spark.engine import bounded, capabilities
from gio_spark.errors import InputError, WorkspaceError
from gio_spark.tables import delta
from gio_spark.tables.publish_log import PublishLog
from gio_spark.tables.stage_records import ATTEMPT, is_token, token_time
from gio_spark.tables.workspace import SELECTION, SNAPSHOT

if TYPE_CHECKING:
    from gio_spark.settings.run import RetentionSettings
    from gio_spark.tables.stage_records import Record
    from gio_spark.tables.workspace import Workspace

# Tables of one row per row of the pool; all others are small, and stay for the record.
ROW_TABLES = ("embeddings", "assignments", "scores", "replaced")
# Below this age of files Delta asks for a word that one means it.
_DELTA_RETENTION_HOURS = 168.0
_MOST_ATTEMPTS = 100_000

Tokens = Mapping[str, Collection[str]]
"""Table -> tokens of attempts."""


@dataclass(frozen=True)
class Pruned:
    """Removed rows and tables.

    Attributes:
        attempts: Table -> number of attempts whose rows were deleted.
        tables: Selections and snapshots that were dropped.
    """

    attempts: Mapping[str, int]
    tables: tuple[str, ...]


def finished_runs(records: Iterable[Record]) -> dict[str, Record]:
    """Finished runs by id, oldest first, each with its newest record."""
    return {r.run: r for r in records if r.stage == "run"}


def prune(workspace: Workspace, settings: RetentionSettings) -> Pruned:
    """Remove rows, selections and snapshots that are no longer retained.

    Rows that a run reads are retained where the run is retained, has not finished, or has a
    selection that is current or pinned. Rows that no record names are retained while they are
    young: another process may be writing them.

    Args:
        workspace: Where.
        settings: What is retained.
    """
    workspace.reload()
    records = workspace.records()
    log = PublishLog(workspace)
    retained_tables, published_runs = _retained_publishes(log, settings)
    old = datetime.now(timezone.utc) - timedelta(hours=settings.hours)
    finished = finished_runs(records)
    keep = _newest_runs(finished, settings.runs) | published_runs
    keep |= {r.run for r in records if r.run not in finished and r.finished > old}
    read_tokens = _tokens_read(workspace, keep)
    recorded = _tokens_recorded(records)
    deleted = {}
    for table in ROW_TABLES:
        # Listing the stored attempts is a query; it is skipped where all records are needed.
        if set(recorded.get(table, ())) <= set(read_tokens.get(table, ())):
            continue
        removed_tokens = [
            token
            for token in _stored_attempts(workspace, table)
            if token not in read_tokens.get(table, ())
            and (token in recorded.get(table, ()) or token_time(token) < old)
        ]
        deleted[table] = delete_tokens(workspace, table, ATTEMPT, removed_tokens)
        if removed_tokens:
            vacuum(workspace, table, settings.hours)
    owners = {r.table: r.run for r in records if r.table.startswith(SELECTION)}
    read = {place for run in keep & set(finished) for place in _inputs(finished[run])}
    dropped = []
    for table in [*workspace.store.names(SELECTION), *workspace.store.names(SNAPSHOT)]:
        if table.startswith(SELECTION):
            stays = table in retained_tables or owners.get(table) in keep
            known = table in owners
        else:
            stays, known = workspace.place(table) in read, False
        token = table.rsplit("_", 1)[-1]
        if not stays and (known or (is_token(token) and token_time(token) < old)):
            workspace.store.drop(table)
            dropped.append(table)
    return Pruned({t: n for t, n in deleted.items() if n}, tuple(dropped))


def try_to_prune(workspace: Workspace, settings: RetentionSettings) -> str:
    """Prune after a run without failing it; returns the text of an error, or ""."""
    try:
        prune(workspace, settings)
    except Exception as error:  # noqa: BLE001 - another writer, a lock, a permission: reported, not fatal
        return str(error).splitlines()[0][:300]
    return ""


def forget(workspace: Workspace, run: str, settings: RetentionSettings) -> Pruned:
    """Remove all rows and tables of one run that no other run reads.

    Raises:
        InputError: There is no such run, or its selection is current or pinned under a name.
    """
    workspace.reload()
    records = workspace.records()
    run_records = [r for r in records if r.run == run]
    if not run_records:
        known = ", ".join(list(finished_runs(records))[-10:]) or "none"
        raise InputError(f"No run {run!r} is recorded in {workspace.location}. Known: {known}.")
    _refuse_published(workspace, run)
    read_tokens = _tokens_read(workspace, {r.run for r in records} - {run})
    removed_records = [r for r in run_records if not _names_any(r, read_tokens)]
    dropped = tuple(
        dict.fromkeys(r.table for r in removed_records if r.table.startswith(SELECTION))
    )
    for table in dropped:
        workspace.store.drop(table)
    recorded = _tokens_recorded(removed_records)
    deleted = {}
    for table in ROW_TABLES:
        tokens = set(recorded.get(table, ())) - set(read_tokens.get(table, ()))
        deleted[table] = delete_tokens(workspace, table, ATTEMPT, sorted(tokens))
        if deleted[table]:
            vacuum(workspace, table, settings.hours)
    delete_tokens(workspace, "runs", "record", [r.record for r in removed_records])
    workspace.reload()
    return Pruned({t: n for t, n in deleted.items() if n}, dropped)


def vacuum(workspace: Workspace, table: str, hours: float) -> None:
    """Delete files that a table does not refer to and that are older than a number of hours.

    Files of killed writers, which no version ever referred to, are among them.
    """
    place = workspace.place(table)
    if not capabilities(workspace.spark).history:
        delta.open_log(place).vacuum(
            retention_hours=int(hours),
            dry_run=False,
            enforce_retention_duration=hours >= _DELTA_RETENTION_HOURS,
            full=True,
        )
        return
    spark = workspace.spark
    check = "spark.databricks.delta.retentionDurationCheck.enabled"
    short = hours < _DELTA_RETENTION_HOURS
    before = spark.conf.get(check, None) if short else None
    try:
        if short:
            spark.conf.set(check, "false")
        spark.sql(f"VACUUM {delta.sql_name(spark, place)} RETAIN {hours:g} HOURS").collect()
    finally:
        if short and before is None:
            spark.conf.unset(check)
        elif short:
            spark.conf.set(check, str(before))


# ---- retained rows -----------------------------------------------------------------------------


def _retained_publishes(log: PublishLog, settings: RetentionSettings) -> tuple[set[str], set[str]]:
    """Tables of the publishes that stay, and the runs of those that are current or pinned."""
    pinned = log.pinned()
    tables: set[str] = set()
    runs: set[str] = set()
    for name, published in log.by_name().items():
        tables |= {e.table for e in published[-settings.publishes :]}
        for event in published:
            if event is published[-1] or (name, event.number) in pinned:
                tables.add(event.table)
                runs.add(event.run)
    return tables, runs


def _newest_runs(finished: Mapping[str, Record], count: int) -> set[str]:
    by_name: dict[str, list[str]] = {}
    for run, record in finished.items():
        by_name.setdefault(record.detail.get("name", ""), []).append(run)
    return {run for runs in by_name.values() for run in runs[-count:]}


def _refuse_published(workspace: Workspace, run: str) -> None:
    log = PublishLog(workspace)
    pinned = log.pinned()
    for name, published in log.by_name().items():
        for event in published:
            state = "current" if event is published[-1] else "pinned"
            if event.run == run and (state == "current" or (name, event.number) in pinned):
                raise InputError(
                    f"{run} is publish {event.number} of {name}, which is {state}. Publish another "
                    "run, or unpin it, before it is forgotten."
                )


def _tokens_read(workspace: Workspace, runs: set[str]) -> Tokens:
    """Attempts whose rows these runs read, those of the stages below them included."""
    records = workspace.records()
    keys: dict[str, set[str]] = {table: set() for table in ROW_TABLES}
    tokens_read: dict[str, set[str]] = {table: set() for table in ROW_TABLES}
    for record in records:
        if record.run not in runs:
            continue
        for table, named in record.attempts.items():
            keys.setdefault(table, set()).update(named)
        if record.is_chunk:
            tokens_read.setdefault(record.table, set()).add(record.detail["token"])
    for table in ROW_TABLES:
        for key in list(keys[table]):
            base = workspace.base_of(table, key)
            while base is not None:
                keys[table].add(base.key)
                keys["replaced"].add(base.hidden)
                base = workspace.base_of(table, base.key)
    for record in records:
        for table, named in record.attempts.items():
            for key, tokens in named.items():
                if key in keys.get(table, ()):
                    tokens_read.setdefault(table, set()).update(tokens)
    return tokens_read


def _tokens_recorded(records: Iterable[Record]) -> Tokens:
    recorded: dict[str, set[str]] = {}
    for record in records:
        for table, named in record.attempts.items():
            for tokens in named.values():
                recorded.setdefault(table, set()).update(tokens)
        if record.is_chunk:
            recorded.setdefault(record.table, set()).add(record.detail["token"])
    return recorded


def _names_any(record: Record, tokens: Tokens) -> bool:
    named = _tokens_recorded([record])
    return any(set(named[table]) & set(tokens.get(table, ())) for table in named)


def _inputs(run: Record) -> list[str]:
    return [str(place) for place in run.detail.get("inputs", {}).values()]


# ---- taking away -------------------------------------------------------------------------------


def _stored_attempts(workspace: Workspace, table: str) -> list[str]:
    if not workspace.exists(table):
        return []
    rows = workspace.store.read(table).select(ATTEMPT).distinct()
    stored: list[str] = bounded(rows, _MOST_ATTEMPTS, "attempts")[ATTEMPT].to_pylist()
    return stored


def delete_tokens(workspace: Workspace, table: str, column: str, tokens: list[str]) -> int:
    """Delete rows by tokens of our making; returns the number of tokens."""
    if not tokens or not workspace.exists(table):
        return 0
    if not all(is_token(t) for t in tokens):
        raise WorkspaceError(f"{workspace.place(table)} holds tokens that gio_spark did not make.")
    name = delta.sql_name(workspace.spark, workspace.place(table))
    listed = ", ".join(f"'{t}'" for t in tokens)
    # A quoted name and tokens that were just checked: nothing from outside reaches this text.
    workspace.spark.sql(f"DELETE FROM {name} WHERE {column} IN ({listed})").collect()  # noqa: S608
    return len(tokens)
