"""Pool rows that overlap with held-out sets: same content, shared word sequences, same direction.

The held-out rows are few (an evaluation set) and travel to the workers; the pool is read once.
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
from gio_spark.kernels import Codebook, find_two
from gio_spark.kernels.cosine import exact_cosine, similar
from gio_spark.kernels.ngrams import gram_share, word_grams
from gio_spark.kernels.search import FloatMatrix
from gio_spark.quantize.kmeans_pass import unit_rows

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

MOST_HELD_OUT = 500_000
"""Held-out rows that are compared with the pool; more is no evaluation set."""

SAME_CONTENT, SHARED_GRAMS, SAME_DIRECTION = (
    "held_out_content",
    "held_out_word_sequences",
    "held_out_cosine",
)
_SCHEMA = "id string, reason string, score double, matched string"


@dataclass(frozen=True)
class HeldOut:
    """Held-out rows in the form in which they are compared.

    Attributes:
        ids: (m,) their ids, in rising order.
        hashes: (h,) content hashes, empty where there are none.
        grams: (g,) sorted uint64 hashes of word sequences.
        vectors: (v, d) float32, with `vector_ids` (v,) naming their rows.
        vector_ids: (v,) ids of `vectors`.
        length: Words per sequence.
    """

    ids: npt.NDArray[np.str_]
    hashes: npt.NDArray[np.str_]
    grams: npt.NDArray[np.uint64]
    vectors: FloatMatrix
    vector_ids: npt.NDArray[np.str_]
    length: int

    @classmethod
    def collect(cls, df: DataFrame, *, length: int = 13, limit: int = MOST_HELD_OUT) -> HeldOut:
        """Bring held-out rows to the driver.

        Args:
            df: id, and any of content_hash, text, vector.
            length: Words per sequence.
            limit: Rows at most.

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
        vectors, owners = np.empty((0, 0), dtype=np.float32), []
        if "vector" in columns:
            usable = table.filter(table["vector"].is_valid())
            owners = usable["id"].to_pylist()
            if owners:
                vectors = np.array(decode_vectors(usable["vector"]))
        return cls(
            ids=np.array(table["id"].to_pylist(), dtype=np.str_),
            hashes=np.array(sorted(hashes), dtype=np.str_),
            grams=grams,
            vectors=vectors,
            vector_ids=np.array(owners, dtype=np.str_),
            length=length,
        )


