"""How centres move after a pass: to means, and starved ones to the rows farthest from theirs."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gio_spark.kernels.search import FloatMatrix
from gio_spark.quantize.kmeans_pass import unit_rows
from gio_spark.quantize.pass_result import PassResult


def means(centroids: FloatMatrix, old: npt.NDArray[np.float64], found: PassResult) -> FloatMatrix:
    """Return centres moved to the weighted mean of where they were and the rows they got.

    Args:
        centroids: (K, d) float32.
        old: (K,) weight of where they were.
        found: What the pass found; centres without rows stay.
    """
    centres = centroids.copy()
    moved = np.flatnonzero(found.counts)
    # Some at a time: float64 copies of very many centres take more than all else here.
    for start in range(0, len(moved), 8192):
        part = moved[start : start + 8192]
        mean = centroids[part].astype(np.float64) * old[part, None] + found.sums[part]
        centres[part] = mean / (old[part] + found.counts[part])[:, None]
    return centres


def reseeded(
    centres: FloatMatrix,
    weights: npt.NDArray[np.float64],
    found: PassResult,
    *,
    starved_share: float,
) -> tuple[FloatMatrix, npt.NDArray[np.float64], int]:
    """Place starved centres on the farthest rows of the batch, no two on the same spot.

    Args:
        centres: (K, d) float32, as moved by the pass.
        weights: (K,) rows that each centre has seen.
        found: What the pass found.
        starved_share: Centres below this share of the mean weight are starved.

    Returns:
        Centres, weights (0 for those placed anew), and how many were placed.
    """
    starved = np.flatnonzero(weights < starved_share * weights.mean())
    starved = starved[np.argsort(weights[starved], kind="stable")]
    centres, weights = centres.copy(), weights.copy()
    placed: list[int] = []
    for vector, distance in zip(found.far_vectors, found.far_distances, strict=True):
        if len(placed) == len(starved) or not distance > 0.0:
            break
        if placed:
            gap = centres[placed].astype(np.float64) - vector
            if np.add.reduce(gap * gap, axis=1).min() < 0.5 * float(distance):
                continue
        spot = int(starved[len(placed)])
        centres[spot] = vector
        weights[spot] = 0.0
        placed.append(spot)
    return centres, weights, len(placed)


def unit_or(centres: FloatMatrix, fallback: FloatMatrix) -> FloatMatrix:
    """Scale centres to length one; one whose rows cancel out stays where it was."""
    gone = ~centres.any(axis=1)
    centres[gone] = fallback[gone]
    return unit_rows(centres)
