"""Stage metrics: GIME of pool, selection and a random draw of about the same size."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
from pyspark.sql import functions as F

from gio_spark import gime
from gio_spark.engine import bounded, hash_share, session
from gio_spark.errors import InputError
from gio_spark.pipeline.run_rows import Ground
from gio_spark.pipeline.stage_runner import Context, fingerprint
from gio_spark.pipeline.stages.cluster import Codebook
from gio_spark.pipeline.stages.embed import Side
from gio_spark.tables import Workspace, quoted_column
from gio_spark.tables.local_files import report_folder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyspark.sql import DataFrame

    from gio_spark.engine.progress import Stage as StageProgress
    from gio_spark.settings.gime import GimeSettings
    from gio_spark.settings.run import RunSettings

MAX_FIGURES = 200_000
_MOST_LOGGED = 500


def measure(
    ctx: Context, sides: dict[str, Side], book: Codebook, selected: DataFrame, rows: int
) -> pd.DataFrame:
    """Compute the metrics of the three groups from the skinny assignments.

    Vectors are read only where thresholds are set, and then of the selection and the random draw
    only: it is those two that a gate compares.
    """
    settings = ctx.settings.gime
    key = fingerprint("metrics", settings.model_dump(mode="json"), ctx.run, book.assignments)
    ground = Ground.of(ctx, sides, book)

    def make(_: StageProgress) -> tuple[int, dict[str, Any]]:
        sizes = (rows, sides["pool"].usable)
        parts = [
            group_figures(
                part,
                selected,
                sizes=sizes if part.source is None else None,
                vectors=settings.steers and part.vectors,
            )
            for part in ground.parts()
        ]
        table = pa.concat_tables(parts)
        written = ctx.write_small("metrics", table, key=key, stage="metrics")
        ctx.tracker.metrics(named_values(table.to_pandas()))
        return written, {}

    ctx.stage("metrics", key, "metrics", make)
    return stored(ctx.workspace, key)


def group_figures(
    ground: Ground,
    selected: DataFrame,
    *,
    sizes: tuple[int, int] | None,
    vectors: bool,
) -> pa.Table:
    """Return the metrics of pool, selected and random rows, by further columns if asked for.

    Random rows are a share by hash, about as many as were selected: their exact number would take
    another pass over the pool (which hash is the n-th smallest is known only once n is), to remove
    a difference of one square root of n, no more than between two random draws.

    The metrics are a few hundred rows made by a grouped map: brought in once, so that the map does
    not run a second time for the check after the write.

    Args:
        ground: Tables of the run.
        selected: The selection, with `gio_id`.
        sizes: Rows selected and rows of the pool, where they are known.
        vectors: Whether selected and random rows are measured with their vectors.
    """
    ids = selected.select(F.col("gio_id").alias("id"))
    pool = ground.rows("pool")
    rows, pool_rows = sizes or counted(ground, ids)
    if not vectors:
        return _measured(ground, {"pool": pool, **beside(ground, pool, ids, rows, pool_rows)})
    both = beside(ground, ground.rows("pool", vectors=True), ids, rows, pool_rows)
    parts = [_measured(ground, {"pool": pool}), _measured(ground, both, vectors=True)]
    return pa.concat_tables(parts)


def counted(ground: Ground, ids: DataFrame) -> tuple[int, int]:
    """Return how many rows with these ids the pool (or the part of a source) has, and its rows.

    Raises:
        InputError: The pool has no row of the source.
    """
    pool = ground.rows("pool").select("id")
    pool_rows = int(pool.count())
    if pool_rows == 0 and ground.source is not None:
        raise InputError(
            f"gime.profiles names the source {ground.source!r}, but the pool has no row of it."
        )
    return int(pool.join(ids, "id", "left_semi").count()), pool_rows


def beside(
    ground: Ground, pool: DataFrame, ids: DataFrame, rows: int, pool_rows: int
) -> dict[str, DataFrame]:
    """Return the selected rows of a pool, and a random draw of about as many."""
    share = rows / max(1, pool_rows)
    return {
        "selected": pool.join(ids, "id", "left_semi"),
        "random": pool.where(hash_share("id", share, f"metrics-random-{ground.settings.seed}")),
    }


def measured(
    ground: Ground,
    frames: Mapping[str, DataFrame],
    *,
    constants: gime.Constants,
    target: Mapping[str, gime.State] | None,
    by: bool = True,
) -> pa.Table:
    """Return the metrics of named frames of the same columns.

    Args:
        ground: Tables of the run.
        frames: Group -> rows.
        constants: Frozen for rows of this kind.
        target: The target's states under them.
        by: Whether each group is also cut by the further columns of the settings.
    """
    every = None
    for name, df in frames.items():
        names = [F.col(quoted_column(c)) for c in df.columns]
        part = df.select(*names, F.lit(name).alias("group"))
        every = part if every is None else every.unionByName(part)
    if every is None:
        raise InputError("There is no group to measure.")
    settings = ground.settings.gime
    tables = []
    for groups in [["group"], *([["group", *settings.by]] if by and settings.by else [])]:
        found = gime.metrics(
            every, ground.profile, by=groups, target=target, settings=settings, constants=constants
        )
        tables.append(bounded(found, MAX_FIGURES, "metrics (use a coarser grouping)"))
    return under_names(pa.concat_tables(tables), ground)


def under_names(figures: pa.Table, ground: Ground) -> pa.Table:
    """Return figures with the metrics called `source/metric` where they are those of a source."""
    at = figures.schema.get_field_index("metric")
    names = [ground.named(m) for m in figures.column("metric").to_pylist()]
    return figures.set_column(at, figures.schema.field(at), pa.array(names, pa.string()))


def _measured(
    ground: Ground, frames: Mapping[str, DataFrame], *, vectors: bool = False
) -> pa.Table:
    frozen = ground.constants(vectors=vectors)
    known = ground.target_states(frozen, vectors=vectors)
    return measured(ground, frames, constants=frozen, target=known)


def named_values(figures: pd.DataFrame) -> dict[str, float]:
    """Return gime/group/metric -> robust value, for a tracker; at most 500 of them."""
    mine = figures[(figures["form"] == "robust") & figures["value"].notna()]
    pairs = list(zip(mine["group"], mine["metric"], mine["value"], strict=True))
    return {f"gime/{g}/{m}": float(v) for g, m, v in pairs[:_MOST_LOGGED]}


def stored(workspace: Workspace, key: str) -> pd.DataFrame:
    table = workspace.read_arrow("metrics", key, MAX_FIGURES, "metrics").to_pandas()
    table["group"] = table["group"].str.removeprefix("group=")
    return table


def metrics_of(settings: RunSettings, run: str) -> pd.DataFrame:
    """Return the metrics that a run of these settings has written.

    Raises:
        InputError: It has written none.
    """
    workspace = Workspace(session(settings.engine), settings.workspace)
    found = [r for r in workspace.records(run) if r.stage == "metrics"]
    if not found:
        raise InputError(f"The run {run} has no metrics in {workspace.location}.")
    return stored(workspace, found[-1].fingerprint)


def metrics_page(settings: RunSettings, run: str, figures: pd.DataFrame) -> Path:
    """Write the page of a run's metrics beside its report."""
    from gio_spark.report.metrics import render_metrics

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
    """Return the profiles in force in one line."""
    own = [f"{source}: {profile}" for source, profile in settings.profiles.items()]
    return "; ".join([settings.profile, *own])
