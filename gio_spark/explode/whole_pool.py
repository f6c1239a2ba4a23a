"""Rows per cluster of a ranking of the whole pool: one threshold for all rows, no quotas."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gio_spark.engine import bounded
from gio_spark.explode.row_filter import selected_ids, with_thresholds

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from pyspark.sql import DataFrame

    from gio_spark.settings.explode import ExplodeSettings


class WholePoolRanks(NamedTuple):
    """Ranking of the whole pool under a budget.

    Attributes:
        take: (K,) int64 rows of each cluster that rank high enough.
        threshold, tie: The threshold of all rows, see `with_thresholds`.
    """

    take: NDArray[np.int64]
    threshold: int
    tie: int


def rank_whole_pool(
    assignments: DataFrame,
    sizes: ArrayLike,
    budget: int,
    *,
    settings: ExplodeSettings,
    seed: int = 0,
) -> WholePoolRanks:
    """Rows of each cluster among the `budget` rows with the largest rank keys, and their threshold.

    Args:
        assignments: As for `with_thresholds`.
        sizes: (K,) rows of each cluster.
        budget: Rows to take; all rows where there are fewer.
        settings: Settings of the explode stage; `hash_share` counts as `exact_count`.
        seed: Seed of the run.
    """
    from pyspark.sql import functions as F

    rows = np.asarray(sizes, np.int64)
    if settings.within_cluster == "hash_share":
        settings = settings.model_copy(update={"within_cluster": "exact_count"})
    one = pd.DataFrame({"cluster": [0], "rows": [rows.sum()], "take": [min(budget, rows.sum())]})
    in_one = assignments.where(F.col("cluster").isNotNull()).withColumn(
        "cluster", F.lit(0).cast("int")
    )
    one = with_thresholds(in_one, one, settings=settings, seed=seed)
    plan = pd.DataFrame({"cluster": np.arange(len(rows)), "rows": rows, "take": rows})
    plan = plan.assign(threshold=one["threshold"].iloc[0], tie=one["tie"].iloc[0])
    selected = selected_ids(assignments, plan, settings=settings, seed=seed)
    counted = bounded(selected.groupBy("cluster").count(), len(rows), "selected clusters")
    take = np.zeros(len(rows), np.int64)
    take[counted["cluster"].to_numpy()] = counted["count"].to_numpy()
    return WholePoolRanks(take, int(plan["threshold"].iloc[0]), int(plan["tie"].iloc[0]))
