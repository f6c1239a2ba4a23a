"""Draws and rankings by hash: what is random here is a function of (seed, purpose, row's hash)."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from gio_spark.kernels.splitmix import mix64

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from gio_spark.evaluate.dataset import EvaluationDataset


def keys(dataset: EvaluationDataset, seed: int, purpose: str) -> NDArray[np.uint64]:
    """Well mixed uint64 per row of the pool, (n,).

    Args:
        dataset: Its `hashes` name the rows.
        seed: Seed.
        purpose: What the draw is for; draws for different purposes are independent.
    """
    salt = hashlib.blake2b(f"{purpose}:{seed}".encode(), digest_size=8).digest()
    word = np.uint64(int.from_bytes(salt, "little"))
    return mix64(mix64(dataset.hashes ^ word) + word)


def uniform(dataset: EvaluationDataset, seed: int, purpose: str) -> NDArray[np.float64]:
    """Number in (0, 1) per row of the pool, (n,)."""
    return ((keys(dataset, seed, purpose) >> np.uint64(11)).astype(np.float64) + 0.5) / 2.0**53


def gumbel(dataset: EvaluationDataset, seed: int, purpose: str) -> NDArray[np.float64]:
    """Standard Gumbel number per row of the pool, (n,).

    The largest `b` of log weight + Gumbel are a draw of b rows without replacement in proportion
    to the weights (Yellott 1977).
    """
    return -np.log(-np.log(np.minimum(uniform(dataset, seed, purpose), 1.0 - 2.0**-53)))


def generator(seed: int, purpose: str) -> np.random.Generator:
    """Generator for draws that belong to no row (projections, samples of the target)."""
    digest = hashlib.blake2b(f"{purpose}:{seed}".encode(), digest_size=8).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))


def top(scores: ArrayLike, budget: int) -> NDArray[np.int64]:
    """Rows of the largest scores, ascending; ties to the lowest row, NaN last."""
    values = np.asarray(scores, dtype=np.float64)
    order = np.argsort(-np.where(np.isnan(values), -np.inf, values), kind="stable")
    return np.sort(order[:budget]).astype(np.int64)


def within(
    cluster: NDArray[np.integer], take: NDArray[np.int64], scores: ArrayLike
) -> NDArray[np.int64]:
    """`take` best rows of each cluster, ascending; ties to the lowest row.

    Args:
        cluster: (n,) cluster of each row.
        take: (K,) rows wanted of each, at most its size.
        scores: (n,) larger is better.
    """
    order = np.lexsort((-np.asarray(scores, dtype=np.float64), cluster))
    owner = np.asarray(cluster)[order]
    starts = np.concatenate(([0], np.cumsum(np.bincount(owner, minlength=len(take)))))[:-1]
    rank = np.arange(len(order)) - starts[owner]
    return np.sort(order[rank < take[owner]]).astype(np.int64)
