"""`gio-spark metrics TABLE`: the metrics of any table by any grouping, outside of a run."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa

from gio_spark import gime
from gio_spark.engine import bounded, describe
from gio_spark.engine.progress import Progress
from gio_spark.gime.partial_states import group_expression, role_columns
from gio_spark.pipeline.commands.table_rows import (
    EXTRA,
    Part,
    check_roles,
    find_pin,
    fit_codebook,
    open_table,
    parts_of,
    with_text,
)
from gio_spark.pipeline.run_context import fingerprint
from gio_spark.pipeline.stages.measure import profiles_line
from gio_spark.settings.gime import GimeSettings
from gio_spark.settings.inputs import InputSettings
from gio_spark.settings.tracking import TrackingSettings
from gio_spark.tables import Workspace
from gio_spark.tracking import NullTracker, TrackedInput, tracker

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from gio_spark.gime.metric_profile import Profile

MAX_METRIC_ROWS = 500_000
_MOST_LOGGED = 2_000


@dataclass(frozen=True)
class Measured:
    """Metrics of one table.

    Attributes:
        figures: Rows of (group, metric, form, value, unit, ...), see `gime.metrics`.
        facts: What was read and how, as text, in the order in which it is shown.
        tables: Stage table -> place, where a workspace was given.
        skipped: True when the workspace held these very figures already.
        problem: What was not recorded by the tracker, or "".
    """

    figures: pd.DataFrame
    facts: dict[str, str]
    tables: dict[str, str] = field(default_factory=dict)
    skipped: bool = False
    problem: str = ""


def measure_table(
    spark: SparkSession,
    table: InputSettings,
    *,
    settings: GimeSettings,
    columns: Mapping[str, Any] | None = None,
    target: InputSettings | None = None,
    clusters: int | None = None,
    seed: int = 0,
    workspace: Workspace | None = None,
    tracking: TrackingSettings | None = None,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> Measured:
    """Compute the metrics of each group of a table in one pass.

    Args:
        spark: Session.
        table: What to measure.
        settings: Profile, grouping, sketch sizes.
        columns: Role -> column, or several for `numeric` and `categorical`; beside the profile's
            roles `id`, and `text` (a column, or an expression, see docs/content.md, with
            `chat_roles`), which gives content, bytes and (white space) tokens where no column
            does. Roles left out are taken from columns of that name.
        target: Rows that coverage and mismatch are measured against.
        clusters: Clusters for the vectors where there is no column `cluster`; a codebook is then
            fitted on the table. None: from the number of rows; 0: no clusters.
        seed: Seed of that fit.
        workspace: Where states and figures are kept, as `metric_states` and `metrics`.
        tracking: Where the run is recorded; None: nowhere.
        folder: Local folder of the tracker's own store.
        progress: Display.

    Raises:
        InputError: The table or a column cannot be used; before any pass over the rows.
        ConfigError: An unknown profile or role.
    """
    progress = progress or Progress()
    roles = {**settings.columns, **(columns or {})}
    gime.check_profiles(settings, roles.get("source", "source"))
    used = (settings.profile, *settings.profiles.values())
    check_roles(roles, [gime.get_profile(name) for name in used])
    watch = NullTracker() if tracking is None else tracker(tracking, folder or Path("tracking"))
    watch.check()
    pinned = find_pin(spark, table, "table")
    other = None if target is None else find_pin(spark, target, "target")
    key = fingerprint(
        "metrics of a table",
        settings.model_dump(mode="json"),
        roles,
        clusters,
        seed,
        *[(p.table_id, p.version) if p else None for p in (pinned, other)],
    )
    facts = {
        "table": table.location,
        "version": str(pinned.version)[:32] if pinned else "a view, as it is now",
        "profile": profiles_line(settings),
        "grouped by": ", ".join(settings.by) or "all rows in one group",
        "compared with": target.location if target else "no target",
        "engine": describe(spark).line().removeprefix("engine: "),
    }
    # A view has no version, so nothing can be known to be complete.
    done = workspace.complete("metrics of a table", key) if workspace and pinned else None
    if workspace is not None and done is not None:
        stored = _stored(workspace, key)
        return Measured(stored, {**facts, **done.detail["facts"]}, _places(workspace), skipped=True)
    tables = [open_table(spark, table, pinned, roles, "table")]
    if target is not None:
        tables.append(open_table(spark, target, other, roles, "target"))
    (df, *others), named = with_text(tables, roles)
    where = (table.location, target.location if target else "")
    parts = parts_of(df, others[0] if others else None, named, settings, where)
    for part in parts:
        check_grouping(part.rows, part.profile, part.roles, settings)
    began = time.monotonic()
    with watch:
        watch.start(f"metrics of {Path(table.location).name}", {"gio.command": "metrics"})
        with progress.stage("metrics", spark=spark) as stage_progress:
            metrics_of_parts: list[pa.Table] = []
            part_facts: dict[str, str] = {}
            for part in parts:
                part_metrics, codebook_facts = _figures(
                    part, settings, clusters, seed, workspace, key
                )
                metrics_of_parts.append(part_metrics)
                part_facts |= {part.named(name): text for name, text in codebook_facts.items()}
            metrics_table = pa.concat_tables(metrics_of_parts)
            if workspace is not None:
                workspace.write_arrow(
                    "metrics", metrics_table, fingerprint=key, run=key[:12], stage="metrics"
                )
            facts |= part_facts
            figures = _sorted(metrics_table.to_pandas())
            stage_progress.done(rows=_rows(figures))
        seconds = time.monotonic() - began
        facts |= {"rows": f"{_rows(figures):,}", "groups": f"{figures['group'].nunique():,}"}
        watch.params({"gime": settings.model_dump(mode="json"), "columns": roles})
        watch.inputs(
            TrackedInput(name=n, location=s.location, format=p.format, version=p.version, context=n)
            for n, s, p in (("table", table, pinned), ("target", target, other))
            if s is not None and p is not None
        )
        watch.metrics({**named_values(figures), "seconds": seconds})
        if workspace is not None:
            record_facts = {k: facts[k] for k in ("rows", "groups", *part_facts)}
            workspace.record(
                run=key[:12],
                stage="metrics of a table",
                fingerprint=key,
                table="metrics",
                rows=len(figures),
                seconds=seconds,
                detail={"facts": record_facts},
            )
    outcome = watch.end()  # closed already: how it went
    places = {} if workspace is None else _places(workspace)
    return Measured(figures, facts, places, problem=outcome.problem or "")


def named_values(figures: pd.DataFrame) -> dict[str, float]:
    """Robust values by `gime/group/metric`, for a tracker; at most 2,000 of them."""
    mine = figures[(figures["form"] == "robust") & figures["value"].notna()]
    pairs = zip(mine["group"], mine["metric"], mine["value"], strict=True)
    return {f"gime/{g}/{m}": float(v) for g, m, v in list(pairs)[:_MOST_LOGGED]}


def _rows(figures: pd.DataFrame) -> int:
    return int(figures.groupby("group")["rows"].max().sum())


def _places(workspace: Workspace) -> dict[str, str]:
    return {t: workspace.place(t) for t in ("metrics", "metric_states") if workspace.exists(t)}


def _stored(workspace: Workspace, key: str) -> pd.DataFrame:
    table = bounded(workspace.read("metrics", key), MAX_METRIC_ROWS, "metrics").to_pandas()
    return table.drop(columns="fingerprint").sort_values(["group"], kind="stable")


def check_grouping(
    df: DataFrame, profile: Profile, roles: Mapping[str, Any], settings: GimeSettings
) -> None:
    """Refuse a grouping by columns that are not there.

    Raises:
        InputError: With the columns that are.
    """
    named = {k: v for k, v in roles.items() if k not in EXTRA}
    role_to_column = role_columns(profile, df.columns, named)
    group_expression(list(settings.by), df.columns, role_to_column.get("event_time"))


def _figures(
    part: Part,
    settings: GimeSettings,
    clusters: int | None,
    seed: int,
    workspace: Workspace | None,
    key: str,
) -> tuple[pa.Table, dict[str, str]]:
    """Measure a part of a table; its states are stored where there is a workspace."""
    df, profile, target = part.rows, part.profile, part.target
    codebook, codebook_facts = fit_codebook(df, profile, part.roles, clusters, seed)
    named = {k: v for k, v in part.roles.items() if k not in EXTRA}
    by = list(settings.by) or None
    if workspace is None:
        values = gime.metrics(
            df, profile, by=by, target=target, columns=named, codebook=codebook, settings=settings
        )
    else:
        chunks = settings if "id" in df.columns else settings.model_copy(update={"partitions": 1})
        frozen = gime.freeze(
            df, profile, target=target, columns=named, codebook=codebook, settings=chunks
        )
        known = None
        if target is not None:
            known = gime.target_states(target, profile, constants=frozen, columns=named)
        states = gime.states(df, profile, by=by, columns=named, constants=frozen, settings=chunks)
        mine = key if part.source is None else fingerprint(key, part.source)
        workspace.write("metric_states", states, fingerprint=mine, run=key[:12], stage="metrics")
        stored_states = workspace.read("metric_states", mine).drop("fingerprint")
        values = gime.values(stored_states, profile, target=known, constants=frozen)
    table = bounded(values, MAX_METRIC_ROWS, "metrics (use a coarser grouping)")
    names = pa.array([part.named(m) for m in table.column("metric").to_pylist()], pa.string())
    at = table.schema.get_field_index("metric")
    return table.set_column(at, table.schema.field(at), names), codebook_facts


def _sorted(figures: pd.DataFrame) -> pd.DataFrame:
    return figures.sort_values("group", kind="stable", ignore_index=True)
