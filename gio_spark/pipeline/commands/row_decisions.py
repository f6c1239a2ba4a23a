"""Decision of a selection about each of some rows of the pool, as columns: taken or not, and why.

The tables of the run, or of its newest refresh, are filtered by the ids first and then joined, so
that few ids cost few rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from pyspark.sql import functions as F

from gio_spark import explode
from gio_spark.explode.rank_keys import HASH_UNIT, KEY_LIMIT, RATIO_UNIT, TAKE_NONE
from gio_spark.pipeline.commands.row_reasons import reason_in_words
from gio_spark.pipeline.constraints.score_bias import Order, to_choose_from
from gio_spark.pipeline.stages.plan import load_plan
from gio_spark.quantize.duplicates import EXACT, SEMANTIC
from gio_spark.settings.strategy_settings import WHOLE_POOL
from gio_spark.tables.model_arrays import array_text, load_arrays
from gio_spark.tables.purge_list import MATCH, PurgeList, with_hash_match

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

    from gio_spark.pipeline.run_state import Plan
    from gio_spark.settings.run import RunSettings
    from gio_spark.tables import Workspace

COLUMNS = (
    "id", "taken", "repeat", "rule", "why", "source", "cluster", "cluster_rows", "cluster_take",
    "cluster_target_mass", "source_rows", "source_take", "log_ratio", "rank_score",
    "rank_threshold", "rank_key", "threshold", "decided_by_source",
)  # fmt: skip


@dataclass(frozen=True)
class SelectionTables:
    """Tables and keys that a selection was made of.

    Attributes:
        table: Table of the selected rows.
        embeddings: Key of the pool's embeddings.
        assignments: Key of the pool's assignments.
        scores: Key of its density ratios, "" where there are none.
        quarantine: Key of unusable rows, "" where none is recorded.
        removed_rows: Key of the rows that the stage clean removed, "" where there are none.
        plan: Key of the plan.
    """

    table: str
    embeddings: str
    assignments: str
    scores: str
    quarantine: str
    removed_rows: str
    plan: str


def row_decisions(
    workspace: Workspace,
    settings: RunSettings,
    tables: SelectionTables,
    ids: DataFrame,
    filter_ids: Callable[[DataFrame], DataFrame],
) -> DataFrame:
    """Decision about each id, with the columns `COLUMNS`.

    Args:
        workspace: Of the run.
        settings: Of the run.
        tables: Of the run or its newest refresh.
        ids: Ids to explain, each once, in a column `id`.
        filter_ids: Filters a table by its column `id` to these ids.
    """
    plan = load_plan(workspace, tables.plan)
    embedded = filter_ids(workspace.read("embeddings", tables.embeddings)).select(
        "id", F.lit(1).alias("in_pool"), F.col("reason").alias("unusable"), "source"
    )
    table = workspace.read_table(tables.table)
    repeat = F.col("gio_repeat") if "gio_repeat" in table.columns else F.lit(1)
    selected = table.select(
        F.col("gio_id").alias("id"),
        F.lit(1).alias("in_selection"),
        F.col("gio_reason").alias("selection_reason"),
        repeat.cast("int").alias("repeat"),
    )
    assigned = filter_ids(workspace.read("assignments", tables.assignments))
    scored = settings.explode.within_cluster == "density_ratio"
    scores = filter_ids(workspace.read("scores", tables.scores)) if scored else None
    candidates = to_choose_from(assigned, scores, Order.stored(plan.facts.gate))
    keys = explode.row_keys(candidates, settings=settings.explode, seed=settings.seed)
    parts = [
        embedded,
        _first_reason(workspace, tables.removed_rows, filter_ids, "removed"),
        _first_reason(workspace, tables.quarantine, filter_ids, "bad"),
        filter_ids(selected),
        keys,
        *([] if scores is None else [scores.select("id", "log_ratio")]),
    ]
    rows = reduce(lambda left, right: left.join(right, "id", "left"), parts, ids.select("id"))
    if scores is None:
        rows = rows.withColumn("log_ratio", F.lit(None).cast("float"))
    rows = _compared_with_plan(workspace, settings, plan, rows)
    purged = PurgeList(workspace)
    if purged.exists:
        rows = with_hash_match(rows, "id", purged.hashes())
    else:
        rows = rows.withColumn(MATCH, F.lit(None).cast("string"))
    return _decided(rows, settings, plan)


def _compared_with_plan(
    workspace: Workspace, settings: RunSettings, plan: Plan, rows: DataFrame
) -> DataFrame:
    """Add what a plan says of each row's cluster and source, and whether the row passes.

    Args:
        workspace: Of the run.
        settings: Of the run.
        plan: With thresholds.
        rows: cluster, source, rank_key and tie of each row.

    Returns:
        The rows with the plan of the cluster and, where sources are bounded, of the source;
        `passes` and `passes_cluster`; `rank_score` and `rank_threshold`, which can be read.
    """
    rows = rows.join(F.broadcast(_cluster_frame(workspace, plan)), "cluster", "left")
    gate = plan.facts.gate
    is_ratio = settings.explode.within_cluster == "density_ratio" or bool(
        gate is not None and gate.score_biases
    )
    unit = RATIO_UNIT if is_ratio else HASH_UNIT
    return _with_sources(workspace, settings, plan, rows).withColumns(
        {
            "passes": _passes("threshold", "smallest_tie"),
            "passes_cluster": _passes("cluster_threshold", "cluster_tie"),
            "rank_score": _score("rank_key", unit),
            "rank_threshold": _score("threshold", unit),
        }
    )


def _first_reason(
    workspace: Workspace, key: str, filter_ids: Callable[[DataFrame], DataFrame], name: str
) -> DataFrame:
    """Reason and detail of the pool's rows in quarantine under a key, one line per id."""
    if key and workspace.exists("quarantine") and workspace.holds("quarantine", key):
        rows = filter_ids(workspace.read("quarantine", key))
        rows = rows.where(F.col("side") == F.lit("pool")).select("id", "reason", "detail")
    else:
        empty = pa.schema([(column, pa.string()) for column in ("id", "reason", "detail")])
        rows = workspace.frame(empty.empty_table())
    first = rows.groupBy("id").agg(F.min(F.struct("reason", "detail")).alias("first"))
    return first.select(
        "id",
        F.col("first.reason").alias(f"{name}_reason"),
        F.col("first.detail").alias(f"{name}_detail"),
    )


