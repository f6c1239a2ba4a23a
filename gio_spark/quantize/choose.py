"""How many clusters: a rule from rows, dimension and memory, and a curve a person can look at."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gio_spark.kernels.search import as_matrix, nearest
from gio_spark.quantize.book import BATCH, LARGE_BATCH, TWO_LEVEL_ABOVE
from gio_spark.quantize.seeding import lloyd, plus_plus, sample_bytes

MOST_CLUSTERS = 65_536
_ROWS_PER_CLUSTER = 20
_BLOCK_ROWS = 512
_GREEDY = 64


@dataclass(frozen=True)
class MemoryForecast:
    """Bytes that a fit or an assignment needs at most.

    Attributes:
        codebook: Centroids on a worker, shared between the processes of a machine by a memory map.
        worker: Codebook, score block, partial sums and one batch in one worker process.
        driver: Sums, centroids and first-centre sample on the driver.
    """

    codebook: int
    worker: int
    driver: int


def forecast(clusters: int, dimension: int, *, two_level: bool | None = None) -> MemoryForecast:
    """Forecast the memory of a fit with `clusters` centroids of `dimension` numbers.

    Args:
        clusters: K.
        dimension: d.
        two_level: Search through two levels; None: above 8,192 clusters.
    """
    if two_level is None:
        two_level = clusters > TWO_LEVEL_ABOVE
    batch_rows = LARGE_BATCH if clusters > TWO_LEVEL_ABOVE else BATCH
    codebook = clusters * dimension * 4
    sums = clusters * dimension * 8
    width = 4 * math.isqrt(clusters) if two_level else clusters
    scores = 3 * _BLOCK_ROWS * width * 4
    batch = batch_rows * dimension * (4 + 8 + 8)
    held = 2 * sums
    return MemoryForecast(
        codebook=codebook,
        worker=codebook + scores + held + batch,
        driver=3 * sums + 2 * codebook + 3 * sample_bytes(clusters, dimension),
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
    seed: int = 0,
    passes: int = 4,
) -> list[dict[str, float]]:
    """Measure the quantisation error over K on a sample, half of it held out.

    Args:
        vectors: (n, d) float32 sample, in a fixed order.
        counts: Values of K; None: powers of two up to an eighth of the sample.
        seed: Seed of the first centres.
        passes: Lloyd steps per K.

    Returns:
        Records {clusters, error, share}: error is the held-out squared distance per row, share
        that over the error of one cluster.
    """
    matrix = as_matrix(vectors, "the sample")
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
