"""Caps and floors per source: selection inside strata (the sources of each cluster).

The plan says how much to take of each cluster; where sources are bounded it also says of which
source. Strata are numbered cluster * sources + source, so that the rules of explode serve them as
they serve clusters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa
from pyspark.sql import functions as F

from gio_spark import explode
from gio_spark.explode.selection_reasons import REQUIRED_REASON, reasons
from gio_spark.pipeline.run_context import RunContext
from gio_spark.tables.model_arrays import array_text, load_arrays, save_arrays, text_array

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from pyspark.sql import DataFrame


def in_strata(
    ctx: RunContext,
    rows: DataFrame,
    sources: DataFrame,
    *,
    counts: NDArray,
    take: NDArray,
    names: Sequence[str],
) -> tuple[DataFrame, pd.DataFrame]:
    """Number rows by stratum and compute the threshold of each.

    Args:
        ctx: The run.
        rows: Rows to choose from: id, cluster and, for the density ratio, log_ratio; pull, pinned.
        sources: id, source of the same rows.
        counts: (K, S) rows.
        take: (K, S) rows to take.
        names: The S sources.

    Returns:
        The rows, and one line per stratum: cluster (its number), rows, take, threshold, tie.
    """
    plan = pd.DataFrame(
        {
            "cluster": np.arange(take.size, dtype=np.int64),
            "rows": np.asarray(counts, np.int64).ravel(),
            "take": np.asarray(take, np.int64).ravel(),
        }
    )
    numbered = _numbered(rows, sources, names)
    settings = ctx.settings
    strata = explode.with_thresholds(numbered, plan, settings=settings.explode, seed=settings.seed)
    return numbered, strata.sort_values("cluster")


def save_strata(ctx: RunContext, key: str, strata: pd.DataFrame, names: Sequence[str]) -> None:
    """Store the strata of a plan, as `in_strata` returns them, under its fingerprint."""
    arrays = {
        name: strata[name].to_numpy(np.int64) for name in ("rows", "take", "threshold", "tie")
    }
    arrays["names"] = text_array(list(names))
    save_arrays(ctx.workspace, "strata", arrays, key=key, run=ctx.run)


def selected_by_source(
    ctx: RunContext, key: str, rows: DataFrame, sources: DataFrame
) -> DataFrame | None:
    """Id, cluster, reason and log_ratio of the rows that a plan with strata keeps.

    Rows of a source that the plan has never seen are not taken.

    Returns:
        None where the plan has no strata.
    """
    arrays = load_arrays(ctx.workspace, key)
    if not arrays:
        return None
    names = array_text(arrays.pop("names"))
    plan = pd.DataFrame({"cluster": np.arange(len(arrays["take"])), **arrays})
    selected_rows = explode.selected_ids(
        _numbered(rows, sources, names),
        plan,
        settings=ctx.settings.explode,
        seed=ctx.settings.seed,
    )
    reason_texts = reasons(
        plan.assign(cluster=plan["cluster"] // len(names)),
        ctx.settings.explode,
        biased="pull" in rows.columns,
    )
    text = [f"{reason} (source {names[i % len(names)]!r})" for i, reason in enumerate(reason_texts)]
    small = ctx.workspace.frame(
        pa.table({"stratum": pa.array(np.arange(len(text), dtype=np.int32)), "reason_text": text})
    )
    joined = selected_rows.withColumnRenamed("cluster", "stratum").join(
        F.broadcast(small), "stratum"
    )
    return joined.select(
        "id",
        F.floor(F.col("stratum") / F.lit(len(names))).cast("int").alias("cluster"),
        F.when(F.col("reason") == F.lit(REQUIRED_REASON), F.col("reason"))
        .otherwise(F.col("reason_text"))
        .alias("reason"),
        "log_ratio",
    )


def _numbered(rows: DataFrame, sources: DataFrame, names: Sequence[str]) -> DataFrame:
    """Replace the cluster by the number of the stratum."""
    table = pa.table({"source": list(names), "place": pa.array(range(len(names)), pa.int32())})
    places = F.broadcast(rows.sparkSession.createDataFrame(table))
    known = sources.select("id", F.coalesce("source", F.lit("")).alias("source"))
    placed = rows.join(known, "id").join(places, "source")
    stratum = (F.col("cluster") * F.lit(len(names)) + F.col("place")).cast("int")
    return placed.withColumn("cluster", stratum).drop("source", "place")