def _cluster_frame(workspace: Workspace, plan: Plan) -> DataFrame:
    """Plan of each cluster: cluster, its figures, threshold and smallest tie."""
    table = plan.table
    columns = {
        "cluster": pa.array(table["cluster"], pa.int32()),
        "cluster_rows": pa.array(table["rows"], pa.int64()),
        "cluster_take": pa.array(table["take"], pa.int64()),
        "cluster_target_mass": pa.array(table["target_mass"], pa.float64()),
        "cluster_threshold": pa.array(table["threshold"], pa.int64()),
        "cluster_tie": pa.array(table["tie"], pa.int64()),
    }
    return workspace.frame(pa.table(columns))


def _with_sources(
    workspace: Workspace, settings: RunSettings, plan: Plan, rows: DataFrame
) -> DataFrame:
    """Add the threshold in force, that of source and cluster where sources are bounded.

    Added columns: source_known (NULL where sources are not bounded), source_rows, source_take,
    threshold and smallest_tie.
    """
    select = settings.select
    arrays = load_arrays(workspace, plan.key) if select.source_caps or select.source_floors else {}
    if not arrays:
        absent = F.lit(None).cast("bigint")
        return rows.withColumns(
            {
                "source_known": F.lit(None).cast("boolean"),
                "source_rows": absent,
                "source_take": absent,
                "threshold": F.col("cluster_threshold"),
                "smallest_tie": F.col("cluster_tie"),
            }
        )
    names = array_text(arrays["names"])
    filled = np.flatnonzero(arrays["rows"] > 0)
    strata = {
        "cluster": pa.array(filled // len(names), pa.int32()),
        "place": pa.array(filled % len(names), pa.int32()),
        "source_rows": pa.array(arrays["rows"][filled], pa.int64()),
        "source_take": pa.array(arrays["take"][filled], pa.int64()),
        "threshold": pa.array(arrays["threshold"][filled], pa.int64()),
        "smallest_tie": pa.array(arrays["tie"][filled], pa.int64()),
    }
    places = {
        "source_name": pa.array(names, pa.string()),
        "place": pa.array(range(len(names)), pa.int32()),
    }
    named = rows.withColumn("source_name", F.coalesce("source", F.lit("")))
    placed = named.join(F.broadcast(workspace.frame(pa.table(places))), "source_name", "left")
    joined = placed.join(
        F.broadcast(workspace.frame(pa.table(strata))), ["cluster", "place"], "left"
    )
    return joined.withColumns(
        {
            "source_known": F.col("place").isNotNull(),
            "source_rows": F.coalesce("source_rows", F.lit(0).cast("bigint")),
            "source_take": F.coalesce("source_take", F.lit(0).cast("bigint")),
            # A source that a cluster lacked when the plan was made has no rows to take there.
            "threshold": F.coalesce("threshold", F.lit(TAKE_NONE)),
            "smallest_tie": F.coalesce("smallest_tie", F.lit(0).cast("bigint")),
        }
    )


def _decided(rows: DataFrame, settings: RunSettings, plan: Plan) -> DataFrame:
    """Add rule and reason."""
    passes, passes_cluster = F.col("passes"), F.col("passes_cluster")
    bounded_sources = F.col("source_known").isNotNull()
    taken = F.col("in_selection").isNotNull()
    capped = F.coalesce("source", F.lit("")).isin(_capped_sources(settings, plan))
    rule = (
        F.when(taken, F.lit("selected"))
        .when(F.col("unusable").isNotNull(), F.lit("quarantine"))
        .when(F.col("removed_reason").isin(EXACT, SEMANTIC), F.lit("duplicate"))
        .when(F.col("removed_reason").isNotNull(), F.lit("held_out"))
        .when(F.col("in_pool").isNull() & F.col("bad_reason").isNotNull(), F.lit("quarantine"))
        .when(F.col("in_pool").isNull() & F.col(MATCH).isNotNull(), F.lit("purged"))
        .when(F.col("in_pool").isNull(), F.lit("not_in_pool"))
        .when(
            (F.col("cluster_take") == 0)
            & (F.col("cluster_target_mass") == 0)
            & F.lit(plan.facts.objective != WHOLE_POOL),
            F.lit("unreached_cluster"),
        )
        .when(F.col("cluster_take") == 0, F.lit("no_allocation"))
        .when(bounded_sources & ~F.col("source_known"), F.lit("unknown_source"))
        .when(passes_cluster & ~passes & capped, F.lit("source_cap"))
        .when(passes_cluster & ~passes, F.lit("source_floor"))
        .when(F.col("cluster").isNotNull() & ~passes, F.lit("below_threshold"))
        .otherwise(F.lit("unexplained"))
    )
    ranked = rows.withColumns(
        {
            "taken": taken,
            "rule": rule,
            "decided_by_source": bounded_sources & (passes != passes_cluster),
        }
    )
    return ranked.withColumn("why", reason_in_words()).select(*COLUMNS)


def _passes(threshold: str, smallest_tie: str) -> Column:
    """Whether a row passes a threshold; the same rule as `rank_keys.passes_threshold`."""
    key, bound = F.col("rank_key"), F.col(threshold)
    equal = (key == bound) & (F.col("tie") >= F.col(smallest_tie))
    return F.coalesce((key > bound) | equal, F.lit(False))


def _score(column: str, unit: float) -> Column:
    """Key as a number that can be read; NULL where it stands for all rows or for none."""
    key = F.col(column)
    return F.when(F.abs(key.cast("double")) < F.lit(float(KEY_LIMIT)), key / F.lit(unit))


def _capped_sources(settings: RunSettings, plan: Plan) -> list[str]:
    """Sources whose cap binds; all with a cap where the plan does not name those that bind."""
    caps = sorted(settings.select.source_caps)
    phrases = plan.facts.binding
    if not any(p.startswith(("cap of source ", "floor of source ")) for p in phrases):
        return caps
    return [n for n in caps if any(p.startswith(f"cap of source {n} (") for p in phrases)]
