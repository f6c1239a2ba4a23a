"""Scores of models trained on each way of selecting, where pool and target have labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from pyspark.sql import functions as F

from gio_spark import gime
from gio_spark.kernels.rounding import largest_remainders
from gio_spark.pipeline.constraints.sensitivity_runs import clusters_of

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pyspark.sql import DataFrame, SparkSession

    from gio_spark.pipeline.run_rows import RunRows

_TAKEN = "_taken"
# Fewer labeled rows of a selection say nothing of what a model learns from it.
_LEAST = 20


def labeled_datasets(run_rows: RunRows) -> list[str]:
    """The datasets whose labels a model is scored by: targets, else held-out sets."""
    inputs = run_rows.settings.datasets()
    for kind in ("target", "held-out"):
        names = [
            n
            for n, one in inputs.items()
            if n.startswith(kind)
            and (one.columns or run_rows.settings.columns).label is not None
            and (one.columns is not None or _has_labels(run_rows, n))
        ]
        if names:
            return names
    return []


def _has_labels(run_rows: RunRows, side: str) -> bool:
    """Whether a side has the column of labels that the common roles name."""
    rows = run_rows.rows(side, vectors=False)
    return rows.where(F.col("label").isNotNull()).limit(1).count() > 0


def proxy_scores(
    spark: SparkSession,
    run_rows: RunRows,
    selected: DataFrame,
    takes: Mapping[str, NDArray[np.int64]],
    sizes: NDArray[np.int64],
) -> pd.DataFrame | None:
    """Train the proxy on the part of each way that lies in a bounded labeled sample of the pool.

    Ways that draw are drawn anew for each seed; the selection judged is what it is, one set of
    rows. All are as large, so their scores can be compared; the pool is the whole sample.

    Args:
        spark: Session; models are trained side by side on executors.
        run_rows: Tables of the run.
        selected: Ids of the selection judged.
        takes: Way -> rows per cluster, (K,).
        sizes: Rows of the pool per cluster, (K,).

    Returns:
        One row per way: way, rows, score, spread (standard deviation over the draws), draws,
        measure, proxy. None where there are no labels, or too few of them.

    Raises:
        NoVerdictError: The labels of target and pool are not the same, or nothing is learned.
    """
    settings = run_rows.settings
    if settings.pool_columns().label is None:
        return None
    datasets = labeled_datasets(run_rows)
    if not datasets:
        return None
    vectors = run_rows.vectors
    held_out = run_rows.rows(datasets[0], vectors=vectors)
    for name in datasets[1:]:
        held_out = held_out.unionByName(run_rows.rows(name, vectors=vectors))
    marked = selected.select("id").withColumn(_TAKEN, F.lit(True))
    sample, task, marks = gime.labeled_sample(
        run_rows.rows("pool", vectors=vectors).join(marked, "id", "left"),
        held_out,
        "label",
        constants=run_rows.constants(vectors=vectors),
        profile=run_rows.profile,
        rows=settings.gime.sample,
        measure=settings.gime.measure,
        proxy=settings.gime.proxy,
        extra_columns=(_TAKEN,),
    )
    clusters = clusters_of(sample)
    taken = marks.column(_TAKEN).fill_null(False).to_numpy(zero_copy_only=False).astype(bool)
    count = int(taken.sum())
    if clusters is None or not _LEAST <= count < taken.size:
        return None
    draws = {"pool": [np.arange(taken.size)], "both": [np.flatnonzero(taken)]}
    for seed in range(settings.gime.seeds):
        rng = np.random.default_rng([settings.seed, seed])
        draws.setdefault("random", []).append(np.sort(rng.choice(taken.size, count, replace=False)))
        for way, take in takes.items():
            draws.setdefault(way, []).append(
                draw_rows(clusters, take / np.maximum(sizes, 1), count, rng)
            )
    runs = gime.train_many(spark, task, [rows for several in draws.values() for rows in several])
    runs["way"] = [way for way, several in draws.items() for _ in several]
    task.check_learned(float(runs.loc[runs["way"] == "pool", "score"].mean()))
    table = runs.groupby("way", sort=False).agg(
        rows=("rows", "first"), score=("score", "mean"), spread=("score", "std"),
        draws=("score", "size"),
    )  # fmt: skip
    return table.reset_index().assign(measure=task.measure, proxy=task.proxy)


def draw_rows(
    clusters: NDArray[np.int64], share: NDArray[np.float64], count: int, rng: np.random.Generator
) -> NDArray[np.intp]:
    """Draw rows of a sample so that each cluster gives its share, and all together `count` rows.

    Args:
        clusters: Cluster per row, (n,).
        share: Share of each cluster's rows to take, (K,).
        count: Rows to draw; where the shares come to more or less, they are scaled.
        rng: What draws.
    """
    # Rows in random order inside clusters, the clusters' quotas by largest remainder.
    sample_sizes = np.bincount(clusters, minlength=share.size)
    exact = sample_sizes * share
    exact *= count / max(float(exact.sum()), 1e-12)
    exact = np.minimum(exact, sample_sizes)
    quota = largest_remainders(exact, count, most=sample_sizes, slack=0.0)
    order = np.lexsort((rng.random(clusters.size), clusters))
    place = np.arange(clusters.size) - np.repeat(
        np.r_[0, np.cumsum(sample_sizes)[:-1]], sample_sizes
    )
    return np.sort(order[place < quota[clusters[order]]])


def score_values(scores: pd.DataFrame) -> dict[str, Any]:
    """Way -> score as plain values, for records and trackers."""
    return {w: float(s) for w, s in zip(scores["way"], scores["score"], strict=True)}
