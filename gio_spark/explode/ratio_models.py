"""Kinds of ratio model that score rows, in plain numpy, with the same bits in any batch.

A scorer consists of plain arrays (so that it can be stored and broadcast without pickle) and has
one model per fold. A row is scored by the model of its fold, which was fitted without that fold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gio_spark.engine import decode_vectors
from gio_spark.engine.arrow import text_bytes
from gio_spark.errors import InputError
from gio_spark.explode.pair_match import PairMatch, halves_of
from gio_spark.explode.text_features import text_ngrams
from gio_spark.kernels import squared_distances
from gio_spark.kernels.ngrams import NgramSpec, chunks

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Arrays = dict[str, np.ndarray]

WEIGHT_ONE = 1 << 24
"""Text weights are stored as integers in units of 2^-24: integer sums are exact in any order."""
_BLOCK = 2_048
_TILE = 256
_SPARE_CANDIDATES = 4


class Scorer(Protocol):
    """Interface of the raw scores of a ratio model."""

    @property
    def kind(self) -> str:
        """Name under which the scorer is stored: text, pairs, vector, knn or retrieval."""

    def raw(self, content: pa.Array, fold: IntArray) -> FloatArray:
        """Raw scores (n,) of n rows, each by the model of its fold (n,)."""

    def arrays(self) -> Arrays:
        """Arrays from which the scorer can be restored."""


@dataclass(frozen=True)
class TextScorer:
    """Linear model on hashed n-grams: sum of weights over sqrt(number of n-grams), plus a constant.

    Attributes:
        spec: Lengths of the n-grams and number of features.
        weights: int32 (F, 2^bits), in units of 2^-24.
        intercept: float64 (F,).
    """

    spec: NgramSpec
    weights: npt.NDArray[np.int32]
    intercept: FloatArray
    kind: str = "text"

    def raw(self, content: pa.Array, fold: IntArray) -> FloatArray:
        """Raw scores of n texts."""
        if not (pa.types.is_string(content.type) or pa.types.is_large_string(content.type)):
            content = content.cast(pa.large_string())
        scores = np.empty(len(content), dtype=np.float64)
        _, offsets = text_bytes(content)
        flat_weights = self.weights.reshape(-1)
        for first, last in chunks(offsets):
            row, feature = text_ngrams(content.slice(first, last - first), self.spec)
            fold_of_text = fold[first:last]
            weight_index = (fold_of_text[row] << self.spec.bits) | feature
            # float64 sums of integers below 2^53 are exact, so their order does not matter.
            total = (
                np.bincount(row, flat_weights[weight_index], minlength=last - first) / WEIGHT_ONE
            )
            count = np.bincount(row, minlength=last - first)
            scores[first:last] = (
                total / np.sqrt(np.maximum(count, 1)) + self.intercept[fold_of_text]
            )
        return scores

    def arrays(self) -> Arrays:
        """Scorer as arrays."""
        spec = [self.spec.words, self.spec.bits, self.spec.limit, *self.spec.chars]
        return {
            "spec": np.array(spec, dtype=np.int64),
            "weights": self.weights,
            "intercept": self.intercept,
        }

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> TextScorer:
        """Make the scorer from its arrays."""
        words, bits, limit, *chars = (int(x) for x in arrays["spec"])
        spec = NgramSpec(words=words, chars=tuple(chars), bits=bits, limit=limit)
        return cls(spec, arrays["weights"], arrays["intercept"])


@dataclass(frozen=True)
class PairScorer:
    """Linear model on the n-grams of each half of a pair and on the match of both.

    Attributes:
        text, output: Models of the halves; that of the text holds the constant.
        match: Features of the match.
        weights: float64 (F, features of the match).
    """

    text: TextScorer
    output: TextScorer
    match: PairMatch
    weights: FloatArray
    kind: str = "pairs"

    def raw(self, content: pa.Array, fold: IntArray) -> FloatArray:
        """Raw scores of n pairs, structs of text and output."""
        text, output = halves_of(content)
        matches = (self.match.features(text, output, fold) * self.weights[fold]).sum(axis=1)
        return self.text.raw(text, fold) + self.output.raw(output, fold) + matches

    def arrays(self) -> Arrays:
        """Scorer as arrays."""
        parts = {
            "text": self.text.arrays(),
            "output": self.output.arrays(),
            "match": self.match.arrays(),
        }
        named = {f"{at}.{n}": array for at, part in parts.items() for n, array in part.items()}
        return {"weights": self.weights, **named}

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> PairScorer:
        """Make the scorer from its arrays."""

        def part(at: str) -> Arrays:
            return {n.removeprefix(at): a for n, a in arrays.items() if n.startswith(at)}

        return cls(
            TextScorer.from_arrays(part("text.")),
            TextScorer.from_arrays(part("output.")),
            PairMatch.from_arrays(part("match.")),
            arrays["weights"],
        )


@dataclass(frozen=True)
class VectorScorer:
    """Quadratic model on vectors: sum over j of x_j (linear_j + square_j x_j), plus a constant.

    Attributes:
        linear, square: float64 (F, d).
        intercept: float64 (F,).
    """

    linear: FloatArray
    square: FloatArray
    intercept: FloatArray
    kind: str = "vector"

    def raw(self, content: pa.Array, fold: IntArray) -> FloatArray:
        """Raw scores of n vectors."""
        return self.raw_matrix(
            decode_vectors(content, self.linear.shape[1], what="content of the rows to score"), fold
        )

    def raw_matrix(self, x: npt.NDArray[np.float32], fold: IntArray) -> FloatArray:
        """Raw scores of the rows of a matrix (n, d)."""
        scores = np.empty(len(x), dtype=np.float64)
        for start in range(0, len(x), _BLOCK):
            fold_of_row = fold[start : start + _BLOCK]
            block = x[start : start + _BLOCK].astype(np.float64)
            term = self.square[fold_of_row]
            term *= block
            term += self.linear[fold_of_row]
            term *= block
            # Sums along contiguous rows: unlike those of a matrix product, the bits of a row do
            # not depend on the number of rows in the block.
            scores[start : start + _BLOCK] = term.sum(axis=1) + self.intercept[fold_of_row]
        return scores

    def arrays(self) -> Arrays:
        """Scorer as arrays."""
        return {"linear": self.linear, "square": self.square, "intercept": self.intercept}

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> VectorScorer:
        """Make the scorer from its arrays."""
        return cls(arrays["linear"], arrays["square"], arrays["intercept"])


@dataclass(frozen=True)
class KnnScorer:
    """Log of k-th neighbor distances, pool over target (Loftsgaarden, Quesenberry 1965).

    A k-NN density is proportional to distance^-dimension, so the raw score times the dimension is
    the log density ratio; the calibration estimates that factor. References of the fold of a row
    are left out, so no row is its own neighbor.

    Attributes:
        target, pool: float32 (n, d), (m, d) reference vectors.
        target_fold, pool_fold: int64 (n,), (m,).
        k: Rank of the neighbor.
        floor: Smallest squared distance; smaller ones are raised to it.
    """

    target: npt.NDArray[np.float32]
    pool: npt.NDArray[np.float32]
    target_fold: IntArray
    pool_fold: IntArray
    k: int
    floor: float
    kind: str = "knn"

    def raw(self, content: pa.Array, fold: IntArray) -> FloatArray:
        """Raw scores of n vectors."""
        return self.raw_matrix(
            decode_vectors(content, self.pool.shape[1], what="content of the rows to score"), fold
        )

    def raw_matrix(self, x: npt.NDArray[np.float32], fold: IntArray) -> FloatArray:
        """Raw scores of the rows of a matrix (n, d)."""
        scores = np.empty(len(x), dtype=np.float64)
        for f in np.unique(fold):
            positions = np.flatnonzero(fold == f)
            near_pool = self._log_distance(x[positions], self.pool[self.pool_fold != f])
            near_target = self._log_distance(x[positions], self.target[self.target_fold != f])
            scores[positions] = near_pool - near_target
        return scores

    def _log_distance(
        self, x: npt.NDArray[np.float32], references: npt.NDArray[np.float32]
    ) -> FloatArray:
        k = min(self.k, len(references)) - 1
        candidate_count = min(k + 1 + _SPARE_CANDIDATES, len(references))
        log_distances = np.empty(len(x), dtype=np.float64)
        for start in range(0, len(x), _TILE):
            tile = x[start : start + _TILE]
            squared = squared_distances(tile, references)
            candidates = np.argpartition(squared, candidate_count - 1, axis=1)[:, :candidate_count]
            exact_distances = _exact_squared(tile, references, candidates)
            nearest = np.partition(exact_distances, k, axis=1)[:, k]
            log_distances[start : start + _TILE] = 0.5 * np.log(np.maximum(nearest, self.floor))
        return log_distances

    def arrays(self) -> Arrays:
        """Scorer as arrays."""
        return {
            "target": self.target,
            "pool": self.pool,
            "target_fold": self.target_fold,
            "pool_fold": self.pool_fold,
            "numbers": np.array([self.k, self.floor], dtype=np.float64),
        }

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> KnnScorer:
        """Make the scorer from its arrays."""
        return cls(
            arrays["target"],
            arrays["pool"],
            arrays["target_fold"],
            arrays["pool_fold"],
            k=int(arrays["numbers"][0]),
            floor=float(arrays["numbers"][1]),
        )


@dataclass(frozen=True)
class RetrievalScorer:
    """Nearness to any target row, in units of that row's distance to the pool: k-NN retrieval.

    The share of the pool that is nearer to a target row than a given row grows with the distance
    over the distance of the k-th nearest pool row. So rows in the order of their smallest quotient
    are about a round robin over the lists of nearest pool rows, and the order is a map over rows.

    Attributes:
        target: float32 (n, d) target rows.
        target_fold: int64 (n,).
        log_scale: float64 (n,), log distance of each target row to its k-th nearest pool row.
        floor: Smallest squared distance; smaller ones are raised to it.
    """

    target: npt.NDArray[np.float32]
    target_fold: IntArray
    log_scale: FloatArray
    floor: float
    kind: str = "retrieval"

    def raw(self, content: pa.Array, fold: IntArray) -> FloatArray:
        """Raw scores of n vectors, each by the target rows that are not of its fold."""
        x = decode_vectors(content, self.target.shape[1], what="content of the rows to score")
        scores = np.empty(len(x), dtype=np.float64)
        for f in np.unique(fold):
            is_other = self.target_fold != f
            references, scale = self.target[is_other], self.log_scale[is_other]
            positions = np.flatnonzero(fold == f)
            for start in range(0, len(positions), _TILE):
                rows = positions[start : start + _TILE]
                scores[rows] = self._nearness(x[rows], references, scale)
        return scores

    def _nearness(
        self, x: npt.NDArray[np.float32], references: npt.NDArray[np.float32], scale: FloatArray
    ) -> FloatArray:
        proposed = scale - 0.5 * np.log(np.maximum(squared_distances(x, references), self.floor))
        count = min(1 + _SPARE_CANDIDATES, len(references))
        candidates = np.argpartition(-proposed, count - 1, axis=1)[:, :count]
        squared = np.maximum(_exact_squared(x, references, candidates), self.floor)
        return np.asarray((scale[candidates] - 0.5 * np.log(squared)).max(axis=1))

    def arrays(self) -> Arrays:
        """Scorer as arrays."""
        return {
            "target": self.target,
            "target_fold": self.target_fold,
            "log_scale": self.log_scale,
            "floor": np.array([self.floor]),
        }

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> RetrievalScorer:
        """Make the scorer from its arrays."""
        return cls(
            arrays["target"], arrays["target_fold"], arrays["log_scale"], float(arrays["floor"][0])
        )


def _exact_squared(
    x: npt.NDArray[np.float32],
    references: npt.NDArray[np.float32],
    candidates: npt.NDArray[np.intp],
) -> FloatArray:
    """Squared distances of n rows to c candidates each, float64 (n, c).

    The bits of a float32 product depend on the other rows of the block. It therefore only proposes
    candidates, a few more than needed, whose distances are computed here.
    """
    differences = x[:, None, :].astype(np.float64) - references[candidates]
    return np.asarray(np.square(differences).sum(axis=2))


def scorer_from_arrays(kind: str, arrays: Arrays) -> Scorer:
    """Scorer of the given kind from its arrays.

    Raises:
        InputError: If the kind is unknown.
    """
    if kind == "text":
        return TextScorer.from_arrays(arrays)
    if kind == "pairs":
        return PairScorer.from_arrays(arrays)
    if kind == "vector":
        return VectorScorer.from_arrays(arrays)
    if kind == "knn":
        return KnnScorer.from_arrays(arrays)
    if kind == "retrieval":
        return RetrievalScorer.from_arrays(arrays)
    raise InputError(
        f"Unknown kind of ratio model '{kind}': use text, pairs, vector, knn or retrieval."
    )
