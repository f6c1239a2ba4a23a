"""First centers: k-means++ on a bounded sample.

Up to a few hundred clusters the greedy variant (the best of several candidates per center) finds
well-separated clusters almost surely. Above, candidates are drawn in blocks: plain k-means++
(Arthur and Vassilvitskii 2007) updates every row's distance after each center, K memory-bound
passes over the sample. An outdated distance is never too small, so accepting a candidate with
probability (current distance) / (distance when drawn) samples exactly the same distribution
(rejection sampling), and distances are updated by one matrix product per block.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from gio_spark.kernels.exact_sums import Grid, rounded_sums
from gio_spark.kernels.nearest_centroid import FloatMatrix, as_matrix, largest_values, nearest
from gio_spark.kernels.rounding import largest_remainders
from gio_spark.kernels.two_level_codebook import group_centroids

_MAX_BLOCK_CANDIDATES = 512
_GREEDY_CLUSTERS = 512
_ONE_LEVEL_CLUSTERS = 8192


SAMPLE_BYTES = 256 << 20
"""Maximum bytes of the sample from which the driver chooses first centers."""


def sample_rows(clusters: int, dimension: int, init_rows: int | None = None) -> int:
    """Rows of the sample for the first centers: bounded in bytes, at least 2 K."""
    rows = init_rows or max(16 * clusters, 8192)
    return min(rows, max(SAMPLE_BYTES // (4 * max(dimension, 1)), 2 * clusters))


def sample_bytes(clusters: int, dimension: int) -> int:
    """Bytes of the sample for the first centers."""
    return 4 * dimension * sample_rows(clusters, dimension)


def first_centers(sample: npt.ArrayLike, clusters: int, *, seed: int) -> npt.NDArray[np.intp]:
    """Indices of the rows chosen as first centers; above 8,192 clusters per cell of an index.

    Arguments and result are those of `plus_plus`. Cells reduce the cost from rows x K to
    rows x 2 sqrt(K); each cell gets centers in proportion to its rows.
    """
    matrix = as_matrix(sample, "the sample")
    if clusters <= _ONE_LEVEL_CLUSTERS:
        return plus_plus(matrix, clusters, seed=seed)
    group = group_centroids(matrix, groups=math.isqrt(clusters)).groups[:, 0]
    order = np.argsort(group, kind="stable")
    rows = np.bincount(group)
    quota = _proportional_quotas(rows, clusters)
    chosen = []
    for number, members in enumerate(np.split(order, np.cumsum(rows)[:-1])):
        if len(members):
            picks = plus_plus(matrix[members], int(quota[number]), seed=seed + number, greedy=False)
            chosen.append(members[picks])
    return np.concatenate(chosen)


def _proportional_quotas(rows: npt.NDArray[np.intp], total: int) -> npt.NDArray[np.intp]:
    """Integer shares of `total` in proportion to `rows`, rounded by largest remainders."""
    total = min(total, int(rows.sum()))
    return largest_remainders(rows * (total / rows.sum()), total, slack=0.0).astype(np.intp)


def plus_plus(
    vectors: npt.ArrayLike, clusters: int, *, seed: int, greedy: bool | None = None
) -> npt.NDArray[np.intp]:
    """Choose rows as first centers by k-means++.

    Args:
        vectors: (n, d) float32, in an order that is fixed (the sample is sorted by hash and id).
        clusters: Number of centers.
        seed: The same seed and rows give the same choice on every machine.
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
        return _greedy(_to_integers(matrix)[0], clusters, rng)
    chosen = [int(rng.integers(len(matrix)))]
    distance = nearest(matrix, matrix[chosen])[1].astype(np.float64)
    while len(chosen) < clusters:
        cumulative = np.cumsum(distance)
        if cumulative[-1] <= 0.0:
            break
        block = int(min(_MAX_BLOCK_CANDIDATES, max(1, len(chosen)), 2 * (clusters - len(chosen))))
        candidates = np.searchsorted(cumulative, rng.random(block) * cumulative[-1], side="right")
        accepted = _accept(
            matrix, candidates.clip(max=len(matrix) - 1), distance, rng.random(block)
        )
        accepted = accepted[: clusters - len(chosen)]
        chosen += accepted
        np.minimum(distance, nearest(matrix, matrix[accepted])[1], out=distance)
    return np.array(chosen, dtype=np.intp)


