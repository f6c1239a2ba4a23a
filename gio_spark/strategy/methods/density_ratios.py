"""Density ratios of target over pool per row, fitted as in a run, and rankings by them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import pyarrow as pa

from gio_spark import explode
from gio_spark.engine import encode_vectors
from gio_spark.settings.explode import ExplodeSettings
from gio_spark.strategy.methods.hash_draws import generator, gumbel, row_keys, top
from gio_spark.strategy.methods.method_registry import MethodResult, method
from gio_spark.strategy.methods.shared_work import compute_once
from gio_spark.strategy.methods.text_corpus import text_array

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gio_spark.strategy.evaluation_dataset import EvaluationDataset

Estimator = Literal["classifier", "knn"]
#: Rows that are scored at a time.
BATCH = 65_536


class PoolRatio(NamedTuple):
    """Log density ratios of the pool rows, (n,) float64, and a note about the fit."""

    log_ratio: NDArray[np.float64]
    note: str


def hash53(dataset: EvaluationDataset, seed: int, purpose: str) -> NDArray[np.int64]:
    """53-bit hashes of the pool rows, (n,) int64, in the form that the explode stage uses."""
    return (row_keys(dataset, seed, purpose) >> np.uint64(11)).astype(np.int64)


def log_ratio(dataset: EvaluationDataset, seed: int, estimator: Estimator) -> PoolRatio:
    """Cross-fitted log density ratios of all pool rows.

    The classifier is fitted on texts if pool and target have them; otherwise, and for k-NN, the
    ratio is fitted on vectors.
    """
    return compute_once(dataset, ("ratio", estimator, seed), lambda: _fit(dataset, seed, estimator))


def _fit(dataset: EvaluationDataset, seed: int, estimator: Estimator) -> PoolRatio:
    settings = ExplodeSettings(estimator=estimator)
    use_text = (
        estimator == "classifier" and dataset.texts is not None and dataset.target_texts is not None
    )
    target = _content(dataset.target_texts, dataset.target_vectors, use_text=use_text)
    folds = hash53(dataset, seed, "fold")
    sampled = np.sort(
        np.argsort(row_keys(dataset, seed, "fit"), kind="stable")[: settings.fit_rows]
    )
    target_order = generator(seed, "target fold").permutation(len(target))
    target_sample = np.sort(target_order[: settings.fit_rows])
    fit = explode.fit(
        explode.RatioSample(
            target.take(pa.array(target_sample)),
            np.argsort(target_order)[target_sample].astype(np.int64),
        ),
        explode.RatioSample(
            _content(dataset.texts, dataset.vectors, sampled, use_text=use_text), folds[sampled]
        ),
        kind="text" if use_text else "vector",
        settings=settings,
    )
    ratio = np.empty(dataset.rows)
    for start in range(0, dataset.rows, BATCH):
        batch = np.arange(start, min(dataset.rows, start + BATCH))
        content = _content(dataset.texts, dataset.vectors, batch, use_text=use_text)
        ratio[batch] = fit.model.log_ratio(content, folds[batch])
    note = f"AUC of target against pool, cross-fitted: {fit.calibration.auc:.3f}."
    ratio = np.nan_to_num(ratio, nan=0.0)
    if dataset.weights is not None:
        # Fitted against the sample, in which a row that stands for many pool rows is rarer.
        ratio -= np.log(dataset.weights / dataset.weights.mean())
    return PoolRatio(ratio, note)


def _content(
    texts: pa.Array | pa.ChunkedArray | None,
    vectors: NDArray[np.float32],
    positions: NDArray[np.int64] | None = None,
    *,
    use_text: bool,
) -> pa.Array:
    """Texts or vectors of all rows or of some rows, as Arrow arrays for the ratio model."""
    if not use_text or texts is None:
        return encode_vectors(vectors if positions is None else vectors[positions])
    return text_array(texts if positions is None else texts.take(pa.array(positions)))


@method("classifier_top", needs=("target_vectors",), weighted=True)
def classifier_top(dataset: EvaluationDataset, budget: int, seed: int) -> MethodResult:
    """Take the rows that a cross-fitted classifier finds most like the target."""
    ratio = log_ratio(dataset, seed, "classifier")
    return MethodResult(top(ratio.log_ratio, budget, dataset.weights), ratio.note)


@method("classifier_resample", needs=("target_vectors",), weighted=True)
def classifier_resample(dataset: EvaluationDataset, budget: int, seed: int) -> MethodResult:
    """Draw rows in proportion to the classifier's density ratio, without quotas."""
    ratio = log_ratio(dataset, seed, "classifier")
    scores = ratio.log_ratio + gumbel(dataset, seed, "classifier_resample")
    return MethodResult(top(scores, budget, dataset.weights), ratio.note)
