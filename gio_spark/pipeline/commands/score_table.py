"""`gio-spark score`: the frozen models and plan of a run applied to the rows of any table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from pyspark.sql import functions as F

from gio_spark.engine import (
    BroadcastArrays,
    bounded,
    broadcast_arrays,
    describe,
    ensure_parallelism,
    hash53,
    map_arrow,
    session,
)
from gio_spark.engine.progress import Progress
from gio_spark.errors import ConfigError, InputError, WorkspaceError
from gio_spark.pipeline.refresh import newest_run
from gio_spark.pipeline.run_records import RunSummary
from gio_spark.pipeline.stages.freeze_plan import read_frozen_plan
from gio_spark.pipeline.stages.frozen_plan import SCORED_SCHEMA, FrozenPlan
from gio_spark.pipeline.stages.open_inputs import open_context
from gio_spark.pipeline.stages.purged_rows import leave_out_purged
from gio_spark.process import environment
from gio_spark.tables import Input, open_input, quoted_column
from gio_spark.tables.hash_chunks import check_rows
from gio_spark.tables.identifiers import absolute, kind_of, parts
from gio_spark.tables.purge_list import PurgeList
from gio_spark.tables.stage_store import StageStore
from gio_spark.tracking import downloaded_model

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from gio_spark.settings.inputs import InputSettings
    from gio_spark.settings.run import RunSettings

_HASH = "gio_hash_"


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
    and rows of a held-out set are judged like any other. Purged rows are left out. The table is
    one commit: a call that is interrupted leaves none.

    Args:
        settings: Of the run.
        table: Rows to score; with the columns that the run reads of its pool.
        output: Path or name of the Delta table that is written; it must be new.
        spark: Session; None: as `engine` says.
        progress: Where people see what is going on.

    Raises:
        InputError: There is no finished run of these settings, the table lacks a column, or the
            output is there already.
        WorkspaceError: The table has changed meanwhile; no scores are left.
    """
    ctx = open_context(settings, spark=spark, progress=progress)
    plan = read_frozen_plan(ctx, RunSummary.of(newest_run(ctx.workspace, settings)))
    purged = PurgeList(ctx.workspace)

    def only_present(source: Input) -> Input:
        return leave_out_purged(ctx, purged, source) if purged.exists else source

    return _score(ctx.spark, ctx.progress, plan, table, output, only_present)


def score_by_model(
    model: str,
    table: InputSettings,
    output: str,
    *,
    engine: str = "auto",
    spark: SparkSession | None = None,
    progress: Progress | None = None,
) -> ScoredTable:
    """`score_table` by a registered model alone, without the workspace and its purged rows.

    Args:
        model: URI of the model in MLflow: models:/NAME/VERSION, models:/NAME@ALIAS or runs:/...
        table: As for `score_table`.
        output: As for `score_table`.
        engine: As the setting of a run.
        spark: Session; None: as `engine` says.
        progress: Where people see what is going on.

    Raises:
        TrackingError: The model cannot be downloaded.
        InputError: It is no model of a run, the table lacks a column, or the output is there
            already.
    """
    spark = spark or session(engine)  # type: ignore[arg-type]
    progress = progress or Progress()
    progress.say(describe(spark).line())
    with downloaded_model(model) as folder:
        plan = FrozenPlan.load(folder)
    return _score(spark, progress, plan, table, output, lambda source: source)


def _score(
    spark: SparkSession,
    progress: Progress,
    plan: FrozenPlan,
    table: InputSettings,
    output: str,
    only_present: Callable[[Input], Input],
) -> ScoredTable:
    store, name = _output(spark, output)
    columns = plan.settings.pool_columns()
    if table.columns is None:
        table = table.model_copy(update={"columns": columns})
    source = only_present(open_input(spark, table, columns, "table"))
    with progress.stage("score", source.ids, spark=spark):
        note = {"run": plan.facts.run, "table": source.location}
        store.append(name, scored_rows(source, plan), note=note)
    counted = store.read(name).agg(
        F.count(F.lit(1)).alias("rows"),
        F.sum(F.col("gio_keep").cast("bigint")).alias("passing"),
        F.sum(F.col("gio_cluster").isNull().cast("bigint")).alias("unusable"),
    )
    counts = bounded(counted, 1, "scored rows").to_pylist()[0]
    try:
        check_rows(store.place(name), "score", counts["rows"], source.ids)
        source.recheck()
    except WorkspaceError:  # scores of rows that are not those of one version
        store.drop(name)
        raise
    return ScoredTable(
        run=plan.facts.run,
        refresh=plan.facts.refresh,
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


def scored_rows(source: Input, plan: FrozenPlan) -> DataFrame:
    """Each row of an input with its cluster, score, threshold and decision, in one map."""
    plan = plan.for_columns(source.columns)
    spark = source.rows.sparkSession
    reads = dict.fromkeys(("id", *plan.reads))
    hashes = [hash53("id", salt).alias(f"{_HASH}{i}") for i, salt in enumerate(plan.salts)]
    rows = ensure_parallelism(source.rows, "id", source.bytes)
    rows = rows.select(*[F.col(quoted_column(name)) for name in reads], *hashes)
    task = _ScoreTask(
        plan.with_arrays({}),
        broadcast_arrays(spark, plan.all_arrays),
        hashes=len(hashes),
        # On the embedded engine all rows share one process, whose tokenizers may use all cores.
        one_thread=describe(spark).kind != "embedded",
    )
    return map_arrow(rows, task, SCORED_SCHEMA, batch_rows=plan.settings.embed.batch_rows)


@dataclass(frozen=True)
class _ScoreTask:
    """Map function that judges rows; a class, so that it is pickled by reference."""

    plan: FrozenPlan
    arrays: BroadcastArrays
    hashes: int
    one_thread: bool

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
        variables = {"TOKENIZERS_PARALLELISM": "false"} if self.one_thread else {}
        with environment(**variables):
            plan = self.plan.with_arrays(self.arrays.load())
            for batch in batches:
                rows = pa.Table.from_batches([batch])
                columns = [rows[f"{_HASH}{i}"].to_numpy() for i in range(self.hashes)]
                yield plan.decide(rows, np.stack(columns))
