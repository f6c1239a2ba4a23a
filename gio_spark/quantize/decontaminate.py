"""Pool rows that overlap with held-out sets: equal content, shared n-grams or high cosine.

The held-out rows are few (an evaluation set) and are broadcast; the pool is scanned once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gio_spark.engine import BroadcastArrays, bounded, broadcast_arrays, decode_vectors, map_arrow
from gio_spark.errors import ConfigError, InputError
from gio_spark.kernels import Codebook, search_nearest_two
from gio_spark.kernels.cosine_threshold import cosine_at_least, exact_cosine
from gio_spark.kernels.nearest_centroid import FloatMatrix
from gio_spark.kernels.ngrams import gram_share, word_grams
from gio_spark.quantize.kmeans_pass import unit_rows

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

MAX_HELD_OUT = 500_000
"""Maximum number of held-out rows; an evaluation set is smaller."""

SAME_CONTENT, SHARED_GRAMS, SAME_DIRECTION = (
    "held_out_content",
    "held_out_word_sequences",
    "held_out_cosine",
)
_SCHEMA = "id string, reason string, score double, matched string"


@dataclass(frozen=True)
class HeldOut:
    """Held-out rows as arrays to compare the pool with.

    Attributes:
        ids: (m,) ids, in ascending order.
        hashes: (h,) content hashes; may be empty.
        grams: (g,) sorted uint64 hashes of word sequences.
        vectors: (v, d) float32.
        vector_ids: (v,) ids of the rows of `vectors`.
        length: Words per sequence.
    """

    ids: npt.NDArray[np.str_]
    hashes: npt.NDArray[np.str_]
    grams: npt.NDArray[np.uint64]
    vectors: FloatMatrix
    vector_ids: npt.NDArray[np.str_]
    length: int

    @classmethod
    def collect(cls, df: DataFrame, *, length: int = 13, limit: int = MAX_HELD_OUT) -> HeldOut:
        """Collect held-out rows on the driver.

        Args:
            df: id, and any of content_hash, text, vector.
            length: Words per sequence.
            limit: Maximum number of rows.

        Raises:
            InputError: No rows, too many, or none of those columns.
        """
        columns = [c for c in ("content_hash", "text", "vector") if c in df.columns]
        if not columns:
            raise InputError(
                "held-out rows need a column content_hash, text or vector to be compared by; "
                f"the table has {df.columns}"
            )
        table = bounded(df.select("id", *columns), limit, "held-out rows").sort_by("id")
        if not table.num_rows:
            raise InputError("the held-out table is empty: nothing to keep out of the pool")
        hashes = (
            pc.unique(table["content_hash"].drop_null()).to_pylist()
            if "content_hash" in columns
            else []
        )
        grams = (
            np.unique(word_grams(table["text"].to_pylist(), length)[0])
            if "text" in columns
            else np.empty(0, dtype=np.uint64)
        )
        vectors, vector_ids = np.empty((0, 0), dtype=np.float32), []
        if "vector" in columns:
            usable = table.filter(table["vector"].is_valid())
            vector_ids = usable["id"].to_pylist()
            if vector_ids:
                vectors = np.array(decode_vectors(usable["vector"]))
        return cls(
            ids=np.array(table["id"].to_pylist(), dtype=np.str_),
            hashes=np.array(sorted(hashes), dtype=np.str_),
            grams=grams,
            vectors=vectors,
            vector_ids=np.array(vector_ids, dtype=np.str_),
            length=length,
        )


def decontaminate(
    pool: DataFrame,
    held_out: HeldOut,
    *,
    centroids: npt.ArrayLike | None = None,
    gram_threshold: float = 0.5,
    cosine_threshold: float = 0.95,
    spherical: bool = False,
) -> DataFrame:
    """Pool rows that overlap with held-out rows.

    Checks run on the columns that pool and held-out rows share, in this order, and the first match
    is the reason: equal content_hash; share of the row's word sequences (text) that occur in
    held-out texts; cosine (vector) with a held-out row whose nearest or second-nearest cluster is
    one of the two nearest clusters of the row.

    Args:
        pool: id, and any of content_hash, text, vector.
        held_out: From `HeldOut.collect`.
        centroids: (K, d) of the pool: rows are compared with held-out vectors of neighboring
            clusters only; None: with every held-out vector.
        gram_threshold: Minimum share of shared word sequences of an overlapping row.
        cosine_threshold: Minimum cosine of an overlapping row.
        spherical: The centroids are directions: rows are scaled to length one to find clusters.

    Returns:
        One row per overlapping pool row: id, reason, score (1, share or cosine), matched (the
        held-out id for cosine, else null). The same rows at any partitioning.

    Raises:
        ConfigError: A threshold outside (0, 1].
        InputError: Pool and held-out rows have no column in common.
    """
    for name, value in (("gram", gram_threshold), ("cosine", cosine_threshold)):
        if not 0.0 < value <= 1.0:
            raise ConfigError(f"the {name} threshold is {value}: it must lie in (0, 1]")
    value_counts = {
        "content_hash": len(held_out.hashes),
        "text": len(held_out.grams),
        "vector": len(held_out.vectors),
    }
    columns = [name for name, count in value_counts.items() if count and name in pool.columns]
    if not columns:
        raise InputError(
            f"pool columns {pool.columns} share no content_hash, text or vector with the "
            "held-out rows: nothing can be compared"
        )
    broadcast = _broadcast(pool.sparkSession, held_out, centroids, spherical=spherical)
    length = held_out.length

    def compare_batches(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
        arrays = broadcast.load()
        nearest = (
            _NearestHeldOut(arrays, cosine_threshold, spherical) if "vector" in columns else None
        )
        held_out_hashes = pa.array(arrays["hashes"].tolist(), pa.string())
        for batch in batches:
            rows = batch.num_rows
            reason_code = np.zeros(rows, dtype=np.int8)
            score = np.zeros(rows)
            matched_rows = np.full(rows, -1, dtype=np.intp)
            if "content_hash" in columns:
                hashes = batch.column("content_hash").cast(pa.string())
                same = pc.is_in(hashes, value_set=held_out_hashes).to_numpy(zero_copy_only=False)
                reason_code[same], score[same] = 1, 1.0
            if "text" in columns:
                share = gram_share(batch.column("text").to_pylist(), arrays["grams"], length)
                matches = (reason_code == 0) & (share >= gram_threshold)
                reason_code[matches], score[matches] = 2, share[matches]
            if nearest is not None:
                vector = batch.column("vector")
                unmatched = np.flatnonzero((reason_code == 0) & vector.is_valid().to_numpy(False))
                vectors = decode_vectors(vector.take(pa.array(unmatched)), nearest.dimension)
                matched_row, cosine = nearest.best(vectors)
                matches = np.flatnonzero(matched_row >= 0)
                reason_code[unmatched[matches]], score[unmatched[matches]] = 3, cosine[matches]
                matched_rows[unmatched[matches]] = matched_row[matches]
            yield _matches_table(
                batch.column("id"), reason_code, score, matched_rows, arrays["vector_ids"]
            )

    return map_arrow(pool.select("id", *columns), compare_batches, _SCHEMA, batch_rows=4096)


def _broadcast(
    spark: SparkSession,
    held_out: HeldOut,
    centroids: npt.ArrayLike | None,
    *,
    spherical: bool,
) -> BroadcastArrays:
    arrays = {
        "hashes": held_out.hashes,
        "grams": held_out.grams,
        "vectors": held_out.vectors,
        "vector_ids": held_out.vector_ids,
    }
    if centroids is not None and len(held_out.vectors):
        codebook = Codebook(np.asarray(centroids))
        arrays["centroids"] = codebook.centroids
        vectors = unit_rows(held_out.vectors) if spherical else held_out.vectors
        first, _, second, _ = search_nearest_two(vectors, codebook)
        arrays["nearest_clusters"] = np.stack([first, second], axis=1)
    return broadcast_arrays(spark, arrays)


class _NearestHeldOut:
    """Search for the most similar held-out vector of a row, in neighboring clusters."""

    def __init__(self, arrays: dict[str, npt.NDArray], threshold: float, spherical: bool) -> None:
        self.vectors = unit_rows(np.asarray(arrays["vectors"]))
        self.dimension = self.vectors.shape[1]
        self.threshold = threshold
        self.spherical = spherical
        self.codebook = Codebook(np.asarray(arrays["centroids"])) if "centroids" in arrays else None
        self.nearest_clusters = arrays.get("nearest_clusters")

    def best(self, vectors: FloatMatrix) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
        """Index (n,) and cosine (n,) of the most similar held-out row; -1 where none is similar."""
        matched_row = np.full(len(vectors), -1, dtype=np.intp)
        cosine = np.zeros(len(vectors))
        if not len(vectors):
            return matched_row, cosine
        rows = unit_rows(vectors)
        all_vectors = np.arange(len(self.vectors))
        if self.codebook is None or self.nearest_clusters is None:
            self._compare(rows, np.arange(len(rows)), all_vectors, matched_row, cosine)
            return matched_row, cosine
        first, _, second, _ = search_nearest_two(rows if self.spherical else vectors, self.codebook)
        for cluster in np.unique(self.nearest_clusters):
            members = np.flatnonzero((first == cluster) | (second == cluster))
            if len(members):
                candidates = np.flatnonzero((self.nearest_clusters == cluster).any(axis=1))
                self._compare(rows, members, candidates, matched_row, cosine)
        return matched_row, cosine

    def _compare(
        self,
        rows: FloatMatrix,
        members: npt.NDArray[np.intp],
        candidates: npt.NDArray[np.intp],
        matched_row: npt.NDArray[np.intp],
        cosine: npt.NDArray[np.float64],
    ) -> None:
        for start in range(0, len(candidates), 4096):
            block = candidates[start : start + 4096]
            above = cosine_at_least(rows[members], self.vectors[block], self.threshold)
            row_index, candidate_index = np.nonzero(above)
            exact = exact_cosine(rows[members[row_index]], self.vectors[block[candidate_index]])
            for row, candidate, value in zip(
                members[row_index], block[candidate_index], exact, strict=True
            ):
                # Ties go to the lowest held-out row, whatever the order of the clusters.
                if (value, -candidate) > (cosine[row], -matched_row[row]) or matched_row[row] < 0:
                    matched_row[row], cosine[row] = candidate, value


def _matches_table(
    ids: pa.Array,
    reason_code: npt.NDArray[np.int8],
    score: npt.NDArray[np.float64],
    matched_row: npt.NDArray[np.intp],
    vector_ids: npt.NDArray[np.str_],
) -> pa.Table:
    rows = np.flatnonzero(reason_code)
    reasons = np.array(["", SAME_CONTENT, SHARED_GRAMS, SAME_DIRECTION])
    matched = [str(vector_ids[m]) if m >= 0 else None for m in matched_row[rows]]
    return pa.table(
        {
            "id": ids.take(pa.array(rows)).cast(pa.string()),
            "reason": pa.array(reasons[reason_code[rows]].tolist(), pa.string()),
            "score": score[rows],
            "matched": pa.array(matched, pa.string()),
        }
    )
