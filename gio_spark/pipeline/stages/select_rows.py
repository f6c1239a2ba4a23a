"""Stage select rows: the rows of the pool that pass the plan, written as a new table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pyspark.sql import functions as F
from pyspark.sql import types as T

from gio_spark import explode
from gio_spark.engine import bounded
from gio_spark.errors import EmptySelectionError, WorkspaceError
from gio_spark.pipeline.constraints.score_bias import Order
from gio_spark.pipeline.run_context import RunContext
from gio_spark.pipeline.run_records import PlanFacts
from gio_spark.pipeline.run_state import RunState, Selection
from gio_spark.pipeline.stage_runner import Stage, Step
from gio_spark.pipeline.stages.plan import rows_to_choose_from
from gio_spark.pipeline.stages.source_strata import selected_by_source

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from gio_spark.engine.progress import Stage as StageProgress
    from gio_spark.tables import Input

SELECT = "select rows"
_GIO_FIELDS = (
    T.StructField("gio_id", T.StringType()),
    T.StructField("gio_cluster", T.IntegerType()),
    T.StructField("gio_reason", T.StringType()),
    T.StructField("gio_log_ratio", T.FloatType()),
    T.StructField("gio_repeat", T.IntegerType()),
    T.StructField("gio_weight", T.DoubleType()),
    T.StructField("gio_input_version", T.StringType()),
    T.StructField("gio_run", T.StringType()),
)
GIO_COLUMNS = tuple(field.name for field in _GIO_FIELDS)
REPEAT_COLUMNS = ("gio_repeat", "gio_weight")
"""Columns of a selection in which rows repeat."""


def select_stage(*, scored: bool) -> Stage:
    """Write the selected rows of this run.

    Args:
        scored: Whether rows have density ratios.
    """
    return Stage(
        SELECT,
        select_rows,
        inputs=("plan", "assignments.pool", "inputs.pool"),
        reads=("scores",) if scored else (),
        outputs=("selection",),
        key_of_run=True,
    )


def select_rows(step: Step, state: RunState) -> None:
    """Set the selection."""
    ctx, pool, plan = step.ctx, state.inputs["pool"], state.plan

    def make(_: StageProgress) -> tuple[int, dict[str, Any]]:
        exact = ctx.settings.explode.within_cluster != "hash_share"
        ids = selected_ids(ctx, state)
        candidate = write_candidate(ctx, pool, ids, plan=plan.facts, exact=exact)
        table, written = candidate.table, candidate.rows
        pool.recheck()
        detail: dict[str, Any] = {"plan": plan.key, "table": table, "version": pool.version}
        if candidate.copies is not None:
            detail["copies"] = candidate.copies
        if plan.facts.unit == "tokens":
            detail["tokens"] = tokens_of(ctx, state, ids)
        return written, detail

    record = step.record(make, rows=pool.count, claim=True)
    copies = record.detail.get("copies")
    spent = plan.facts.spent if copies is None else copies
    state.selection = Selection(
        record.table,
        ctx.workspace.read_table(record.table),
        record.rows,
        spent=float(record.detail.get("tokens", spent)),
        copies=copies,
    )


def tokens_of(ctx: RunContext, state: RunState, ids: DataFrame) -> int:
    """Tokens of the selected rows and repeats; a plan knows the mean of each cluster alone."""
    rows = ctx.workspace.read("assignments", state.assignments["pool"]).select("id", "tokens")
    repeat = F.col("repeat") if "repeat" in ids.columns else F.lit(1)
    copies = ids.select("id", repeat.cast("bigint").alias("copies"))
    counted = rows.join(copies, "id").agg(
        F.sum(F.col("tokens") * F.col("copies")).cast("bigint").alias("tokens")
    )
    return int(bounded(counted, 1, "tokens")["tokens"][0].as_py() or 0)


def selected_ids(ctx: RunContext, state: RunState) -> DataFrame:
    """Id, cluster, reason and log_ratio of the rows that pass the plan's thresholds.

    Also repeat and weight, where rows repeat.
    """
    settings, plan = ctx.settings, state.plan
    rows = rows_to_choose_from(ctx, state, Order.stored(plan.facts.gate))
    if settings.select.source_caps or settings.select.source_floors:
        sources = ctx.workspace.read("assignments", state.assignments["pool"])
        rows_by_source = selected_by_source(ctx, plan.key, rows, sources)
        if rows_by_source is not None:
            return rows_by_source
    return explode.selected_ids(rows, plan.table, settings=settings.explode, seed=settings.seed)


@dataclass(frozen=True)
class WrittenRows:
    """A selection that was written: its table, its rows, and those with repeats (or None)."""

    table: str
    rows: int
    copies: int | None


def write_candidate(
    ctx: RunContext, pool: Input, ids: DataFrame, *, plan: PlanFacts, exact: bool = False
) -> WrittenRows:
    """Write selected rows as a new table, which has no readers before it is published.

    Args:
        ctx: The run.
        pool: The pool that the rows are taken from.
        ids: id, cluster, reason and log_ratio of the rows to fetch; repeat and weight.
        plan: Facts of the plan: about how many rows and copies these are.
        exact: Whether it must be these numbers.

    Raises:
        EmptySelectionError: No row was chosen.
        WorkspaceError: It does not hold as many rows or copies as were chosen.
    """
    settings, expected = ctx.settings.explode, plan.rows
    rows = explode.materialize(
        pool.rows,
        ids,
        expected=expected,
        settings=settings,
        columns={"gio_run": ctx.run, "gio_input_version": pool.version},
    )
    pool_columns = [] if settings.output == "ids" else pool.original_columns(rows)
    fields = [f for f in _GIO_FIELDS if plan.copies is not None or f.name not in REPEAT_COLUMNS]
    rows = rows.select(*pool_columns, *(f.name for f in fields))
    chosen_rows = int(ids.count())
    if chosen_rows == 0:
        raise EmptySelectionError(
            f"None of the rows of {pool.location} passes the plan. Take a larger budget, or run "
            "again if the pool has changed."
        )
    if exact and chosen_rows != expected:
        raise WorkspaceError(
            f"The plan takes {expected:,} rows, but {chosen_rows:,} pass its thresholds: rows of "
            f"{ctx.workspace.place('assignments')} or scores changed meanwhile. Run again."
        )
    pool_schema = T.StructType() if settings.output == "ids" else pool.schema
    schema = T.StructType([*pool_schema.fields, *fields])
    table, written = ctx.workspace.write_selection(rows, schema, run=ctx.run, expected=chosen_rows)
    copies = None if plan.copies is None else _copies_of(ctx.workspace.read_table(table))
    if exact and copies != plan.copies:
        raise WorkspaceError(
            f"The plan takes {plan.copies:,} rows with their repeats, but those of "
            f"{ctx.workspace.place(table)} add up to {copies:,}: rows of "
            f"{ctx.workspace.place('assignments')} or scores changed meanwhile. Run again."
        )
    return WrittenRows(table, written, copies)


def _copies_of(rows: DataFrame) -> int:
    """Sum of the repeats of written rows."""
    summed = rows.agg(F.sum(F.col("gio_repeat").cast("bigint")).cast("bigint").alias("copies"))
    return int(bounded(summed, 1, "copies")["copies"][0].as_py() or 0)
