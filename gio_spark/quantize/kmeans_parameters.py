"""Parameters of a K-means fit, and what follows from them: batches, and the move of a pass."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from gio_spark.errors import ConfigError, InputError
from gio_spark.kernels import PROBES
from gio_spark.quantize.centroid_update import means, reseeded, unit_or
from gio_spark.quantize.codebook_broadcast import TWO_LEVEL_ABOVE
from gio_spark.quantize.kmeans_state import KMeansState
from gio_spark.quantize.pass_result import PassResult

_MOST_FAR = 256
_SMOOTHING = 0.5


@dataclass(frozen=True, kw_only=True)
class KMeansParameters:
    """Parameters of a mini-batch K-means; names follow scikit-learn and pyspark.ml.

    Attributes:
        k: Clusters wanted; fewer come, with a warning, when there are fewer distinct rows.
        seed: Seed of the sample, the first centres and the buckets.
        batch_rows: Rows of one pass; None: 64 per cluster, at least 16,384.
        max_iter: Passes at most.
        tol: Relative fall of the smoothed inertia that counts as improvement.
        patience: Passes without improvement after which the fit stops.
        decay: Share of a centre's weight that outlives a pass: nothing at the first pass, rising
            to this at the last.
        starved_share: Centres below this share of the mean weight are placed anew.
        init_rows: Rows of the sample for the first centres; None: 16 per cluster.
        spherical: Cluster directions: rows and centres are scaled to length one.
        two_level: Search through two levels; None: above 8,192 clusters.
        probes: Cells that such a search looks into.
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
        """Tell whether rows are assigned through two levels."""
        return clusters > TWO_LEVEL_ABOVE if self.two_level is None else self.two_level

    def rows_per_pass(self, rows: int, clusters: int) -> int:
        """Return the rows of one mini-batch on a table of `rows` rows."""
        wanted = self.batch_rows or max(64 * clusters, 16_384)
        # A batch that is nearly the table is the table: no row is left out for ever.
        return rows if wanted >= 0.75 * rows else wanted

    def farthest_wanted(self, clusters: int) -> int:
        """Return how many of the farthest rows a pass brings, to place starved centres on."""
        return min(_MOST_FAR, max(16, clusters // 8))

    def share_per_pass(self, rows: int, clusters: int) -> float:
        """Return the share of a table of `rows` rows that one mini-batch is."""
        return min(1.0, self.rows_per_pass(rows, clusters) / rows)

    def batch_salt(self, updates: int) -> str:
        """Return the salt of the hash that orders rows into the batches of a fit."""
        return f"kmeans-batch-{self.seed}-{updates}"

    def step(self, state: KMeansState, found: PassResult) -> KMeansState:
        """Move the centres by what a pass found; plain numpy on (K, d)."""
        if not found.rows:
            raise InputError("a mini-batch was empty: give more batch_rows for so few rows")
        # A batch of all rows says all there is to say: memory would only slow the centres down.
        # Else memory grows with the passes: early rows were assigned to poor centres and are best
        # forgotten, late ones average out the noise of a batch. (On 40,000 x 32 image features,
        # K=200, 20 passes of 16 rows a centre, inertia above Lloyd's: 0.9 % so, 1.8 % at 0.7
        # throughout; of 64 rows: 0.6 % against 1.1 %.)
        memory = self.decay * state.passes / self.max_iter
        old = memory * state.weights * (found.rows < state.rows)
        weights = old + found.counts
        centres = means(state.centroids, old, found)
        last = state.passes + 1 >= self.max_iter
        placed = 0
        # Late passes only refine: a centre placed there would not settle.
        if not last and state.passes + 1 <= 0.7 * self.max_iter:
            centres, weights, placed = reseeded(
                centres, weights, found, starved_share=self.starved_share
            )
        if self.spherical:
            centres = unit_or(centres, state.centroids)
        inertia = found.inertia / found.rows
        smoothed = (
            inertia
            if state.smoothed is None
            else _SMOOTHING * inertia + (1 - _SMOOTHING) * state.smoothed
        )
        better = state.best is None or smoothed < state.best * (1.0 - self.tol)
        stale = 0 if better or placed else state.stale + 1
        record = {
            "pass": state.passes + 1,
            "rows": found.rows,
            "inertia": inertia,
            "smoothed": smoothed,
            "reseeded": placed,
        }
        return replace(
            state,
            centroids=centres,
            weights=weights,
            largest=np.maximum(state.largest, found.largest),
            passes=state.passes + 1,
            smoothed=smoothed,
            best=smoothed if better or state.best is None else state.best,
            stale=stale,
            finished=last or stale >= self.patience,
            history=(*state.history, record),
        )
