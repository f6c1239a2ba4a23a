"""Records of finished stages: rows of the `runs` table, which name the valid rows of tables.

Rows of stage tables carry the key of their stage (`fingerprint`) and a token of the attempt that
wrote them (`attempt`). A record names the attempts whose rows are the stage's: rows of an attempt
that no record names (a writer that was killed, or one of two that worked at once) are not read.
"""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

import pyarrow as pa

KEY = "fingerprint"
"""Column of stage tables with the key of the stage."""
ATTEMPT = "attempt"
"""Column of stage tables with the token of the attempt."""

SCHEMA = pa.schema(
    [
        pa.field("record", pa.string()),
        pa.field("run", pa.string()),
        pa.field("stage", pa.string()),
        pa.field("fingerprint", pa.string()),
        pa.field("table", pa.string()),
        pa.field("version", pa.int64()),
        pa.field("rows", pa.int64()),
        pa.field("seconds", pa.float64()),
        pa.field("finished", pa.timestamp("us", tz="UTC")),
        pa.field("attempts", pa.string()),
        pa.field("detail", pa.string()),
    ]
)

Attempts = Mapping[str, Mapping[str, Sequence[str]]]
"""Table -> key of a stage -> tokens of the attempts that wrote its rows, in order of chunks."""


def new_token() -> str:
    """Token that no other attempt has, on whatever machine: 20 hexadecimal characters.

    The first eight are the time by the writer's clock, by which retention recognizes old ones.
    """
    return f"{int(time.time()):08x}{secrets.token_hex(6)}"


def is_token(text: str) -> bool:
    """Whether a text can be a token of our making."""
    return re.fullmatch(r"[0-9a-f]{20}", text) is not None


def token_time(token: str) -> datetime:
    """Time when a token was created, by the clock of its writer."""
    return datetime.fromtimestamp(int(token[:8], 16), tz=timezone.utc)


@dataclass(frozen=True)
class Base:
    """Rows of an earlier stage that did not change and are also rows of a later one.

    Attributes:
        key: Key of the earlier stage's rows.
        hidden: Key, in the table `replaced`, of the ids whose earlier rows do not count.
    """

    key: str
    hidden: str


@dataclass(frozen=True)
class Record:
    """Record of one finished stage, or of one chunk of a long stage.

    The record of a chunk has a fingerprint of its own, and in `detail` its `chunk` and the
    fingerprint of the whole, `chunk_of`.

    Attributes:
        run: Run that did it.
        stage: Name of the stage.
        fingerprint: Key of its rows.
        table: Table that holds them; "" where there is none.
        version: Newest version of the table when the record was made.
        rows: Rows of the stage, those of its base included.
        seconds: Its duration.
        finished: When, by the writer's clock; nothing is decided by it.
        detail: Facts of the stage, plain values.
        attempts: Which attempts' rows count.
        record: Token of the record itself.
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
    attempts: Attempts = field(default_factory=dict)
    record: str = field(default_factory=new_token)

    @property
    def is_chunk(self) -> bool:
        """Whether this is the record of a chunk."""
        return "chunk_of" in self.detail

    def base(self, table: str) -> Base | None:
        """Earlier rows that also belong to this stage in a table, or None."""
        named = self.detail.get("base", {}).get(table)
        return Base(*named) if named else None


def to_table(records: Sequence[Record]) -> pa.Table:
    """Records as rows of `runs`."""
    rows = [
        {
            **{n: getattr(r, n) for n in SCHEMA.names},
            "attempts": json.dumps(r.attempts),
            "detail": json.dumps(r.detail),
        }
        for r in records
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def from_table(rows: pa.Table) -> list[Record]:
    """Rows of `runs` as records, each once."""
    parsed = {
        row["record"]: Record(
            **{
                **{n: row[n] for n in SCHEMA.names},
                "attempts": json.loads(row["attempts"] or "{}"),
                "detail": json.loads(row["detail"] or "{}"),
            }
        )
        for row in rows.to_pylist()
    }
    return list(parsed.values())
