"""Fitted K-means model: transform, predict, save, load."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gio_spark.errors import InputError
from gio_spark.kernels import PROBES, nearest
from gio_spark.kernels.nearest_centroid import FloatMatrix
from gio_spark.quantize.assign import assign
from gio_spark.quantize.kmeans_pass import unit_rows
from gio_spark.quantize.kmeans_state import KMeansState

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_FORMAT = 1


@dataclass(frozen=True)
class FitSummary:
    """Summary of a fit.

    Attributes:
        k: Number of clusters.
        passes: Number of passes.
        inertia: Inertia per row of the last batch, before the last update of the centers.
        reseeded: Number of reseeded centers, over all passes.
        history: One record per pass.
        agreement: Two-level against exact assignment on a sample (rows, agreement, excess);
            None where search is exact.
        of_sample: Result of `on_sample` on the sample for the first centers.
    """

    k: int
    passes: int
    inertia: float | None
    reseeded: int
    history: tuple[dict[str, Any], ...]
    agreement: dict[str, float] | None = None
    of_sample: Any = None

    @property
    def numIter(self) -> int:
        """Number of passes, under the name of pyspark.ml."""
        return self.passes

    @property
    def trainingCost(self) -> float | None:
        """Total inertia of the last batch (not per row), under the name of pyspark.ml."""
        if not self.history:
            return None
        return float(self.history[-1]["inertia"]) * int(self.history[-1]["rows"])

    @classmethod
    def of(
        cls,
        state: KMeansState,
        agreement: dict[str, float] | None = None,
        of_sample: Any = None,
    ) -> FitSummary:
        """Summary of a state."""
        return cls(
            k=len(state.centroids),
            passes=state.passes,
            inertia=state.history[-1]["inertia"] if state.history else None,
            reseeded=sum(int(h["reseeded"]) for h in state.history),
            history=state.history,
            agreement=agreement,
            of_sample=of_sample,
        )


@dataclass(frozen=True)
class MiniBatchKMeansModel:
    """Centroids and the parameters of their fit.

    Attributes:
        centroids: (K, d) float32.
        spherical: Rows are scaled to length one before they are assigned.
        seed: Seed of the fit.
        two_level: Search with the two-level index; None: above 8,192 clusters.
        probes: Cells of the two-level index that are searched for a row.
        summary: Summary of the fit, None for a model created from centroids alone.
        state: Last state of the fit, the start of a later update; not written by `save`.
    """

    centroids: FloatMatrix
    spherical: bool = False
    seed: int = 0
    two_level: bool | None = None
    probes: int = PROBES
    summary: FitSummary | None = None
    state: KMeansState | None = None

    def transform(
        self, df: DataFrame, *, second: bool = False, carry: Sequence[str] | None = None
    ) -> DataFrame:
        """Assign rows: id, cluster, distance and the carried columns.

        Args:
            df: Rows with id and vector.
            second: Also return the second-nearest cluster.
            carry: Columns passed through; None: all but id and vector.
        """
        if carry is None:
            carry = [c for c in df.columns if c not in ("id", "vector")]
        return assign(
            df,
            self.centroids,
            second=second,
            carry=carry,
            spherical=self.spherical,
            two_level=self.two_level,
            probes=self.probes,
        )

    def predict(self, vector: npt.ArrayLike) -> int:
        """Cluster of one vector, as in pyspark.ml; `transform` is for tables."""
        row = np.ascontiguousarray(vector, dtype=np.float32).reshape(1, -1)
        cluster, _ = nearest(unit_rows(row) if self.spherical else row, self.centroids)
        return int(cluster[0])

    def clusterCenters(self) -> list[FloatMatrix]:
        """Centroids as a list of vectors, as in pyspark.ml."""
        return list(self.centroids)

    def save(self, path: str | Path) -> None:
        """Write the model into a folder: centroids.npy and model.json, no pickle."""
        folder = Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "centroids.npy", self.centroids, allow_pickle=False)
        body = {
            "format": _FORMAT,
            "spherical": self.spherical,
            "seed": self.seed,
            "two_level": self.two_level,
            "probes": self.probes,
            "summary": asdict(self.summary) if self.summary is not None else None,
        }
        (folder / "model.json").write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> MiniBatchKMeansModel:
        """Read a model written by `save`.

        Raises:
            InputError: The folder holds no such model, or one of another format.
        """
        folder = Path(path)
        try:
            body = json.loads((folder / "model.json").read_text(encoding="utf-8"))
            centroids = np.load(folder / "centroids.npy", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise InputError(f"{folder} holds no saved model that can be read: {error}") from error
        if body.get("format") != _FORMAT:
            raise InputError(
                f"{folder} has model format {body.get('format')}, this version reads {_FORMAT}: "
                "use the version of gio_spark that wrote it"
            )
        summary = body["summary"]
        if summary is not None:
            summary = FitSummary(**{**summary, "history": tuple(summary["history"])})
        return cls(
            centroids=centroids,
            spherical=bool(body["spherical"]),
            seed=int(body["seed"]),
            two_level=body["two_level"],
            probes=int(body.get("probes", PROBES)),
            summary=summary,
        )
