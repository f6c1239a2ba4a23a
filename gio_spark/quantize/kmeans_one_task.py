"""All passes of a fit in one task: a distributed pass costs about a second however few the rows."""

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
from gio_spark.kernels.search import FloatMatrix
from gio_spark.quantize.kmeans_init import (
    WHOSE,
    OnSample,
    first_state,
    lowest,
    refuse_bad,
    sample_salt,
    sample_size,
)
from gio_spark.quantize.kmeans_pass import bucket_filter, in_bucket, pass_of_arrays, unit_rows
from gio_spark.quantize.kmeans_state import KMeansState

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

    from gio_spark.quantize.kmeans_parameters import KMeansParameters

log = logging.getLogger(__name__)

VALUES = 1 << 26
"""Values (rows x dimension) that one worker holds: 256 MB of float32."""

PRODUCTS = {"embedded": 1 << 35, "spark": 1 << 38}
"""Products of all passes (rows x dimension x clusters) up to which one task is quicker.

2^38 are about ten seconds of one core, which is what the passes' fixed costs come to on Spark, and
all that a killed worker can lose. A pass of the embedded engine costs next to nothing beside its
work, so there only fits of a second or less gain.
"""

_STATE = "cluster int, vector binary, weight double, info string"


def worthwhile(
    fit: KMeansParameters, df: DataFrame, *, rows: int, clusters: int, dimension: int, passes: int
) -> bool:
    """Tell whether one worker holds the rows of so many passes and does them quickly."""
    share = fit.share_per_pass(rows, clusters)
    held = min(1.0, share * passes) * rows * dimension
    products = share * passes * rows * dimension * clusters
    kind = "embedded" if describe(df.sparkSession).kind == "embedded" else "spark"
    return held <= VALUES and products <= PRODUCTS[kind]


