"""Fits of the raw density ratio scores, one model per fold, on bounded samples in arrays."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy import sparse

from gio_spark.engine.arrow import joined
from gio_spark.errors import InputError
from gio_spark.explode.pair_match import fit_match, halves_of
from gio_spark.explode.ratio_models import (
    WEIGHT_ONE,
    KnnScorer,
    PairScorer,
    RetrievalScorer,
    TextScorer,
    VectorScorer,
)
from gio_spark.explode.text_features import text_ngrams
from gio_spark.kernels import squared_distances
from gio_spark.kernels.ngrams import NgramSpec
from gio_spark.process import no_warnings, one_thread

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

log = logging.getLogger(__name__)

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
TEXT_C = 3.0
VECTOR_C = 0.1
_MAX_STEPS = 40
_MAX_WEIGHT = 100.0
# Target rows whose distances to the pool are computed at a time.
_SCALE_ROWS = 256


def fit_text(
    target: pa.Array,
    pool: pa.Array,
    target_fold: IntArray,
    pool_fold: IntArray,
    *,
    folds: int,
    spec: NgramSpec,
    regularization: float | None = None,
) -> TextScorer:
    """Logistic regressions of target against pool on hashed n-grams, one per fold left out.

    Args:
        target, pool: Arrow string arrays of n and m texts.
        target_fold, pool_fold: Fold of each row, (n,) and (m,).
        folds: Number of folds F.
        spec: Lengths of the n-grams and number of features.
        regularization: C of the logistic regression.

    Raises:
        InputError: If no n-gram occurs in two rows.
    """
    matrix, repeated = _ngram_matrix(_stacked(target, pool), spec)
    label, fold = _labels_and_folds(target_fold, pool_fold)
    coefficients, intercept = _fit_folds(matrix, label, fold, folds, regularization)
    return TextScorer(spec, _text_weights(coefficients, repeated, spec), intercept)


def fit_pairs(
    target: pa.Array,
    pool: pa.Array,
    target_fold: IntArray,
    pool_fold: IntArray,
    *,
    folds: int,
    spec: NgramSpec,
    regularization: float | None = None,
) -> PairScorer:
    """Logistic regressions on the n-grams of each half of a pair, apart, and on their match.

    Args:
        target, pool: Arrow arrays of n and m structs of two strings, text and output.
        target_fold, pool_fold: Fold of each row, (n,) and (m,).
        folds: Number of folds F.
        spec: Lengths of the n-grams and number of features of each half.
        regularization: C of the logistic regression.

    Raises:
        InputError: If no n-gram occurs in two texts, or in two outputs.
    """
    halves = zip(halves_of(target), halves_of(pool), strict=True)
    text, output = (_stacked(*half) for half in halves)
    label, fold = _labels_and_folds(target_fold, pool_fold)
    match = fit_match(text, output, fold, label)
    matches = match.features(text, output, fold)
    center, spread = matches.mean(axis=0), _positive_spread(matches.std(axis=0))
    text_matrix, text_repeated = _ngram_matrix(text, spec)
    output_matrix, output_repeated = _ngram_matrix(output, spec)
    standardized = sparse.csr_matrix((matches - center) / spread)
    features = sparse.hstack([text_matrix, output_matrix, standardized], format="csr")
    coefficients, intercept = _fit_folds(features, label, fold, folds, regularization)
    ends = np.cumsum([text_repeated.size, output_repeated.size])
    of_text, of_output, of_match = np.split(coefficients, ends, axis=1)
    weights = of_match / spread
    return PairScorer(
        TextScorer(spec, _text_weights(of_text, text_repeated, spec), intercept - weights @ center),
        TextScorer(spec, _text_weights(of_output, output_repeated, spec), np.zeros(folds)),
        match,
        weights,
    )


def _ngram_matrix(texts: pa.Array, spec: NgramSpec) -> tuple[sparse.csr_matrix, IntArray]:
    """Matrix of the n-grams that occur in two texts or more, and their feature numbers."""
    row, feature = text_ngrams(texts, spec)
    counts = np.bincount(row, minlength=len(texts))
    matrix = sparse.csr_matrix(
        (1.0 / np.sqrt(counts[row]), (row, feature)), shape=(len(texts), spec.features)
    )
    # An n-gram that occurs in one row only tells nothing about rows outside the sample.
    repeated = np.flatnonzero(np.bincount(matrix.indices, minlength=spec.features) >= 2)
    if repeated.size == 0:
        raise InputError(
            "No two texts of target and pool share an n-gram: is the text column right? Use "
            "within_cluster: exact_count to go without a density ratio."
        )
    return matrix[:, repeated], repeated


def _fit_folds(
    features: sparse.csr_matrix,
    label: IntArray,
    fold: IntArray,
    folds: int,
    regularization: float | None,
) -> tuple[FloatArray, FloatArray]:
    """Coefficients (F, features) and constants (F,) of the models without each fold."""
    coefficients = np.zeros((folds, features.shape[1]))
    intercept = np.zeros(folds)
    for f in range(folds):
        model = _logistic(
            features[fold != f],
            label[fold != f],
            regularization=regularization or TEXT_C,
            solver="liblinear",
        )
        coefficients[f] = model.coef_[0]
        intercept[f] = model.intercept_[0]
    return coefficients, intercept


def _text_weights(
    coefficients: FloatArray, repeated: IntArray, spec: NgramSpec
) -> npt.NDArray[np.int32]:
    """Stored weights (F, features) of the n-grams that occur in two texts or more."""
    weights = np.zeros((len(coefficients), spec.features), dtype=np.int32)
    clipped = np.clip(coefficients, -_MAX_WEIGHT, _MAX_WEIGHT)
    weights[:, repeated] = np.rint(clipped * WEIGHT_ONE).astype(np.int32)
    return weights


def vector_fit_bytes(rows: int, dimension: int) -> int:
    """Peak memory of `fit_vector` on so many vectors of target and pool, with the vectors.

    These are the vectors as received and as float32, and three arrays of 8 bytes a number: values,
    features and a temporary one.
    """
    return 32 * rows * dimension


def fit_vector(
    target: npt.NDArray[np.float32],
    pool: npt.NDArray[np.float32],
    target_fold: IntArray,
    pool_fold: IntArray,
    *,
    folds: int,
    regularization: float | None = None,
) -> VectorScorer:
    """Logistic regressions on vectors and their squares, one per fold left out.

    With squares the model includes the exact log ratio of two Gaussians with diagonal covariances.

    Args:
        target, pool: float32 (n, d) and (m, d).
        target_fold, pool_fold: Fold of each row, (n,) and (m,).
        folds: Number of folds F.
        regularization: C of the logistic regression (features are standardized).
    """
    # In place: at 500,000 rows each, a further array of float64 is 3 GB.
    values = np.concatenate([target, pool], dtype=np.float64)
    label, fold = _labels_and_folds(target_fold, pool_fold)
    # Target and pool weigh one half each: a small target counts as much as a large pool.
    weight = np.where(label == 1, 0.5 / len(target), 0.5 / len(pool))
    dimension = values.shape[1]
    features = np.empty((len(values), 2 * dimension), dtype=np.float32)
    center, spread = _standardize(values, weight)
    features[:, :dimension] = values
    np.square(values, out=values)
    square_mean, square_spread = _standardize(values, weight)
    features[:, dimension:] = values
    del values
    linear = np.zeros((folds, dimension))
    square = np.zeros((folds, dimension))
    intercept = np.zeros(folds)
    solver = "newton-cholesky" if 2 * dimension <= 1_024 else "lbfgs"
    for f in range(folds):
        model = _logistic(
            features[fold != f],
            label[fold != f],
            regularization=regularization or VECTOR_C,
            solver=solver,
        )
        linear_weight = model.coef_[0][:dimension].astype(np.float64) / spread
        square_weight = model.coef_[0][dimension:].astype(np.float64) / square_spread
        # Undo the standardization, so that scoring reads the vectors unchanged.
        square[f] = square_weight / spread**2
        linear[f] = linear_weight - 2.0 * center * square[f]
        intercept[f] = float(
            model.intercept_[0]
            - (linear_weight * center).sum()
            + (square_weight * (center**2 / spread**2 - square_mean)).sum()
        )
    return VectorScorer(linear, square, intercept)


def fit_knn(
    target: npt.NDArray[np.float32],
    pool: npt.NDArray[np.float32],
    target_fold: IntArray,
    pool_fold: IntArray,
    *,
    neighbors: int,
) -> KnnScorer:
    """k-NN scorer with the samples as reference vectors.

    Args:
        target, pool: float32 (n, d) and (m, d).
        target_fold, pool_fold: Fold of each row, (n,) and (m,).
        neighbors: Rank of the neighbor whose distance is used; at most a third of the smaller
            sample.
    """
    neighbor = max(1, min(neighbors, len(target) // 3, len(pool) // 3))
    return KnnScorer(
        np.ascontiguousarray(target, dtype=np.float32),
        np.ascontiguousarray(pool, dtype=np.float32),
        target_fold,
        pool_fold,
        k=neighbor,
        floor=_distance_floor(target, pool),
    )


def fit_retrieval(
    target: npt.NDArray[np.float32],
    pool: npt.NDArray[np.float32],
    target_fold: IntArray,
    *,
    neighbors: int,
) -> RetrievalScorer:
    """Retrieval scorer with the target's sample, each row with its distance to the pool.

    Args:
        target, pool: float32 (n, d) and (m, d).
        target_fold: Fold of each target row, (n,).
        neighbors: Rank of the pool row whose distance is the scale of a target row.
    """
    floor, k = _distance_floor(target, pool), min(neighbors, len(pool)) - 1
    log_scale = np.empty(len(target))
    for start in range(0, len(target), _SCALE_ROWS):
        squared = squared_distances(target[start : start + _SCALE_ROWS], pool)
        nearest = np.partition(squared, k, axis=1)[:, k].astype(np.float64)
        log_scale[start : start + _SCALE_ROWS] = 0.5 * np.log(np.maximum(nearest, floor))
    return RetrievalScorer(
        np.ascontiguousarray(target, dtype=np.float32), target_fold, log_scale, floor
    )


def _distance_floor(target: npt.NDArray[np.float32], pool: npt.NDArray[np.float32]) -> float:
    """Smallest squared distance that counts, from the typical one.

    Copies of a reference are at distance 0, whose log is not finite. Differences of float32
    distances below about 1e-6 of the median distance are rounding errors.
    """
    typical_distance = float(np.median(squared_distances(pool[:256], target[:1024])))
    return max(1e-6 * typical_distance, float(np.finfo(np.float32).tiny))


def _stacked(target: pa.Array | pa.ChunkedArray, pool: pa.Array | pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays([joined(texts).cast(pa.large_string()) for texts in (target, pool)])


def _labels_and_folds(target_fold: IntArray, pool_fold: IntArray) -> tuple[IntArray, IntArray]:
    label = np.concatenate([np.ones(len(target_fold)), np.zeros(len(pool_fold))])
    return label.astype(np.int64), np.concatenate([target_fold, pool_fold])


def _standardize(values: FloatArray, weight: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Standardize columns in place, and return their weighted means and standard deviations."""
    center = weight @ values
    values -= center
    spread = _positive_spread(np.sqrt(weight @ np.square(values)))
    values /= spread
    return center, spread


def _positive_spread(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Standard deviations with those of constant features replaced by 1."""
    return np.where(values > 1e-9 * max(1e-300, float(values.max(initial=0.0))), values, 1.0)


def _logistic(
    features: npt.NDArray | sparse.csr_matrix,
    label: IntArray,
    *,
    regularization: float,
    solver: str,
) -> LogisticRegression:
    from sklearn.linear_model import LogisticRegression

    # Dual coordinate descent (liblinear) is the quickest on sparse text, and a little early stop
    # costs nothing there: 0.8 s for 28,000 texts where lbfgs to convergence is no better.
    model = LogisticRegression(
        C=regularization,
        solver=solver,
        dual=solver == "liblinear",
        class_weight="balanced",
        max_iter=_MAX_STEPS if solver == "liblinear" else 200,
        random_state=0,
    )
    # One thread: the bits of a fit must not depend on the number of cores, and threads that
    # wait for a busy machine cost more than they save (measured: 0.2 s became 30 s).
    # The warning about the early stop is expected.
    with no_warnings(), one_thread():
        model.fit(features, label)
    log.debug("ratio fit rows=%d iterations=%s", len(label), model.n_iter_)
    return model
