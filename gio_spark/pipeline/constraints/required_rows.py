"""Required rows: those with the extreme times of the pool, selected whatever their key.

OIT's literal duration and delay are differences of extremes, which one row each decides: no order
and no quota holds them, but a handful of rows does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from pyspark.sql import functions as F

from gio_spark.engine import bounded
from gio_spark.pipeline.run_records import RequiredRow

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gio_spark.gime.metric_thresholds import Threshold
    from gio_spark.pipeline.run_rows import RunRows

# Metric -> what its literal form is made of: a role, and whether its largest value is meant.
_ENDS = {
    "duration": (("event_time", False), ("event_time", True)),
    "delay": (("event_time", True), ("ingest_time", True)),
}


def extremes(
    bounds: Sequence[Threshold], rows_of_source: Mapping[str | None, RunRows]
) -> tuple[RequiredRow, ...]:
    """Rows with the extremes that thresholds in force depend on.

    Of rows with the same time it is the one of the smallest id. One job for each extreme.

    Args:
        bounds: Thresholds; only those of duration and delay require rows.
        rows_of_source: Source (None: all rows) -> its tables.
    """
    time_ends = {
        (source, *end)
        for source, _, metric in (t.metric.rpartition("/") for t in bounds)
        for end in _ENDS.get(metric, ())
    }
    rows_by_id: dict[str, RequiredRow] = {}
    for source, role, largest in sorted(time_ends):
        run_rows = rows_of_source[source or None]
        # Columns of the user's own under these roles are not in the assignments.
        if role in run_rows.settings.gime.columns:
            continue
        time = F.col(role)
        rows = run_rows.rows("pool").where(time.isNotNull())
        first = rows.orderBy(time.desc() if largest else time.asc(), F.col("id").asc()).limit(1)
        named = F.coalesce("source", F.lit("")).alias("source")
        table = bounded(first.select("id", "cluster", named), 1, f"an extreme of {role}")
        rows_by_id |= {row["id"]: RequiredRow(**row) for row in table.to_pylist()}
    return tuple(rows_by_id.values())


def room_for(
    required_rows: Sequence[RequiredRow],
    take: NDArray[np.int64],
    cost: NDArray[np.float64],
    names: Sequence[str],
) -> NDArray[np.int64]:
    """Rows per cluster with room for required rows: others give it up, the fullest clusters first.

    A source keeps what it may spend: only its own clusters give, at least as much as the required
    row costs. A required row for which there is nothing to give is left out.

    Args:
        required_rows: Rows to be kept.
        take: Rows per cluster, (K,), or per cluster and source, (K, S).
        cost: Amount of a row of each stratum, (K, S), in the budget's unit.
        names: The S sources, where the plan has them.
    """
    rows = take.reshape(len(take), -1).copy()
    need = np.zeros_like(rows)
    for required in required_rows:
        need[required.cluster, names.index(required.source) if take.ndim > 1 else 0] += 1
    for cluster, source in np.argwhere(need > rows):
        lack = int(need[cluster, source] - rows[cluster, source])
        mine, freed = rows[:, source].copy(), 0.0
        free = mine - need[:, source]
        while freed < lack * cost[cluster, source] and free.max() > 0:
            giver = int(free.argmax())
            mine[giver] -= 1
            free[giver] -= 1
            freed += cost[giver, source]
        if freed >= lack * cost[cluster, source]:
            mine[cluster] += lack
            rows[:, source] = mine
    return rows.reshape(take.shape)
