"""Numpy kernels that several stages share. No Spark here: see CONTRIBUTING.md."""

from gio_spark.kernels.search import (
    Codebook,
    largest_values,
    nearest,
    nearest_many,
    nearest_two,
    paired_distances,
    row_squares,
    squared_distances,
)
from gio_spark.kernels.sums import Grid, rounded_sums, sums_by_cluster
from gio_spark.kernels.two_level import (
    PROBES,
    TwoLevel,
    agreement,
    find,
    find_two,
    group_centroids,
)

__all__ = [
    "PROBES",
    "Codebook",
    "Grid",
    "TwoLevel",
    "agreement",
    "find",
    "find_two",
    "group_centroids",
    "largest_values",
    "nearest",
    "nearest_many",
    "nearest_two",
    "paired_distances",
    "rounded_sums",
    "row_squares",
    "squared_distances",
    "sums_by_cluster",
]
