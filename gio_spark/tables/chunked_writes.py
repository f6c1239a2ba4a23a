"""Write a long stage in chunks, one commit each, so that a crash repeats at most one chunk."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from gio_spark.tables.hash_chunks import WHOLE, Chunk, check_rows

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from gio_spark.tables.workspace import Workspace


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
    """Write the rows of a stage in chunks; complete chunks are not written again.

    A single chunk is one `Workspace.write` and nothing else.

    Args:
        workspace: Where to.
        table: Stage table of rows with an `id`.
        make: Gives the rows of a chunk; rows of all chunks together are those of the stage.
        count: Chunks.
        fingerprint: Key of the stage, the same whatever the count.
        run: Run that writes.
        stage: Stage that writes.
        expected: Rows that must be there afterwards, where known.
        on_chunk: Called with each chunk and the rows written so far, once its record is written.

    Returns:
        Rows there afterwards.

    Raises:
        WorkspaceError: Another number of rows came together than was expected.
    """
    if count == 1:
        return workspace.write(
            table, make(WHOLE), fingerprint=fingerprint, run=run, stage=stage, expected=expected
        )
    complete = _complete(workspace, table, fingerprint, count)
    if len(complete) == count and expected not in (None, sum(n for n, _ in complete.values())):
        complete = {}  # what came together last time was refused
    workspace.name_attempts(table, fingerprint, [])
    tokens: list[str] = []
    rows = 0
    for chunk in (Chunk(n + 1, count) for n in range(count)):
        if chunk.label in complete:
            written, token = complete[chunk.label]
            tokens.append(token)
            rows += written
            continue
        began = time.monotonic()
        part = f"{fingerprint}-{chunk.label}"
        written, token = workspace.write_chunk(
            table, make(chunk), fingerprint=fingerprint, run=run, stage=stage, chunk=chunk
        )
        tokens.append(token)
        rows += written
        workspace.record(
            run=run,
            stage=f"{stage} chunk {chunk.number} of {count}",
            fingerprint=part,
            table=table,
            rows=written,
            seconds=time.monotonic() - began,
            detail={"chunk_of": fingerprint, "chunk": chunk.label, "token": token},
            only=(),
        )
        if on_chunk is not None:
            on_chunk(chunk, rows)
    workspace.name_attempts(table, fingerprint, tokens)
    check_rows(workspace.place(table), stage, rows, expected)
    return rows


def _complete(
    workspace: Workspace, table: str, fingerprint: str, count: int
) -> dict[str, tuple[int, str]]:
    """Label -> rows and token of the recorded chunks whose rows are complete."""
    labels = {Chunk(n + 1, count).label for n in range(count)}
    recorded = {
        r.detail["chunk"]: (r.rows, r.detail["token"])
        for r in workspace.records()
        if r.table == table and r.is_chunk and r.detail["chunk_of"] == fingerprint
    }
    recorded = {label: written for label, written in recorded.items() if label in labels}
    if not recorded or not workspace.exists(table):
        return {}
    counted = workspace.attempt_rows(table, [token for _, token in recorded.values()])
    return {label: (n, t) for label, (n, t) in recorded.items() if counted.get(t, 0) == n}