def _accept(
    matrix: FloatMatrix,
    candidates: npt.NDArray[np.intp],
    distance: npt.NDArray[np.float64],
    uniforms: npt.NDArray[np.float64],
) -> list[int]:
    """Rejection sampling: accept candidates in order, by their distance to those accepted."""
    pairwise = _exact_distances(matrix[candidates])
    current = distance[candidates].copy()
    accepted = []
    for index, row in enumerate(candidates):
        if uniforms[index] * distance[row] < current[index]:
            accepted.append(int(row))
            np.minimum(current, pairwise[index], out=current)
            current[candidates == row] = 0.0
    return accepted


def _greedy(
    matrix: npt.NDArray[np.float64], clusters: int, rng: np.random.Generator
) -> npt.NDArray[np.intp]:
    """Greedy k-means++: each center is the best of 2 + log K candidates (as in scikit-learn)."""
    trials = 2 + int(np.log(clusters))
    norms = np.einsum("ij,ij->i", matrix, matrix)  # of integers: exact in any order
    chosen = [int(rng.integers(len(matrix)))]
    distance = norms - 2.0 * (matrix @ matrix[chosen[0]]) + norms[chosen[0]]
    while len(chosen) < clusters:
        cumulative = np.cumsum(distance)
        if cumulative[-1] <= 0.0:
            break
        candidates = np.searchsorted(cumulative, rng.random(trials) * cumulative[-1], side="right")
        candidates = candidates.clip(max=len(matrix) - 1)
        distances = matrix[candidates] @ matrix.T
        distances *= -2.0
        distances += norms
        distances += norms[candidates, None]
        np.minimum(distances, distance, out=distances)
        best = int(np.argmin(distances.sum(axis=1)))
        chosen.append(int(candidates[best]))
        distance = distances[best].copy()
    return np.array(chosen, dtype=np.intp)


def _exact_distances(rows: FloatMatrix) -> npt.NDArray[np.float64]:
    """Pairwise squared distances (n, n), bit-identical with every BLAS kernel."""
    integers, step = _to_integers(rows)
    dots = integers @ integers.T
    norms = np.diagonal(dots)
    return (norms[:, None] + norms[None, :] - 2.0 * dots) * step * step


def _to_integers(rows: FloatMatrix) -> tuple[npt.NDArray[np.float64], float]:
    """Rows as integer multiples of a step, with few enough bits for exact float64 products.

    2 b bits for a product and log2(d) for the sum stay within 53, in any order of summation.
    """
    bits = (52 - int(rows.shape[1]).bit_length()) // 2 - 1
    _, exponent = np.frexp(float(np.abs(rows).max(initial=0.0)))
    step = float(np.ldexp(1.0, int(exponent) - bits))
    integers = rows.astype(np.float64)
    integers /= step
    return np.rint(integers, out=integers), step


def small_kmeans(
    vectors: npt.ArrayLike, clusters: int, *, seed: int, steps: int = 4
) -> FloatMatrix:
    """Fit a few centers on a sample in memory: k-means++ and Lloyd steps.

    Args:
        vectors: (n, d) float32 in a fixed order.
        clusters: Number of centers; fewer when there are fewer distinct rows.
        seed: The same seed and rows give bit-identical centers.
        steps: Lloyd steps.

    Returns:
        (K, d) float32.
    """
    matrix = as_matrix(vectors, "the sample")
    centers = matrix[plus_plus(matrix, min(clusters, len(matrix)), seed=seed)]
    return lloyd(matrix, centers, steps=steps)


def lloyd(matrix: FloatMatrix, centers: FloatMatrix, *, steps: int) -> FloatMatrix:
    """Lloyd steps: update centers to the means of their rows; bit-identical on every machine.

    Args:
        matrix: (n, d) float32.
        centers: (K, d) float32 to start from; a center without rows is unchanged.
        steps: Number of steps.
    """
    grid = Grid.covering(largest_values(matrix), len(matrix))
    for _ in range(steps):
        cluster, _ = nearest(matrix, centers)
        sums = rounded_sums(matrix, cluster, len(centers), grid)
        counts = np.bincount(cluster, minlength=len(centers))
        nonempty = counts > 0
        centers = centers.copy()
        centers[nonempty] = (sums[nonempty] / counts[nonempty, None]).astype(np.float32)
    return centers
