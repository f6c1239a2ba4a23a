"""Metrics per refresh: merged states, verdict of the gate, drift."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
from pyspark.sql import functions as F

from gio_spark import gime
from gio_spark.engine import bounded
from gio_spark.pipeline.constraints.gate_verdict import as_facts, gate_facts, verdict_of
from gio_spark.pipeline.refresh_records import RefreshKeys, RefreshSummary
from gio_spark.pipeline.run_context import RunContext, fingerprint
from gio_spark.pipeline.run_records import RunSummary, VerdictFacts
from gio_spark.pipeline.run_rows import MAX_METRIC_ROWS, RunRows
from gio_spark.pipeline.stages.changed_rows import changed_rows
from gio_spark.pipeline.stages.measure import named_values, stored
from gio_spark.pipeline.stages.open_inputs import pin_inputs
from gio_spark.pipeline.stages.publish_selection import find_candidate, refreshes_of

if TYPE_CHECKING:
    from collections.abc import Sequence

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
    """Verdict and drift of a refresh.

    Attributes:
        gate: The verdict; None where no thresholds are in force.
        drifted: "group/metric" of those that left the range of the refreshes before.
    """

    gate: VerdictFacts | None
    drifted: tuple[str, ...]


def measure_refresh(
    ctx: RunContext, base: RunSummary, pool: Input, refreshed: RefreshKeys, key: str
) -> Judged:
    """Measure pool, selection and a random draw after a refresh, and judge the gate.

    The pool's states are kept per hash chunk of the id: those of chunks whose rows changed since
    the refresh that was measured before are made anew, all others stay as they are.

    Args:
        ctx: The run that is refreshed.
        base: Its summary.
        pool: The pool as it is now.
        refreshed: Keys of its rows.
        key: Fingerprint of the refresh.
    """
    ws = ctx.workspace
    run_rows = RunRows.of_summary(ws, ctx.settings, base, refreshed)
    targets = pin_inputs(ctx, ("target",)).open().inputs if run_rows.reads_user_columns else {}
    run_rows = run_rows.with_inputs({"pool": pool, **targets})
    gate = gate_facts(ws, base.plan_key)
    earlier = [r for r in refreshes_of(ws, base.run) if r.fingerprint != key]
    measured_before = [r for r in earlier if ws.recorded(STAGE, r.fingerprint)]
    before = measured_before[-1] if measured_before else None

    def make(_: StageProgress) -> tuple[int, dict[str, Any]]:
        parts = [
            _figures(ctx, part, base, before, key, enforced=gate is not None)
            for part in run_rows.parts()
        ]
        figures = pa.concat_tables(parts)
        rows = ws.write_arrow("metrics", figures, fingerprint=key, run=ctx.run, stage=STAGE)
        verdict = verdict_of(gate, figures.to_pandas())
        judged = None if verdict is None else as_facts(verdict).plain()
        return rows, {"gate": judged, "version": pool.version}

    record = ctx.stage(STAGE, key, "metrics", make)
    series = write_series(ws, base)
    newest = series[series["refresh"] == series["refresh"].max()]
    # The random draw is there to compare with: what changes it changes the pool.
    drifted = newest[newest["drifted"].astype(bool) & (newest["group"] != "random")]
    names = tuple(f"{g}/{m}" for g, m in zip(drifted["group"], drifted["metric"], strict=True))
    verdict = recorded_verdict(record)
    _track(ctx, stored(ws, key), verdict, int(newest["refresh"].iloc[0]), names)
    return Judged(verdict, names)


def recorded_verdict(record: Record) -> VerdictFacts | None:
    """Verdict of a measured refresh; None where no thresholds were in force."""
    gate = record.detail["gate"]
    return None if gate is None else VerdictFacts.model_validate(gate)


def _figures(
    ctx: RunContext,
    run_rows: RunRows,
    base: RunSummary,
    before: Record | None,
    key: str,
    *,
    enforced: bool,
) -> pa.Table:
    skinny = run_rows.constants(vectors=False)
    target = run_rows.target_states(skinny, vectors=False)
    states = _pool_states(ctx, run_rows, before, key, skinny)
    values = gime.values(states, run_rows.profile, target=target, constants=skinny)
    pool = bounded(values, MAX_METRIC_ROWS, "metrics")
    names = pa.array(["pool"] * pool.num_rows, pa.string())
    pool = pool.set_column(pool.schema.get_field_index("group"), "group", names)
    selected = run_rows.workspace.read_table(find_candidate(run_rows.workspace, base.run).table)
    ids = selected.select(F.col("gio_id").alias("id"))
    vectors = enforced and run_rows.vectors
    pool_rows = run_rows.rows("pool", vectors=vectors)
    counts = run_rows.count_selected(ids)
    frozen = run_rows.constants(vectors=True) if vectors else skinny
    if vectors:
        target = run_rows.target_states(frozen, vectors=True)
    frames = run_rows.selected_and_random(pool_rows, ids, *counts)
    both = run_rows.measure(frames, constants=frozen, target=target, by=False)
    return pa.concat_tables([run_rows.under_names(pool), both])


def _pool_states(
    ctx: RunContext,
    run_rows: RunRows,
    before: Record | None,
    key: str,
    constants: gime.Constants,
) -> DataFrame:
    """The states of the pool as it is now, stored under the refresh."""
    ws, settings = ctx.workspace, ctx.settings.gime

    def states(only: Sequence[str] | None = None) -> DataFrame:
        return gime.states(
            run_rows.rows("pool"),
            run_rows.profile,
            constants=constants,
            only=only,
            settings=settings,
        )

    def key_of(refresh: str) -> str:
        """States of a source stand under a key of their own."""
        return refresh if run_rows.source is None else fingerprint(refresh, run_rows.source)

    mine = key_of(key)
    stored_key = "" if before is None else key_of(before.fingerprint)
    # The user's own columns may change in rows whose assignment does not.
    known = (
        before is not None
        and not run_rows.reads_user_columns
        and ws.holds("metric_states", stored_key)
    )
    if before is None or not known or not _same_version(ws, stored_key, run_rows, constants):
        ws.write("metric_states", states(), fingerprint=mine, run=ctx.run, stage=STAGE)
    else:
        differing = changed_rows(
            ws.read("assignments", RefreshSummary.of(before).keys.assignments),
            ws.read("assignments", run_rows.assignments["pool"]),
        )
        touched = gime.partitions_of(differing, settings=settings)
        rows = ws.read("metric_states", stored_key).drop("fingerprint")
        if touched:
            rows = gime.replace_partitions(rows, states(touched), touched)
        ws.write("metric_states", rows, fingerprint=mine, run=ctx.run, stage=STAGE)
    return ws.read("metric_states", mine).drop("fingerprint")


def _same_version(ws: Workspace, key: str, run_rows: RunRows, constants: gime.Constants) -> bool:
    """Whether stored states were made with these constants; others never merge."""
    stored_versions = ws.read("metric_states", key).select("metric", "version").distinct()
    expected_versions = run_rows.profile.versions(constants)
    rows = bounded(stored_versions, 1000, "versions of states").to_pylist()
    return bool(rows) and all(expected_versions.get(r["metric"]) == r["version"] for r in rows)


# ---- series ------------------------------------------------------------------------------------


def in_series(ws: Workspace, key: str) -> bool:
    """Whether a refresh has its entry in the series of its run's metrics."""
    return ws.complete(STAGE, key) is not None and ws.complete(SERIES, key) is not None


