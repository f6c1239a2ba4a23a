"""Retrieval by distance: rows nearest to any target, and each target's next nearest in turn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gio_spark.evaluate.methods.base import Chosen, method
from gio_spark.evaluate.methods.draws import top, uniform
from gio_spark.evaluate.methods.neighbours import (
    first_rank,
    most_neighbours,
    neighbours,
    target_distance,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gio_spark.evaluate.dataset import EvaluationDataset


@method("nearest", needs=("target_vectors",))
def nearest(dataset: EvaluationDataset, budget: int, seed: int) -> NDArray[np.int64]:
    """Take the rows nearest to any target row."""
    return top(-target_distance(dataset), budget)


@method("knn_retrieval", needs=("target_vectors",))
def knn_retrieval(dataset: EvaluationDataset, budget: int, seed: int) -> Chosen:
    """Take each target row's next nearest row in turn, so that all targets count alike."""
    longest = most_neighbours(dataset)
    length = 4 * budget // len(dataset.target_vectors)
    while True:
        lists = neighbours(dataset, length).rows
        rank = first_rank(lists, dataset.rows)
        listed = int(np.count_nonzero(rank < lists.shape[1]))
        if listed >= budget or lists.shape[1] >= longest:
            break
        length = lists.shape[1] + 1
    note = ""
    tie = uniform(dataset, seed, "knn_retrieval")
    if listed < budget:
        note = f"{budget - listed} rows are beyond all lists: taken by distance to the target."
        # Rows in no list come last, those near the target first.
        tie = np.where(rank < lists.shape[1], tie, target_distance(dataset))
    order = np.lexsort((tie, rank))
    return Chosen(np.sort(order[:budget]).astype(np.int64), note)
