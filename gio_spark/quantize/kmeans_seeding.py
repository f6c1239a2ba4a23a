"""First centres: k-means++ on a bounded sample.

Up to a few hundred clusters the greedy form (several candidates per centre, the best is kept)
finds planted clusters almost surely. Above, candidates are drawn a block at a time: plain
k-means++ (Arthur and Vassilvitskii 2007) updates every row's distance after each centre, K passes
over the sample at memory speed. A distance that is out of date is never too small, so accepting a
candidate with probability (distance now) / (distance when drawn) samples exactly the same law
(rejection sampling), and distances are brought up to date by one matrix product per block.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from gio_spark.kernels.rounding import largest_remainders
from gio_spark.kernels.search import FloatMatrix, as_matrix, largest_values, nearest
from gio_spark.kernels.sums import Grid, rounded_sums
from gio_spark.kernels.two_level import group_centroids

_MOST_PER_BLOCK = 512
_GREEDY_CLUSTERS = 512
_ONE_LEVEL_CLUSTERS = 8192


SAMPLE_BYTES = 256 << 20
"""Vectors that the driver may hold while it chooses first centres."""


def sample_rows(clusters: int, dimension: int, init_rows: int | None = None) -> int:
    """Return the rows of the sample for the first centres: bounded in bytes, never below 2 K."""
    wanted = init_rows or max(16 * clusters, 8192)
    return min(wanted, max(SAMPLE_BYTES // (4 * max(dimension, 1)), 2 * clusters))


def sample_bytes(clusters: int, dimension: int) -> int:
    """Return the bytes of that sample."""
    return 4 * dimension * sample_rows(clusters, dimension)


def first_centres(sample: npt.ArrayLike, clusters: int, *, seed: int) -> npt.NDArray[np.intp]:
    """Choose the rows that become the first centres; above 8,192 clusters cell by cell.

    Args, result: as `plus_plus`. By cells the cost falls from rows x K to rows x 2 sqrt(K); each
    cell gets centres in proportion to its rows.
    """
    matrix = as_matrix(sample, "the sample")
    if clusters <= _ONE_LEVEL_CLUSTERS:
        return plus_plus(matrix, clusters, seed=seed)
    cell = group_centroids(matrix, cells=math.isqrt(clusters)).cells[:, 0]
    order = np.argsort(cell, kind="stable")
    rows = np.bincount(cell)
    quota = _shares(rows, clusters)
    chosen = []
    for number, members in enumerate(np.split(order, np.cumsum(rows)[:-1])):
        if len(members):
            picked = plus_plus(
                matrix[members], int(quota[number]), seed=seed + number, greedy=False
            )
            chosen.append(members[picked])
    return np.concatenate(chosen)


def _shares(rows: npt.NDArray[np.intp], total: int) -> npt.NDArray[np.intp]:
    """Cut `total` in proportion to `rows`, whole numbers, largest remainders first."""
    total = min(total, int(rows.sum()))
    return largest_remainders(rows * (total / rows.sum()), total, slack=0.0).astype(np.intp)


def plus_plus(
    vectors: npt.ArrayLike, clusters: int, *, seed: int, greedy: bool | None = None
) -> npt.NDArray[np.intp]:
    """Choose the rows that become the first centres.

    Args:
        vectors: (n, d) float32, in an order that is fixed (the sample is sorted by hash and id).
        clusters: Centres wanted.
        seed: Same seed and rows, same choice, on every machine.
        greedy: Choose the best of several candidates; None: up to 512 clusters.

    Returns:
        Indices of the chosen rows in order of choice; fewer than `clusters` when there are
        fewer distinct rows.
    """
    matrix = as_matrix(vectors, "the sample")
    if not len(matrix) or clusters < 1:
        return np.empty(0, dtype=np.intp)
    rng = np.random.default_rng([seed, 0x6B2B2B])
    if clusters <= _GREEDY_CLUSTERS if greedy is None else greedy:
        return _greedy(_whole(matrix)[0], clusters, rng)
    chosen = [int(rng.integers(len(matrix)))]
    gap = nearest(matrix, matrix[chosen])[1].astype(np.float64)
    while len(chosen) < clusters:
        mass = np.cumsum(gap)
        if mass[-1] <= 0.0:
            break
        block = int(min(_MOST_PER_BLOCK, max(1, len(chosen)), 2 * (clusters - len(chosen))))
        drawn = np.searchsorted(mass, rng.random(block) * mass[-1], side="right")
        accepted = _accept(matrix, drawn.clip(max=len(matrix) - 1), gap, rng.random(block))
        accepted = accepted[: clusters - len(chosen)]
        chosen += accepted
        np.minimum(gap, nearest(matrix, matrix[accepted])[1], out=gap)
    return np.array(chosen, dtype=np.intp)


def _accept(
    matrix: FloatMatrix,
    drawn: npt.NDArray[np.intp],
    gap: npt.NDArray[np.float64],
    coin: npt.NDArray[np.float64],
) -> list[int]:
    """Accept drawn rows one after another, each by its distance to those accepted before it."""
    between = _exact_tile(matrix[drawn])
    now = gap[drawn].copy()
    accepted = []
    for place, row in enumerate(drawn):
        if coin[place] * gap[row] < now[place]:
            accepted.append(int(row))
            np.minimum(now, between[place], out=now)
            now[drawn == row] = 0.0
    return accepted


def _greedy(
    whole: npt.NDArray[np.float64], clusters: int, rng: np.random.Generator
) -> npt.NDArray[np.intp]:
    """Choose centres one by one, each the best of 2 + log K candidates (as scikit-learn does)."""
    trials = 2 + int(np.log(clusters))
    square = (whole * whole).sum(axis=1)
    chosen = [int(rng.integers(len(whole)))]
    gap = square - 2.0 * (whole @ whole[chosen[0]]) + square[chosen[0]]
    while len(chosen) < clusters:
        mass = np.cumsum(gap)
        if mass[-1] <= 0.0:
            break
        drawn = np.searchsorted(mass, rng.random(trials) * mass[-1], side="right")
        drawn = drawn.clip(max=len(whole) - 1)
        tile = whole[drawn] @ whole.T
        tile *= -2.0
        tile += square
        tile += square[drawn, None]
        np.minimum(tile, gap, out=tile)
        best = int(np.argmin(tile.sum(axis=1)))
        chosen.append(int(drawn[best]))
        gap = tile[best].copy()
    return np.array(chosen, dtype=np.intp)


def _exact_tile(rows: FloatMatrix) -> npt.NDArray[np.float64]:
    """Return squared distances among a few rows, the same bits with every BLAS kernel."""
    whole, step = _whole(rows)
    dots = whole @ whole.T
    square = np.diagonal(dots)
    return (square[:, None] + square[None, :] - 2.0 * dots) * step * step


def _whole(rows: FloatMatrix) -> tuple[npt.NDArray[np.float64], float]:
    """Round rows to whole numbers of a step, so few bits that float64 products are exact.

    2 b bits for a product and log2(d) for the sum stay within 53, in any order of summation.
    """
    bits = (52 - int(rows.shape[1]).bit_length()) // 2 - 1
    _, exponent = np.frexp(float(np.abs(rows).max(initial=0.0)))
    step = float(np.ldexp(1.0, int(exponent) - bits))
    return np.rint(rows.astype(np.float64) / step), step


def small_kmeans(
    vectors: npt.ArrayLike, clusters: int, *, seed: int, steps: int = 4
) -> FloatMatrix:
    """Fit a few centres on a sample in memory: k-means++ and some Lloyd steps.

    Args:
        vectors: (n, d) float32 in a fixed order.
        clusters: Centres wanted; fewer come when there are fewer distinct rows.
        seed: Same seed and rows, same centres to the bit.
        steps: Lloyd steps.

    Returns:
        (K, d) float32.
    """
    matrix = as_matrix(vectors, "the sample")
    centres = matrix[plus_plus(matrix, min(clusters, len(matrix)), seed=seed)]
    return lloyd(matrix, centres, steps=steps)


def lloyd(matrix: FloatMatrix, centres: FloatMatrix, *, steps: int) -> FloatMatrix:
    """Move centres to the means of their rows a few times; the same bits on every machine.

    Args:
        matrix: (n, d) float32.
        centres: (K, d) float32 to start from; one without rows stays where it is.
        steps: How often.
    """
    grid = Grid.covering(largest_values(matrix), len(matrix))
    for _ in range(steps):
        cluster, _ = nearest(matrix, centres)
        sums = rounded_sums(matrix, cluster, len(centres), grid)
        count = np.bincount(cluster, minlength=len(centres))
        seen = count > 0
        centres = centres.copy()
        centres[seen] = (sums[seen] / count[seen, None]).astype(np.float32)
    return centres