def whole_fit(
    fit: KMeansParameters,
    df: DataFrame,
    *,
    rows: int,
    dimension: int,
    on_sample: OnSample | None = None,
) -> tuple[KMeansState, Any] | None:
    """Choose first centres and do all passes in one task: one scan, the bits of several.

    Args:
        fit: The estimator.
        df: id, vector; none of the vectors null.
        rows: Rows of `df`.
        dimension: Length of the vectors.
        on_sample: Called in the task with the sample for the first centres, beside the passes.

    Returns:
        The finished state and what `on_sample` gave; None where one task is not the quicker way,
        reads too little of the table for a sample of all of it, or did not see all rows.
    """
    clusters = min(fit.k, rows)
    share, passes = fit.share_per_pass(rows, clusters), fit.max_iter
    if share * passes < 1.0 or not worthwhile(
        fit, df, rows=rows, clusters=clusters, dimension=dimension, passes=passes
    ):
        return None
    # This one task is all that the engine does meanwhile: it may have every core of the machine.
    threads = slots(df.sparkSession)
    wanted = sample_size(fit, rows, dimension)

    def work(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
        held = _Rows(rows, dimension, unit=fit.spherical)
        for batch in batches:
            held.add(batch)
        if held.count != rows:
            return
        ids, vectors, positions = held.joined()
        at = lowest(held.sampling(), ids, wanted)
        sample = vectors[at]
        refuse_bad(ids.take(pa.array(at)), sample)
        with ThreadPoolExecutor(1) as beside:
            said = beside.submit(on_sample, sample) if on_sample is not None else None
            state = first_state(fit, sample, rows)
            state = _run(fit, (ids, vectors, positions), state, threads)
            yield _table_of(state, said.result() if said else None)

    first = hash53("id", sample_salt(fit)).alias("sampling")
    seen = _in_one(_positioned(df, fit.batch_salt(0), first))
    done = bounded(map_arrow(seen, work, _STATE), clusters, "the fitted state")
    if not done.num_rows:
        log.info("the table was not read by one task; going on pass by pass")
        return None
    return _of_table(done)


def all_passes(fit: KMeansParameters, df: DataFrame, state: KMeansState) -> KMeansState:
    """Do all passes that are left in one task; the state is that of distributed ones, to the bit.

    Gives the state as it was where that is not the quicker way, or the task did not see all rows.
    """
    from pyspark.sql import functions as F

    clusters, dimension = state.centroids.shape
    passes = fit.max_iter - state.passes
    if not worthwhile(
        fit, df, rows=state.rows, clusters=clusters, dimension=dimension, passes=passes
    ):
        return state
    share, salt = fit.share_per_pass(state.rows, clusters), fit.batch_salt(state.updates)
    start = broadcast_arrays(
        df.sparkSession, {"centroids": state.centroids, "weights": state.weights}
    )
    info = state.info()
    used = min(1.0, share * passes)
    threads = slots(df.sparkSession)

    def work(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
        held = _Rows(math.ceil(used * info["rows"]), dimension, unit=fit.spherical)
        for batch in batches:
            held.add(batch)
        if used >= 1.0 and held.count != info["rows"]:
            return
        begun = start.load()
        first = KMeansState.of(begun["centroids"], begun["weights"], info)
        yield _table_of(_run(fit, held.joined(), first, threads))

    wanted = _positioned(df, salt)
    if used < 1.0:
        any_of = F.lit(False)
        for number in range(state.passes, fit.max_iter):
            any_of = any_of | bucket_filter(share, number, salt)
        wanted = wanted.where(any_of)
    done = bounded(map_arrow(wanted.repartition(1), work, _STATE), clusters, "the fitted state")
    if not done.num_rows:
        log.info("the table was not read by one task; going on pass by pass")
        return state
    return _of_table(done)[0]


def _positioned(df: DataFrame, salt: str, *more: Column) -> DataFrame:
    from pyspark.sql import functions as F

    id_ = F.col("id").cast("string").alias("id")
    return df.select(id_, "vector", hash53("id", salt).alias("position"), *more)


def _in_one(df: DataFrame) -> DataFrame:
    """Return a table that is read whole as one partition."""
    # On one machine its files are near: one task reads them as they are. Many small files far
    # away are better read side by side and then sent.
    near = describe(df.sparkSession).kind == "local"
    return df.coalesce(1) if near else df.repartition(1)


def _table_of(state: KMeansState, of_sample: Any = None) -> pa.Table:
    """Return a state, and what was made of the sample, as rows of the schema above."""
    text = json.dumps({"state": state.info(), "of_sample": of_sample})
    info = pa.array([text, *[None] * (len(state.centroids) - 1)], pa.string())
    return state.to_table().append_column("info", info)


def _of_table(done: pa.Table) -> tuple[KMeansState, Any]:
    found = json.loads(done["info"].drop_null()[0].as_py())
    return KMeansState.from_table(done, found["state"]), found["of_sample"]


def held_bytes(
    rows: int, dimension: int, clusters: int, *, batch_rows: int | None = None, passes: int = 20
) -> int:
    """Return the bytes of rows that one worker holds where it does all passes; 0 where none does.

    Args:
        rows: Rows of the table.
        dimension: Length of the vectors.
        clusters: K.
        batch_rows: Rows per pass; None: as many as a fit takes by itself.
        passes: Passes at most.
    """
    share = min(1.0, (batch_rows or max(64 * clusters, 16_384)) / max(rows, 1))
    values = min(1.0, share * passes) * rows * dimension
    if values > VALUES:
        return 0
    # The rows, and those of a pass besides where a pass does not take all.
    return int(4 * (values + (share * rows * dimension if share < 1.0 else 0)))


class _Rows:
    """Rows of a task as they come: each vector is copied once, to where it stays."""

    def __init__(self, expected: int, dimension: int, *, unit: bool) -> None:
        self.count = 0
        self._unit = unit
        # Hash shares are met up to some square roots; memory that is not written costs nothing.
        room = expected + 8 * math.isqrt(expected) + 64
        self._vectors = np.empty((room, dimension), np.float32)
        self._ids: list[pa.Array] = []
        self._positions: list[npt.NDArray[np.int64]] = []
        self._sampling: list[npt.NDArray[np.int64]] = []

    def add(self, batch: pa.RecordBatch) -> None:
        vectors = decode_vectors(batch.column("vector"), self._vectors.shape[1], what=WHOSE)
        end = self.count + len(vectors)
        if end > len(self._vectors):
            more = np.empty((2 * end, self._vectors.shape[1]), np.float32)
            more[: self.count] = self._vectors[: self.count]
            self._vectors = more
        self._vectors[self.count : end] = unit_rows(vectors) if self._unit else vectors
        # Slices of a batch would keep all of it, vectors as well.
        self._ids.append(pa.concat_arrays([batch.column("id")]))
        self._positions.append(np.array(batch.column("position").to_numpy()))
        if "sampling" in batch.schema.names:
            self._sampling.append(np.array(batch.column("sampling").to_numpy()))
        self.count = end

    def joined(self) -> tuple[pa.Array, FloatMatrix, npt.NDArray[np.int64]]:
        """Return ids, vectors (n, d) and positions, in the order they came."""
        positions = np.concatenate(self._positions) if self._positions else np.empty(0, np.int64)
        ids = pa.concat_arrays(self._ids) if self._ids else pa.array([], pa.string())
        return ids, self._vectors[: self.count], positions

    def sampling(self) -> npt.NDArray[np.int64]:
        """Return the hashes (n,) that the sample is drawn by, likewise."""
        return np.concatenate(self._sampling) if self._sampling else np.empty(0, np.int64)


def _run(
    fit: KMeansParameters,
    rows: tuple[pa.Array, FloatMatrix, npt.NDArray[np.int64]],
    state: KMeansState,
    threads: int,
) -> KMeansState:
    ids, vectors, positions = rows
    clusters = len(state.centroids)
    share = fit.share_per_pass(state.rows, clusters)
    while not state.finished:
        own_ids: Any = ids
        own = vectors
        if share < 1.0:
            kept = np.flatnonzero(in_bucket(positions, share, state.passes))
            own_ids, own = ids.take(pa.array(kept)), vectors[kept]
        found = pass_of_arrays(
            own_ids,
            own,
            state.centroids,
            largest=state.largest,
            batch_rows=math.ceil(share * state.rows),
            far=fit.farthest_wanted(clusters),
            two_level=fit.searches_two_levels(clusters),
            probes=fit.probes,
            threads=threads,
        )
        state = fit.step(state, found)
    return state
