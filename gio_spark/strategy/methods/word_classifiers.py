"""Rivals without quotas: a plain classifier on words, and similarity distilled into one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from gio_spark.explode.text_features import text_ngrams
from gio_spark.kernels.ngrams import NgramSpec
from gio_spark.process import no_warnings, one_thread
from gio_spark.strategy.methods.hash_draws import row_keys, top
from gio_spark.strategy.methods.method_registry import method
from gio_spark.strategy.methods.neighbor_lists import target_distance
from gio_spark.strategy.methods.shared_work import compute_once
from gio_spark.strategy.methods.text_corpus import text_array

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    from gio_spark.strategy.evaluation_dataset import EvaluationDataset

_SPEC = NgramSpec(words=2, chars=(), bits=18, limit=8_192)
#: Rows of the pool that a classifier is fitted on.
_FIT_ROWS = 20_000
#: Part of them, the nearest to the target, that counts as relevant for `betr`.
_RELEVANT = 0.1


@method("logistic_words", needs=("texts", "target_texts"))
def logistic_words(dataset: EvaluationDataset, budget: int, seed: int) -> NDArray[np.int64]:
    """Rank by a logistic regression of target against pool on hashed words and word pairs."""

    def compute() -> NDArray[np.float64]:
        features = _features_of_pool(dataset)
        target = _features(text_array(dataset.target_texts))
        sampled = _sampled_rows(dataset, seed)
        fitted = sparse.vstack([target, features[sampled]]).tocsr()
        return _scores(fitted, np.arange(fitted.shape[0]) < target.shape[0], features)

    return top(compute_once(dataset, ("logistic words", seed), compute), budget)


@method("betr", needs=("target_vectors",))
def betr(dataset: EvaluationDataset, budget: int, seed: int) -> NDArray[np.int64]:
    """Rank by a classifier of the pool rows nearest to a target row against others.

    The recipe of BETR (Mizrahi et al. 2025, arXiv 2507.12466): similarity to the target on a sample
    of the pool, learned by a model that scores all rows; on words where there are texts, else on
    vectors.
    """

    def compute() -> NDArray[np.float64]:
        use_text = dataset.texts is not None
        features = _features_of_pool(dataset) if use_text else dataset.vectors
        sampled = _sampled_rows(dataset, seed)
        distance = target_distance(dataset)[sampled]
        nearest = np.zeros(len(sampled), dtype=bool)
        nearest[np.argsort(distance, kind="stable")[: max(1, round(_RELEVANT * len(sampled)))]] = 1
        return _scores(features[sampled], nearest, features)

    return top(compute_once(dataset, ("betr", seed), compute), budget)


def _features_of_pool(dataset: EvaluationDataset) -> sparse.csr_matrix:
    return compute_once(
        dataset, "words and word pairs", lambda: _features(text_array(dataset.texts))
    )


def _features(texts: pa.Array) -> sparse.csr_matrix:
    """Counts of hashed words and word pairs in rows of unit length, (n, 2^18)."""
    row, feature = text_ngrams(texts, _SPEC)
    ones = np.ones(len(row), dtype=np.float32)
    counts = sparse.csr_matrix((ones, (row, feature)), shape=(len(texts), 1 << _SPEC.bits))
    length = np.sqrt(np.asarray(counts.multiply(counts).sum(axis=1)).ravel())
    return sparse.csr_matrix(sparse.diags(1.0 / np.maximum(length, 1e-12)) @ counts)


def _sampled_rows(dataset: EvaluationDataset, seed: int) -> NDArray[np.int64]:
    order = np.argsort(row_keys(dataset, seed, "classifier sample"), kind="stable")
    return np.sort(order[:_FIT_ROWS])


def _scores(
    fitted: sparse.csr_matrix | NDArray[np.float32],
    is_target: NDArray[np.bool_],
    rows: sparse.csr_matrix | NDArray[np.float32],
) -> NDArray[np.float64]:
    """Scores of rows by a logistic regression with scikit-learn's default penalty, (n,)."""
    from sklearn.linear_model import LogisticRegression

    with no_warnings(), one_thread():
        model = LogisticRegression(class_weight="balanced", max_iter=200)
        scores: NDArray[np.float64] = model.fit(fitted, is_target).decision_function(rows)
    return scores
