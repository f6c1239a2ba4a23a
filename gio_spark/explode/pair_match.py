"""Match of the two halves of a pair: what tells a true pair from a shuffled one.

Words of both halves that occur together lie close after a projection of each half: the singular
vectors of their cross-covariance (partial least squares), so a text and its translation or answer
have nearly one direction. Rows are projected by a fit on the other half of the folds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from scipy import sparse

from gio_spark.explode.text_features import text_ngrams
from gio_spark.kernels.ngrams import NgramSpec
from gio_spark.process import no_warnings, one_thread

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

# Of each group of folds, rows of the target and of the pool that the match is fitted on.
MATCH_ROWS = 5_000
_DIRECTIONS = 64
_SPARE_DIRECTIONS = 10
_WORDS = NgramSpec(words=1, chars=(3,), bits=14, limit=1_024)
_PRIOR_COUNT = 5.0
_NO_STRENGTH = 1e-6
_BLOCK = 2_048


@dataclass(frozen=True)
class PairMatch:
    """Features of the match, by a model of each group of folds (even and odd).

    Attributes:
        text, output: float32 (2, n-grams, directions), projections of the halves.
        center: float32 (2, 2, directions), projected means of text and output.
        odds: float64 (2, 5), weights and constant of the log odds of true pairs over shuffled ones.
    """

    text: npt.NDArray[np.float32]
    output: npt.NDArray[np.float32]
    center: npt.NDArray[np.float32]
    odds: FloatArray

    def features(self, text: pa.Array, output: pa.Array, fold: IntArray) -> FloatArray:
        """Features (n, 5) of n pairs: match, shared words, log length ratio, its square, equality.

        Args:
            text, output: Arrow string arrays of n texts.
            fold: Fold of each row, (n,).
        """
        log_odds = np.empty(len(text))
        dense = np.empty((len(text), 3))
        for group in (0, 1):
            rows = np.flatnonzero(fold % 2 == group)
            for start in range(0, rows.size, _BLOCK):
                block = rows[start : start + _BLOCK]
                signs = self.signs(_Halves.of(text, output, block), group)
                weights, constant = self.odds[group, :-1], self.odds[group, -1]
                log_odds[block] = (signs * weights).sum(axis=1) + constant
                dense[block] = signs[:, 1:]
        # A true pair is as good as any other; what counts is how unlikely a pair is a true one.
        match = -np.logaddexp(0.0, -log_odds)
        equal = pc.equal(text.cast(pa.large_string()), output.cast(pa.large_string()))
        is_equal = pc.fill_null(equal, False).to_numpy(zero_copy_only=False).astype(float)
        return np.column_stack([match, dense, is_equal])

    def signs(self, halves: _Halves, group: int) -> FloatArray:
        """Signs (n, 4) of a true pair: cosine of the projections, and those without a fit."""
        a = halves.text @ self.text[group] - self.center[group, 0]
        b = halves.output @ self.output[group] - self.center[group, 1]
        norms = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
        cosine = (a * b).sum(axis=1) / np.maximum(norms, np.float32(1e-12))
        return np.column_stack([cosine, halves.dense()]).astype(np.float64)

    def arrays(self) -> dict[str, np.ndarray]:
        """Match as arrays."""
        return {
            "text": self.text,
            "output": self.output,
            "center": self.center,
            "odds": self.odds,
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> PairMatch:
        """Make the match from its arrays."""
        return cls(arrays["text"], arrays["output"], arrays["center"], arrays["odds"])


@dataclass(frozen=True)
class _Halves:
    """Normalized counts of n-grams of both halves, float32 (n, n-grams), and their bytes (n,)."""

    text: sparse.csr_matrix
    output: sparse.csr_matrix
    text_bytes: FloatArray
    output_bytes: FloatArray

    @classmethod
    def of(cls, text: pa.Array, output: pa.Array, rows: IntArray) -> _Halves:
        text, output = text.take(pa.array(rows)), output.take(pa.array(rows))
        return cls(_counts(text), _counts(output), _lengths(text), _lengths(output))

    def shuffled(self) -> _Halves:
        """Each text with the output of the row before."""
        before = np.roll(np.arange(len(self.text_bytes)), 1)
        return replace(self, output=self.output[before], output_bytes=self.output_bytes[before])

    def dense(self) -> FloatArray:
        """Share of common n-grams (a cosine), log length ratio and its square, (n, 3)."""
        shared = np.asarray(self.text.multiply(self.output).sum(axis=1)).ravel()
        ratio = np.log((self.output_bytes + 1.0) / (self.text_bytes + 1.0))
        return np.column_stack([shared, ratio, ratio * ratio])


def _lengths(texts: pa.Array) -> FloatArray:
    lengths = pc.fill_null(pc.binary_length(texts), 0)
    return np.asarray(lengths.to_numpy(zero_copy_only=False), dtype=np.float64)


def _counts(texts: pa.Array) -> sparse.csr_matrix:
    row, feature = text_ngrams(texts, _WORDS)
    counts = sparse.csr_matrix(
        (np.ones(len(row), np.float32), (row, feature)), shape=(len(texts), _WORDS.features)
    )
    counts.sum_duplicates()
    squares = np.bincount(row, minlength=len(texts))  # of the roots of the counts
    counts.data = np.sqrt(counts.data) / np.sqrt(
        np.repeat(np.maximum(squares, 1), np.diff(counts.indptr))
    ).astype(np.float32)
    return counts


def halves_of(pairs: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Texts and outputs of an Arrow array of structs of both, none of them null."""
    struct = cast(pa.StructArray, pairs)
    return struct.field("text"), struct.field("output")


