"""Parameters of a K-means fit: batch sizes, hash salts and the update of a pass."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from gio_spark.errors import ConfigError, InputError
from gio_spark.kernels import PROBES
from gio_spark.quantize.centroid_update import reseed_starved, unit_or_previous, weighted_means
from gio_spark.quantize.codebook_broadcast import TWO_LEVEL_ABOVE
from gio_spark.quantize.kmeans_state import KMeansState
from gio_spark.quantize.pass_result import PassResult

_MAX_FARTHEST = 256
_SMOOTHING = 0.5


@dataclass(frozen=True, kw_only=True)
class KMeansParameters:
    """Parameters of a mini-batch K-means; names follow scikit-learn and pyspark.ml.

    Attributes:
        k: Number of clusters; fewer, with a warning, when there are fewer distinct rows.
        seed: Seed of the sample, the first centers and the buckets.
        batch_rows: Rows of one pass; None: 64 per cluster, at least 16,384.
        max_iter: Maximum number of passes.
        tol: Relative fall of the smoothed inertia that counts as improvement.
        patience: Passes without improvement after which the fit stops.
        decay: Share of a center's weight that is retained in a pass: 0 at the first pass, rising
            to this value at the last.
        starved_share: Centers below this share of the mean weight are reseeded.
        init_rows: Rows of the sample for the first centers; None: 16 per cluster.
        spherical: Cluster directions: rows and centers are scaled to length one.
        two_level: Search with the two-level index; None: above 8,192 clusters.
        probes: Cells of the two-level index that are searched for a row.
    """

    k: int
    seed: int = 0
    batch_rows: int | None = None
    max_iter: int = 20
    tol: float = 1e-3
    patience: int = 3
    decay: float = 0.9
    starved_share: float = 0.02
    init_rows: int | None = None
    spherical: bool = False
    two_level: bool | None = None
    probes: int = PROBES

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ConfigError(f"k is {self.k}: at least one cluster is needed")
        if self.max_iter < 1 or self.patience < 1:
            raise ConfigError("max_iter and patience must be at least 1")
        if self.probes < 1:
            raise ConfigError(f"probes is {self.probes}: at least one cell must be searched")
        if not 0.0 <= self.decay <= 1.0:
            raise ConfigError(f"decay is {self.decay}: it must lie between 0 and 1")

    def searches_two_levels(self, clusters: int) -> bool:
        """Whether rows are assigned with the two-level index."""
        return clusters > TWO_LEVEL_ABOVE if self.two_level is None else self.two_level

    def rows_per_pass(self, rows: int, clusters: int) -> int:
        """Rows of one mini-batch on a table of `rows` rows."""
        batch = self.batch_rows or max(64 * clusters, 16_384)
        # A batch of nearly the whole table becomes the whole table.
        return rows if batch >= 0.75 * rows else batch

    def farthest_rows(self, clusters: int) -> int:
        """Number of farthest rows that a pass collects, to reseed starved centers."""
        return min(_MAX_FARTHEST, max(16, clusters // 8))

    def share_per_pass(self, rows: int, clusters: int) -> float:
        """Share of a table of `rows` rows in one mini-batch."""
        return min(1.0, self.rows_per_pass(rows, clusters) / rows)

    def batch_salt(self, updates: int) -> str:
        """Salt of the hash that assigns rows to the batches of a fit."""
        return f"kmeans-batch-{self.seed}-{updates}"

    def step(self, state: KMeansState, result: PassResult) -> KMeansState:
        """State after a pass: updated centers, counters and stopping criterion."""
        if not result.rows:
            raise InputError("a mini-batch was empty: give more batch_rows for so few rows")
        # With a batch of all rows, retained weights would only slow the convergence. Otherwise
        # retention grows with the passes: early rows were assigned to poor centers, later ones
        # average out the noise of a batch. (On 40,000 x 32 image features, K=200, 20 passes of 16
        # rows per center, inertia above Lloyd's: 0.9 %, with constant 0.7 1.8 %; of 64 rows: 0.6 %
        # and 1.1 %.)
        retention = self.decay * state.passes / self.max_iter
        previous_weights = retention * state.weights * (result.rows < state.rows)
        weights = previous_weights + result.counts
        centers = weighted_means(state.centroids, previous_weights, result)
        last = state.passes + 1 >= self.max_iter
        reseeded = 0
        # No reseeding in late passes: a new center would not converge in the remaining ones.
        if not last and state.passes + 1 <= 0.7 * self.max_iter:
            centers, weights, reseeded = reseed_starved(
                centers, weights, result, starved_share=self.starved_share
            )
        if self.spherical:
            centers = unit_or_previous(centers, state.centroids)
        inertia = result.inertia / result.rows
        smoothed = (
            inertia
            if state.smoothed is None
            else _SMOOTHING * inertia + (1 - _SMOOTHING) * state.smoothed
        )
        improved = state.best is None or smoothed < state.best * (1.0 - self.tol)
        stale = 0 if improved or reseeded else state.stale + 1
        record = {
            "pass": state.passes + 1,
            "rows": result.rows,
            "inertia": inertia,
            "smoothed": smoothed,
            "reseeded": reseeded,
        }
        return replace(
            state,
            centroids=centers,
            weights=weights,
            largest=np.maximum(state.largest, result.largest),
            passes=state.passes + 1,
            smoothed=smoothed,
            best=smoothed if improved or state.best is None else state.best,
            stale=stale,
            finished=last or stale >= self.patience,
            history=(*state.history, record),
        )
