"""Row counts in records and publishes, without the rows that are purged.

A stage is complete while its table holds as many rows as its record says. The counts are lowered
before the rows are deleted, and only where the record agrees with the table at that moment: a purge
that goes on after a kill lowers nothing twice, and a stage that has lost rows for another reason
stays incomplete.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyspark.sql import functions as F

from gio_spark.engine import bounded
from gio_spark.tables.publish_log import PublishLog
from gio_spark.tables.purge_deletion import RowTable, update_rows
from gio_spark.tables.purge_list import MATCH, count_matches, with_hash_match, without_hashed
from gio_spark.tables.stage_records import ATTEMPT, Record, to_table
from gio_spark.tables.workspace import SELECTION, SNAPSHOT

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from gio_spark.tables.workspace import Workspace

_MOST_GROUPS = 200_000
_MOST_REQUIRED = 10_000


@dataclass(frozen=True)
class RowCount:
    """Rows that are there, and those of them that are purged."""

    total: int
    purged: int
    copies: int | None = None
    """Rows of a selection that stay, with their repeats."""

    @property
    def remaining(self) -> int:
        """Rows that stay."""
        return self.total - self.purged


def lower_counts(workspace: Workspace, tables: Iterable[RowTable], hashes: DataFrame) -> int:
    """Lower the counts of records and publishes by the rows that are about to be purged.

    Args:
        workspace: Where.
        tables: Tables with rows of inputs.
        hashes: Hashes of the purged ids.

    Returns:
        Records and publishes that were changed.
    """
    workspace.reload()
    changed: dict[str, Record] = {}
    selections: dict[str, RowCount] = {}
    for table in tables:
        if table.name.startswith((SELECTION, SNAPSHOT)):
            selections[table.name] = _selection_count(workspace, table, hashes)
            continue
        if "attempt" not in workspace.read_table(table.name).columns:
            continue
        counts = _attempt_counts(workspace, table.name, hashes)
        for record in _lowered_stages(workspace, table, counts, hashes):
            changed[record.record] = record
    affected = {name: count for name, count in selections.items() if count.purged}
    for record in _lowered_selections(workspace, affected):
        changed[record.record] = record
    for record in _without_required_rows(workspace, changed, hashes):
        changed[record.record] = record
    if changed:
        rows = to_table(list(changed.values())).select(["record", "rows", "detail"])
        update_rows(workspace, "runs", ("record",), workspace.frame(rows), ("rows", "detail"))
        workspace.reload()
    return len(changed) + _lower_publishes(workspace, affected)


def _count(rows: DataFrame, table: RowTable, hashes: DataFrame) -> RowCount:
    counts = bounded(count_matches(rows, table.column, hashes), 1, "counts").to_pylist()[0]
    return RowCount(int(counts["total"]), int(counts["purged"]))


def _selection_count(workspace: Workspace, table: RowTable, hashes: DataFrame) -> RowCount:
    rows = workspace.read_table(table.name)
    count = _count(rows, table, hashes)
    if not count.purged or "gio_repeat" not in rows.columns:
        return count
    repeats = F.sum(F.col("gio_repeat").cast("bigint")).alias("copies")
    copies = without_hashed(rows, table.column, hashes).agg(repeats)
    return replace(count, copies=int(bounded(copies, 1, "copies")["copies"][0].as_py() or 0))


def _grouped(rows: DataFrame, hashes: DataFrame, *groups: str) -> list[dict[str, Any]]:
    matched = with_hash_match(rows.select("id", *groups), "id", hashes).groupBy(*groups)
    counts = matched.agg(F.count(F.lit(1)).alias("total"), F.count(MATCH).alias("purged"))
    return list(bounded(counts, _MOST_GROUPS, "attempts").to_pylist())


def _attempt_counts(workspace: Workspace, table: str, hashes: DataFrame) -> dict[str, RowCount]:
    groups = _grouped(workspace.read_table(table), hashes, ATTEMPT)
    return {g[ATTEMPT]: RowCount(int(g["total"]), int(g["purged"])) for g in groups}


def _lowered_stages(
    workspace: Workspace, table: RowTable, counts: Mapping[str, RowCount], hashes: DataFrame
) -> list[Record]:
    """Records of stages and chunks that lose rows in a stage table."""
    if not any(count.purged for count in counts.values()):
        return []
    lowered = []
    for record in workspace.records():
        if record.table != table.name:
            continue
        tokens = [record.detail["token"]] if record.is_chunk else (
            record.attempts.get(table.name, {}).get(record.fingerprint, [])
        )  # fmt: skip
        if record.base(table.name) is not None:
            count = _count(workspace.read(table.name, record.fingerprint), table, hashes)
        else:
            own = [counts[token] for token in tokens if token in counts]
            count = RowCount(sum(c.total for c in own), sum(c.purged for c in own))
        if count.purged and count.total == record.rows:
            detail = _lowered_reasons(workspace, record, hashes)
            lowered.append(replace(record, rows=count.remaining, detail=detail))
    return lowered


def _lowered_reasons(workspace: Workspace, record: Record, hashes: DataFrame) -> dict[str, Any]:
    """Facts of a stage that counted rows of the quarantine by reason."""
    if record.table != "quarantine" or record.is_chunk:
        return record.detail
    rows = workspace.own_rows("quarantine", record.fingerprint)
    purged = {
        (g["side"], g["reason"]): int(g["purged"]) for g in _grouped(rows, hashes, "side", "reason")
    }
    counts = record.detail["counts"]
    if isinstance(counts, dict):
        lower = {r: n - sum(h for (_, x), h in purged.items() if x == r) for r, n in counts.items()}
        return {**record.detail, "counts": {r: n for r, n in lower.items() if n}}
    lowered = [[side, reason, n - purged.get((side, reason), 0)] for side, reason, n in counts]
    return {**record.detail, "counts": [one for one in lowered if one[2]]}


def _lowered_selections(workspace: Workspace, affected: Mapping[str, RowCount]) -> list[Record]:
    """Records of the size of a selection (its stage, run and audit) or of a snapshot."""
    if not affected:
        return []
    run_tables = {r.run: r.table for r in workspace.records() if r.fingerprint == r.run and r.table}
    lowered = []
    for record in workspace.records():
        table = record.table or str(record.detail.get("table", ""))
        if record.stage == "run":
            table = run_tables.get(record.run, "")
        count = affected.get(table)
        if count is None or record.rows != count.total:
            continue
        detail = dict(record.detail)
        if "selected_rows" in detail:
            detail["selected_rows"] = count.remaining
        if detail.get("copies") is not None and count.copies is not None:
            detail["copies"] = count.copies
        if "after" in detail.get("counts", {}):
            detail["counts"] = {**detail["counts"], "after": count.remaining}
        lowered.append(replace(record, rows=count.remaining, detail=detail))
    return lowered


def _without_required_rows(
    workspace: Workspace, changed: Mapping[str, Record], hashes: DataFrame
) -> list[Record]:
    """Plans that name a purged row among those that are always selected."""
    records = [changed.get(r.record, r) for r in workspace.records()]
    plans = {
        r.record: (r, gate["required_rows"])
        for r in records
        if (gate := r.detail.get("gate")) and gate.get("required_rows")
    }
    ids = {row["id"] for _, required in plans.values() for row in required}
    if not ids:
        return []
    frame = workspace.frame(pa.table({"id": pa.array(sorted(ids), pa.string())}))
    matched = with_hash_match(frame, "id", hashes).where(F.col(MATCH).isNotNull())
    purged = set(bounded(matched.select("id"), _MOST_REQUIRED, "required rows")["id"].to_pylist())
    return [
        replace(record, detail={**record.detail, "gate": {
            **record.detail["gate"],
            "required_rows": [row for row in required if row["id"] not in purged],
        }})
        for record, required in plans.values()
        if purged & {row["id"] for row in required}
    ]  # fmt: skip


def _lower_publishes(workspace: Workspace, affected: Mapping[str, RowCount]) -> int:
    rows = [
        {"token": event.token, "rows": affected[event.table].remaining}
        for event in PublishLog(workspace).events()
        if event.table in affected and event.rows == affected[event.table].total
    ]
    if rows:
        schema = pa.schema([("token", pa.string()), ("rows", pa.int64())])
        frame = workspace.frame(pa.Table.from_pylist(rows, schema=schema))
        update_rows(workspace, "publishes", ("token",), frame, ("rows",))
    return len(rows)
