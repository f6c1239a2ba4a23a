"""State of a K-means fit between two passes; resuming from it gives bit-identical results."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gio_spark.engine import decode_vectors, encode_vectors
from gio_spark.errors import InputError
from gio_spark.kernels.nearest_centroid import FloatMatrix


@dataclass(frozen=True)
class KMeansState:
    """Centroids and counters after a number of passes.

    Attributes:
        centroids: (K, d) float32.
        weights: (K,) float64, decayed number of rows assigned to each center.
        largest: (d,) float64, largest absolute value per dimension, the scale of the sums.
        rows: Rows of the table that the fit runs on.
        passes: Number of completed passes.
        updates: Number of fits before this one (warm starts).
        smoothed: Smoothed inertia per row, None before the first pass.
        best: Best smoothed inertia so far.
        stale: Passes without improvement since `best`.
        finished: Whether the fit is over.
        history: One record per pass: pass, rows, inertia (per row), smoothed, reseeded.
    """

    centroids: FloatMatrix
    weights: npt.NDArray[np.float64]
    largest: npt.NDArray[np.float64]
    rows: int
    passes: int = 0
    updates: int = 0
    smoothed: float | None = None
    best: float | None = None
    stale: int = 0
    finished: bool = False
    history: tuple[dict[str, Any], ...] = field(default=())

    def to_table(self) -> pa.Table:
        """Centroids and weights as rows to commit: cluster INT, vector BINARY, weight DOUBLE."""
        return pa.table(
            {
                "cluster": pa.array(np.arange(len(self.centroids), dtype=np.int32)),
                "vector": encode_vectors(self.centroids),
                "weight": pa.array(self.weights),
            }
        )

    def info(self) -> dict[str, Any]:
        """Rest of the state as plain values that JSON represents exactly."""
        return {
            "largest": [float(v) for v in self.largest],
            "rows": self.rows,
            "passes": self.passes,
            "updates": self.updates,
            "smoothed": self.smoothed,
            "best": self.best,
            "stale": self.stale,
            "finished": self.finished,
            "history": [dict(h) for h in self.history],
        }

    @classmethod
    def from_table(cls, table: pa.Table, info: dict[str, Any]) -> KMeansState:
        """Rebuild a state from `to_table` and `info`, with rows in any order.

        Raises:
            InputError: Clusters are missing or repeated.
        """
        table = table.sort_by("cluster")
        clusters = table["cluster"].to_numpy()
        if not np.array_equal(clusters, np.arange(len(clusters))):
            raise InputError("the saved centroids are not numbered 0 to K-1, each once")
        return cls.of(decode_vectors(table["vector"]), table["weight"].to_numpy(), info)

    @classmethod
    def of(
        cls,
        centroids: FloatMatrix,
        weights: npt.NDArray[np.float64],
        info: dict[str, Any],
    ) -> KMeansState:
        """Rebuild a state from centroids (K, d), weights (K,) and `info`."""
        fields = {**info, "history": tuple(info.get("history", ()))}
        fields["largest"] = np.array(fields["largest"], dtype=np.float64)
        return cls(centroids=np.array(centroids), weights=np.array(weights, np.float64), **fields)

    def reopened(self, *, rows: int, largest: npt.NDArray[np.float64]) -> KMeansState:
        """State at the start of an update on changed data."""
        return replace(
            self,
            rows=rows,
            largest=np.maximum(self.largest, largest),
            passes=0,
            updates=self.updates + 1,
            smoothed=None,
            best=None,
            stale=0,
            finished=False,
            history=(),
        )