def _number(ws: Workspace, base: RunSummary, key: str) -> int:
    """Number of a refresh of a run; 0 is the run itself."""
    keys = [r.fingerprint for r in refreshes_of(ws, base.run)]
    return 1 + keys.index(key) if key in keys else 0


def write_series(ws: Workspace, base: RunSummary) -> pd.DataFrame:
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
        verdict = base.gate if number == 0 else recorded_verdict(record)
        parts.append(
            robust[["group", "metric", "unit", "direction", "value"]].assign(
                run=base.run,
                refresh=number,
                at=record.finished,
                version=base.versions["pool"] if number == 0 else record.detail["version"],
                gate_passed=None if verdict is None else verdict.passed,
            )
        )
    all_values = pd.concat(parts, ignore_index=True)
    drifts = [gime.drift(part) for _, part in all_values.groupby("group", sort=True)]
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
            rows=len(rows), seconds=0.0, later=True,
        )  # fmt: skip
    return series


def _track(
    ctx: RunContext,
    figures: pd.DataFrame,
    gate: VerdictFacts | None,
    number: int,
    drifted: Sequence[str],
) -> None:
    ctx.tracker.metrics(named_values(figures), step=number)
    if gate is not None:
        ctx.tracker.metrics({"gate/passed": float(gate.passed)}, step=number)
        ctx.tracker.tags({"gio.gate": "passed" if gate.passed else "failed"})
    if drifted:
        ctx.tracker.tags({"gio.drifted": ", ".join(drifted)})
