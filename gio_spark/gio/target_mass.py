"""Target mass on the pool's codebook: each target row spread over its nearest clusters.

Sums are in fixed point (int64), so the same rows give the same mass to the last bit in any order
and any partitioning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gio_spark.errors import ConfigError, InputError
from gio_spark.gio.distances import blocks, squared_distances, squared_norms

#: One unit of weight (a row, a token) is this many fixed-point steps.
STEPS = 2**24
#: Candidates beyond the number of neighbors, so that float32 ties cannot matter.
SPARE = 3


@dataclass(frozen=True, eq=False)
class TargetMass:
    """Mass of target rows on the pool's clusters, mergeable.

    Attributes:
        fixed: (K,) int64 mass in steps of 2^-24 of a unit of weight.
        out_of_reach: Weight out of the pool's reach, in the same steps.
        rows: Number of target rows.
        rows_out_of_reach: Number of those rows out of reach.
    """

    fixed: NDArray
    out_of_reach: int
    rows: int
    rows_out_of_reach: int

    @property
    def mass(self) -> NDArray:
        """Mass within reach, (K,) float64, in units of weight."""
        return self.fixed / STEPS

    @property
    def unreachable(self) -> float:
        """Share of the weight that is out of reach, 0 to 1 (0 for no rows)."""
        total = int(self.fixed.sum()) + self.out_of_reach
        return self.out_of_reach / total if total else 0.0

    def merge(self, other: TargetMass) -> TargetMass:
        """Mass of both sets of rows together."""
        return TargetMass(
            self.fixed + other.fixed,
            self.out_of_reach + other.out_of_reach,
            self.rows + other.rows,
            self.rows_out_of_reach + other.rows_out_of_reach,
        )

    @classmethod
    def empty(cls, clusters: int) -> TargetMass:
        """Mass of no rows."""
        return cls(np.zeros(clusters, dtype=np.int64), 0, 0, 0)


def cluster_radii(inertia: ArrayLike, rows: ArrayLike) -> NDArray:
    """Radius of each cluster: the root mean squared distance of its rows to its centroid.

    Shrunk by one pseudo-row towards the mean of the entire pool, so that a cluster of one row
    (inertia 0) still reaches as far as a typical cluster.

    Args:
        inertia: (K,) sum of squared distances of the cluster's rows.
        rows: (K,) rows of the cluster.

    Returns:
        (K,) float64 radii.
    """
    total = np.asarray(inertia, dtype=np.float64)
    count = np.asarray(rows, dtype=np.float64)
    typical = total.sum() / max(1.0, count.sum())
    return np.sqrt((total + typical) / (count + 1.0))


def relative_reach(squared: ArrayLike, cluster: ArrayLike, radii: ArrayLike) -> NDArray:
    """Distance of each row to its nearest cluster over that cluster's radius.

    0 over 0 is 0 (a row on the centroid of a cluster of duplicates), other values over 0 are
    infinite.

    Args:
        squared: (n,) squared distances to the nearest centroid.
        cluster: (n,) nearest clusters.
        radii: (K,) from `cluster_radii`.

    Returns:
        (n,) float64 ratios.
    """
    distance = np.sqrt(np.maximum(np.asarray(squared, dtype=np.float64), 0.0))
    radius = np.asarray(radii, dtype=np.float64)[np.asarray(cluster)]
    out = np.where(distance > 0, np.inf, 0.0)
    return np.divide(distance, radius, out=out, where=radius > 0)


def reach_limit(
    squared: ArrayLike, cluster: ArrayLike, radii: ArrayLike, *, quantile: float = 0.995
) -> float:
    """Reach limit: the ratio beyond which a target row counts as out of the pool's reach.

    It is the `quantile` of the pool rows' own distance over their cluster's radius.

    Args:
        squared: (n,) squared distances of pool rows (a sample will do) to their centroid.
        cluster: (n,) their clusters.
        radii: (K,) from `cluster_radii`.
        quantile: Share of the pool's rows within the limit.

    Raises:
        InputError: There are no pool rows.
    """
    ratios = relative_reach(squared, cluster, radii)
    if len(ratios) == 0:
        raise InputError("No pool rows to set the reach from; the pool sample is empty.")
    return float(np.quantile(ratios, quantile, method="higher"))


def kernel_width(squared: ArrayLike, clusters: int, rows: int) -> float:
    """Width of the kernel from the data, in squared distance.

    The scale is the median gap between a target row's second and first squared distance, so it
    follows units and dimension. It shrinks as sqrt(K / n): with many target rows per cluster
    their counts need no smoothing, and smoothing would only blur them.

    Args:
        squared: (n, >= 2) ascending squared distances of target rows (a sample will do).
        clusters: K.
        rows: Total number of target rows.
    """
    near = np.asarray(squared, dtype=np.float64)
    if near.ndim != 2 or near.shape[1] < 2 or len(near) == 0:
        return 0.0
    gap = float(np.median(near[:, 1] - near[:, 0]))
    return gap * min(1.0, float(np.sqrt(clusters / max(1, rows))))


def nearest_clusters(
    vectors: NDArray, centroids: NDArray, neighbors: int
) -> tuple[NDArray, NDArray]:
    """Nearest clusters and their squared distances, ascending, ties by lowest cluster.

    Candidates come from a float32 matrix product; the distances returned are recomputed in
    float64, so they do not depend on how rows are batched.

    Args:
        vectors: (n, d) rows.
        centroids: (K, d).
        neighbors: Number of clusters per row, at most K.

    Returns:
        (n, neighbors) int64 and float64.
    """
    points = np.asarray(centroids, dtype=np.float32)
    rows = np.asarray(vectors, dtype=np.float32)
    count = min(neighbors, len(points))
    candidate_count = min(count + SPARE, len(points))
    exact = points.astype(np.float64)
    norms = squared_norms(points)
    nearest = np.empty((len(rows), count), dtype=np.int64)
    squared = np.empty((len(rows), count))
    width = max(len(points), 4 * candidate_count * points.shape[1])
    for block in blocks(len(rows), width, 4, limit=64 * 2**20):
        tile = squared_distances(rows[block], points, right_norms=norms)
        if candidate_count < len(points):
            candidates = np.argpartition(tile, candidate_count - 1, axis=1)[:, :candidate_count]
        else:
            candidates = np.broadcast_to(np.arange(candidate_count), tile.shape)
        candidates = np.sort(candidates, axis=1)
        gap = exact[candidates] - rows[block].astype(np.float64)[:, None, :]
        candidate_distances = np.einsum("ijk,ijk->ij", gap, gap)
        order = np.argsort(candidate_distances, axis=1, kind="stable")[:, :count]
        nearest[block] = np.take_along_axis(candidates, order, axis=1)
        squared[block] = np.take_along_axis(candidate_distances, order, axis=1)
    return nearest, squared


def kernel_mass(
    vectors: ArrayLike,
    centroids: ArrayLike,
    widths: ArrayLike,
    *,
    radii: ArrayLike | None = None,
    limit: float = float("inf"),
    neighbors: int = 8,
    weights: ArrayLike | None = None,
) -> TargetMass:
    """Spread the weight of target rows over their nearest clusters by a kernel.

    A row's weight goes to its nearest clusters j in proportion to
    exp(-(|x - c_j|^2 - |x - c_1|^2) / width). Width 0 gives it to the nearest alone. A row whose
    distance over its cluster's radius is above `limit` is out of reach: its weight is counted,
    never spread.

    Args:
        vectors: (n, d) target rows of one batch.
        centroids: (K, d) of the pool.
        widths: One width, or (K,) one per cluster, in squared distance (`kernel_width`).
        radii: (K,) from `cluster_radii`; needed where `limit` is finite.
        limit: From `reach_limit`.
        neighbors: Clusters over which a row is spread.
        weights: (n,) weight per row (tokens, quality); 1 where None.

    Returns:
        The batch's mass; merge those of all batches.

    Raises:
        ConfigError: `limit` without `radii`.

    Example:
        >>> mass = kernel_mass([[0.0], [1.9]], [[0.0], [2.0]], 0.0)
        >>> mass.merge(kernel_mass([[0.1]], [[0.0], [2.0]], 0.0)).mass
        array([2., 1.])
    """
    rows = np.atleast_2d(np.asarray(vectors))
    points = np.asarray(centroids)
    if rows.size == 0:
        return TargetMass.empty(len(points))
    if radii is None and np.isfinite(limit):
        raise ConfigError("A reach limit needs the clusters' radii; pass radii=cluster_radii(...).")
    nearest, squared = nearest_clusters(rows, points, neighbors)
    weight = np.ones(len(rows)) if weights is None else np.asarray(weights, dtype=np.float64)
    is_far = np.zeros(len(rows), dtype=bool)
    if radii is not None:
        is_far = relative_reach(squared[:, 0], nearest[:, 0], radii) > limit
    width = np.broadcast_to(np.asarray(widths, dtype=np.float64), (len(points),))[nearest]
    excess = squared - squared[:, :1]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        kernel = np.exp(-excess / width)
    kernel = np.where(width > 0, kernel, 0.0)
    kernel[:, 0] = 1.0
    kernel *= (weight / kernel.sum(axis=1))[:, None]
    steps = np.rint(kernel * STEPS).astype(np.int64)
    in_reach = ~is_far
    fixed = np.zeros(len(points), dtype=np.int64)
    np.add.at(fixed, nearest[in_reach].ravel(), steps[in_reach].ravel())
    return TargetMass(
        fixed, int(np.rint(weight[is_far] * STEPS).sum()), len(rows), int(is_far.sum())
    )


def mix_targets(masses: Sequence[TargetMass], shares: Sequence[float]) -> tuple[NDArray, float]:
    """Mix several targets by shares.

    Each target counts with its share however many rows it has.

    Args:
        masses: One mass per target.
        shares: One positive share per target, on any scale.

    Returns:
        The mixed mass (K,) with sum 1 - unreachable, and the mixed unreachable share.

    Raises:
        ConfigError: The numbers of masses and shares differ, or shares are not positive.
        InputError: A target has no rows.
    """
    if len(masses) != len(shares) or not masses:
        raise ConfigError(f"{len(masses)} targets but {len(shares)} shares; give one share each.")
    if min(shares) <= 0:
        raise ConfigError("Shares of targets must be positive; leave out targets with share 0.")
    fractions = np.asarray(shares, dtype=np.float64) / float(np.sum(shares))
    mixed = np.zeros(len(masses[0].fixed))
    unreachable = 0.0
    for fraction, mass in zip(fractions, masses, strict=True):
        total = int(mass.fixed.sum()) + mass.out_of_reach
        if total == 0:
            raise InputError("A target has no rows with weight; leave it out or check its table.")
        mixed += fraction * (mass.fixed / total)
        unreachable += fraction * mass.unreachable
    return mixed, float(unreachable)
