"""Update of the centers after a pass: weighted means, and reseeding of starved centers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gio_spark.kernels.nearest_centroid import FloatMatrix
from gio_spark.quantize.kmeans_pass import unit_rows
from gio_spark.quantize.pass_result import PassResult


def weighted_means(
    centroids: FloatMatrix, previous_weights: npt.NDArray[np.float64], result: PassResult
) -> FloatMatrix:
    """Weighted mean of each previous center and the rows assigned to it, (K, d) float32.

    Args:
        centroids: (K, d) float32, the previous centers.
        previous_weights: (K,) weights of the previous centers.
        result: Sums and counts of the pass; centers without rows are unchanged.
    """
    updated = centroids.copy()
    nonempty = np.flatnonzero(result.counts)
    # In blocks: a float64 copy of all centers would be the largest array here.
    for start in range(0, len(nonempty), 8192):
        block = nonempty[start : start + 8192]
        mean = (
            centroids[block].astype(np.float64) * previous_weights[block, None] + result.sums[block]
        )
        updated[block] = mean / (previous_weights[block] + result.counts[block])[:, None]
    return updated


def reseed_starved(
    centers: FloatMatrix,
    weights: npt.NDArray[np.float64],
    result: PassResult,
    *,
    starved_share: float,
) -> tuple[FloatMatrix, npt.NDArray[np.float64], int]:
    """Reseed starved centers at the farthest rows of the batch, no two at the same place.

    Args:
        centers: (K, d) float32, as updated by the pass.
        weights: (K,) decayed row counts of the centers.
        result: Result of the pass, with its farthest rows.
        starved_share: Centers below this share of the mean weight are starved.

    Returns:
        Centers, weights (0 for the reseeded ones), and the number of reseeded centers.
    """
    starved = np.flatnonzero(weights < starved_share * weights.mean())
    starved = starved[np.argsort(weights[starved], kind="stable")]
    centers, weights = centers.copy(), weights.copy()
    placed: list[int] = []
    for vector, distance in zip(result.far_vectors, result.far_distances, strict=True):
        if len(placed) == len(starved) or not distance > 0.0:
            break
        if placed:
            difference = centers[placed].astype(np.float64) - vector
            if np.add.reduce(difference * difference, axis=1).min() < 0.5 * float(distance):
                continue
        cluster = int(starved[len(placed)])
        centers[cluster] = vector
        weights[cluster] = 0.0
        placed.append(cluster)
    return centers, weights, len(placed)


def unit_or_previous(centers: FloatMatrix, previous: FloatMatrix) -> FloatMatrix:
    """Scale centers to length one; an all-zero center is replaced by its previous value."""
    zero = ~centers.any(axis=1)
    centers[zero] = previous[zero]
    return unit_rows(centers)