def fit_match(text: pa.Array, output: pa.Array, fold: IntArray, label: IntArray) -> PairMatch:
    """Fit the match of pairs on bounded samples, for each group of folds on the other one.

    Args:
        text, output: Arrow string arrays of n texts.
        fold: Fold of each row, (n,).
        label: 1 for rows of the target, 0 for those of the pool, (n,).
    """
    halves, of_target = [], []
    for group in (0, 1):
        of_group = fold % 2 == group
        of_group |= not of_group.any()  # of few rows, all folds may be of one group
        target, pool = (np.flatnonzero(of_group & (label == one))[:MATCH_ROWS] for one in (1, 0))
        halves.append(_Halves.of(text, output, np.concatenate([target, pool])))
        of_target.append(target.size)
    with no_warnings(), one_thread():
        fits = [_projections(halves[1 - group]) for group in (0, 1)]
        text_fit, output_fit, center = (np.stack(part) for part in zip(*fits, strict=True))
        fitted = PairMatch(text_fit, output_fit, center, np.zeros((2, 5)))
        odds = [_odds(fitted, halves[group], of_target[group], group) for group in (0, 1)]
    return replace(fitted, odds=np.stack(odds))


def _projections(halves: _Halves) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Projections of text and output (n-grams, directions) and projected means (2, directions)."""
    sides, scales, means = [], [], []
    for counts in (halves.text, halves.output):
        frequency = np.asarray(counts.multiply(counts).sum(axis=0)).ravel()
        # As in a correspondence analysis: frequent words do not decide alone.
        scales.append(np.where(frequency > 0, 1.0 / np.sqrt(frequency + _PRIOR_COUNT), 0.0))
        sides.append(counts @ sparse.diags(scales[-1], format="csr"))
        means.append(np.asarray(sides[-1].mean(axis=0)).ravel())
    (a, b), rows = sides, halves.text.shape[0]

    def product(x: FloatArray) -> FloatArray:
        return np.asarray(a.T @ (b @ x) - rows * np.outer(means[0], means[1] @ x))

    def transposed(x: FloatArray) -> FloatArray:
        return np.asarray(b.T @ (a @ x) - rows * np.outer(means[1], means[0] @ x))

    width = _DIRECTIONS + _SPARE_DIRECTIONS
    start = np.random.default_rng(0).normal(size=(_WORDS.features, width))
    # Two passes of a randomized singular value decomposition (Halko, Martinsson, Tropp 2011).
    basis = np.linalg.qr(transposed(np.linalg.qr(product(start))[0]))[0]
    left, strength, right = np.linalg.svd(product(basis), full_matrices=False)
    # Few rows have fewer directions; the others are rounding errors.
    is_real = (strength > _NO_STRENGTH * max(strength[0], 1e-300))[:_DIRECTIONS]
    directions = (left[:, :_DIRECTIONS] * is_real, (basis @ right.T)[:, :_DIRECTIONS] * is_real)
    text, output = (scale[:, None] * one for scale, one in zip(scales, directions, strict=True))
    center = np.stack([mean @ one for mean, one in zip(means, directions, strict=True)])
    return text.astype(np.float32), output.astype(np.float32), center.astype(np.float32)


def _odds(match: PairMatch, halves: _Halves, target_rows: int, group: int) -> FloatArray:
    """Weights and constant (5,) of the log odds of pairs of the target over shuffled pairs.

    Pairs of the pool, of which some may be no true ones, are used with shuffled halves alone.
    """
    from sklearn.linear_model import LogisticRegression

    true = match.signs(halves, group)[:target_rows]
    features = np.concatenate([true, match.signs(halves.shuffled(), group)])
    spread = features.std(axis=0)
    spread[spread == 0] = 1.0
    label = np.arange(len(features)) < target_rows
    if label.all() or not label.any():
        return np.zeros(features.shape[1] + 1)
    model = LogisticRegression(class_weight="balanced", max_iter=200).fit(features / spread, label)
    return np.append(model.coef_[0] / spread, model.intercept_[0])
