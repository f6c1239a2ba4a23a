"""All passes of a fit in one task: a distributed pass costs about a second however few the rows."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gio_spark.engine import bounded, decode_vectors, describe, hash53, map_arrow, ship
from gio_spark.kernels.search import FloatMatrix
from gio_spark.quantize.passes import bucket_filter, in_bucket, pass_of_arrays, unit_rows
from gio_spark.quantize.state import KMeansState

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from gio_spark.quantize.fit import MiniBatchKMeans

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


def worthwhile(fit: MiniBatchKMeans, df: DataFrame, state: KMeansState) -> bool:
    """Tell whether one worker holds the rows of all passes and does them quickly."""
    clusters, dimension = state.centroids.shape
    passes = fit.max_iter - state.passes
    share = fit.share_per_pass(state)
    held = min(1.0, share * passes) * state.rows * dimension
    products = share * passes * state.rows * dimension * clusters
    kind = "embedded" if describe(df.sparkSession).kind == "embedded" else "spark"
    return held <= VALUES and products <= PRODUCTS[kind]


def all_passes(fit: MiniBatchKMeans, df: DataFrame, state: KMeansState) -> KMeansState:
    """Do all passes that are left in one task; the state is that of distributed ones, to the bit.

    Gives the state as it was where the task did not see all rows.
    """
    from pyspark.sql import functions as F

    dimension = state.centroids.shape[1]
    share, salt = fit.share_per_pass(state), fit.batch_salt(state)
    start = ship(df.sparkSession, {"centroids": state.centroids, "weights": state.weights})
    info = state.info()
    passes = fit.max_iter - state.passes
    used = min(1.0, share * passes)

    def work(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
        rows = _Rows(dimension)
        for batch in batches:
            rows.add(batch)
        if used >= 1.0 and rows.count != info["rows"]:
            return
        begun = start.load()
        first = KMeansState.of(begun["centroids"], begun["weights"], info)
        yield _run(fit, rows.joined(unit=fit.spherical), first, share)

    wanted = df.select(
        F.col("id").cast("string").alias("id"), "vector", hash53("id", salt).alias("position")
    )
    if used < 1.0:
        first = F.lit(False)
        for number in range(state.passes, fit.max_iter):
            first = first | bucket_filter(share, number, salt)
        wanted = wanted.where(first)
    done = bounded(
        map_arrow(wanted.repartition(1), work, _STATE), len(state.centroids), "the fitted state"
    )
    if not done.num_rows:
        log.info("the table was not read by one task; going on pass by pass")
        return state
    return KMeansState.from_table(done, json.loads(done["info"].drop_null()[0].as_py()))


class _Rows:
    """Rows of a task as they come, without a second copy of the vectors."""

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension
        self.count = 0
        self._parts: list[tuple[pa.Array, FloatMatrix, npt.NDArray[np.int64]]] = []

    def add(self, batch: pa.RecordBatch) -> None:
        vectors = decode_vectors(batch.column("vector"), self.dimension)
        self._parts.append((batch.column("id"), vectors, batch.column("position").to_numpy()))
        self.count += len(vectors)

    def joined(self, *, unit: bool) -> tuple[pa.Array, FloatMatrix, npt.NDArray[np.int64]]:
        """Return ids, vectors (n, d) and positions, in the order they came."""
        vectors = np.empty((self.count, self.dimension), np.float32)
        ids, positions, at = [], [], 0
        for own, part, where in self._parts:
            vectors[at : at + len(part)] = unit_rows(part) if unit else part
            ids.append(own)
            positions.append(where)
            at += len(part)
        self._parts = []
        return pa.concat_arrays(ids), vectors, np.concatenate(positions)


def _run(
    fit: MiniBatchKMeans,
    rows: tuple[pa.Array, FloatMatrix, npt.NDArray[np.int64]],
    state: KMeansState,
    share: float,
) -> pa.Table:
    ids, vectors, positions = rows
    clusters = len(state.centroids)
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
        )
        state = fit.step(state, found)
    text = pa.array([json.dumps(state.info()), *[None] * (clusters - 1)], pa.string())
    return state.to_table().append_column("info", text)
