"""Distributed mini-batch K-means over DataFrames of vectors."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gio_spark.engine import decode_vectors, hash_sample
from gio_spark.errors import InputError
from gio_spark.kernels import agreement, group_centroids, largest_values
from gio_spark.kernels.search import FloatMatrix
from gio_spark.quantize import kmeans_one_task
from gio_spark.quantize.kmeans_init import (
    WHOSE,
    OnSample,
    first_state,
    refuse_bad,
    sample_salt,
    sample_size,
    state_at,
)
from gio_spark.quantize.kmeans_model import FitSummary, MiniBatchKMeansModel
from gio_spark.quantize.kmeans_parameters import KMeansParameters
from gio_spark.quantize.kmeans_pass import bucket_filter, run_pass, unit_rows
from gio_spark.quantize.kmeans_state import KMeansState
from gio_spark.quantize.pass_result import PassResult

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from gio_spark.settings.quantize import QuantizeSettings

log = logging.getLogger(__name__)

_AGREEMENT_ROWS = 2048


@dataclass(frozen=True, kw_only=True)
class MiniBatchKMeans(KMeansParameters):
    """Mini-batch K-means (Sculley 2010; counts as learning rates, with forgetting).

    A pass assigns one hash bucket of the ids and moves every centre to the weighted mean of where
    it was and the rows it got; the same input and seed give the same centroids to the bit at any
    partitioning. Parameter names follow scikit-learn and pyspark.ml.

    Attributes: see `KMeansParameters`.
    """

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
            state = kmeans_one_task.all_passes(self, df, state)
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
        whole = kmeans_one_task.whole_fit(
            self, df, rows=rows, dimension=dimension, on_sample=on_sample
        )
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


def _dimension(df: DataFrame) -> int:
    first = df.limit(1).toArrow()
    if not first.num_rows:
        raise InputError(f"{WHOSE}: no row has a vector. Check the table and columns.vector.")
    return decode_vectors(first["vector"], what=WHOSE).shape[1]
