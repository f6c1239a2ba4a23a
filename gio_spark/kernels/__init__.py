"""Numpy kernels shared by several stages: nearest centroid, exact sums, two-level codebook.

No Spark here: see CONTRIBUTING.md.
"""

from gio_spark.kernels.exact_sums import Grid, rounded_sums, sums_by_cluster
from gio_spark.kernels.nearest_centroid import (
    Codebook,
    largest_values,
    nearest,
    nearest_many,
    nearest_two,
    paired_distances,
    row_squares,
    squared_distances,
)
from gio_spark.kernels.two_level_codebook import (
    PROBES,
    TwoLevelCodebook,
    agreement,
    group_centroids,
    search_nearest,
    search_nearest_two,
)

__all__ = [
    "PROBES",
    "Codebook",
    "Grid",
    "TwoLevelCodebook",
    "agreement",
    "group_centroids",
    "largest_values",
    "nearest",
    "nearest_many",
    "nearest_two",
    "paired_distances",
    "rounded_sums",
    "row_squares",
    "search_nearest",
    "search_nearest_two",
    "squared_distances",
    "sums_by_cluster",
]
