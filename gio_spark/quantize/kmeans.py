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
from gio_spark.kernels.nearest_centroid import FloatMatrix
from gio_spark.quantize import kmeans_one_task
from gio_spark.quantize.kmeans_init import (
    INPUT_LABEL,
    OnSample,
    check_finite,
    initial_state,
    initial_state_at,
    sample_salt,
    sample_size,
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

    A pass assigns one hash bucket of the ids and updates every center to the weighted mean of its
    previous value and the rows assigned to it; the same input and seed give bit-identical centroids
    at any partitioning. Parameter names follow scikit-learn and pyspark.ml.

    Attributes: see `KMeansParameters`.
    """

    @classmethod
    def from_settings(cls, settings: QuantizeSettings, *, k: int, seed: int) -> MiniBatchKMeans:
        """Estimator with the parameters of the settings, for `k` clusters."""
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
            initial: A state to resume from (a finished one is the model already), or (K, d) centers
                to start from.
            on_pass: Called with the state after each pass, to commit it; after a crash, `initial`
                takes a committed state. Called once, at the end, where one task does all passes.
            on_sample: Called with the sample for the first centers, (n, d) in the order of the ids'
                hashes, where one is drawn. It must be picklable, for a worker, and return plain
                values (as `error_curve`), which the summary stores as `of_sample`.
            rows: Rows of `df`, when known.
            dimension: Length of the vectors, when known; otherwise read from the first row.
            update: Start a new fit on changed data from `initial` (a state).

        Raises:
            InputError: No usable rows, invalid vectors, or centers of another dimension.
        """
        from pyspark.sql import functions as F

        df = df.select("id", "vector").where(F.col("vector").isNotNull())
        sample_result: Any = None
        if isinstance(initial, KMeansState) and not update:
            state = initial
        else:
            total = df.count() if rows is None else rows
            state, sample_result = self._initial_state(df, initial, total, dimension, on_sample)
            if on_pass is not None:
                on_pass(state)
        if not state.finished:
            state = kmeans_one_task.passes_in_one_task(self, df, state)
            if on_pass is not None and state.finished:
                on_pass(state)
        while not state.finished:
            start = time.monotonic()
            state = self.step(state, self._run_batch(df, state))
            log.info(
                "kmeans pass=%d rows=%d inertia=%.6g reseeded=%d seconds=%.1f",
                state.passes,
                state.history[-1]["rows"],
                state.history[-1]["inertia"],
                state.history[-1]["reseeded"],
                time.monotonic() - start,
            )
            if on_pass is not None:
                on_pass(state)
        return MiniBatchKMeansModel(
            centroids=state.centroids,
            spherical=self.spherical,
            seed=self.seed,
            two_level=self.searches_two_levels(len(state.centroids)),
            probes=self.probes,
            summary=FitSummary.of(state, self._agreement(df, state), sample_result),
            state=state,
        )

    def _agreement(self, df: DataFrame, state: KMeansState) -> dict[str, float] | None:
        """Agreement of two-level with exact assignment on a hash sample; None for exact search."""
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

    def _initial_state(
        self,
        df: DataFrame,
        initial: KMeansState | npt.NDArray[np.float32] | None,
        rows: int,
        dimension: int | None,
        on_sample: OnSample | None,
    ) -> tuple[KMeansState, Any]:
        """State to start from, and the result of `on_sample`."""
        if rows < 1:
            raise InputError(
                f"{INPUT_LABEL}: no row has a vector. Check the table and columns.vector."
            )
        dimension = _dimension(df) if dimension is None else dimension
        if initial is None:
            state, sample_result = self._cold_start(df, rows, dimension, on_sample)
            if len(state.centroids) < self.k:
                log.warning(
                    "only %d distinct rows in the sample of %d: %d clusters instead of %d",
                    len(state.centroids),
                    sample_size(self, rows, dimension),
                    len(state.centroids),
                    self.k,
                )
            return state, sample_result
        sample = self._init_sample(df, rows, dimension)
        sample_result = None if on_sample is None else on_sample(sample)
        centers = initial.centroids if isinstance(initial, KMeansState) else initial
        centers = np.ascontiguousarray(centers, dtype=np.float32)
        if centers.ndim != 2 or centers.shape[1] != sample.shape[1]:
            raise InputError(
                f"the initial centers have shape {centers.shape}, the rows have "
                f"dimension {sample.shape[1]}: they come from another embedder"
            )
        if isinstance(initial, KMeansState):
            return initial.reopened(rows=rows, largest=largest_values(sample)), sample_result
        return initial_state_at(self, centers, sample, rows), sample_result

    def _cold_start(
        self, df: DataFrame, rows: int, dimension: int, on_sample: OnSample | None
    ) -> tuple[KMeansState, Any]:
        """State at the first centers, or the finished state where one task can do the whole fit."""
        result = kmeans_one_task.fit_in_one_task(
            self, df, rows=rows, dimension=dimension, on_sample=on_sample
        )
        if result is not None:
            return result
        sample = self._init_sample(df, rows, dimension)
        sample_result = None if on_sample is None else on_sample(sample)
        return initial_state(self, sample, rows), sample_result

    def _init_sample(self, df: DataFrame, rows: int, dimension: int) -> FloatMatrix:
        count = sample_size(self, rows, dimension)
        table = hash_sample(df, count, sample_salt(self), total=rows)
        vectors = np.ascontiguousarray(decode_vectors(table["vector"], dimension, what=INPUT_LABEL))
        check_finite(table["id"], vectors)
        return unit_rows(vectors) if self.spherical else vectors

    def _run_batch(self, df: DataFrame, state: KMeansState) -> PassResult:
        clusters = len(state.centroids)
        share, salt = self.share_per_pass(state.rows, clusters), self.batch_salt(state.updates)
        batch = df.where(bucket_filter(share, state.passes, salt)) if share < 1.0 else df
        return run_pass(
            batch,
            state.centroids,
            largest=state.largest,
            batch_rows=math.ceil(share * state.rows),
            far=self.farthest_rows(clusters),
            spherical=self.spherical,
            two_level=self.searches_two_levels(clusters),
            probes=self.probes,
        )


def _dimension(df: DataFrame) -> int:
    first = df.limit(1).toArrow()
    if not first.num_rows:
        raise InputError(f"{INPUT_LABEL}: no row has a vector. Check the table and columns.vector.")
    return decode_vectors(first["vector"], what=INPUT_LABEL).shape[1]
