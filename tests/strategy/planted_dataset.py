"""A small pool whose good rows are known: in two of ten clusters, those whose text fits."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from gio_spark.strategy.evaluation_dataset import EvaluationDataset

ROWS, DIMENSION, CLUSTERS, TARGET = 1_200, 8, 10, 150
GOOD = ("river", "stone", "bridge", "water", "boat", "shore", "reed", "tide")
BAD = ("click", "offer", "price", "sale", "order", "cheap", "deal", "buy")
SHARED = ("the", "of", "and", "in", "to", "it", "was", "with")


def planted_dataset(seed: int = 0, *, texts: bool = True) -> EvaluationDataset:
    """1,200 rows in ten clusters; the target is a mixture of two of them.

    In these two clusters half of the rows are bad: their vectors lie a little off and their texts
    are of other words, as those of all other clusters are.
    """
    rng = np.random.default_rng(seed)
    centroids = rng.normal(0, 3, (CLUSTERS, DIMENSION)).astype(np.float32)
    cluster = rng.integers(0, CLUSTERS, ROWS).astype(np.int32)
    good = (cluster < 2) & (rng.random(ROWS) < 0.5)
    vectors = centroids[cluster] + rng.normal(0, 0.5, (ROWS, DIMENSION))
    vectors[~good, 0] += 0.8
    target_cluster = np.where(rng.random(2 * TARGET) < 0.6, 0, 1)
    target = centroids[target_cluster] + rng.normal(0, 0.5, (2 * TARGET, DIMENSION))
    mass = np.bincount(target_cluster[:TARGET], minlength=CLUSTERS) / TARGET
    return EvaluationDataset(
        vectors=vectors.astype(np.float32),
        hashes=rng.integers(0, 2**64, ROWS, dtype=np.uint64),
        target_vectors=target[:TARGET].astype(np.float32),
        centroids=centroids,
        cluster=cluster,
        target_mass=mass,
        held_vectors=target[TARGET:].astype(np.float32),
        texts=pa.array(random_texts(rng, good)) if texts else None,
        target_texts=pa.array(random_texts(rng, np.ones(TARGET, bool))) if texts else None,
        held_texts=pa.array(random_texts(rng, np.ones(TARGET, bool))) if texts else None,
        good=good.astype(np.float64),
    )


def random_texts(rng: np.random.Generator, good: np.ndarray) -> list[str]:
    """Text of 6 to 14 words for each row; a quarter of the words tell nothing."""
    lines = []
    for is_good in good:
        words = np.array(GOOD if is_good else BAD)
        drawn = words[rng.integers(0, len(words), rng.integers(6, 15))]
        common = rng.random(len(drawn)) < 0.25
        other = np.array(SHARED)[rng.integers(0, len(SHARED), len(drawn))]
        lines.append(" ".join(np.where(common, other, drawn)))
    return lines
