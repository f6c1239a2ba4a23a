"""Stage metrics: GIME of pool, selection and a random draw of about the same size."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
from pyspark.sql import functions as F

from gio_spark.engine import session
from gio_spark.errors import InputError
from gio_spark.pipeline.run_rows import MAX_METRIC_ROWS, RunRows
from gio_spark.pipeline.stage_runner import Stage, Step
from gio_spark.tables import Workspace
from gio_spark.tables.output_folders import report_folder

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pyspark.sql import DataFrame

    from gio_spark.engine.progress import Stage as StageProgress
    from gio_spark.pipeline.run_state import RunState
    from gio_spark.settings.gime import GimeSettings
    from gio_spark.settings.run import RunSettings

_MOST_LOGGED = 500


def metrics_stage(names: Sequence[str]) -> Stage:
    """Compute the metrics of the three groups from the skinny assignments.

    Vectors are read only where thresholds are set, and then of the selection and the random draw
    only: it is those two that a gate compares.

    Args:
        names: Of all datasets.
    """
    return Stage(
        "metrics",
        measure,
        inputs=("selection", "codebook", *(f"assignments.{name}" for name in names)),
        reads=("datasets",),
        outputs=("metrics",),
        settings=("gime", "seed"),
    )


def measure(step: Step, state: RunState) -> None:
    """Set the metrics."""
    ctx, selection = step.ctx, state.selection
    settings, run_rows = ctx.settings.gime, state.run_rows(ctx)

    def make(_: StageProgress) -> tuple[int, dict[str, Any]]:
        sizes = (selection.count, state.pool_rows)
        parts = [
            group_figures(
                part,
                selection.rows,
                sizes=sizes if part.source is None else None,
                vectors=settings.enforces_thresholds and part.vectors,
            )
            for part in run_rows.parts()
        ]
        table = pa.concat_tables(parts)
        ctx.tracker.metrics(named_values(table.to_pandas()))
        return step.write_small("metrics", table), {}

    step.record(make, table="metrics")
    state.metrics = stored(ctx.workspace, step.key)


def group_figures(
    run_rows: RunRows,
    selected: DataFrame,
    *,
    sizes: tuple[int, int] | None,
    vectors: bool,
) -> pa.Table:
    """Metrics of pool, selected and random rows, by further columns if asked for.

    The metrics are a few hundred rows made by a grouped map: brought in once, so that the map does
    not run a second time for the check after the write.

    Args:
        run_rows: Tables of the run.
        selected: The selection, with `gio_id`.
        sizes: Rows selected and rows of the pool, where they are known.
        vectors: Whether selected and random rows are measured with their vectors.
    """
    ids = selected.select(F.col("gio_id").alias("id"))
    pool = run_rows.rows("pool")
    counts = sizes or run_rows.count_selected(ids)
    if not vectors:
        groups = run_rows.selected_and_random(pool, ids, *counts)
        return _measured(run_rows, {"pool": pool, **groups})
    pool_rows = run_rows.rows("pool", vectors=True)
    both = run_rows.selected_and_random(pool_rows, ids, *counts)
    parts = [_measured(run_rows, {"pool": pool}), _measured(run_rows, both, vectors=True)]
    return pa.concat_tables(parts)


def _measured(
    run_rows: RunRows, frames: Mapping[str, DataFrame], *, vectors: bool = False
) -> pa.Table:
    frozen = run_rows.constants(vectors=vectors)
    known = run_rows.target_states(frozen, vectors=vectors)
    return run_rows.measure(frames, constants=frozen, target=known)


def named_values(figures: pd.DataFrame) -> dict[str, float]:
    """Robust values by `gime/group/metric`, for a tracker; at most 500 of them."""
    mine = figures[(figures["form"] == "robust") & figures["value"].notna()]
    pairs = list(zip(mine["group"], mine["metric"], mine["value"], strict=True))
    return {f"gime/{g}/{m}": float(v) for g, m, v in pairs[:_MOST_LOGGED]}


def stored(workspace: Workspace, key: str) -> pd.DataFrame:
    table = workspace.read_arrow("metrics", key, MAX_METRIC_ROWS, "metrics").to_pandas()
    table["group"] = table["group"].str.removeprefix("group=")
    return table


def metrics_of(settings: RunSettings, run: str) -> pd.DataFrame:
    """The metrics that a run of these settings has written.

    Raises:
        InputError: It has written none.
    """
    workspace = Workspace(session(settings.engine), settings.workspace)
    metric_records = [r for r in workspace.records(run) if r.stage == "metrics"]
    if not metric_records:
        raise InputError(f"The run {run} has no metrics in {workspace.location}.")
    return stored(workspace, metric_records[-1].fingerprint)


def metrics_page(settings: RunSettings, run: str, figures: pd.DataFrame) -> Path:
    """Write the page of a run's metrics beside its report."""
    from gio_spark.report.metrics_page import render_metrics

    workspace = Workspace(session(settings.engine), settings.workspace)
    folder = report_folder(workspace, run) / "metrics"
    facts = {
        "run": run,
        "profile": profiles_line(settings.gime),
        "grouped by": ", ".join(("pool, selected, random", *settings.gime.by)),
        "budget": str(settings.budget),
    }
    return render_metrics(
        figures, folder, title="Information metrics of pool and selection", facts=facts
    )


def profiles_line(settings: GimeSettings) -> str:
    """The profiles in force in one line."""
    source_profiles = [f"{source}: {profile}" for source, profile in settings.profiles.items()]
    return "; ".join([settings.profile, *source_profiles])
