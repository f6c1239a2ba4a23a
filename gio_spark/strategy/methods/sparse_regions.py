"""Oversampling of sparse regions: rows drawn in proportion to the distance to their neighbors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gio_spark.gio.distances import blocks, squared_distances, squared_norms
from gio_spark.strategy.methods.hash_draws import gumbel, top
from gio_spark.strategy.methods.method_registry import method
from gio_spark.strategy.methods.shared_work import compute_once

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gio_spark.strategy.evaluation_dataset import EvaluationDataset

#: Rows of the pool that distances are taken to, and the rank of the neighbor.
_REFERENCES, _NEIGHBOR = 1_000, 5


def neighbor_distance(dataset: EvaluationDataset, seed: int) -> NDArray[np.float64]:
    """Distance of each pool row to its fifth neighbor among 1,000 rows of the pool, (n,)."""

    def compute() -> NDArray[np.float64]:
        draws = gumbel(dataset, seed, "sparse references")
        if dataset.weights is not None:
            draws += np.log(dataset.weights)
        references = top(draws, _REFERENCES)
        points = dataset.vectors[references]
        norms = squared_norms(points)
        rank = min(_NEIGHBOR, len(points) - 1)
        distance = np.empty(dataset.rows)
        for block in blocks(dataset.rows, len(points), 4):
            tile = squared_distances(dataset.vectors[block], points, right_norms=norms)
            # A reference is no neighbor of itself.
            inside = np.flatnonzero((references >= block.start) & (references < block.stop))
            tile[references[inside] - block.start, inside] = np.inf
            distance[block] = np.partition(tile, max(0, rank - 1), axis=1)[:, max(0, rank - 1)]
        return np.sqrt(distance)

    return compute_once(dataset, ("neighbor distance", seed), compute)


@method("sparse_regions", weighted=True)
def sparse_regions(dataset: EvaluationDataset, budget: int, seed: int) -> NDArray[np.int64]:
    """Draw rows in proportion to the distance to their neighbors, whatever the target."""
    distance = neighbor_distance(dataset, seed)
    floor = max(float(np.finfo(np.float32).tiny), 1e-6 * float(np.median(distance)))
    # A pool of one row has no neighbor: every distance is infinite, and all rows count alike.
    scores = np.log(np.clip(distance, floor, 1e30)) + gumbel(dataset, seed, "sparse_regions")
    return top(scores, budget, dataset.weights)
