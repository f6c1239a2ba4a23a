"""Bring a codebook to the workers, once per process however many partitions it works on."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gio_spark.engine import BroadcastArrays, broadcast_arrays, keep_newest
from gio_spark.kernels import PROBES, Codebook, TwoLevel, group_centroids
from gio_spark.kernels.search import FloatMatrix

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

TWO_LEVEL_ABOVE = 8192
"""Clusters above which search goes through two levels unless told otherwise."""

BATCH, LARGE_BATCH = 8192, 32_768
"""Rows of an Arrow batch; large ones for two levels, where rows are spread over many cells."""

_loaded: dict[str, Codebook | TwoLevel] = {}
_lock = threading.Lock()


@dataclass(frozen=True)
class ShippedBook:
    """A handle that a map function may capture; `load` gives the codebook on the worker."""

    shipped: BroadcastArrays
    probes: int = PROBES

    def load(self) -> Codebook | TwoLevel:
        """Return the codebook, the same object for all partitions of a process."""
        with _lock:
            key = f"{self.shipped.digest}-{self.probes}"
            if key not in _loaded:
                arrays = self.shipped.load()
                _loaded[key] = (
                    TwoLevel(arrays["centroids"], arrays["coarse"], arrays["cells"], self.probes)
                    if "coarse" in arrays
                    else Codebook(arrays["centroids"])
                )
                # A two-level book copies each centroid into its two cells.
                keep_newest(_loaded, lambda book: 2 * book.centroids.nbytes)
            return _loaded[key]

    def release(self) -> None:
        """Let go of the codebook when no task will ask for it again."""
        with _lock:
            _loaded.pop(f"{self.shipped.digest}-{self.probes}", None)
        self.shipped.release()


def broadcast_codebook(
    spark: SparkSession,
    centroids: FloatMatrix,
    *,
    two_level: bool | None = None,
    probes: int = PROBES,
) -> ShippedBook:
    """Make centroids searchable on every worker.

    Args:
        spark: The session whose workers need them.
        centroids: (K, d) float32.
        two_level: Search through two levels; None: above `TWO_LEVEL_ABOVE` clusters.
        probes: Cells that such a search looks into.
    """
    if two_level is None:
        two_level = len(centroids) > TWO_LEVEL_ABOVE
    if not two_level:
        return ShippedBook(broadcast_arrays(spark, {"centroids": centroids}))
    book = group_centroids(centroids)
    return ShippedBook(
        broadcast_arrays(
            spark, {"centroids": centroids, "coarse": book.coarse, "cells": book.cells}
        ),
        probes,
    )
