"""Metrics per refresh: states of what changed are merged, the gate is judged, drift is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
from pyspark.sql import functions as F

from gio_spark import gime
from gio_spark.engine import bounded
from gio_spark.pipeline import prepare
from gio_spark.pipeline.context import Context, fingerprint
from gio_spark.pipeline.gate import as_facts, gate_facts, verdict_of
from gio_spark.pipeline.ground import Ground
from gio_spark.pipeline.measure import (
    MAX_FIGURES,
    beside,
    counted,
    measured,
    named_values,
    stored,
    under_names,
)
from gio_spark.pipeline.places import local_folder
from gio_spark.pipeline.publishing import find_candidate, refreshes_of
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


def measure_refresh(ctx: Context, base: Record, pool: Input, key: str) -> Judged:
    """Measure pool, selection and a random draw after a refresh, and judge the gate.

    The pool's states are kept per refresh and hash chunk of the id: those of new rows are added,
    those of chunks that lost or regained rows are made anew, all others stay as they are.

    Args:
        ctx: The run that is refreshed.
        base: Its record.
        pool: The pool as it is now.
        key: Fingerprint of the refresh.
    """
    ws = ctx.workspace
    done = [r.fingerprint for r in refreshes_of(ws, base.run)]
    ground = Ground.of_record(ws, ctx.settings, base, tuple(done), present=pool.rows.select("id"))
    others = prepare.open_targets(ctx.spark, ws, ctx.settings) if ground.owns else {}
    ground = ground.with_inputs({"pool": pool, **others})
    gate = gate_facts(ws, base)

    def make(_: StageProgress) -> tuple[int, dict[str, Any]]:
        found = [
            _figures(ctx, part, base, done, key, steered=gate is not None)
            for part in ground.parts()
        ]
        figures, touched = pa.concat_tables([f for f, _ in found]), found[0][1]
        rows = ws.write_arrow("metrics", figures, fingerprint=key, run=ctx.run, stage=STAGE)
        verdict = as_facts(verdict_of(gate, figures.to_pandas()))
        return rows, {"gate": verdict, "touched": touched, "version": pool.version}

    record = ctx.stage(STAGE, key, "metrics", make)
    series = write_series(ws, base)
    newest = series[series["refresh"] == series["refresh"].max()]
    drifted = newest[newest["drifted"].astype(bool)]
    names = tuple(f"{g}/{m}" for g, m in zip(drifted["group"], drifted["metric"], strict=True))
    _track(ctx, stored(ws, key), record.detail["gate"], int(newest["refresh"].iloc[0]), names)
    return Judged(record.detail["gate"], names)


def _figures(
    ctx: Context, ground: Ground, base: Record, done: Sequence[str], key: str, *, steered: bool
) -> tuple[pa.Table, list[str]]:
    skinny = ground.constants(vectors=False)
    target = ground.target_states(skinny, vectors=False)
    states, touched = _pool_states(ctx, ground, base, done, key, skinny)
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
    return pa.concat_tables([under_names(pool, ground), both]), touched


def _pool_states(
    ctx: Context,
    ground: Ground,
    base: Record,
    done: Sequence[str],
    key: str,
    constants: gime.Constants,
) -> tuple[DataFrame, list[str]]:
    """Return the pool's states as it is now, stored under the refresh, and what was made anew."""
    ws, settings = ctx.workspace, ctx.settings.gime
    batch = "refresh_batch"

    def states(rows: DataFrame, only: Sequence[str] | None = None) -> DataFrame:
        return gime.states(
            rows.withColumn(batch, F.substring("fingerprint", 1, 8)), ground.profile,
            constants=constants, batch=batch, only=only, settings=settings,
        )  # fmt: skip

    def key_of(refresh: str) -> str:
        """States of a source stand under a key of their own."""
        return refresh if ground.source is None else fingerprint(refresh, ground.source)

    every = ground.rows("pool", keep_fingerprint=True)
    mine = key_of(key)
    measured_before = [
        ws.recorded(STAGE, k)[-1] for k in done if k != key and ws.recorded(STAGE, k)
    ]
    known = measured_before[-1] if measured_before else None
    stored_key = "" if known is None else key_of(known.fingerprint)
    if known is None or not _same_version(ws, stored_key, ground, constants):
        ws.write("metric_states", states(every), fingerprint=mine, run=ctx.run, stage=STAGE)
        return ws.read("metric_states", mine).drop("fingerprint"), []
    seen = done[: done.index(known.fingerprint) + 1]
    fresh = every.where(~F.col("fingerprint").isin([*_first(ground), *seen]))
    gone = ground.missing(keep_fingerprint=True).withColumn(batch, F.substring("fingerprint", 1, 8))
    now = gime.partitions_of(gone, batch=batch, settings=settings)
    # Rows that were away at the refresh before may have come back.
    touched = sorted({*now, *known.detail["touched"]})
    old = ws.read("metric_states", stored_key).drop("fingerprint")
    if touched:
        old = gime.replace_partitions(old, states(every, touched), touched)
    new = states(fresh)
    if touched:
        # A new row in a touched partition was counted with it.
        new = new.where(~F.col("partition").isin(touched))
    ws.write("metric_states", old.unionByName(new), fingerprint=mine, run=ctx.run, stage=STAGE)
    return ws.read("metric_states", mine).drop("fingerprint"), now


def _first(ground: Ground) -> tuple[str, ...]:
    return ground.assignments["pool"][:1]


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
