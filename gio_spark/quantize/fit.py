"""Distributed mini-batch K-means over DataFrames of vectors."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gio_spark.engine import decode_vectors, hash_sample
from gio_spark.errors import ConfigError, InputError
from gio_spark.kernels import PROBES, agreement, group_centroids, largest_values
from gio_spark.kernels.search import FloatMatrix
from gio_spark.quantize import together
from gio_spark.quantize.book import TWO_LEVEL_ABOVE
from gio_spark.quantize.model import FitSummary, MiniBatchKMeansModel
from gio_spark.quantize.move import means, reseeded, unit_or
from gio_spark.quantize.partial import PassResult
from gio_spark.quantize.passes import bucket_filter, run_pass, unit_rows
from gio_spark.quantize.start import (
    WHOSE,
    OnSample,
    first_state,
    refuse_bad,
    sample_salt,
    sample_size,
    state_at,
)
from gio_spark.quantize.state import KMeansState

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from gio_spark.settings.quantize import QuantizeSettings

log = logging.getLogger(__name__)

_MOST_FAR = 256
_AGREEMENT_ROWS = 2048
_SMOOTHING = 0.5


@dataclass(frozen=True, kw_only=True)
class MiniBatchKMeans:
    """Mini-batch K-means (Sculley 2010; counts as learning rates, with forgetting).

    A pass assigns one hash bucket of the ids and moves every centre to the weighted mean of where
    it was and the rows it got; the same input and seed give the same centroids to the bit at any
    partitioning. Parameter names follow scikit-learn and pyspark.ml.

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

    @classmethod
    def from_settings(cls, settings: QuantizeSettings, *, k: int, seed: int) -> MiniBatchKMeans:
        """Return the estimator that the settings describe, for `k` clusters."""
        return cls(
            k=k,
            seed=seed,
            batch_rows=settings.batch_rows,
            max_iter=settings.max_passes,
            tol=settings.tolerance,
            patience=settings.patience,
            decay=settings.decay,
            starved_share=settings.starved_share,
            init_rows=settings.init_rows,
            spherical=settings.spherical,
            two_level=k > settings.two_level_above,
            probes=settings.probes,
        )

    def fit(
        self,
        df: DataFrame,
        *,
        initial: KMeansState | npt.NDArray[np.float32] | None = None,
        on_pass: Callable[[KMeansState], None] | None = None,
        on_sample: OnSample | None = None,
        rows: int | None = None,
        dimension: int | None = None,
        update: bool = False,
    ) -> MiniBatchKMeansModel:
        """Fit centroids.

        Args:
            df: Rows with id STRING and vector (BINARY float32, little endian, or ARRAY<FLOAT>);
                rows without a vector are left out.
            initial: A state to go on from: it is resumed where it stopped, and a finished one
                is the model already. Or (K, d) centres to start from.
            on_pass: Called with the state after each pass; what it commits is what `initial`
                takes after a crash. Once only, at the end, where one task does all passes.
            on_sample: Called with the sample for the first centres, (n, d) in the order of the
                ids' hashes, where one is drawn. It gives plain values (`error_curve` does), which
                the summary keeps as `of_sample`, and must be one that can be sent to a worker.
            rows: Rows of `df`, when known.
            dimension: Length of the vectors, when known: saves a look at the table.
            update: Take `initial` (a state) as the start of a new fit, on data that changed.

        Raises:
            InputError: No usable rows, bad vectors, or centres of another dimension.
        """
        from pyspark.sql import functions as F

        df = df.select("id", "vector").where(F.col("vector").isNotNull())
        of_sample: Any = None
        if isinstance(initial, KMeansState) and not update:
            state = initial
        else:
            total = df.count() if rows is None else rows
            state, of_sample = self._first_state(df, initial, total, dimension, on_sample)
            if on_pass is not None:
                on_pass(state)
        if not state.finished:
            state = together.all_passes(self, df, state)
            if on_pass is not None and state.finished:
                on_pass(state)
        while not state.finished:
            began = time.monotonic()
            state = self.step(state, self._batch(df, state))
            log.info(
                "kmeans pass=%d rows=%d inertia=%.6g reseeded=%d seconds=%.1f",
                state.passes,
                state.history[-1]["rows"],
                state.history[-1]["inertia"],
                state.history[-1]["reseeded"],
                time.monotonic() - began,
            )
            if on_pass is not None:
                on_pass(state)
        return MiniBatchKMeansModel(
            centroids=state.centroids,
            spherical=self.spherical,
            seed=self.seed,
            two_level=self.searches_two_levels(len(state.centroids)),
            probes=self.probes,
            summary=FitSummary.of(state, self._agreement(df, state), of_sample),
            state=state,
        )

    def searches_two_levels(self, clusters: int) -> bool:
        """Tell whether rows are assigned through two levels."""
        return clusters > TWO_LEVEL_ABOVE if self.two_level is None else self.two_level

    def _agreement(self, df: DataFrame, state: KMeansState) -> dict[str, float] | None:
        """Compare two-level with exact assignment on a hash sample."""
        if not self.searches_two_levels(len(state.centroids)):
            return None
        sample = hash_sample(
            df,
            min(state.rows, _AGREEMENT_ROWS),
            f"kmeans-agreement-{self.seed}",
            total=state.rows,
        )
        vectors = decode_vectors(sample["vector"], state.centroids.shape[1])
        if self.spherical:
            vectors = unit_rows(vectors)
        return agreement(vectors, group_centroids(state.centroids, probes=self.probes))

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

    def _first_state(
        self,
        df: DataFrame,
        initial: KMeansState | npt.NDArray[np.float32] | None,
        rows: int,
        dimension: int | None,
        on_sample: OnSample | None,
    ) -> tuple[KMeansState, Any]:
        """Return the state to go on from, and what `on_sample` gave."""
        if rows < 1:
            raise InputError(f"{WHOSE}: no row has a vector. Check the table and columns.vector.")
        dimension = _dimension(df) if dimension is None else dimension
        if initial is None:
            state, of_sample = self._from_nothing(df, rows, dimension, on_sample)
            if len(state.centroids) < self.k:
                log.warning(
                    "only %d distinct rows in the sample of %d: %d clusters instead of %d",
                    len(state.centroids),
                    sample_size(self, rows, dimension),
                    len(state.centroids),
                    self.k,
                )
            return state, of_sample
        sample = self._sample(df, rows, dimension)
        of_sample = None if on_sample is None else on_sample(sample)
        centres = initial.centroids if isinstance(initial, KMeansState) else initial
        centres = np.ascontiguousarray(centres, dtype=np.float32)
        if centres.ndim != 2 or centres.shape[1] != sample.shape[1]:
            raise InputError(
                f"the centres to start from have shape {centres.shape}, the rows have "
                f"dimension {sample.shape[1]}: they come from another embedder"
            )
        if isinstance(initial, KMeansState):
            return initial.reopened(rows=rows, largest=largest_values(sample)), of_sample
        return state_at(self, centres, sample, rows), of_sample

    def _from_nothing(
        self, df: DataFrame, rows: int, dimension: int, on_sample: OnSample | None
    ) -> tuple[KMeansState, Any]:
        """Return the state at the first centres, or the finished one where that costs no more."""
        whole = together.whole_fit(self, df, rows=rows, dimension=dimension, on_sample=on_sample)
        if whole is not None:
            return whole
        sample = self._sample(df, rows, dimension)
        of_sample = None if on_sample is None else on_sample(sample)
        return first_state(self, sample, rows), of_sample

    def _sample(self, df: DataFrame, rows: int, dimension: int) -> FloatMatrix:
        wanted = sample_size(self, rows, dimension)
        table = hash_sample(df, wanted, sample_salt(self), total=rows)
        vectors = np.ascontiguousarray(decode_vectors(table["vector"], dimension, what=WHOSE))
        refuse_bad(table["id"], vectors)
        return unit_rows(vectors) if self.spherical else vectors

    def _batch(self, df: DataFrame, state: KMeansState) -> PassResult:
        clusters = len(state.centroids)
        share, salt = self.share_per_pass(state.rows, clusters), self.batch_salt(state.updates)
        batch = df.where(bucket_filter(share, state.passes, salt)) if share < 1.0 else df
        return run_pass(
            batch,
            state.centroids,
            largest=state.largest,
            batch_rows=math.ceil(share * state.rows),
            far=self.farthest_wanted(clusters),
            spherical=self.spherical,
            two_level=self.searches_two_levels(clusters),
            probes=self.probes,
        )

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


def _dimension(df: DataFrame) -> int:
    first = df.limit(1).toArrow()
    if not first.num_rows:
        raise InputError(f"{WHOSE}: no row has a vector. Check the table and columns.vector.")
    return decode_vectors(first["vector"], what=WHOSE).shape[1]
