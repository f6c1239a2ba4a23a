"""Retrieval by distance: rows nearest to any target row, and nearest rows of each in turn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gio_spark.strategy.methods.hash_draws import first_of_order, top, uniform
from gio_spark.strategy.methods.method_registry import MethodResult, method
from gio_spark.strategy.methods.neighbor_lists import (
    first_rank,
    max_list_length,
    nearest_rows,
    target_distance,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gio_spark.strategy.evaluation_dataset import EvaluationDataset


@method("nearest", needs=("target_vectors",))
def nearest(dataset: EvaluationDataset, budget: int, seed: int) -> NDArray[np.int64]:
    """Take the rows nearest to any target row."""
    return top(-target_distance(dataset), budget)


@method("knn_retrieval", needs=("target_vectors",), weighted=True)
def knn_retrieval(dataset: EvaluationDataset, budget: int, seed: int) -> MethodResult:
    """Take each target row's next nearest row in turn, so that all targets count alike."""
    longest = max_list_length(dataset)
    weights = np.ones(dataset.rows) if dataset.weights is None else dataset.weights
    length = int(4 * budget / weights.max() / len(dataset.target_vectors))
    while True:
        lists = nearest_rows(dataset, length).rows
        rank = first_rank(lists, dataset.rows)
        listed = int(weights[rank < lists.shape[1]].sum())
        if listed >= budget or lists.shape[1] >= longest:
            break
        length = lists.shape[1] + 1
    note = ""
    tie_order = uniform(dataset, seed, "knn_retrieval")
    if listed < budget:
        note = f"{budget - listed} rows are beyond all lists: taken by distance to the target."
        # Rows in no list come last, in order of their distance to the target.
        tie_order = np.where(rank < lists.shape[1], tie_order, target_distance(dataset))
    # A row that stands for w pool rows, after l others that do, is about the (l w)-th of the pool.
    order = np.lexsort((tie_order, rank * weights, rank >= lists.shape[1]))
    return MethodResult(first_of_order(order, budget, dataset.weights), note)
