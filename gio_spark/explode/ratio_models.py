"""Raw scores of rows by the three kinds of ratio model; plain numpy, the same bits in any batch.

A scorer is made of plain arrays (so that it can be stored and shipped without pickle) and holds
one model per fold; a row is scored by the model of its own fold, which never saw that fold.
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
_SPARE = 4


class Scorer(Protocol):
    """What a ratio model needs of its estimator."""

    @property
    def kind(self) -> str:
        """Name under which the scorer is stored: text, vector or knn."""

    def raw(self, content: pa.Array, fold: IntArray) -> FloatArray:
        """Return the raw scores (n,) of n rows, each by the model of its fold (n,)."""

    def arrays(self) -> Arrays:
        """Return everything needed to make the scorer again."""


@dataclass(frozen=True)
class TextScorer:
    """Linear model on hashed n-grams: sum of weights over sqrt(number of n-grams), plus a constant.

    Attributes:
        spec: Which n-grams.
        weights: int32 (F, 2^bits), in units of 2^-24.
        intercept: float64 (F,).
    """

    spec: NgramSpec
    weights: npt.NDArray[np.int32]
    intercept: FloatArray
    kind: str = "text"

    def raw(self, content: pa.Array, fold: IntArray) -> FloatArray:
        """Return the raw scores of n texts."""
        if not (pa.types.is_string(content.type) or pa.types.is_large_string(content.type)):
            content = content.cast(pa.large_string())
        out = np.empty(len(content), dtype=np.float64)
        _, offsets = text_bytes(content)
        flat = self.weights.reshape(-1)
        for first, last in chunks(offsets):
            row, feature = text_ngrams(content.slice(first, last - first), self.spec)
            own = fold[first:last]
            at = (own[row] << self.spec.bits) | feature
            # float64 sums of integers below 2^53 are exact, so their order does not matter.
            total = np.bincount(row, flat[at], minlength=last - first) / WEIGHT_ONE
            count = np.bincount(row, minlength=last - first)
            out[first:last] = total / np.sqrt(np.maximum(count, 1)) + self.intercept[own]
        return out

    def arrays(self) -> Arrays:
        """Return the scorer as arrays."""
        spec = [self.spec.words, self.spec.bits, self.spec.limit, *self.spec.chars]
        return {
            "spec": np.array(spec, dtype=np.int64),
            "weights": self.weights,
            "intercept": self.intercept,
        }

    @classmethod
    def of(cls, arrays: Arrays) -> TextScorer:
        """Make the scorer from its arrays."""
        words, bits, limit, *chars = (int(x) for x in arrays["spec"])
        spec = NgramSpec(words=words, chars=tuple(chars), bits=bits, limit=limit)
        return cls(spec, arrays["weights"], arrays["intercept"])


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
        """Return the raw scores of n vectors."""
        return self.raw_matrix(
            decode_vectors(content, self.linear.shape[1], what="content of the rows to score"), fold
        )

    def raw_matrix(self, x: npt.NDArray[np.float32], fold: IntArray) -> FloatArray:
        """Return the raw scores of the rows of a matrix (n, d)."""
        out = np.empty(len(x), dtype=np.float64)
        for start in range(0, len(x), _BLOCK):
            own = fold[start : start + _BLOCK]
            part = x[start : start + _BLOCK].astype(np.float64)
            term = self.square[own]
            term *= part
            term += self.linear[own]
            term *= part
            # Sums along contiguous rows: unlike a matrix product, each row's result does not
            # depend on how many rows stand beside it.
            out[start : start + _BLOCK] = term.sum(axis=1) + self.intercept[own]
        return out

    def arrays(self) -> Arrays:
        """Return the scorer as arrays."""
        return {"linear": self.linear, "square": self.square, "intercept": self.intercept}

    @classmethod
    def of(cls, arrays: Arrays) -> VectorScorer:
        """Make the scorer from its arrays."""
        return cls(arrays["linear"], arrays["square"], arrays["intercept"])


@dataclass(frozen=True)
class KnnScorer:
    """Log of k-th neighbour distances, pool's over target's (Loftsgaarden, Quesenberry 1965).

    A k-NN density is proportional to distance^-dimension, so this times the dimension is the log
    density ratio; calibration finds that factor. References of a row's own
    fold are left out, so no row is its own neighbour.

    Attributes:
        target, pool: float32 (n, d), (m, d) reference vectors.
        target_fold, pool_fold: int64 (n,), (m,).
        k: Which neighbour.
        floor: Squared distance below which distances are not told apart.
    """

    target: npt.NDArray[np.float32]
    pool: npt.NDArray[np.float32]
    target_fold: IntArray
    pool_fold: IntArray
    k: int
    floor: float
    kind: str = "knn"

    def raw(self, content: pa.Array, fold: IntArray) -> FloatArray:
        """Return the raw scores of n vectors."""
        return self.raw_matrix(
            decode_vectors(content, self.pool.shape[1], what="content of the rows to score"), fold
        )

    def raw_matrix(self, x: npt.NDArray[np.float32], fold: IntArray) -> FloatArray:
        """Return the raw scores of the rows of a matrix (n, d)."""
        out = np.empty(len(x), dtype=np.float64)
        for f in np.unique(fold):
            at = np.flatnonzero(fold == f)
            near_pool = self._log_distance(x[at], self.pool[self.pool_fold != f])
            near_target = self._log_distance(x[at], self.target[self.target_fold != f])
            out[at] = near_pool - near_target
        return out

    def _log_distance(
        self, x: npt.NDArray[np.float32], references: npt.NDArray[np.float32]
    ) -> FloatArray:
        k = min(self.k, len(references)) - 1
        near = min(k + 1 + _SPARE, len(references))
        out = np.empty(len(x), dtype=np.float64)
        for start in range(0, len(x), _TILE):
            part = x[start : start + _TILE]
            squared = squared_distances(part, references)
            found = np.argpartition(squared, near - 1, axis=1)[:, :near]
            # The bits of a float32 product depend on the rows beside it. So it only proposes
            # candidates, a few more than needed, and their distances are taken again in float64.
            gap = part[:, None, :].astype(np.float64) - references[found]
            exact = np.square(gap).sum(axis=2)
            nearest = np.partition(exact, k, axis=1)[:, k]
            out[start : start + _TILE] = 0.5 * np.log(np.maximum(nearest, self.floor))
        return out

    def arrays(self) -> Arrays:
        """Return the scorer as arrays."""
        return {
            "target": self.target,
            "pool": self.pool,
            "target_fold": self.target_fold,
            "pool_fold": self.pool_fold,
            "numbers": np.array([self.k, self.floor], dtype=np.float64),
        }

    @classmethod
    def of(cls, arrays: Arrays) -> KnnScorer:
        """Make the scorer from its arrays."""
        return cls(
            arrays["target"],
            arrays["pool"],
            arrays["target_fold"],
            arrays["pool_fold"],
            k=int(arrays["numbers"][0]),
            floor=float(arrays["numbers"][1]),
        )


def scorer_of(kind: str, arrays: Arrays) -> Scorer:
    """Make a scorer of the given kind from its arrays.

    Raises:
        InputError: If the kind is unknown.
    """
    if kind == "text":
        return TextScorer.of(arrays)
    if kind == "vector":
        return VectorScorer.of(arrays)
    if kind == "knn":
        return KnnScorer.of(arrays)
    raise InputError(f"Unknown kind of ratio model '{kind}': use text, vector or knn.")
