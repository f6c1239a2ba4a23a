"""Kernel herding to the mean of the target (Chen, Welling, Smola 2010), on Fourier features."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gio_spark.gio.distances import squared_distances
from gio_spark.strategy.methods.hash_draws import generator
from gio_spark.strategy.methods.method_registry import method
from gio_spark.strategy.methods.neighbor_lists import centered
from gio_spark.strategy.methods.shared_work import compute_once

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gio_spark.strategy.evaluation_dataset import EvaluationDataset

#: Number of random features; the error of their kernel is about 1 / sqrt(features).
FEATURES = 512
#: Number of groups of picks; the mean of the selection is updated after each group.
GROUPS = 128
_BLOCK = 16_384


@method("herding", needs=("target_vectors",), version=2)
def herding(dataset: EvaluationDataset, budget: int, seed: int) -> NDArray[np.int64]:
    """Pick rows greedily so that their mean in feature space follows the target's.

    The i-th pick maximizes <phi(x), i mu - sum of phi over the picks so far>, where mu is the mean
    of the target. Rows are picked in groups of budget / 128 rows, each row once.
    """
    features, mean = compute_once(
        dataset, ("random features", seed), lambda: random_features(dataset, seed)
    )
    score_mean = features @ mean
    feature_sum = np.zeros(features.shape[1])
    is_free = np.ones(dataset.rows, dtype=bool)
    pick_count = 0
    for end in np.unique(np.linspace(0, budget, min(budget, GROUPS) + 1).round().astype(np.int64))[
        1:
    ]:
        group = int(end) - pick_count
        # The weight of the mean grows with the picks of this group, by half of them on average.
        mean_weight = pick_count + 0.5 * (group + 1)
        score = mean_weight * score_mean - features @ feature_sum.astype(np.float32)
        score[~is_free] = -np.inf
        best = np.argpartition(-score, group - 1)[:group]
        is_free[best] = False
        feature_sum += features[best].sum(axis=0, dtype=np.float64)
        pick_count = int(end)
    return np.flatnonzero(~is_free).astype(np.int64)


def random_features(
    dataset: EvaluationDataset, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Features of the pool, (n, 512) float32, and the target's mean, (512,).

    Random Fourier features (Rahimi and Recht 2007) of a Gaussian kernel whose width is the median
    distance between rows of the target and rows of the pool.
    """

    target, pool = centered(dataset)
    rng = generator(seed, "random features")
    sample = np.sort(rng.permutation(len(target))[:500])
    # Rows are in the order of their hashes, so the first rows are a random sample.
    width = np.median(np.sqrt(squared_distances(target[sample], pool[:2_000])))
    dimension = pool.shape[1]
    direction = rng.standard_normal((dimension, FEATURES)).astype(np.float32)
    direction /= max(float(width), 1e-12)
    phase = rng.uniform(0, 2 * np.pi, FEATURES).astype(np.float32)
    scale = np.float32(np.sqrt(2.0 / FEATURES))

    def features_of(rows: NDArray[np.float32]) -> NDArray[np.float32]:
        phases = rows @ direction
        phases += phase
        np.cos(phases, out=phases)
        phases *= scale
        return phases

    features = np.empty((len(pool), FEATURES), dtype=np.float32)
    for start in range(0, len(pool), _BLOCK):
        features[start : start + _BLOCK] = features_of(pool[start : start + _BLOCK])
    return features, features_of(target).mean(axis=0, dtype=np.float64).astype(np.float32)
