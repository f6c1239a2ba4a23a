"""Forecast of a run: rows, bytes, core-hours, memory of driver and executors."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from gio_spark import explode, quantize
from gio_spark.engine import describe
from gio_spark.engine.progress import Progress
from gio_spark.pipeline.stages.cluster import clusters_for
from gio_spark.pipeline.stages.density_ratio import content_kind
from gio_spark.pipeline.stages.input_checks import tokens_in_words
from gio_spark.pipeline.stages.open_inputs import open_context, pin_inputs
from gio_spark.settings.budget import parse_budget
from gio_spark.settings.run import RunSettings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from gio_spark.embed import Embedder
    from gio_spark.tables import Input

# Rows that one core embeds in a second; measured on 2 slow cores, benchmarks/bench_embed.py.
# Of embedders that users register, of which nothing is known.
_OTHER_ROWS_PER_SECOND = 1_000
_ROWS_PER_SECOND = {
    "vectors": 400_000.0,
    "ngrams": 20_000.0,
    "wordllama": 8_000.0,
    "model2vec": 8_000.0,
    "sentence-transformers": 40.0,
    "images": 20_000.0,
    "tabular": 100_000.0,
}
# Float operations of the assignment kernel that one core does in a second, scan included.
_FLOPS = 50e9
# Rows whose text the ratio's classifier scores on one core in a second.
_SCORED_PER_SECOND = 10_000.0
# What a session, a write and the small stages take whatever the data (seconds).
_FIXED = {"embedded": 10.0, "local": 90.0}
# Choice of a strategy on texts, whatever the pool's size, and for small budgets; less on other
# content.
_STRATEGY_SECONDS = (35.0, 50.0)


@dataclass(frozen=True)
class Forecast:
    """Rows, bytes, core-hours and memory of a run.

    Attributes:
        rows: Name of an input -> rows.
        clusters: K.
        dimension: Length of a vector.
        bytes_written: Bytes of all stage tables, about.
        core_seconds: Stage -> seconds of one core.
        driver_bytes: Memory of the driver beside Spark's own; on the embedded engine, of the one
            process that is driver, workers and engine.
        worker_bytes: Memory of one Python worker; 0 on the embedded engine.
        budget: What will be selected, in words.
    """

    rows: dict[str, int]
    clusters: int
    dimension: int
    bytes_written: int
    core_seconds: dict[str, float]
    driver_bytes: int
    worker_bytes: int
    budget: str

    @property
    def core_hours(self) -> float:
        """Core-hours of all stages."""
        return sum(self.core_seconds.values()) / 3600


def forecast(
    *,
    pool: int,
    targets: dict[str, int],
    clusters: int,
    dimension: int,
    embedder: str,
    settings: RunSettings,
    engine: str,
    content_bytes: int | None = None,
) -> Forecast:
    """Forecast a run on so many rows; the rates are measured by benchmarks/.

    Args:
        pool: Rows of the pool.
        targets: Name -> rows of each target.
        clusters: K.
        dimension: d.
        embedder: Name of the embedder.
        settings: Of the run.
        engine: Kind of engine.
        content_bytes: Size of the pool in storage, where known.
    """
    from gio_spark.strategy.strategy_sample import MAX_THREADS, is_small_budget, trial_bytes

    rows = pool + sum(targets.values())
    batch = settings.quantize.batch_rows or max(64 * clusters, 16_384)
    passes = min(pool, batch) * settings.quantize.max_passes / 2
    product = 2.0 * clusters * dimension
    density = settings.explode.within_cluster == "density_ratio"
    unit, amount = parse_budget(settings.budget)
    share = {"rows": amount / pool, "share": amount, "tokens": 0.1, "auto": 0.5}[unit]
    seconds = {
        "embed": rows / _ROWS_PER_SECOND.get(embedder, _OTHER_ROWS_PER_SECOND),
        "quantize": (passes + rows) * product / _FLOPS,
        "select": pool / _SCORED_PER_SECOND if density else pool / 1e6,
        "explode": pool / 200_000,
        "metrics": pool / 200_000,
        "fixed": _FIXED.get(engine, 120.0),
    }
    cores = os.cpu_count() or 1
    memory = quantize.forecast(
        clusters, dimension, two_level=clusters > settings.quantize.two_level_above, rows=pool
    )
    if density and content_kind(settings) == "vector":
        most = settings.explode.fit_rows
        fit_rows = min(pool, most) + min(sum(targets.values()), most)
        # The driver fits the ratio while it chooses the first centers.
        fit_bytes = explode.vector_fit_bytes(fit_rows, dimension)
        memory = replace(memory, driver=memory.driver + fit_bytes)
    if settings.select.strategy == "auto":
        is_small = is_small_budget(int(min(share, 1.0) * pool), pool)
        seconds["strategy"] = _STRATEGY_SECONDS[is_small]
        threads = min(MAX_THREADS, cores)
        trials = trial_bytes(dimension, small_budget=is_small, threads=threads)
        # The clusters are there before strategies are tried: not both at the same time.
        memory = replace(memory, driver=max(memory.driver, trials))
    vectors_bytes = rows * (4 * dimension + 120)
    copies = int(min(share, 1.0) * (content_bytes or pool * 500))
    return Forecast(
        rows={"pool": pool, **targets},
        clusters=clusters,
        dimension=dimension,
        bytes_written=int(vectors_bytes + rows * 40 + pool * (30 if density else 0) + copies),
        core_seconds=seconds,
        driver_bytes=memory.together(cores) if engine == "embedded" else memory.driver,
        worker_bytes=0 if engine == "embedded" else memory.worker,
        budget=parse_budget(settings.budget).in_words(pool) + tokens_in_words(settings),
    )


def validate(settings: RunSettings, spark: SparkSession) -> tuple[Forecast, dict[str, Input], str]:
    """Check settings, tables, columns and types without running, and forecast the run.

    Returns:
        The forecast, the opened inputs and the name of the embedder.

    Raises:
        GioSparkError: With what is wrong, where, and what to do.
    """
    ctx = open_context(settings, spark=spark, progress=Progress("silent"), dry=True)
    pinned = pin_inputs(ctx)
    inputs, embedder = pinned.open().inputs, pinned.embedder
    pool = inputs["pool"].count
    dimension = _dimension(settings, embedder, inputs["pool"])
    outlook = forecast(
        pool=pool,
        targets={n: i.count for n, i in inputs.items() if n != "pool"},
        clusters=clusters_for(settings, pool, dimension),
        dimension=dimension,
        embedder=embedder.name,
        settings=settings,
        engine=describe(spark).kind,
        content_bytes=inputs["pool"].bytes,
    )
    return outlook, inputs, embedder.name


def _dimension(settings: RunSettings, embedder: Embedder, pool: Input) -> int:
    """Length of the vectors; estimated from the settings where a fit determines it."""
    from gio_spark.errors import InputError

    column = settings.pool_columns().vector
    if column is not None and embedder.name == "vectors":
        from gio_spark.engine import bounded, decode_vectors
        from gio_spark.tables import quoted_column

        first = pool.rows.selectExpr(f"{quoted_column(column)} AS v").where("v IS NOT NULL")
        table = bounded(first.limit(1), 1, "one vector")
        return (
            int(decode_vectors(table["v"], what=f"pool: column {column!r}").shape[1])
            if table.num_rows
            else 1
        )
    try:
        return embedder.dimension
    except InputError:
        return settings.embed.dimension or 64
