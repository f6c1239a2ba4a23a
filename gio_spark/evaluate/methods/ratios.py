"""Row-level density ratios target over pool, as the product fits them, and rankings by them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import pyarrow as pa

from gio_spark import explode
from gio_spark.engine import encode_vectors
from gio_spark.evaluate.methods.base import Chosen, method
from gio_spark.evaluate.methods.draws import generator, gumbel, keys, top
from gio_spark.evaluate.methods.shared import shared
from gio_spark.evaluate.methods.words import strings
from gio_spark.settings.explode import ExplodeSettings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gio_spark.evaluate.dataset import EvaluationDataset

Estimator = Literal["classifier", "knn"]
#: Rows that are scored at a time.
BATCH = 65_536


class Ratio(NamedTuple):
    """Log density ratios of the pool's rows, (n,) float64, and what is known of the fit."""

    log_ratio: NDArray[np.float64]
    note: str


def hash53(dataset: EvaluationDataset, seed: int, purpose: str) -> NDArray[np.int64]:
    """53-bit hashes of the pool's rows, (n,) int64, as the explode stage takes them."""
    return (keys(dataset, seed, purpose) >> np.uint64(11)).astype(np.int64)


def log_ratio(dataset: EvaluationDataset, seed: int, estimator: Estimator) -> Ratio:
    """Fit the ratio on bounded samples, cross-fitted, and score all rows of the pool.

    On text where both sides have texts and the estimator is the classifier, else on vectors.
    """
    return shared(dataset, ("ratio", estimator, seed), lambda: _fit(dataset, seed, estimator))


def _fit(dataset: EvaluationDataset, seed: int, estimator: Estimator) -> Ratio:
    settings = ExplodeSettings(estimator=estimator)
    text = (
        estimator == "classifier" and dataset.texts is not None and dataset.target_texts is not None
    )
    target = _content(dataset.target_texts, dataset.target_vectors, text=text)
    folds = hash53(dataset, seed, "fold")
    places = np.sort(np.argsort(keys(dataset, seed, "fit"), kind="stable")[: settings.fit_rows])
    drawn = generator(seed, "target fold").permutation(len(target))
    some = np.sort(drawn[: settings.fit_rows])
    fitted = explode.fit(
        explode.RatioSample(target.take(pa.array(some)), np.argsort(drawn)[some].astype(np.int64)),
        explode.RatioSample(
            _content(dataset.texts, dataset.vectors, places, text=text), folds[places]
        ),
        kind="text" if text else "vector",
        settings=settings,
    )
    ratio = np.empty(dataset.rows)
    for start in range(0, dataset.rows, BATCH):
        batch = np.arange(start, min(dataset.rows, start + BATCH))
        content = _content(dataset.texts, dataset.vectors, batch, text=text)
        ratio[batch] = fitted.model.log_ratio(content, folds[batch])
    note = f"AUC of target against pool, cross-fitted: {fitted.calibration.auc:.3f}."
    return Ratio(np.nan_to_num(ratio, nan=0.0), note)


def _content(
    texts: pa.Array | pa.ChunkedArray | None,
    vectors: NDArray[np.float32],
    places: NDArray[np.int64] | None = None,
    *,
    text: bool,
) -> pa.Array:
    """Return what is scored, texts or vectors, of all rows or of some."""
    if not text or texts is None:
        return encode_vectors(vectors if places is None else vectors[places])
    return strings(texts if places is None else texts.take(pa.array(places)))


@method("classifier_top", needs=("target_vectors",))
def classifier_top(dataset: EvaluationDataset, budget: int, seed: int) -> Chosen:
    """Take the rows that a cross-fitted classifier finds most like the target."""
    ratio = log_ratio(dataset, seed, "classifier")
    return Chosen(top(ratio.log_ratio, budget), ratio.note)


@method("classifier_resample", needs=("target_vectors",))
def classifier_resample(dataset: EvaluationDataset, budget: int, seed: int) -> Chosen:
    """Draw rows in proportion to the classifier's density ratio, without quotas."""
    ratio = log_ratio(dataset, seed, "classifier")
    noisy = ratio.log_ratio + gumbel(dataset, seed, "classifier_resample")
    return Chosen(top(noisy, budget), ratio.note)
