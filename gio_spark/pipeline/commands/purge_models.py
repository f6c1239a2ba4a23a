"""Vectors of purged rows in fitted models: centroids of a single row, samples of neighbors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from pyspark.sql import functions as F

from gio_spark.engine import (
    bounded,
    broadcast_arrays,
    decode_vectors,
    encode_vectors,
    map_arrow,
)
from gio_spark.kernels import nearest
from gio_spark.pipeline.kmeans_checkpoints import FIT_STATE
from gio_spark.tables.purge_deletion import update_rows
from gio_spark.tables.purge_list import only_hashed, without_hashed
from gio_spark.tables.retention import delete_tokens
from gio_spark.tables.stage_records import ATTEMPT

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pyspark.sql import DataFrame

    from gio_spark.tables import Workspace

# Squared distance over the squared length of a row, below which a vector is that of the row: a
# spherical fit scales its centroids, which rounds them.
_SAME = 1e-8
# A centroid that no row is nearest to: this far from the others, in units of their spread.
_FAR = 10.0
_MOST_CENTROIDS = 1 << 20
_MOST_GROUPS = 100_000


def purge_models(workspace: Workspace, hashes: DataFrame, *, change: bool) -> int:
    """Count the vectors of purged rows in models, and replace them where `change` is set.

    A centroid stays where its cluster has further rows: then it is a mean. That of a row that was
    alone in its cluster is replaced by a vector far from all rows, so that the cluster stays empty.
    A sampled row of a density ratio is replaced by the most similar row of the sample.

    Args:
        workspace: Where.
        hashes: Hashes of the purged ids.
        change: Whether anything is written.
    """
    if not workspace.exists("embeddings"):
        return 0
    vectors = _only_purged_vectors(workspace, hashes)
    if vectors.limit(1).count() == 0:
        return 0
    count = 0
    if workspace.exists("centroids"):
        if change:
            _delete_passes(workspace)
        count += _purge_centroids(workspace, vectors, change=change)
    if workspace.exists("models"):
        count += _purge_arrays(workspace, vectors, change=change)
    return count


def _only_purged_vectors(workspace: Workspace, hashes: DataFrame) -> DataFrame:
    """Vectors of purged rows whose content no other row has."""
    rows = workspace.read_table("embeddings").where(F.col("reason").isNull())
    rows = rows.select("id", "content_hash", "vector")
    others = without_hashed(rows, "id", hashes).select("content_hash").distinct()
    purged = only_hashed(rows, "id", hashes)
    return purged.join(others, "content_hash", "left_anti").select("vector").distinct()


def _delete_passes(workspace: Workspace) -> None:
    """Delete states of passes, which only a fit that was killed goes on from."""
    passes = [r for r in workspace.records() if r.is_chunk and r.table == "centroids"]
    tokens = {r.detail["token"] for r in passes}
    named = {
        token
        for r in workspace.records()
        for own in r.attempts.get("centroids", {}).values()
        for token in own
    }
    delete_tokens(workspace, "centroids", ATTEMPT, sorted(tokens - named))


def _purge_centroids(workspace: Workspace, vectors: DataFrame, *, change: bool) -> int:
    table = workspace.read_table("centroids")
    groups = bounded(table.select(ATTEMPT, "side").distinct(), _MOST_GROUPS, "fits").to_pylist()
    count = 0
    for group in groups:
        own = (F.col(ATTEMPT) == F.lit(group[ATTEMPT])) & (F.col("side") == F.lit(group["side"]))
        selected = table.where(own).select(ATTEMPT, "side", "cluster", "vector")
        rows = bounded(selected, _MOST_CENTROIDS, "centroids of a fit").sort_by("cluster")
        matrix = decode_vectors(rows["vector"])
        same = _same_rows(vectors, matrix)
        count += len(same)
        if not change or not len(same):
            continue
        is_fit = group["side"] == FIT_STATE
        replaced = _far_from(matrix, same) if is_fit else _most_similar(matrix, same)
        changed = rows.take(pa.array(same)).set_column(3, "vector", encode_vectors(replaced))
        keys = (ATTEMPT, "side", "cluster")
        update_rows(workspace, "centroids", keys, workspace.frame(changed), ("vector",))
    return count


def _purge_arrays(workspace: Workspace, vectors: DataFrame, *, change: bool) -> int:
    """Samples in the arrays of models: float32 matrices with as many columns as a vector."""
    table = workspace.read_table("models").where(F.col("type") == F.lit("<f4"))
    places = bounded(table.select(ATTEMPT, "name", "shape"), _MOST_GROUPS, "arrays").to_pylist()
    count = 0
    for place in places:
        shape = json.loads(place["shape"])
        if len(shape) != 2 or shape[0] < 2:
            continue
        own = (F.col(ATTEMPT) == F.lit(place[ATTEMPT])) & (F.col("name") == F.lit(place["name"]))
        row = bounded(table.where(own).select(ATTEMPT, "name", "content"), 1, "one array")
        matrix = np.frombuffer(row["content"][0].as_py(), "<f4").reshape(shape)
        same = _same_rows(vectors, matrix)
        count += len(same)
        if not change or not len(same):
            continue
        replaced = matrix.copy()
        replaced[same] = _most_similar(matrix, same)
        changed = row.set_column(2, "content", pa.array([replaced.tobytes()], pa.binary()))
        update_rows(workspace, "models", (ATTEMPT, "name"), workspace.frame(changed), ("content",))
    return count


def _same_rows(vectors: DataFrame, matrix: NDArray[np.float32]) -> NDArray[np.int64]:
    """Rows of a matrix (n, d) that are one of the vectors; found on the workers."""
    arrays = broadcast_arrays(vectors.sparkSession, {"matrix": matrix})
    dimension = matrix.shape[1]

    def match(batches: Iterator[pa.RecordBatch]) -> Iterator[dict[str, Any]]:
        rows = arrays.load()["matrix"]
        for batch in batches:
            points = decode_vectors(batch["vector"], dimension)
            index, distance = nearest(points, rows)
            same = distance <= _SAME * np.maximum((points * points).sum(axis=1), _SAME)
            yield {"row": pa.array(np.unique(index[same]), pa.int32())}

    fitting = vectors.where(F.length("vector") == F.lit(4 * dimension))
    rows = map_arrow(fitting, match, "row int").distinct()
    matched = bounded(rows, len(matrix), "rows of a model")["row"].to_numpy()
    arrays.release()
    # Of equal rows the first is named; all of them are meant.
    _, kind = np.unique(matrix, axis=0, return_inverse=True)
    return np.flatnonzero(np.isin(kind.reshape(-1), kind.reshape(-1)[matched]))


def _most_similar(matrix: NDArray[np.float32], same: NDArray[np.int64]) -> NDArray[np.float32]:
    """For rows of a matrix, the nearest of its other rows; zeros where there is none."""
    others = np.delete(matrix, same, axis=0)
    if not len(others):
        return np.zeros_like(matrix[same])
    index, _ = nearest(matrix[same], others)
    return np.asarray(others[index])


def _far_from(matrix: NDArray[np.float32], same: NDArray[np.int64]) -> NDArray[np.float32]:
    """Vectors far from all other rows of a matrix, made of those alone."""
    others = np.delete(matrix, same, axis=0)
    center = others.mean(axis=0) if len(others) else np.zeros(matrix.shape[1], np.float32)
    spread = float(np.abs(others - center).max()) if len(others) else 1.0
    far = center + np.float32(_FAR * max(spread, 1.0) * np.sqrt(matrix.shape[1]))
    return np.repeat(far[None].astype(np.float32), len(same), axis=0)
