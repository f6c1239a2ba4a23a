"""Checkpoints of a k-means fit in the centroids table, one per pass.

A state is the rows of side `fit` under the fit's own fingerprint, each pass an attempt of its own.
The record of the fit names the last one; until it is written, a record of each pass does, so that
a fit that was killed goes on from there, and no reader meets a half-fitted one.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pyarrow as pa

from gio_spark.errors import WorkspaceError
from gio_spark.quantize import KMeansState

if TYPE_CHECKING:
    from gio_spark.pipeline.run_context import RunContext
    from gio_spark.tables import Workspace

FIT_STATE = "fit"
"""Value of `side` in rows of a state, which belong to neither pool nor target."""

_MOST = 1 << 20
_COLUMNS = {
    "side": pa.string(),
    "cluster": pa.int32(),
    "vector": pa.binary(),
    "rows": pa.int64(),
    "tokens": pa.int64(),
    "inertia": pa.float64(),
    "radius": pa.float64(),
    "far": pa.float64(),
    "weight": pa.float64(),
    "state": pa.string(),
}


def centroid_rows(dataset: str, columns: dict[str, pa.Array]) -> pa.Table:
    """Rows of the centroids table; columns that are not given are null."""
    count = len(columns["cluster"])
    columns_with_dataset = {**columns, "side": pa.array([dataset] * count, pa.string())}
    return pa.table(
        {
            name: columns_with_dataset.get(name, pa.nulls(count, kind))
            for name, kind in _COLUMNS.items()
        }
    )


def save_state(ctx: RunContext, state: KMeansState, key: str) -> int:
    """Commit a pass; returns the rows written."""
    table = state.to_table()
    # One row carries what belongs to none: the counters and the history of the passes.
    text = pa.array([json.dumps(state.info()), *[None] * (table.num_rows - 1)], pa.string())
    columns = {name: table[name].combine_chunks() for name in table.column_names}
    rows = centroid_rows(FIT_STATE, {**columns, "state": text})
    stage = f"fit, pass {state.passes}"
    written = ctx.write_small("centroids", rows, key=key, stage=stage)
    if not state.finished:
        (token,) = ctx.workspace.attempts("centroids", key)
        ctx.workspace.record(
            run=ctx.run,
            stage=stage,
            fingerprint=f"{key}-pass-{state.passes}",
            table="centroids",
            rows=written,
            seconds=0.0,
            detail={"chunk_of": key, "chunk": str(state.passes), "token": token},
            only=(),
        )
    return written


def load_state(workspace: Workspace, key: str) -> KMeansState | None:
    """The last pass that a fit committed, None where there is none."""
    if not workspace.holds("centroids", key):
        passes = [r for r in workspace.records() if r.is_chunk and r.detail["chunk_of"] == key]
        if not passes:
            return None
        last = max(passes, key=lambda r: int(r.detail["chunk"]))
        workspace.name_attempts("centroids", key, [last.detail["token"]])
    rows = workspace.read_arrow("centroids", key, _MOST, "centroids of a fit")
    if not rows.num_rows:
        return None
    (info,) = rows["state"].drop_null().to_pylist()
    return KMeansState.from_table(rows, json.loads(info))


def fitted_state(workspace: Workspace, key: str) -> KMeansState:
    """The state of a fit that is complete.

    Raises:
        WorkspaceError: It is not in the workspace.
    """
    state = load_state(workspace, key)
    if state is None:
        raise WorkspaceError(
            f"{workspace.place('centroids')} lacks the fit {key}, which a run's record names. "
            "Run again."
        )
    return state
