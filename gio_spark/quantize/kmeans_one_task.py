"""All passes of a fit in one task, for small tables: a distributed pass has a fixed cost of 1 s."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gio_spark.engine import (
    bounded,
    broadcast_arrays,
    decode_vectors,
    describe,
    hash53,
    map_arrow,
    slots,
)
from gio_spark.kernels.nearest_centroid import FloatMatrix
from gio_spark.quantize.kmeans_init import (
    INPUT_LABEL,
    OnSample,
    check_finite,
    initial_state,
    sample_salt,
    sample_size,
    smallest_hashes,
)
from gio_spark.quantize.kmeans_pass import bucket_filter, in_bucket, pass_of_arrays, unit_rows
from gio_spark.quantize.kmeans_state import KMeansState

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

    from gio_spark.quantize.kmeans_parameters import KMeansParameters

log = logging.getLogger(__name__)

VALUES = 1 << 26
"""Maximum values (rows x dimension) that one worker holds: 256 MB of float32."""

PRODUCTS = {"embedded": 1 << 35, "spark": 1 << 38}
"""Products of all passes (rows x dimension x clusters) up to which one task is faster.

2^38 products take about ten seconds on one core: about the fixed costs of the passes on Spark, and
the most work that a killed worker can lose. The fixed cost of a pass is negligible on the embedded
engine, so there only fits of a second or less gain.
"""

_STATE = "cluster int, vector binary, weight double, info string"


def suits_one_task(
    fit: KMeansParameters, df: DataFrame, *, rows: int, clusters: int, dimension: int, passes: int
) -> bool:
    """Whether one worker can hold the rows of all passes and is faster than separate jobs."""
    share = fit.share_per_pass(rows, clusters)
    values = min(1.0, share * passes) * rows * dimension
    products = share * passes * rows * dimension * clusters
    engine = "embedded" if describe(df.sparkSession).kind == "embedded" else "spark"
    return values <= VALUES and products <= PRODUCTS[engine]


def fit_in_one_task(
    fit: KMeansParameters,
    df: DataFrame,
    *,
    rows: int,
    dimension: int,
    on_sample: OnSample | None = None,
) -> tuple[KMeansState, Any] | None:
    """Choose first centers and do all passes in one task and scan; bit-identical to jobs per pass.

    Args:
        fit: The estimator.
        df: id and vector, without nulls.
        rows: Rows of `df`.
        dimension: Length of the vectors.
        on_sample: Called in the task with the sample for the first centers, parallel to the passes.

    Returns:
        The finished state and the result of `on_sample`; None where one task is not faster, does
        not use all rows (the sample needs them), or did not receive all rows.
    """
    clusters = min(fit.k, rows)
    share, passes = fit.share_per_pass(rows, clusters), fit.max_iter
    if share * passes < 1.0 or not suits_one_task(
        fit, df, rows=rows, clusters=clusters, dimension=dimension, passes=passes
    ):
        return None
    # The engine runs no other task meanwhile, so this one may use all cores of the machine.
    threads = slots(df.sparkSession)
    sample_count = sample_size(fit, rows, dimension)

    def fit_task(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
        buffer = _RowBuffer(rows, dimension, unit=fit.spherical)
        for batch in batches:
            buffer.add(batch)
        if buffer.count != rows:
            return
        ids, vectors, positions = buffer.joined()
        sampled = smallest_hashes(buffer.sampling_hashes(), ids, sample_count)
        sample = vectors[sampled]
        check_finite(ids.take(pa.array(sampled)), sample)
        with ThreadPoolExecutor(1) as executor:
            sample_result = executor.submit(on_sample, sample) if on_sample is not None else None
            state = initial_state(fit, sample, rows)
            state = _run_passes(fit, (ids, vectors, positions), state, threads)
            yield _state_to_table(state, sample_result.result() if sample_result else None)

    sampling_hash = hash53("id", sample_salt(fit)).alias("sampling")
    input_rows = _one_partition(_positioned(df, fit.batch_salt(0), sampling_hash))
    table = bounded(map_arrow(input_rows, fit_task, _STATE), clusters, "the fitted state")
    if not table.num_rows:
        log.info("the table was not read by one task; going on pass by pass")
        return None
    return _state_from_table(table)


def passes_in_one_task(fit: KMeansParameters, df: DataFrame, state: KMeansState) -> KMeansState:
    """Do all remaining passes in one task; the state is bit-identical to that of separate jobs.

    The state is returned unchanged where one task is not faster or did not receive all rows.
    """
    from pyspark.sql import functions as F

    clusters, dimension = state.centroids.shape
    passes = fit.max_iter - state.passes
    if not suits_one_task(
        fit, df, rows=state.rows, clusters=clusters, dimension=dimension, passes=passes
    ):
        return state
    share, salt = fit.share_per_pass(state.rows, clusters), fit.batch_salt(state.updates)
    broadcast = broadcast_arrays(
        df.sparkSession, {"centroids": state.centroids, "weights": state.weights}
    )
    info = state.info()
    used_share = min(1.0, share * passes)
    threads = slots(df.sparkSession)

    def passes_task(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
        buffer = _RowBuffer(math.ceil(used_share * info["rows"]), dimension, unit=fit.spherical)
        for batch in batches:
            buffer.add(batch)
        if used_share >= 1.0 and buffer.count != info["rows"]:
            return
        arrays = broadcast.load()
        initial = KMeansState.of(arrays["centroids"], arrays["weights"], info)
        yield _state_to_table(_run_passes(fit, buffer.joined(), initial, threads))

    input_rows = _positioned(df, salt)
    if used_share < 1.0:
        in_any_batch = F.lit(False)
        for number in range(state.passes, fit.max_iter):
            in_any_batch = in_any_batch | bucket_filter(share, number, salt)
        input_rows = input_rows.where(in_any_batch)
    table = bounded(
        map_arrow(input_rows.repartition(1), passes_task, _STATE), clusters, "the fitted state"
    )
    if not table.num_rows:
        log.info("the table was not read by one task; going on pass by pass")
        return state
    return _state_from_table(table)[0]


def _positioned(df: DataFrame, salt: str, *columns: Column) -> DataFrame:
    from pyspark.sql import functions as F

    id_column = F.col("id").cast("string").alias("id")
    return df.select(id_column, "vector", hash53("id", salt).alias("position"), *columns)


def _one_partition(df: DataFrame) -> DataFrame:
    """Table with all rows in one partition."""
    # One task reads local files directly. Many small remote files are better read in parallel and
    # then shuffled.
    is_local = describe(df.sparkSession).kind == "local"
    return df.coalesce(1) if is_local else df.repartition(1)


def _state_to_table(state: KMeansState, of_sample: Any = None) -> pa.Table:
    """State and result of `on_sample` as a table of schema `_STATE`."""
    text = json.dumps({"state": state.info(), "of_sample": of_sample})
    info = pa.array([text, *[None] * (len(state.centroids) - 1)], pa.string())
    return state.to_table().append_column("info", info)


def _state_from_table(table: pa.Table) -> tuple[KMeansState, Any]:
    info = json.loads(table["info"].drop_null()[0].as_py())
    return KMeansState.from_table(table, info["state"]), info["of_sample"]


def cached_row_bytes(
    rows: int, dimension: int, clusters: int, *, batch_rows: int | None = None, passes: int = 20
) -> int:
    """Bytes of rows that one worker holds where it does all passes; 0 where passes are jobs.

    Args:
        rows: Rows of the table.
        dimension: Length of the vectors.
        clusters: K.
        batch_rows: Rows per pass; None: the default of a fit.
        passes: Maximum number of passes.
    """
    share = min(1.0, (batch_rows or max(64 * clusters, 16_384)) / max(rows, 1))
    values = min(1.0, share * passes) * rows * dimension
    if values > VALUES:
        return 0
    # The rows, and a copy of the rows of a pass where a pass does not use all.
    return int(4 * (values + (share * rows * dimension if share < 1.0 else 0)))


class _RowBuffer:
    """Growing buffer of the rows of a task; each vector is copied into it once."""

    def __init__(self, expected: int, dimension: int, *, unit: bool) -> None:
        self.count = 0
        self._scale_to_unit = unit
        # The count of a hash sample deviates by a few square roots; unwritten memory costs nothing.
        capacity = expected + 8 * math.isqrt(expected) + 64
        self._vectors = np.empty((capacity, dimension), np.float32)
        self._ids: list[pa.Array] = []
        self._positions: list[npt.NDArray[np.int64]] = []
        self._sampling: list[npt.NDArray[np.int64]] = []

    def add(self, batch: pa.RecordBatch) -> None:
        vectors = decode_vectors(batch.column("vector"), self._vectors.shape[1], what=INPUT_LABEL)
        end = self.count + len(vectors)
        if end > len(self._vectors):
            larger = np.empty((2 * end, self._vectors.shape[1]), np.float32)
            larger[: self.count] = self._vectors[: self.count]
            self._vectors = larger
        self._vectors[self.count : end] = unit_rows(vectors) if self._scale_to_unit else vectors
        # Copied, because a slice would keep the whole batch in memory, vectors included.
        self._ids.append(pa.concat_arrays([batch.column("id")]))
        self._positions.append(np.array(batch.column("position").to_numpy()))
        if "sampling" in batch.schema.names:
            self._sampling.append(np.array(batch.column("sampling").to_numpy()))
        self.count = end

    def joined(self) -> tuple[pa.Array, FloatMatrix, npt.NDArray[np.int64]]:
        """Ids, vectors (n, d) and positions (n,), in input order."""
        positions = np.concatenate(self._positions) if self._positions else np.empty(0, np.int64)
        ids = pa.concat_arrays(self._ids) if self._ids else pa.array([], pa.string())
        return ids, self._vectors[: self.count], positions

    def sampling_hashes(self) -> npt.NDArray[np.int64]:
        """Hashes (n,) that the sample is drawn by, in input order."""
        return np.concatenate(self._sampling) if self._sampling else np.empty(0, np.int64)


def _run_passes(
    fit: KMeansParameters,
    rows: tuple[pa.Array, FloatMatrix, npt.NDArray[np.int64]],
    state: KMeansState,
    threads: int,
) -> KMeansState:
    """Do passes over (ids, vectors, positions) until the fit is finished."""
    ids, vectors, positions = rows
    clusters = len(state.centroids)
    share = fit.share_per_pass(state.rows, clusters)
    while not state.finished:
        batch_ids: Any = ids
        batch_vectors = vectors
        if share < 1.0:
            in_batch = np.flatnonzero(in_bucket(positions, share, state.passes))
            batch_ids, batch_vectors = ids.take(pa.array(in_batch)), vectors[in_batch]
        result = pass_of_arrays(
            batch_ids,
            batch_vectors,
            state.centroids,
            largest=state.largest,
            batch_rows=math.ceil(share * state.rows),
            far=fit.farthest_rows(clusters),
            two_level=fit.searches_two_levels(clusters),
            probes=fit.probes,
            threads=threads,
        )
        state = fit.step(state, result)
    return state
