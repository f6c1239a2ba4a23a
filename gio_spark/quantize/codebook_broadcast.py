"""Broadcast of a codebook: searchable on workers, built once per process."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gio_spark.engine import BroadcastArrays, broadcast_arrays, evict_oldest
from gio_spark.kernels import PROBES, Codebook, TwoLevelCodebook, group_centroids
from gio_spark.kernels.nearest_centroid import FloatMatrix

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

TWO_LEVEL_ABOVE = 8192
"""Number of clusters above which search uses the two-level index by default."""

BATCH, LARGE_BATCH = 8192, 32_768
"""Rows of an Arrow batch; LARGE_BATCH for the two-level index, which splits them by group."""

_loaded: dict[str, Codebook | TwoLevelCodebook] = {}
_lock = threading.Lock()


@dataclass(frozen=True)
class BroadcastCodebook:
    """Handle that a map function may capture; `load` returns the codebook on the worker."""

    broadcast: BroadcastArrays
    probes: int = PROBES

    def load(self) -> Codebook | TwoLevelCodebook:
        """Codebook, the same object for all partitions of a process."""
        with _lock:
            key = f"{self.broadcast.digest}-{self.probes}"
            if key not in _loaded:
                arrays = self.broadcast.load()
                _loaded[key] = (
                    TwoLevelCodebook(
                        arrays["centroids"], arrays["coarse"], arrays["cells"], self.probes
                    )
                    if "coarse" in arrays
                    else Codebook(arrays["centroids"])
                )
                # A two-level index stores a copy of each centroid in both of its groups.
                evict_oldest(_loaded, lambda codebook: 2 * codebook.centroids.nbytes)
            return _loaded[key]

    def release(self) -> None:
        """Release the codebook when no further task will load it."""
        with _lock:
            _loaded.pop(f"{self.broadcast.digest}-{self.probes}", None)
        self.broadcast.release()


def broadcast_codebook(
    spark: SparkSession,
    centroids: FloatMatrix,
    *,
    two_level: bool | None = None,
    probes: int = PROBES,
) -> BroadcastCodebook:
    """Make centroids searchable on every worker.

    Args:
        spark: The session whose workers need them.
        centroids: (K, d) float32.
        two_level: Search with the two-level index; None: above `TWO_LEVEL_ABOVE` clusters.
        probes: Groups of the two-level index that are searched for a row.
    """
    if two_level is None:
        two_level = len(centroids) > TWO_LEVEL_ABOVE
    if not two_level:
        return BroadcastCodebook(broadcast_arrays(spark, {"centroids": centroids}))
    index = group_centroids(centroids)
    return BroadcastCodebook(
        broadcast_arrays(
            spark, {"centroids": centroids, "coarse": index.group_centers, "cells": index.groups}
        ),
        probes,
    )