def decontaminate(
    pool: DataFrame,
    held: HeldOut,
    *,
    centroids: npt.ArrayLike | None = None,
    gram_threshold: float = 0.5,
    cosine_threshold: float = 0.95,
    spherical: bool = False,
) -> DataFrame:
    """Find pool rows that overlap with held-out rows.

    Checks run for the columns that both sides have, in this order, and the first that fires is
    the reason: equal content_hash; a share of the row's word sequences (text) that occur in
    held-out texts; cosine (vector) with a held-out row whose nearest or second-nearest cluster is
    one of the row's own two.

    Args:
        pool: id, and any of content_hash, text, vector.
        held: From `HeldOut.collect`.
        centroids: (K, d) of the pool, to look in neighbouring clusters only; None: rows are
            compared with every held-out vector.
        gram_threshold: Share of shared word sequences from which a row is put aside.
        cosine_threshold: Cosine from which a row is put aside.
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
    present = {
        "content_hash": len(held.hashes),
        "text": len(held.grams),
        "vector": len(held.vectors),
    }
    columns = [name for name, count in present.items() if count and name in pool.columns]
    if not columns:
        raise InputError(
            f"pool columns {pool.columns} share no content_hash, text or vector with the "
            "held-out rows: nothing can be compared"
        )
    shipped = _ship(pool.sparkSession, held, centroids, spherical=spherical)
    length = held.length

    def work(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
        arrays = shipped.load()
        near = _Near(arrays, cosine_threshold, spherical) if "vector" in columns else None
        known = pa.array(arrays["hashes"].tolist(), pa.string())
        for batch in batches:
            rows = batch.num_rows
            kind = np.zeros(rows, dtype=np.int8)
            score = np.zeros(rows)
            match = np.full(rows, -1, dtype=np.intp)
            if "content_hash" in columns:
                hashes = batch.column("content_hash").cast(pa.string())
                same = pc.is_in(hashes, value_set=known).to_numpy(zero_copy_only=False)
                kind[same], score[same] = 1, 1.0
            if "text" in columns:
                share = gram_share(batch.column("text").to_pylist(), arrays["grams"], length)
                found = (kind == 0) & (share >= gram_threshold)
                kind[found], score[found] = 2, share[found]
            if near is not None:
                vector = batch.column("vector")
                open_rows = np.flatnonzero((kind == 0) & vector.is_valid().to_numpy(False))
                vectors = decode_vectors(vector.take(pa.array(open_rows)), near.dimension)
                who, cosine = near.best(vectors)
                found = np.flatnonzero(who >= 0)
                kind[open_rows[found]], score[open_rows[found]] = 3, cosine[found]
                match[open_rows[found]] = who[found]
            yield _verdicts(batch.column("id"), kind, score, match, arrays["vector_ids"])

    return map_arrow(pool.select("id", *columns), work, _SCHEMA, batch_rows=4096)


def _ship(
    spark: SparkSession,
    held: HeldOut,
    centroids: npt.ArrayLike | None,
    *,
    spherical: bool,
) -> BroadcastArrays:
    arrays = {
        "hashes": held.hashes,
        "grams": held.grams,
        "vectors": held.vectors,
        "vector_ids": held.vector_ids,
    }
    if centroids is not None and len(held.vectors):
        book = Codebook(np.asarray(centroids))
        arrays["centroids"] = book.centroids
        placed = unit_rows(held.vectors) if spherical else held.vectors
        first, _, second, _ = find_two(placed, book)
        arrays["cells"] = np.stack([first, second], axis=1)
    return broadcast_arrays(spark, arrays)


class _Near:
    """The most similar held-out vector of each row, among those of neighbouring clusters."""

    def __init__(self, arrays: dict[str, npt.NDArray], threshold: float, spherical: bool) -> None:
        self.vectors = unit_rows(np.asarray(arrays["vectors"]))
        self.dimension = self.vectors.shape[1]
        self.threshold = threshold
        self.spherical = spherical
        self.book = Codebook(np.asarray(arrays["centroids"])) if "centroids" in arrays else None
        self.cells = arrays.get("cells")

    def best(self, vectors: FloatMatrix) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
        """Return the held-out row above the threshold with the highest cosine, or -1."""
        who = np.full(len(vectors), -1, dtype=np.intp)
        cosine = np.zeros(len(vectors))
        if not len(vectors):
            return who, cosine
        rows = unit_rows(vectors)
        everything = np.arange(len(self.vectors))
        if self.book is None or self.cells is None:
            self._look(rows, np.arange(len(rows)), everything, who, cosine)
            return who, cosine
        first, _, second, _ = find_two(rows if self.spherical else vectors, self.book)
        for cell in np.unique(self.cells):
            lines = np.flatnonzero((first == cell) | (second == cell))
            if len(lines):
                there = np.flatnonzero((self.cells == cell).any(axis=1))
                self._look(rows, lines, there, who, cosine)
        return who, cosine

    def _look(
        self,
        rows: FloatMatrix,
        lines: npt.NDArray[np.intp],
        there: npt.NDArray[np.intp],
        who: npt.NDArray[np.intp],
        cosine: npt.NDArray[np.float64],
    ) -> None:
        for start in range(0, len(there), 4096):
            part = there[start : start + 4096]
            hit = similar(rows[lines], self.vectors[part], self.threshold)
            at, which = np.nonzero(hit)
            exact = exact_cosine(rows[lines[at]], self.vectors[part[which]])
            for line, other, value in zip(lines[at], part[which], exact, strict=True):
                # Ties go to the lowest held-out row, in whatever order cells are looked into.
                if (value, -other) > (cosine[line], -who[line]) or who[line] < 0:
                    who[line], cosine[line] = other, value


def _verdicts(
    ids: pa.Array,
    kind: npt.NDArray[np.int8],
    score: npt.NDArray[np.float64],
    match: npt.NDArray[np.intp],
    names: npt.NDArray[np.str_],
) -> pa.Table:
    found = np.flatnonzero(kind)
    reasons = np.array(["", SAME_CONTENT, SHARED_GRAMS, SAME_DIRECTION])
    matched = [str(names[m]) if m >= 0 else None for m in match[found]]
    return pa.table(
        {
            "id": ids.take(pa.array(found)).cast(pa.string()),
            "reason": pa.array(reasons[kind[found]].tolist(), pa.string()),
            "score": score[found],
            "matched": pa.array(matched, pa.string()),
        }
    )
