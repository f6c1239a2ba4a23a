"""Long stages in chunks by hash range of the id: a commit each, so that a death repeats one."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from gio_spark.engine import bounded, hash53
from gio_spark.engine.sampling import HASH_RANGE
from gio_spark.errors import WorkspaceError
from gio_spark.tables import delta
from gio_spark.tables.partitions import key_of

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from gio_spark.tables.workspace import Workspace

# Every chunk reads the stage's input once more (a filter on a hash of the id skips no file of it),
# so more chunks than this would cost more in reading than a death costs in repeating.
MOST_CHUNKS = 16
CHUNK = "chunk"
"""Column of chunked tables, a partition below the fingerprint: other chunks are never opened."""

_SALT = "gio.chunk"


@dataclass(frozen=True)
class Chunk:
    """One of several parts of all rows, by a hash range of the id.

    Attributes:
        number: From 1 to `of`.
        of: How many there are.
    """

    number: int
    of: int

    @property
    def label(self) -> str:
        """Value of the column `chunk`; it names the cut as well, so that two never mix."""
        return f"{self.number:03}-of-{self.of:03}"

    def rows(self, df: DataFrame) -> DataFrame:
        """Return the rows of a frame with `id` that belong to this chunk."""
        if self.of == 1:
            return df
        low, high = (HASH_RANGE * n // self.of for n in (self.number - 1, self.number))
        hashed = hash53("id", _SALT)
        return df.where((hashed >= F.lit(low)) & (hashed < F.lit(high)))


WHOLE = Chunk(1, 1)


def chunks_for(rows: int, chunk_rows: int) -> int:
    """Return in how many chunks a stage over so many rows is written."""
    return max(1, min(MOST_CHUNKS, math.ceil(rows / chunk_rows)))


def write_chunks(
    workspace: Workspace,
    table: str,
    make: Callable[[Chunk], DataFrame],
    *,
    count: int,
    fingerprint: str,
    run: str,
    stage: str,
    expected: int | None = None,
    on_chunk: Callable[[Chunk, int], None] | None = None,
) -> int:
    """Write the rows of a fingerprint in chunks, those that are complete already left alone.

    A single chunk is one `Workspace.write` and nothing else, and so are all chunks where the table
    was made before there were any.

    Args:
        workspace: Where to.
        table: One of `CHUNKED`.
        make: Gives the rows of a chunk; rows of all chunks together are those of the stage.
        count: Chunks.
        fingerprint: Key of the rows, the same whatever the count.
        run: Run that writes.
        stage: Stage that writes.
        expected: Rows that must be there afterwards, where known.
        on_chunk: Told of each chunk and the rows there so far, once its record is written.

    Returns:
        Rows there afterwards.

    Raises:
        WorkspaceError: Another number of rows came together than was expected.
    """
    if count == 1 or not workspace.takes_chunks(table):
        return workspace.write(
            table, make(WHOLE), fingerprint=fingerprint, run=run, stage=stage, expected=expected
        )
    done = _complete(workspace, table, fingerprint, count)
    if len(done) == count and expected not in (None, sum(done.values())):
        done = {}  # what came together last time was refused
    for chunk in (Chunk(n + 1, count) for n in range(count)):
        if chunk.label in done:
            continue
        began = time.monotonic()
        # The first commit of a cut takes away what another cut has left.
        done[chunk.label] = workspace.write(
            table,
            make(chunk),
            fingerprint=fingerprint,
            run=run,
            stage=stage,
            chunk=chunk,
            alone=not done,
        )
        workspace.record(
            run=run,
            stage=f"{stage} chunk {chunk.number} of {count}",
            fingerprint=_key(fingerprint, chunk),
            table=table,
            rows=done[chunk.label],
            seconds=time.monotonic() - began,
            detail={"chunk_of": fingerprint, "chunk": chunk.label},
        )
        if on_chunk is not None:
            on_chunk(chunk, sum(done.values()))
    rows = sum(done.values())
    check_rows(workspace.place(table), stage, rows, expected)
    return rows


def values_in(workspace: Workspace, table: str, fingerprint: str, column: str) -> int | None:
    """Return in how many rows of a fingerprint a column has a value, without a scan.

    None where the log of the table does not tell: in a catalog, or of rows written in chunks.
    """
    if workspace.in_catalog or not workspace.exists(table):
        return None
    place = {key_of(table): fingerprint}
    if workspace.takes_chunks(table):
        place[CHUNK] = WHOLE.label
    return delta.committed_values(workspace.place(table), place, column)


def check_rows(place: str, stage: str, rows: int, expected: int | None) -> None:
    """Refuse what a stage has written where it is not the number of rows that was expected.

    Raises:
        WorkspaceError: It is another one.
    """
    if expected is not None and rows != expected:
        raise WorkspaceError(
            f"{place} holds {rows:,} rows of {stage} after the write, but {expected:,} were "
            "expected. The input may have changed while it was read; run again."
        )


def _key(fingerprint: str, chunk: Chunk) -> str:
    return hashlib.sha256(f"{fingerprint}\0{chunk.label}".encode()).hexdigest()[:32]


def _complete(workspace: Workspace, table: str, fingerprint: str, count: int) -> dict[str, int]:
    """Return label -> rows of the chunks that are recorded and still there as recorded."""
    labels = {Chunk(n + 1, count).label for n in range(count)}
    known = {
        r.detail["chunk"]: r.rows
        for r in workspace.records()
        if r.table == table and r.is_chunk and r.detail["chunk_of"] == fingerprint
    }
    if not labels & set(known) or not workspace.exists(table):
        return {}
    counted = workspace.labelled(table, fingerprint).groupBy(CHUNK).count()
    rows = bounded(counted, 1000, "chunks of a stage").to_pylist()
    found = {row[CHUNK]: int(row["count"]) for row in rows}
    if set(found) - labels:
        return {}
    return {k: n for k, n in known.items() if k in labels and found.get(k, 0) == n}
