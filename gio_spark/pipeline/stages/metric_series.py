"""Metrics per refresh: states of what changed are merged, the gate is judged, drift is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
from pyspark.sql import functions as F

from gio_spark import gime
from gio_spark.engine import bounded
from gio_spark.pipeline.constraints.gate_verdict import as_facts, gate_facts, verdict_of
from gio_spark.pipeline.publishing import find_candidate, refreshes_of
from gio_spark.pipeline.run_rows import Ground
from gio_spark.pipeline.stage_runner import Context, fingerprint
from gio_spark.pipeline.stages import open_inputs
from gio_spark.pipeline.stages.embedding_changes import changed_rows
from gio_spark.pipeline.stages.measure import (
    MAX_FIGURES,
    beside,
    counted,
    measured,
    named_values,
    stored,
    under_names,
)
from gio_spark.tables.local_files import local_folder
from gio_spark.tracking import tracker

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pyspark.sql import DataFrame

    from gio_spark.engine.progress import Stage as StageProgress
    from gio_spark.tables import Input, Record, Workspace

STAGE = "refresh metrics"
SERIES = "metric series"
_SERIES = pa.schema(
    [
        ("run", pa.string()),
        ("refresh", pa.int64()),
        ("at", pa.timestamp("us", tz="UTC")),
        ("version", pa.string()),
        ("group", pa.string()),
        ("metric", pa.string()),
        ("unit", pa.string()),
        ("direction", pa.string()),
        ("value", pa.float64()),
        ("change", pa.float64()),
        ("z", pa.float64()),
        ("drifted", pa.bool_()),
        ("gate_passed", pa.bool_()),
    ]
)


@dataclass(frozen=True)
class Judged:
    """What a refresh's metrics say.

    Attributes:
        gate: The verdict as plain values; None where no thresholds are in force.
        drifted: "group/metric" of those that left the range of the refreshes before.
    """

    gate: dict[str, Any] | None
    drifted: tuple[str, ...]


def measure_refresh(
    ctx: Context, base: Record, pool: Input, keys: Mapping[str, str], key: str
) -> Judged:
    """Measure pool, selection and a random draw after a refresh, and judge the gate.

    The pool's states are kept per hash chunk of the id: those of chunks whose rows changed since
    the refresh that was measured before are made anew, all others stay as they are.

    Args:
        ctx: The run that is refreshed.
        base: Its record.
        pool: The pool as it is now.
        keys: Keys of its embeddings and assignments.
        key: Fingerprint of the refresh.
    """
    ws = ctx.workspace
    ground = Ground.of_record(ws, ctx.settings, base, keys)
    others = open_inputs.open_targets(ctx.spark, ws, ctx.settings) if ground.owns else {}
    ground = ground.with_inputs({"pool": pool, **others})
    gate = gate_facts(ws, base)
    earlier = [r for r in refreshes_of(ws, base.run) if r.fingerprint != key]
    measured_before = [r for r in earlier if ws.recorded(STAGE, r.fingerprint)]
    before = measured_before[-1] if measured_before else None

    def make(_: StageProgress) -> tuple[int, dict[str, Any]]:
        parts = [
            _figures(ctx, part, base, before, key, steered=gate is not None)
            for part in ground.parts()
        ]
        figures = pa.concat_tables(parts)
        rows = ws.write_arrow("metrics", figures, fingerprint=key, run=ctx.run, stage=STAGE)
        verdict = as_facts(verdict_of(gate, figures.to_pandas()))
        return rows, {"gate": verdict, "version": pool.version}

    record = ctx.stage(STAGE, key, "metrics", make)
    series = write_series(ws, base)
    newest = series[series["refresh"] == series["refresh"].max()]
    drifted = newest[newest["drifted"].astype(bool)]
    names = tuple(f"{g}/{m}" for g, m in zip(drifted["group"], drifted["metric"], strict=True))
    _track(ctx, stored(ws, key), record.detail["gate"], int(newest["refresh"].iloc[0]), names)
    return Judged(record.detail["gate"], names)


def _figures(
    ctx: Context, ground: Ground, base: Record, before: Record | None, key: str, *, steered: bool
) -> pa.Table:
    skinny = ground.constants(vectors=False)
    target = ground.target_states(skinny, vectors=False)
    states = _pool_states(ctx, ground, before, key, skinny)
    values = gime.values(states, ground.profile, target=target, constants=skinny)
    pool = bounded(values, MAX_FIGURES, "metrics")
    names = pa.array(["pool"] * pool.num_rows, pa.string())
    pool = pool.set_column(pool.schema.get_field_index("group"), "group", names)
    selected = ground.workspace.read_table(find_candidate(ground.workspace, base.run).table)
    ids = selected.select(F.col("gio_id").alias("id"))
    vectors = steered and ground.vectors
    whole = ground.rows("pool", vectors=vectors)
    rows, pool_rows = counted(ground, ids)
    frozen = ground.constants(vectors=True) if vectors else skinny
    if vectors:
        target = ground.target_states(frozen, vectors=True)
    frames = beside(ground, whole, ids, rows, pool_rows)
    both = measured(ground, frames, constants=frozen, target=target, by=False)
    return pa.concat_tables([under_names(pool, ground), both])


def _pool_states(
    ctx: Context,
    ground: Ground,
    before: Record | None,
    key: str,
    constants: gime.Constants,
) -> DataFrame:
    """Return the states of the pool as it is now, stored under the refresh."""
    ws, settings = ctx.workspace, ctx.settings.gime

    def states(only: Sequence[str] | None = None) -> DataFrame:
        return gime.states(
            ground.rows("pool"), ground.profile, constants=constants, only=only, settings=settings
        )

    def key_of(refresh: str) -> str:
        """States of a source stand under a key of their own."""
        return refresh if ground.source is None else fingerprint(refresh, ground.source)

    mine = key_of(key)
    stored_key = "" if before is None else key_of(before.fingerprint)
    # The user's own columns may change in rows whose assignment does not.
    known = before is not None and not ground.owns and ws.holds("metric_states", stored_key)
    if before is None or not known or not _same_version(ws, stored_key, ground, constants):
        ws.write("metric_states", states(), fingerprint=mine, run=ctx.run, stage=STAGE)
    else:
        differing = changed_rows(
            ws.read("assignments", before.detail["keys"]["assignments"]),
            ws.read("assignments", ground.assignments["pool"]),
        )
        touched = gime.partitions_of(differing, settings=settings)
        rows = ws.read("metric_states", stored_key).drop("fingerprint")
        if touched:
            rows = gime.replace_partitions(rows, states(touched), touched)
        ws.write("metric_states", rows, fingerprint=mine, run=ctx.run, stage=STAGE)
    return ws.read("metric_states", mine).drop("fingerprint")


def _same_version(ws: Workspace, key: str, ground: Ground, constants: gime.Constants) -> bool:
    """Say whether stored states were made with these constants; others never merge."""
    found = ws.read("metric_states", key).select("metric", "version").distinct()
    wanted = ground.profile.versions(constants)
    rows = bounded(found, 1000, "versions of states").to_pylist()
    return bool(rows) and all(wanted.get(r["metric"]) == r["version"] for r in rows)


# ---- series ------------------------------------------------------------------------------------


def in_series(ws: Workspace, base: Record, key: str) -> bool:
    """Say whether a refresh has its entry in the series of its run's metrics."""
    return ws.complete(STAGE, key) is not None and ws.complete(SERIES, key) is not None


