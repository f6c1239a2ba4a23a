"""Number of clusters: a rule from rows, dimension and memory, an error curve, a memory forecast."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gio_spark.kernels.nearest_centroid import as_matrix, nearest
from gio_spark.quantize.codebook_broadcast import BATCH, LARGE_BATCH, TWO_LEVEL_ABOVE
from gio_spark.quantize.kmeans_one_task import cached_row_bytes
from gio_spark.quantize.kmeans_pass import GROUP_BYTES
from gio_spark.quantize.kmeans_seeding import lloyd, plus_plus, sample_bytes
from gio_spark.quantize.pass_result import SENT_BYTES, SUM_BLOCK_ROWS

MOST_CLUSTERS = 65_536
PYTHON_BYTES = 260 << 20
"""Memory of a Python process with numpy, scipy, Arrow and this package, without data."""

ENGINE_BYTES = 600 << 20
"""Memory of the embedded engine, with Parquet pages being read and allocator overhead: 350 to
450 MB measured with a gigabyte of rows."""

_ROWS_PER_CLUSTER = 20
_BLOCK_ROWS = 512
_GREEDY_CLUSTERS = 64


@dataclass(frozen=True)
class MemoryForecast:
    """Upper bound of the memory of a fit and an assignment, in bytes.

    Attributes:
        worker: One Python worker: interpreter, codebook, sums, batches and scores; where the table
            is small, also the rows of all passes.
        driver: The driver's Python: interpreter, sample for the first centers, sums and centroids,
            without Spark's own memory.
        shared: Part of `worker` that a process needs once, however many tasks it runs.
        between: Output of one task that the engine holds for the next stage.
        task: Part of `worker` that each task needs, where passes are separate jobs.
    """

    worker: int
    driver: int
    shared: int
    between: int
    task: int

    def together(self, tasks: int) -> int:
        """Bytes of one process that is driver, workers and engine at once (embedded engine).

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
        two_level: Search with the two-level index; None: above 8,192 clusters.
        rows: Rows of the table, where known: they bound the size of the sample.
    """
    if two_level is None:
        two_level = clusters > TWO_LEVEL_ABOVE
    centroid_bytes = clusters * dimension * 4
    sum_bytes = clusters * dimension * 8
    # The two-level index stores a copy of each centroid in both of its cells.
    codebook_bytes = 3 * centroid_bytes if two_level else centroid_bytes
    scored_clusters = 4 * math.isqrt(clusters) if two_level else clusters
    score_bytes = 3 * _BLOCK_ROWS * scored_clusters * 4
    # Four copies: the batch as received, rebatched, decoded, and the previous one, whose memory
    # the allocators still hold.
    batch_bytes = 4 * (LARGE_BATCH if clusters > TWO_LEVEL_ABOVE else BATCH) * dimension * 4
    rounding_bytes = 3 * SUM_BLOCK_ROWS * dimension * 8
    combine_bytes = 4 * min(16 * sum_bytes, GROUP_BYTES)
    init_sample_bytes = sample_bytes(clusters, dimension)
    if rows is not None:
        init_sample_bytes = min(init_sample_bytes, rows * dimension * 4)
    shared = PYTHON_BYTES + codebook_bytes
    task = max(
        sum_bytes + score_bytes + batch_bytes + rounding_bytes + 2 * SENT_BYTES, combine_bytes
    )
    cached_bytes = 0 if rows is None else cached_row_bytes(rows, dimension, clusters)
    return MemoryForecast(
        worker=shared
        + max(
            task,
            cached_bytes + sum_bytes + score_bytes + batch_bytes + rounding_bytes
            if cached_bytes
            else 0,
        ),
        driver=PYTHON_BYTES + 3 * init_sample_bytes + 3 * sum_bytes + 3 * centroid_bytes,
        shared=shared,
        between=sum_bytes,
        task=task,
    )


def auto_clusters(rows: int, dimension: int, *, memory_bytes: int = 1 << 30) -> int:
    """Choose K from rows, dimension and the memory of one worker.

    Twice the square root of the rows, so that clusters and rows per cluster grow together; at
    least 20 rows per cluster, at most 65,536 clusters, and no more than fit into the memory.

    Args:
        rows: Rows of the pool.
        dimension: Length of the vectors.
        memory_bytes: Memory that one worker may use.
    """
    clusters_by_rows = min(
        round(2 * math.sqrt(max(rows, 1))), rows // _ROWS_PER_CLUSTER, MOST_CLUSTERS
    )
    clusters = max(1, clusters_by_rows)
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
    """Quantization error as a function of K, measured on a sample with half of it held out.

    Args:
        vectors: (n, d) float32 sample, in a fixed order.
        counts: Values of K; None: powers of two up to an eighth of the sample.
        rows: Number of leading rows of the sample to use; None: all.
        seed: Seed of the first centers.
        passes: Lloyd steps per K.

    Returns:
        Records {clusters, error, share}: error is the mean squared distance of held-out rows,
        share its ratio to the error of a single cluster.
    """
    matrix = as_matrix(vectors, "the sample")[:rows]
    train = np.ascontiguousarray(matrix[::2])
    held_out = matrix[1::2] if len(matrix) > 1 else matrix
    if counts is None:
        counts = [2**i for i in range(max(1, (len(train) // 4).bit_length()))]
    mean = train.mean(axis=0, dtype=np.float64)
    blocks = (held_out[at : at + _BLOCK_ROWS] for at in range(0, len(held_out), _BLOCK_ROWS))
    one_cluster_error = sum(float(np.square(b - mean).sum()) for b in blocks) / len(held_out)
    cluster_counts = sorted(set(counts))
    # The first K picks of k-means++ are its picks for K: one or two seedings serve all K.
    greedy_picks = plus_plus(
        train, max([k for k in cluster_counts if k <= _GREEDY_CLUSTERS] or [1]), seed=seed
    )
    plain_picks = (
        plus_plus(train, cluster_counts[-1], seed=seed, greedy=False)
        if cluster_counts[-1] > _GREEDY_CLUSTERS
        else greedy_picks
    )
    curve = []
    for clusters in cluster_counts:
        picks = (greedy_picks if clusters <= _GREEDY_CLUSTERS else plain_picks)[:clusters]
        centers = lloyd(train, train[picks], steps=passes)
        error = float(nearest(held_out, centers)[1].astype(np.float64).mean())
        curve.append(
            {
                "clusters": float(len(centers)),
                "error": error,
                "share": error / one_cluster_error if one_cluster_error > 0 else 0.0,
            }
        )
    return curve
