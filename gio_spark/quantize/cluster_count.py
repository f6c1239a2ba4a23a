"""How many clusters: a rule from rows, dimension and memory, and a curve a person can look at."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gio_spark.kernels.search import as_matrix, nearest
from gio_spark.quantize.codebook_broadcast import BATCH, LARGE_BATCH, TWO_LEVEL_ABOVE
from gio_spark.quantize.kmeans_one_task import held_bytes
from gio_spark.quantize.kmeans_pass import GROUP_BYTES
from gio_spark.quantize.kmeans_seeding import lloyd, plus_plus, sample_bytes
from gio_spark.quantize.pass_result import ADDED_ROWS, SENT_BYTES

MOST_CLUSTERS = 65_536
PYTHON_BYTES = 260 << 20
"""A Python process with numpy, scipy, Arrow and this package, before any data."""

ENGINE_BYTES = 600 << 20
"""The embedded engine with the pages of Parquet files that it is reading and what its allocator
keeps: 350 to 450 MB, seen with a gigabyte of rows."""

_ROWS_PER_CLUSTER = 20
_BLOCK_ROWS = 512
_GREEDY = 64


@dataclass(frozen=True)
class MemoryForecast:
    """Bytes that a fit and an assignment need at most.

    Attributes:
        worker: One Python worker: interpreter, codebook, sums, batches and scores; where the table
            is small, also the rows of all passes.
        driver: The driver's Python: interpreter, first-centre sample, sums and centroids. Spark's
            own memory is not in it.
        shared: Part of `worker` that a process has once, however many tasks it runs.
        between: What one task leaves with the engine for the next stage.
        task: Part of `worker` that each task has, where passes are jobs.
    """

    worker: int
    driver: int
    shared: int
    between: int
    task: int

    def together(self, tasks: int) -> int:
        """Return the bytes of one process that is driver, workers and engine (the embedded one).

        Args:
            tasks: Tasks that run at once, one per core.
        """
        return ENGINE_BYTES + self.driver + self.shared + tasks * (self.task + self.between)


def forecast(
    clusters: int, dimension: int, *, two_level: bool | None = None, rows: int | None = None
) -> MemoryForecast:
    """Forecast the memory of a fit with `clusters` centroids of `dimension` numbers.

    Args:
        clusters: K.
        dimension: d.
        two_level: Search through two levels; None: above 8,192 clusters.
        rows: Rows of the table, where known: a sample is no larger.
    """
    if two_level is None:
        two_level = clusters > TWO_LEVEL_ABOVE
    codebook = clusters * dimension * 4
    sums = clusters * dimension * 8
    # Two levels hold each centroid once more in either of its two cells.
    book = 3 * codebook if two_level else codebook
    width = 4 * math.isqrt(clusters) if two_level else clusters
    scores = 3 * _BLOCK_ROWS * width * 4
    # A batch as it comes, joined to the size wanted, as it is read, and what the allocators keep of
    # the one before.
    batch = 4 * (LARGE_BATCH if clusters > TWO_LEVEL_ABOVE else BATCH) * dimension * 4
    added = 3 * ADDED_ROWS * dimension * 8
    combined = 4 * min(16 * sums, GROUP_BYTES)
    sample = sample_bytes(clusters, dimension)
    if rows is not None:
        sample = min(sample, rows * dimension * 4)
    shared = PYTHON_BYTES + book
    task = max(sums + scores + batch + added + 2 * SENT_BYTES, combined)
    held = 0 if rows is None else held_bytes(rows, dimension, clusters)
    return MemoryForecast(
        worker=shared + max(task, held + sums + scores + batch + added if held else 0),
        driver=PYTHON_BYTES + 3 * sample + 3 * sums + 3 * codebook,
        shared=shared,
        between=sums,
        task=task,
    )


def auto_clusters(rows: int, dimension: int, *, memory_bytes: int = 1 << 30) -> int:
    """Choose K from rows, dimension and the memory of one worker.

    Twice the square root of the rows, so that clusters and rows per cluster grow together; at
    least 20 rows per cluster, at most 65,536 clusters, and no more than the memory holds.

    Args:
        rows: Rows of the pool.
        dimension: Length of the vectors.
        memory_bytes: Memory that one worker may use.
    """
    wanted = min(round(2 * math.sqrt(max(rows, 1))), rows // _ROWS_PER_CLUSTER, MOST_CLUSTERS)
    clusters = max(1, wanted)
    while clusters > 1 and forecast(clusters, dimension).worker > memory_bytes:
        clusters = int(clusters * 0.8)
    return clusters


def error_curve(
    vectors: npt.ArrayLike,
    counts: Sequence[int] | None = None,
    *,
    rows: int | None = None,
    seed: int = 0,
    passes: int = 4,
) -> list[dict[str, float]]:
    """Measure the quantisation error over K on a sample, half of it held out.

    Args:
        vectors: (n, d) float32 sample, in a fixed order.
        counts: Values of K; None: powers of two up to an eighth of the sample.
        rows: Of the sample, those at its start that are used; None: all.
        seed: Seed of the first centres.
        passes: Lloyd steps per K.

    Returns:
        Records {clusters, error, share}: error is the held-out squared distance per row, share
        that over the error of one cluster.
    """
    matrix = as_matrix(vectors, "the sample")[:rows]
    fit, held = matrix[::2], matrix[1::2] if len(matrix) > 1 else matrix
    if counts is None:
        counts = [2**i for i in range(max(1, (len(fit) // 4).bit_length()))]
    whole = float(np.square(held - fit.mean(axis=0, dtype=np.float64)).sum() / len(held))
    wanted = sorted(set(counts))
    # The first K picks of k-means++ are its picks for K: one or two seedings serve all K.
    few = plus_plus(fit, max([k for k in wanted if k <= _GREEDY] or [1]), seed=seed)
    many = plus_plus(fit, wanted[-1], seed=seed, greedy=False) if wanted[-1] > _GREEDY else few
    curve = []
    for clusters in wanted:
        picked = (few if clusters <= _GREEDY else many)[:clusters]
        centres = lloyd(fit, fit[picked], steps=passes)
        error = float(nearest(held, centres)[1].astype(np.float64).mean())
        curve.append(
            {
                "clusters": float(len(centres)),
                "error": error,
                "share": error / whole if whole > 0 else 0.0,
            }
        )
    return curve