def _number(ws: Workspace, base: Record, key: str) -> int:
    """Return which refresh of a run this is; 0 is the run itself."""
    keys = [r.fingerprint for r in refreshes_of(ws, base.run)]
    return 1 + keys.index(key) if key in keys else 0


def write_series(ws: Workspace, base: Record) -> pd.DataFrame:
    """Write the time series of a run's metrics, one refresh after another, with their drift."""
    parts = []
    first = [r for r in ws.records(base.run) if r.stage == "metrics"][-1:]
    later = [ws.recorded(STAGE, r.fingerprint)[-1:] for r in refreshes_of(ws, base.run)]
    measured_refreshes = [*first, *(r for records in later for r in records)]
    for record in measured_refreshes:
        # A refresh that was never measured leaves a gap, and no later one takes its number.
        number = _number(ws, base, record.fingerprint)
        figures = stored(ws, record.fingerprint)
        robust = figures[(figures["form"] == "robust") & figures["value"].notna()]
        verdict = base.detail.get("gate") if number == 0 else record.detail.get("gate")
        parts.append(
            robust[["group", "metric", "unit", "direction", "value"]].assign(
                run=base.run,
                refresh=number,
                at=record.finished,
                version=base.detail["versions"]["pool"]
                if number == 0
                else record.detail["version"],
                gate_passed=None if verdict is None else bool(verdict["passed"]),
            )
        )
    whole = pd.concat(parts, ignore_index=True)
    drifts = [gime.drift(part) for _, part in whole.groupby("group", sort=True)]
    series = pd.concat(drifts, ignore_index=True)[_SERIES.names]
    for record in measured_refreshes:
        if ws.recorded(SERIES, record.fingerprint):
            continue  # what came later changes nothing of it
        rows = series[series["refresh"] == _number(ws, base, record.fingerprint)]
        table = pa.Table.from_pandas(rows, schema=_SERIES, preserve_index=False)
        ws.write_arrow(
            "metric_series", table, fingerprint=record.fingerprint, run=base.run, stage=SERIES
        )
        ws.record(
            run=base.run, stage=SERIES, fingerprint=record.fingerprint, table="metric_series",
            rows=len(rows), seconds=0.0,
        )  # fmt: skip
    return series


def _track(
    ctx: Context,
    figures: pd.DataFrame,
    gate: Mapping[str, Any] | None,
    number: int,
    drifted: Sequence[str],
) -> None:
    watch = tracker(ctx.settings.tracking, local_folder(ctx.workspace) / "tracking")
    watch.start(f"refresh {number} of {ctx.run}", {"gio.run": ctx.run, "gio.command": "refresh"})
    watch.metrics(named_values(figures), step=number)
    if gate is not None:
        watch.metrics({"gate/passed": float(gate["passed"])}, step=number)
        watch.tags({"gio.gate": "passed" if gate["passed"] else "failed"})
    if drifted:
        watch.tags({"gio.drifted": ", ".join(drifted)})
    watch.end("FINISHED")
