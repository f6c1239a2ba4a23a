"""`gio-spark score`: the frozen models and plan of a run applied to the rows of any table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from gio_spark import embed, explode, quantize
from gio_spark.engine import bounded, ensure_parallelism
from gio_spark.errors import ConfigError, InputError
from gio_spark.pipeline.commands.row_decisions import compared_with_plan
from gio_spark.pipeline.constraints.score_bias import Order
from gio_spark.pipeline.refresh import newest_run
from gio_spark.pipeline.run_records import RunSummary
from gio_spark.pipeline.run_state import RunState
from gio_spark.pipeline.stages.density_ratio import text_content
from gio_spark.pipeline.stages.embed import CARRIED, make_embedder
from gio_spark.pipeline.stages.frozen_models import set_frozen_models
from gio_spark.pipeline.stages.open_inputs import open_context
from gio_spark.pipeline.stages.plan import load_plan
from gio_spark.pipeline.stages.purged_rows import leave_out_purged
from gio_spark.pipeline.stages.refresh_chain import Before
from gio_spark.tables import Input, open_input, quoted_column
from gio_spark.tables.hash_chunks import check_rows
from gio_spark.tables.identifiers import absolute, kind_of, parts
from gio_spark.tables.purge_list import PurgeList
from gio_spark.tables.stage_store import StageStore

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from gio_spark.engine.progress import Progress
    from gio_spark.pipeline.run_context import RunContext
    from gio_spark.pipeline.run_state import Plan
    from gio_spark.settings.inputs import InputSettings
    from gio_spark.settings.run import RunSettings


@dataclass(frozen=True)
class ScoredTable:
    """Outcome of `score_table`.

    Attributes:
        run: Run whose models and plan were applied.
        refresh: Number of the refresh whose plan it was, 0 for the run's own.
        table: Location of the rows.
        version: Version that was read.
        output: Path or name of the scores, as it was given.
        rows: Rows of it.
        passing: Rows that the plan takes.
        unusable: Rows that have no vector, and so no cluster.
        without_id: Rows of the table that have no id, or one that another row has; not in `rows`.
    """

    run: str
    refresh: int
    table: str
    version: str
    output: str
    rows: int
    passing: int
    unusable: int
    without_id: int


def score_table(
    settings: RunSettings,
    table: InputSettings,
    output: str,
    *,
    spark: SparkSession | None = None,
    progress: Progress | None = None,
) -> ScoredTable:
    """Write cluster, score, threshold and decision of each row of a table as a Delta table.

    Nothing is fitted, and the workspace stays as it is. Each row is judged by itself: duplicates
    and rows of a held-out set are judged like any other. Purged rows are left out.

    Args:
        settings: Of the run.
        table: Rows to score; with the columns that the run reads of its pool.
        output: Path or name of the Delta table that is written; it must be new.
        spark: Session; None: as `engine` says.
        progress: Where people see what is going on.

    Raises:
        InputError: There is no finished run of these settings, the table lacks a column, or the
            output is there already.
        WorkspaceError: The written rows are not those of the table.
    """
    ctx = open_context(settings, spark=spark, progress=progress)
    workspace = ctx.workspace
    before = Before.of(workspace, RunSummary.of(newest_run(workspace, settings)))
    ctx.run = before.base.run
    refreshed_plan = "" if before.summary is None else before.summary.keys.plan
    store, name = _output(ctx.spark, output)
    if table.columns is None:
        table = table.model_copy(update={"columns": settings.pool_columns()})
    source = open_input(ctx.spark, table, settings.pool_columns(), "table")
    purged = PurgeList(workspace)
    if purged.exists:
        source = leave_out_purged(ctx, purged, source)
    state = RunState(inputs={"pool": source}, embedder=make_embedder(ctx))
    set_frozen_models(ctx, before.base, state)
    plan = load_plan(workspace, refreshed_plan) if refreshed_plan else state.frozen_plan
    with ctx.progress.stage("score", source.ids, spark=ctx.spark):
        # Written once, since the joins below would embed the rows again and again.
        assigned = workspace.write_snapshot(_assigned_rows(ctx, state))
        try:
            rows = _decisions(ctx, source, plan, workspace.read_table(assigned))
            store.append(name, rows, note={"run": ctx.run, "table": source.location})
        finally:
            workspace.store.drop(assigned)
        source.recheck()
    counted = store.read(name).agg(
        F.count(F.lit(1)).alias("rows"),
        F.sum(F.col("gio_keep").cast("bigint")).alias("passing"),
        F.sum(F.col("gio_cluster").isNull().cast("bigint")).alias("unusable"),
    )
    counts = bounded(counted, 1, "scored rows").to_pylist()[0]
    check_rows(store.place(name), "score", counts["rows"], source.ids)
    return ScoredTable(
        run=ctx.run,
        refresh=before.candidate.number if refreshed_plan else 0,
        table=source.location,
        version=source.version,
        output=output,
        rows=int(counts["rows"]),
        passing=int(counts["passing"] or 0),
        unusable=int(counts["unusable"] or 0),
        without_id=source.quarantined,
    )


def _output(spark: SparkSession, output: str) -> tuple[StageStore, str]:
    """Store and name of the table that is written.

    Raises:
        ConfigError: It is a name without a schema.
        InputError: It is there already.
    """
    if kind_of(output) == "table":
        *schema, name = parts(output)
        if not schema:
            raise ConfigError(
                f"{output!r} is a name without a schema: give schema.table or a path."
            )
        store = StageStore(spark, ".".join(map(quoted_column, schema)))
    else:
        folder, _, name = absolute(output).rpartition("/")
        store = StageStore(spark, folder)
    if store.exists(name):
        raise InputError(f"{output} is there already. Drop it, or name another table.")
    return store, name


def _assigned_rows(ctx: RunContext, state: RunState) -> DataFrame:
    """Usable rows: id, cluster, distance, log_ratio and the values that are carried along."""
    settings, source = ctx.settings.quantize, state.inputs["pool"]
    rows = ensure_parallelism(source.rows, "id", source.bytes)
    embedded = embed.embed(
        rows,
        state.fitted_embedder.embedder,
        columns=source.columns,
        directions=settings.spherical,
    )
    centroids = state.codebook.centroids
    assigned = quantize.assign(
        embedded.withColumn("content", F.col("vector")),
        centroids,
        carry=(*CARRIED, "content"),
        spherical=settings.spherical,
        two_level=len(centroids) > settings.two_level_above,
        probes=settings.probes,
    )
    columns = ["id", "cluster", "distance", *CARRIED]
    if not state.has("ratio_model"):
        return assigned.select(*columns, F.lit(None).cast("float").alias("log_ratio"))
    ratio = explode.RatioModel.from_arrays(state.ratio_model.arrays)
    if state.ratio_model.facts.kind == "vector":
        scored = explode.score(assigned, ratio, content="content", keep=columns[1:])
    else:
        content = text_content(source, source.rows, state.ratio_model.facts.kind)
        content = content.where(F.col("content").isNotNull())
        scores = explode.score(content, ratio, content="content", keep=())
        scored = assigned.select(*columns).join(scores, "id", "left")
    # As in a run: a row that cannot be scored counts as neither like nor unlike the target.
    return scored.withColumn("log_ratio", F.coalesce("log_ratio", F.lit(0.0).cast("float")))


def _decisions(ctx: RunContext, source: Input, plan: Plan, assigned: DataFrame) -> DataFrame:
    """Each row of the table with its cluster, score, threshold and decision."""
    settings = ctx.settings
    ordered = assigned.select("*", *Order.stored(plan.facts.gate).columns)
    keys = explode.row_keys(ordered, settings=settings.explode, seed=settings.seed)
    keyed = assigned.join(keys.drop("cluster"), "id")
    decided = compared_with_plan(ctx.workspace, settings, plan, keyed).select(
        "id", "cluster", "distance", "log_ratio", "rank_score", "rank_threshold", "passes"
    )
    rows = source.rows.select("id").join(decided, "id", "left")
    return rows.select(
        F.col("id").alias("gio_id"),
        F.col("cluster").cast("int").alias("gio_cluster"),
        F.col("distance").alias("gio_distance"),
        F.col("log_ratio").alias("gio_log_ratio"),
        F.col("rank_score").alias("gio_score"),
        F.col("rank_threshold").alias("gio_threshold"),
        F.coalesce("passes", F.lit(False)).alias("gio_keep"),
        F.lit(ctx.run).alias("gio_run"),
    )
