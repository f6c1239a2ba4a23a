"""Clustered importance sampling: many clusters, rows drawn by the target's share of each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gio_spark.kernels import nearest
from gio_spark.process import no_warnings, one_thread
from gio_spark.strategy.methods.hash_draws import generator, gumbel, row_keys, top
from gio_spark.strategy.methods.method_registry import method
from gio_spark.strategy.methods.shared_work import compute_once

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gio_spark.strategy.evaluation_dataset import EvaluationDataset

#: Rows of the pool per cluster, and most clusters.
_ROWS_PER_CLUSTER, _MAX_CLUSTERS = 20, 4_096
_FIT_ROWS = 50_000


@method("crisp", needs=("target_vectors",))
def crisp(dataset: EvaluationDataset, budget: int, seed: int) -> NDArray[np.int64]:
    """Draw rows in proportion to the target's share of their cluster over the pool's.

    The recipe of CRISP (Grangier et al. 2024, arXiv 2410.03735) with many small clusters. It draws
    with replacement; here a row counts once, so that a full cluster leaves its share to the others.
    Rows of clusters without target rows come last, at random.
    """

    def compute() -> NDArray[np.float64]:
        centroids = _fine_centroids(dataset, seed)
        cluster, _ = nearest(dataset.vectors, centroids)
        target, _ = nearest(dataset.target_vectors, centroids)
        rows, target_rows = (np.bincount(c, minlength=len(centroids)) for c in (cluster, target))
        with np.errstate(divide="ignore"):
            log_ratio = np.log(target_rows / np.maximum(rows, 1))
        # Finite, but below every cluster with a target row, whatever is drawn.
        return np.maximum(log_ratio, np.log(1 / max(1, dataset.rows)) - 100.0)[cluster]

    weights = compute_once(dataset, ("crisp", seed), compute)
    return top(weights + gumbel(dataset, seed, "crisp"), budget)


def _fine_centroids(dataset: EvaluationDataset, seed: int) -> NDArray[np.float32]:
    """Centroids of k-means on a sample of the pool, (K, d) float32."""
    from sklearn.cluster import MiniBatchKMeans

    count = int(np.clip(dataset.rows // _ROWS_PER_CLUSTER, 1, _MAX_CLUSTERS))
    order = np.argsort(row_keys(dataset, seed, "crisp sample"), kind="stable")
    state = int(generator(seed, "crisp centroids").integers(2**31))
    model = MiniBatchKMeans(
        count, init="random", batch_size=4_096, max_iter=10, n_init=1, random_state=state
    )
    with no_warnings(), one_thread():
        centroids = model.fit(dataset.vectors[np.sort(order[:_FIT_ROWS])]).cluster_centers_
    return np.ascontiguousarray(centroids, dtype=np.float32)
