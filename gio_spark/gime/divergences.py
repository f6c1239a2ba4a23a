"""Divergences, entropies and moments from merged counts: numpy, every sum in a fixed order."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from gio_spark.gime.mergeable_sums import GRID

if TYPE_CHECKING:
    from numpy.typing import NDArray


def entropy_bits(counts: NDArray[Any]) -> float:
    """Entropy of counts, in bits (plug-in; biased low for few rows)."""
    counts = np.asarray(counts, np.float64)
    counts = counts[counts > 0]
    n = math.fsum(counts)
    return math.fsum(c / n * math.log2(n / c) for c in counts.tolist())


def effective_classes(counts: NDArray[Any]) -> float:
    """Effective classes 2^H: the number of equally likely classes with the same entropy."""
    return float(2.0 ** entropy_bits(counts))


def aligned(
    first: NDArray[np.int64], second: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Two (2, m) histograms as shares over the union of their keys."""
    keys = np.union1d(first[0], second[0])
    result = []
    for counted in (first, second):
        shares = np.zeros(keys.size)
        shares[np.searchsorted(keys, counted[0])] = counted[1]
        result.append(shares / max(math.fsum(shares), 1.0))
    return result[0], result[1]


def jensen_shannon_bits(first: NDArray[np.int64], second: NDArray[np.int64]) -> float:
    """The Jensen-Shannon divergence of two (2, m) histograms, 0 to 1 bit."""
    p, q = aligned(first, second)
    terms = []
    for a, b in zip(p.tolist(), q.tolist(), strict=True):
        middle = (a + b) / 2
        terms += [x / 2 * math.log2(x / middle) for x in (a, b) if x > 0]
    return min(1.0, max(0.0, math.fsum(terms)))


def total_variation(first: NDArray[np.int64], second: NDArray[np.int64]) -> float:
    """Half the summed difference of shares, 0 to 1."""
    p, q = aligned(first, second)
    return math.fsum(np.abs(p - q)) / 2


def population_stability(first: NDArray[np.int64], second: NDArray[np.int64]) -> float:
    """Population stability index in nats; every bin is smoothed by half a row."""
    keys = np.union1d(first[0], second[0])
    shares = []
    for counted in (first, second):
        counts = np.full(keys.size, 0.5)
        counts[np.searchsorted(keys, counted[0])] += counted[1]
        shares.append(counts / math.fsum(counts))
    p, q = shares
    return math.fsum((p - q) * np.log(p / q))


def transport(
    x: NDArray[Any], x_counts: NDArray[Any], y: NDArray[Any], y_counts: NDArray[Any]
) -> float:
    """The Wasserstein-1 distance of two weighted sets of points on a line."""
    points = np.union1d(x, y)
    steps = np.zeros(points.size)
    np.add.at(steps, np.searchsorted(points, x), x_counts / x_counts.sum())
    np.add.at(steps, np.searchsorted(points, y), -(y_counts / y_counts.sum()))
    return math.fsum(np.abs(np.cumsum(steps))[:-1] * np.diff(points))


def pairs(counts: NDArray[Any]) -> int:
    """Number of pairs of rows that share a class."""
    return sum(c * (c - 1) // 2 for c in np.asarray(counts).tolist())


def mean_pairwise_cosine(n: int, summed: NDArray[np.int64], squares: int) -> float:
    """Mean pairwise cosine (|sum u|^2 - sum |u|^2) / (n (n - 1)), from exact grid sums.

    The denominator uses the rows' own mean squared length on the grid, so equal rows give 1.
    """
    squared_length = sum(s * s for s in summed.tolist())
    return (squared_length - squares) / ((n - 1) * squares)


def moments(
    n: int, summed: NDArray[np.int64], second: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and covariance of unit vectors from exact grid sums."""
    mean = summed.astype(np.float64) / (n * GRID)
    covariance = second.astype(np.float64) / (n * GRID * GRID) - np.outer(mean, mean)
    return mean, (covariance + covariance.T) / 2


def spectral_classes(covariance: NDArray[np.float64]) -> float:
    """Effective number of directions (tr C)^2 / tr C^2 of the rows."""
    trace = float(np.trace(covariance))
    squared = float(np.sum(covariance * covariance))
    return trace * trace / squared if squared > 0 else 1.0


def frechet(
    first: tuple[NDArray[np.float64], NDArray[np.float64]],
    second: tuple[NDArray[np.float64], NDArray[np.float64]],
) -> float:
    """Squared Frechet distance of two Gaussians (mean, covariance)."""
    (mean_a, cov_a), (mean_b, cov_b) = first, second
    values, basis = np.linalg.eigh(cov_a)
    root = (basis * np.sqrt(np.clip(values, 0, None))) @ basis.T
    inner = np.clip(np.linalg.eigvalsh(root @ cov_b @ root), 0, None)
    gap = float(np.sum((mean_a - mean_b) ** 2))
    return max(
        0.0, gap + float(np.trace(cov_a) + np.trace(cov_b)) - 2 * float(np.sum(np.sqrt(inner)))
    )


def label_disagreement(classes: NDArray[np.int64], shift: int) -> float:
    """Share of rows whose label is not the most frequent one of their cluster.

    Args:
        classes: Histogram of (cluster << shift | label).
        shift: Bits of the label.
    """
    clusters = classes[0] >> shift
    starts = np.flatnonzero(np.r_[True, clusters[1:] != clusters[:-1]])
    majority = np.maximum.reduceat(classes[1], starts)
    return 1.0 - int(majority.sum()) / int(classes[1].sum())
