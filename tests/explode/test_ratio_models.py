"""Scorers and their fits, against plain loops and against scikit-learn on features made anew."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pyarrow as pa
import pytest
from sklearn.linear_model import LogisticRegression

from gio_spark.engine import encode_vectors
from gio_spark.explode.ratio_fit import (
    fit_knn,
    fit_retrieval,
    fit_text,
    fit_vector,
    vector_fit_bytes,
)
from gio_spark.explode.ratio_models import KnnScorer, VectorScorer, scorer_from_arrays
from gio_spark.explode.text_features import text_ngrams
from gio_spark.kernels.ngrams import NgramSpec


def sample(n=90, m=120, d=3, seed=0):
    rng = np.random.default_rng(seed)
    target = rng.normal([0.5, -1.0, 2.0], [0.5, 1.0, 2.0], (n, d)).astype(np.float32)
    pool = rng.normal([0.0, 0.0, 2.5], 1.5, (m, d)).astype(np.float32)
    return target, pool, rng.integers(0, 2, n), rng.integers(0, 2, m)


def test_vectors_are_scored_by_the_quadratic_of_their_fold():
    rng = np.random.default_rng(1)
    linear, square, intercept = rng.normal(size=(2, 3)), rng.normal(size=(2, 3)), [0.5, -2.0]
    x = rng.normal(size=(2100, 3)).astype(np.float32)
    fold = rng.integers(0, 2, len(x))
    expected = [
        float(np.dot(linear[f], row) + np.dot(square[f], row**2) + intercept[f])
        for f, row in zip(fold, x.astype(np.float64), strict=True)
    ]
    scores = VectorScorer(linear, square, np.array(intercept)).raw_matrix(x, fold)
    np.testing.assert_allclose(scores, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("k", [1, 4])
def test_neighbours_are_scored_by_the_ratio_of_their_kth_distances(k):
    target, pool, target_fold, pool_fold = sample()
    scorer = KnnScorer(target, pool, target_fold, pool_fold, k=k, floor=1e-3)
    x = np.concatenate([target[:40], pool[:300]])
    fold = np.arange(len(x)) % 2

    def log_distance(row, references):
        gaps = np.sort(np.square(references.astype(np.float64) - row).sum(axis=1))
        return 0.5 * np.log(max(gaps[k - 1], 1e-3))

    expected = [
        log_distance(row, pool[pool_fold != f]) - log_distance(row, target[target_fold != f])
        for f, row in zip(fold, x.astype(np.float64), strict=True)
    ]
    np.testing.assert_allclose(scorer.raw_matrix(x, fold), expected, rtol=1e-9, atol=1e-12)


def test_more_neighbours_than_references_are_as_many_as_there_are():
    target, pool, target_fold, pool_fold = sample(n=5, m=6)
    scorer = KnnScorer(target, pool, target_fold * 0, pool_fold * 0, k=9, floor=1e-9)
    largest_distances = [
        np.sqrt(np.square(references - target[:1]).sum(axis=1).max())
        for references in (pool, target)
    ]
    score = scorer.raw_matrix(target[:1], np.array([1]))
    np.testing.assert_allclose(
        score, np.log(largest_distances[0] / largest_distances[1]), rtol=1e-6
    )


def test_the_neighbour_is_a_third_of_the_smaller_sample_at_most():
    target, pool, *folds = sample(n=12, m=120)
    for neighbors, k in ((3, 3), (5, 4), (0, 1)):
        assert fit_knn(target, pool, *folds, neighbors=neighbors).k == k
    assert fit_knn(pool, target, *reversed(folds), neighbors=5).k == 4
    typical = np.median(np.square(pool[:, None].astype(np.float64) - target[None]).sum(axis=2))
    floor = fit_knn(target, pool, *folds, neighbors=3).floor
    assert floor == pytest.approx(1e-6 * typical, rel=1e-4)


def test_retrieval_is_the_smallest_distance_in_units_of_the_target_rows_own():
    target, pool, target_fold, pool_fold = sample()
    scorer = fit_retrieval(target, pool, target_fold, neighbors=4)
    squared = np.square(pool[:, None].astype(np.float64) - target[None]).sum(axis=2)
    scale = np.sort(squared, axis=0)[3]
    for f in range(2):
        quotient = (scale / squared)[:, target_fold != f].max(axis=1)
        scores = scorer.raw(encode_vectors(pool), np.full(len(pool), f))
        np.testing.assert_allclose(scores, 0.5 * np.log(quotient), rtol=1e-4, atol=1e-4)
    restored = scorer_from_arrays("retrieval", scorer.arrays())
    content = encode_vectors(pool)
    np.testing.assert_array_equal(restored.raw(content, pool_fold), scorer.raw(content, pool_fold))


def test_rows_in_the_order_of_retrieval_are_those_of_lists_of_nearest_rows():
    rng = np.random.default_rng(3)
    target = rng.normal(1, 1, (100, 4)).astype(np.float32)
    pool = rng.normal(0, 1.5, (4_000, 4)).astype(np.float32)
    scorer = fit_retrieval(target, pool, np.zeros(100, int), neighbors=5)
    scores = scorer.raw(encode_vectors(pool), np.ones(4_000, int))
    squared = np.square(target[:, None] - pool[None]).sum(axis=2)
    rank = np.argsort(np.argsort(squared, axis=1), axis=1).min(axis=0)
    first, best = np.argsort(rank, kind="stable")[:400], np.argsort(-scores)[:400]
    assert len(set(first) & set(best)) > 0.85 * 400


def test_the_vector_model_is_a_regression_on_standardised_vectors_and_squares():
    target, pool, target_fold, pool_fold = sample()
    scorer = fit_vector(target, pool, target_fold, pool_fold, folds=2)
    vectors = np.concatenate([target, pool]).astype(np.float64)
    label = np.repeat([1, 0], [len(target), len(pool)])
    fold = np.concatenate([target_fold, pool_fold])

    def standardize(values):
        center = (values[label == 1].mean(axis=0) + values[label == 0].mean(axis=0)) / 2
        squares = (values - center) ** 2
        return (values - center) / np.sqrt(
            (squares[label == 1].mean(axis=0) + squares[label == 0].mean(axis=0)) / 2
        )

    standardized_vectors = standardize(vectors)
    features = np.hstack([standardized_vectors, standardize(standardized_vectors**2)]).astype(
        np.float32
    )
    for f in range(2):
        model = LogisticRegression(C=0.1, solver="newton-cholesky", class_weight="balanced")
        model.fit(features[fold != f], label[fold != f])
        expected = model.decision_function(features[fold == f])
        scores = scorer.raw_matrix(vectors[fold == f].astype(np.float32), fold[fold == f])
        np.testing.assert_allclose(scores, expected, rtol=1e-3, atol=1e-3)


def test_a_fit_on_vectors_stays_within_its_forecast_memory():
    rng = np.random.default_rng(3)
    target, pool = (rng.standard_normal((n, 48), dtype=np.float32) for n in (4_000, 20_000))
    folds = [np.arange(len(one)) % 2 for one in (target, pool)]
    fit_vector(target[:100], pool[:100], folds[0][:100], folds[1][:100], folds=2)  # imports
    tracemalloc.start()
    fit_vector(target, pool, *folds, folds=2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak + target.nbytes + pool.nbytes <= vector_fit_bytes(24_000, 48)


def test_a_constant_dimension_decides_nothing():
    target, pool, *folds = sample()
    target[:, 1], pool[:, 1] = 7.0, 7.0
    scorer = fit_vector(target, pool, *folds, folds=2)
    np.testing.assert_allclose(scorer.linear[:, 1], 0.0, atol=1e-12)
    np.testing.assert_allclose(scorer.square[:, 1], 0.0, atol=1e-12)


def test_the_text_model_is_a_regression_on_ngrams_seen_in_two_rows():
    rng = np.random.default_rng(2)
    texts = [" ".join(rng.choice([*"abcdefgh", f"once{i}"], 6)) for i in range(80)]
    target, pool = pa.array([f"{t} abab" for t in texts[:30]]), pa.array(texts[30:])
    fold = np.arange(80) % 2
    spec = NgramSpec(bits=12)
    scorer = fit_text(target, pool, fold[:30], fold[30:], folds=2, spec=spec)
    all_texts = pa.concat_arrays([target, pool])
    row, feature = text_ngrams(all_texts, spec)
    counts = np.zeros((80, 4096))
    np.add.at(counts, (row, feature), 1)
    scaled = counts / np.sqrt(counts.sum(axis=1, keepdims=True))
    scaled[:, (counts > 0).sum(axis=0) < 2] = 0
    label = np.repeat([1, 0], [30, 50])
    for f in range(2):
        model = LogisticRegression(
            C=3.0, solver="liblinear", dual=True, class_weight="balanced",
            max_iter=1000, random_state=0,
        ).fit(scaled[fold != f], label[fold != f])  # fmt: skip
        expected = model.decision_function(scaled)[fold == f]
        scores = scorer.raw(all_texts.take(pa.array(np.flatnonzero(fold == f))), np.full(40, f))
        np.testing.assert_allclose(scores, expected, atol=0.01)


def test_scorers_come_back_from_their_arrays():
    target, pool, *folds = sample()
    knn = fit_knn(target, pool, *folds, neighbors=3)
    vector = fit_vector(target, pool, *folds, folds=2)
    x, fold = pool[:20], np.arange(20) % 2
    for scorer in (knn, vector):
        restored = scorer_from_arrays(scorer.kind, scorer.arrays())
        np.testing.assert_array_equal(restored.raw_matrix(x, fold), scorer.raw_matrix(x, fold))
