"""Kernel herding to the target's mean (Chen, Welling, Smola 2010) on random Fourier features."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gio_spark.evaluate.methods.base import method
from gio_spark.evaluate.methods.draws import generator
from gio_spark.evaluate.methods.neighbours import centred
from gio_spark.evaluate.methods.shared import shared
from gio_spark.gio.distances import squared_distances

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gio_spark.evaluate.dataset import EvaluationDataset

#: Random features: their kernel is off by about 1 / sqrt(features).
FEATURES = 512
#: Rows are picked in this many groups, between which the selection's mean is brought up to date.
GROUPS = 128
_BLOCK = 16_384


@method("herding", needs=("target_vectors",), version=2)
def herding(dataset: EvaluationDataset, budget: int, seed: int) -> NDArray[np.int64]:
    """Pick rows greedily so that their mean in feature space follows the target's.

    The i-th pick maximises <phi(x), i mu - sum of phi over the picks so far>, mu the target's
    mean; here in groups of budget / 128 rows, each taken once.
    """
    features, mean = shared(
        dataset, ("random features", seed), lambda: random_features(dataset, seed)
    )
    score_mean = features @ mean
    picked = np.zeros(features.shape[1])
    free = np.ones(dataset.rows, dtype=bool)
    count = 0
    for end in np.unique(np.linspace(0, budget, min(budget, GROUPS) + 1).round().astype(np.int64))[
        1:
    ]:
        group = int(end) - count
        # The pull grows with the picks to come in this group: half of them on average.
        pull = count + 0.5 * (group + 1)
        score = pull * score_mean - features @ picked.astype(np.float32)
        score[~free] = -np.inf
        best = np.argpartition(-score, group - 1)[:group]
        free[best] = False
        picked += features[best].sum(axis=0, dtype=np.float64)
        count = int(end)
    return np.flatnonzero(~free).astype(np.int64)


def random_features(
    dataset: EvaluationDataset, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Features of the pool, (n, 512) float32, and the target's mean, (512,).

    Random Fourier features (Rahimi and Recht 2007) of a Gaussian kernel whose width is the median
    distance between rows of the target and rows of the pool.
    """

    target, pool = centred(dataset)
    rng = generator(seed, "random features")
    some = np.sort(rng.permutation(len(target))[:500])
    # Rows stand in the order of their hashes, so that the first are a random sample.
    width = np.median(np.sqrt(squared_distances(target[some], pool[:2_000])))
    d = pool.shape[1]
    direction = rng.standard_normal((d, FEATURES)).astype(np.float32)
    direction /= max(float(width), 1e-12)
    phase = rng.uniform(0, 2 * np.pi, FEATURES).astype(np.float32)
    scale = np.float32(np.sqrt(2.0 / FEATURES))

    def phi(rows: NDArray[np.float32]) -> NDArray[np.float32]:
        out = rows @ direction
        out += phase
        np.cos(out, out=out)
        out *= scale
        return out

    features = np.empty((len(pool), FEATURES), dtype=np.float32)
    for start in range(0, len(pool), _BLOCK):
        features[start : start + _BLOCK] = phi(pool[start : start + _BLOCK])
    return features, phi(target).mean(axis=0, dtype=np.float64).astype(np.float32)
