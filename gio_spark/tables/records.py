"""Records of finished stages: what the `runs` table holds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa

SCHEMA = pa.schema(
    [
        pa.field("run", pa.string()),
        pa.field("stage", pa.string()),
        pa.field("fingerprint", pa.string()),
        pa.field("table", pa.string()),
        pa.field("version", pa.int64()),
        pa.field("rows", pa.int64()),
        pa.field("seconds", pa.float64()),
        pa.field("finished", pa.timestamp("us", tz="UTC")),
        pa.field("detail", pa.string()),
    ]
)

# Fingerprints kept per table and stage: trying two settings in turn recomputes nothing twice.
KEEP = 3


@dataclass(frozen=True)
class Record:
    """What `runs` says of one finished stage, or of one chunk of a long stage.

    The record of a chunk has a fingerprint of its own, and in `detail` its `chunk` and the
    fingerprint of the whole, `chunk_of`.
    """

    run: str
    stage: str
    fingerprint: str
    table: str
    version: int
    rows: int
    seconds: float
    finished: datetime
    detail: dict[str, Any]

    @property
    def is_chunk(self) -> bool:
        """Tell whether this is part of a stage only."""
        return "chunk_of" in self.detail


def to_table(records: Sequence[Record]) -> pa.Table:
    """Return records as rows of `runs`."""
    rows = [
        {**{n: getattr(r, n) for n in SCHEMA.names}, "detail": json.dumps(r.detail)}
        for r in records
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def from_table(rows: pa.Table) -> list[Record]:
    """Return rows of `runs` as records."""
    return [
        Record(**{**row, "detail": json.loads(row["detail"] or "{}")}) for row in rows.to_pylist()
    ]


def newest_per_stage(records: Sequence[Record], table: str) -> list[Record]:
    """Return the newest records of each stage that writes a table, one per fingerprint."""
    per_stage: dict[str, list[Record]] = {}
    for record in sorted(records, key=lambda r: r.finished, reverse=True):
        if record.table != table or record.is_chunk:
            continue
        kept = per_stage.setdefault(record.stage, [])
        if record.fingerprint not in {r.fingerprint for r in kept} and len(kept) < KEEP:
            kept.append(record)
    return [r for kept in per_stage.values() for r in kept]
