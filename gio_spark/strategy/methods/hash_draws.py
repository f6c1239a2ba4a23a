"""Random draws and rankings that are functions of the seed, a purpose and the hashes of rows."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from gio_spark.kernels.splitmix import mix64

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from gio_spark.strategy.evaluation_dataset import EvaluationDataset


def row_keys(dataset: EvaluationDataset, seed: int, purpose: str) -> NDArray[np.uint64]:
    """Mixed hash of each pool row, uint64 (n,).

    Args:
        dataset: Dataset; its `hashes` identify the rows.
        seed: Seed.
        purpose: Name of the draw; draws for different purposes are independent.
    """
    salt = hashlib.blake2b(f"{purpose}:{seed}".encode(), digest_size=8).digest()
    word = np.uint64(int.from_bytes(salt, "little"))
    return mix64(mix64(dataset.hashes ^ word) + word)


def uniform(dataset: EvaluationDataset, seed: int, purpose: str) -> NDArray[np.float64]:
    """Uniform number in (0, 1) of each pool row, (n,)."""
    return ((row_keys(dataset, seed, purpose) >> np.uint64(11)).astype(np.float64) + 0.5) / 2.0**53


def gumbel(dataset: EvaluationDataset, seed: int, purpose: str) -> NDArray[np.float64]:
    """Standard Gumbel number of each pool row, (n,).

    The `b` largest sums of log weight and Gumbel number are a draw of b rows without replacement
    in proportion to the weights (Yellott 1977).
    """
    return -np.log(-np.log(np.minimum(uniform(dataset, seed, purpose), 1.0 - 2.0**-53)))


def generator(seed: int, purpose: str) -> np.random.Generator:
    """Generator for draws that are not per pool row (projections, samples of the target)."""
    digest = hashlib.blake2b(f"{purpose}:{seed}".encode(), digest_size=8).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))


def top(
    scores: ArrayLike, budget: int, weights: NDArray[np.float64] | None = None
) -> NDArray[np.int64]:
    """Rows of the largest scores, ascending; ties go to the lowest row, NaN comes last.

    Args:
        scores: (n,) larger is better.
        budget: Pool rows to take.
        weights: (n,) pool rows that each row stands for; None: one.

    Example:
        >>> top([1.0, float("nan"), 2.0, 2.0, 2.0], 2).tolist()
        [2, 3]
        >>> top([3.0, 2.0, 1.0], 12, np.array([8.0, 4.0, 8.0])).tolist()
        [0, 1]
    """
    values = np.asarray(scores, dtype=np.float64)
    order = np.argsort(-np.where(np.isnan(values), -np.inf, values), kind="stable")
    return first_of_order(order, budget, weights)


def first_of_order(
    order: NDArray[np.integer], budget: int, weights: NDArray[np.float64] | None = None
) -> NDArray[np.int64]:
    """First rows of an order that stand for a budget of pool rows, ascending.

    Args:
        order: (n,) rows, best first.
        budget: Pool rows to take.
        weights: (n,) pool rows that each row stands for; None: one. A row is taken if more than
            half of it is within the budget.
    """
    if weights is None:
        return np.sort(order[:budget]).astype(np.int64)
    ordered = weights[order]
    return np.sort(order[np.cumsum(ordered) - ordered / 2 < budget]).astype(np.int64)


def top_of_clusters(
    cluster: NDArray[np.integer],
    take: NDArray[np.int64],
    scores: ArrayLike,
    weights: NDArray[np.float64] | None = None,
) -> NDArray[np.int64]:
    """Best rows of each cluster, ascending; ties go to the lowest row.

    Args:
        cluster: (n,) cluster of each row.
        take: (K,) allocation, at most the size of each cluster.
        scores: (n,) larger is better.
        weights: (n,) pool rows that each row stands for; None: one.

    Example:
        >>> top_of_clusters(np.array([1, 0, 1, 0]), np.array([1, 1]), [5, 1, 9, 3]).tolist()
        [2, 3]
    """
    order = np.lexsort((-np.asarray(scores, dtype=np.float64), cluster))
    sorted_cluster = np.asarray(cluster)[order]
    starts = np.concatenate(([0], np.cumsum(np.bincount(sorted_cluster, minlength=len(take)))))[:-1]
    if weights is None:
        rank = np.arange(len(order)) - starts[sorted_cluster]
        return np.sort(order[rank < take[sorted_cluster]]).astype(np.int64)
    ordered = weights[order]
    before = np.concatenate(([0.0], np.cumsum(ordered)))
    middle = before[:-1] + ordered / 2 - before[starts][sorted_cluster]
    return np.sort(order[middle < take[sorted_cluster]]).astype(np.int64)
