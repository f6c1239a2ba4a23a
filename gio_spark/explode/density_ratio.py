"""Log density ratio of target over pool per row: cross-fitted on samples, applied in one map.

The fitted model consists of plain arrays: it is stored in the table `models`, broadcast to workers
and used unchanged for rows that come later.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gio_spark.engine import broadcast_arrays, decode_vectors, hash53, hash_sample, map_arrow
from gio_spark.engine.arrow import arrow_fields, joined
from gio_spark.errors import ConfigError, InputError
from gio_spark.explode.calibration import (
    Calibration,
    CalibrationCurve,
    chance_auc,
    fit_curve,
    fold_offsets,
    measure_calibration,
)
from gio_spark.explode.rank_keys import LOG_RATIO_LIMIT
from gio_spark.explode.ratio_fit import fit_knn, fit_pairs, fit_retrieval, fit_text, fit_vector
from gio_spark.explode.ratio_models import Arrays, Scorer, scorer_from_arrays
from gio_spark.kernels.ngrams import NgramSpec
from gio_spark.settings.explode import ExplodeSettings
from gio_spark.tables.identifiers import quoted_column

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

log = logging.getLogger(__name__)

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

MIN_ROWS = 4
FEW_PER_FOLD = 5
FEW_TARGET_ROWS = 100
NO_DIFFERENCE_AUC = 0.52
_FORMAT = 1


def fold_salt(seed: int) -> str:
    """Salt of the hash that assigns rows to folds."""
    return f"gio.explode.fold:{seed}"


def fit_sample_salt(seed: int) -> str:
    """Salt of the hash that samples the rows a ratio is fitted on."""
    return f"gio.explode.fit:{seed}"


@dataclass(frozen=True)
class RatioModel:
    """A fitted log density ratio.

    Attributes:
        scorer: One raw model per fold.
        curve: Map from raw scores to log density ratios.
        offset: float64 (F,), puts the folds on one scale: the pool's mean of exp(ratio) is 1.
        salt: Salt of the hash that assigns rows to folds.
    """

    scorer: Scorer
    curve: CalibrationCurve
    offset: FloatArray
    salt: str

    @property
    def folds(self) -> int:
        """Number of folds."""
        return int(self.offset.size)

    @property
    def kind(self) -> str:
        """Kind of content that is scored: text, pairs, vector, or knn and retrieval (vectors)."""
        return self.scorer.kind

    def log_ratio(self, content: pa.Array, hashes: IntArray) -> npt.NDArray[np.float32]:
        """Log density ratios, float32 (n,), NaN where content is null.

        Args:
            content: Arrow array of n texts or vectors.
            hashes: 53-bit hashes of the ids under `salt`, int64 (n,).
        """
        fold = np.asarray(hashes, dtype=np.int64) % self.folds
        if content.null_count:
            valid = np.flatnonzero(np.asarray(content.is_valid()))
            ratios = np.full(len(content), np.nan, dtype=np.float32)
            if valid.size:
                ratios[valid] = self._scaled(content.take(pa.array(valid)), fold[valid])
            return ratios
        return self._scaled(content, fold)

    def _scaled(self, content: pa.Array, fold: IntArray) -> npt.NDArray[np.float32]:
        if self.curve.flat:
            return np.zeros(len(content), dtype=np.float32)
        return self.ratio_of_raw(self.scorer.raw(content, fold), fold)

    def ratio_of_raw(self, raw: FloatArray, fold: IntArray) -> npt.NDArray[np.float32]:
        """Log density ratios, float32 (n,), of the scorer's raw scores (n,)."""
        if self.curve.flat:
            return np.zeros(len(raw), dtype=np.float32)
        ratio = self.curve(raw) + self.offset[fold]
        return np.clip(ratio, -LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).astype(np.float32)

    def to_arrays(self) -> Arrays:
        """Named arrays of the model, for the table `models` (no pickle)."""
        header = json.dumps(
            {"format": _FORMAT, "kind": self.kind, "salt": self.salt},
            sort_keys=True,
        )
        arrays = {f"scorer.{name}": array for name, array in self.scorer.arrays().items()}
        return {
            "head": np.frombuffer(header.encode(), dtype=np.uint8).copy(),
            "offset": self.offset,
            "curve": np.stack([self.curve.raw, self.curve.log_ratio]),
            "lean": np.array([self.curve.order_slope]),
            **arrays,
        }

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> RatioModel:
        """Model from the arrays of `to_arrays`.

        Raises:
            InputError: If the arrays are incomplete or have another format.
        """
        try:
            header = json.loads(np.asarray(arrays["head"], dtype=np.uint8).tobytes())
            if header["format"] != _FORMAT:
                raise InputError(
                    f"The stored density ratio has format {header['format']}, this version reads "
                    f"{_FORMAT}: run the explode stage again."
                )
            scorer_arrays = {
                name.split(".", 1)[1]: array
                for name, array in arrays.items()
                if name.startswith("scorer.")
            }
            scorer = scorer_from_arrays(header["kind"], scorer_arrays)
            raw, log_ratio = arrays["curve"]
            curve = CalibrationCurve(raw, log_ratio, float(arrays["lean"][0]))
            return cls(scorer, curve, arrays["offset"], header["salt"])
        except (KeyError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"The stored density ratio is incomplete ({error}): run the explode stage again."
            ) from error


@dataclass(frozen=True)
class RatioFit:
    """Fitted density ratio with its calibration, sample sizes and warnings."""

    model: RatioModel
    calibration: Calibration
    target_rows: int
    pool_rows: int
    warnings: tuple[str, ...] = field(default=())


@dataclass(frozen=True)
class RatioSample:
    """Sample of one dataset: content (n texts or vectors) and hashes of the ids for folds (n,)."""

    content: pa.Array
    hashes: IntArray

    def __len__(self) -> int:
        return len(self.content)


def fit(
    target: RatioSample, pool: RatioSample, *, kind: str, settings: ExplodeSettings, salt: str = ""
) -> RatioFit:
    """Fit a log density ratio on samples in arrays.

    Cross-fitting: each row is scored by the model that was fitted without the fold of the row.

    Args:
        target, pool: Samples; rows whose content is null are left out.
        kind: `text`, `pairs` (structs of text and output) or `vector`.
        settings: Settings of the explode stage.
        salt: Salt of `hashes`; stored in the model.

    Raises:
        InputError: If target or pool has fewer than 4 usable rows.
        ConfigError: If an estimator on vectors is set for text.

    Example:
        >>> from gio_spark.engine import encode_vectors
        >>> rng = np.random.default_rng(0)
        >>> vectors = rng.normal(size=(400, 2)).astype(np.float32)
        >>> pool = RatioSample(encode_vectors(vectors), np.arange(400))
        >>> target = RatioSample(encode_vectors(vectors[:200] + 1), np.arange(200))
        >>> ratio = fit(target, pool, kind="vector", settings=ExplodeSettings())
        >>> bool(ratio.calibration.auc > 0.7), ratio.target_rows
        (True, 200)
    """
    warnings: list[str] = []
    target, pool = _without_nulls(target), _without_nulls(pool)
    for role, sample in (("target", target), ("pool", pool)):
        if len(sample) < MIN_ROWS:
            raise InputError(
                f"The {role} has {len(sample)} usable rows for the density ratio, at least "
                f"{MIN_ROWS} are needed: use within_cluster: exact_count, or give more rows."
            )
    folds = min(settings.folds, max(2, min(len(target), len(pool)) // FEW_PER_FOLD))
    if folds < settings.folds:
        warnings.append(
            f"Only {len(target)} target and {len(pool)} pool rows for {settings.folds} folds: "
            f"{folds} folds are used."
        )
    if len(target) < FEW_TARGET_ROWS:
        strict = "" if settings.temperature == 0 else "; explode.temperature: 0 uses it fully"
        warnings.append(
            f"The target has {len(target)} rows: quotas and density ratio rest on few rows, and "
            f"more of them help most. The ratio is still better than random rows of the clusters"
            f"{strict}."
        )
    folds_of = (_folds(target.hashes, folds), _folds(pool.hashes, folds))
    scorer = _fit_scorer(target, pool, folds_of, folds, kind, settings)
    raw_target = scorer.raw(target.content, folds_of[0])
    raw_pool = scorer.raw(pool.content, folds_of[1])
    curve = fit_curve(raw_target, raw_pool)
    model = RatioModel(scorer, curve, fold_offsets(curve(raw_pool), folds_of[1], folds), salt)
    calibration = measure_calibration(
        model.ratio_of_raw(raw_target, folds_of[0]).astype(np.float64),
        model.ratio_of_raw(raw_pool, folds_of[1]).astype(np.float64),
    )
    target_count, pool_count = len(target), len(pool)
    if calibration.auc < max(NO_DIFFERENCE_AUC, chance_auc(target_count, pool_count)):
        warnings.append(
            f"Target and pool cannot be told apart row by row (AUC {calibration.auc:.3f}): inside "
            "clusters rows are taken nearly at random."
        )
    log.info(
        "ratio kind=%s target=%d pool=%d folds=%d auc=%.4f log_loss=%.4f error=%.4f",
        kind, target_count, pool_count, folds, calibration.auc, calibration.log_loss,
        calibration.error,
    )  # fmt: skip
    return RatioFit(model, calibration, len(target), len(pool), tuple(warnings))


def _without_nulls(sample: RatioSample) -> RatioSample:
    if not sample.content.null_count:
        return sample
    valid = np.flatnonzero(np.asarray(sample.content.is_valid()))
    return RatioSample(sample.content.take(pa.array(valid)), sample.hashes[valid])


def _folds(hashes: IntArray, folds: int) -> IntArray:
    fold = np.asarray(hashes, dtype=np.int64) % folds
    if np.bincount(fold, minlength=folds).max() == len(fold):
        raise InputError(
            "All rows of the target or of the pool fall into one fold: too few rows, or ids that "
            "repeat. Use within_cluster: exact_count."
        )
    return fold


def _fit_scorer(
    target: RatioSample,
    pool: RatioSample,
    folds_of: tuple[IntArray, IntArray],
    folds: int,
    kind: str,
    settings: ExplodeSettings,
) -> Scorer:
    if kind in ("text", "pairs"):
        if settings.estimator != "classifier":
            raise ConfigError(
                f"explode.estimator {settings.estimator} works on vectors, not on text or pairs."
            )
        spec = NgramSpec(
            settings.word_ngrams, settings.char_ngrams, settings.hash_bits, settings.text_bytes
        )
        regularization = settings.regularization
        fit_texts = fit_text if kind == "text" else fit_pairs
        return fit_texts(
            target.content,
            pool.content,
            *folds_of,
            folds=folds,
            spec=spec,
            regularization=regularization,
        )
    if kind != "vector":
        raise ConfigError(
            f"A density ratio is fitted on text, pairs or vector content, not '{kind}'."
        )
    target_vectors = decode_vectors(target.content, what="content of the target")
    pool_vectors = decode_vectors(pool.content, target_vectors.shape[1], what="content of the pool")
    for role, matrix in (("target", target_vectors), ("pool", pool_vectors)):
        if not np.isfinite(matrix).all():
            raise InputError(
                f"content of the {role}: sampled vectors hold NaN or infinite values. Leave such "
                "rows out, as a run does by putting them into quarantine."
            )
    if settings.estimator == "knn":
        reference_rows = settings.knn_rows
        return fit_knn(
            target_vectors[:reference_rows],
            pool_vectors[:reference_rows],
            folds_of[0][:reference_rows],
            folds_of[1][:reference_rows],
            neighbors=settings.neighbors,
        )
    if settings.estimator == "retrieval":
        reference_rows = settings.knn_rows
        return fit_retrieval(
            target_vectors[:reference_rows],
            pool_vectors,
            folds_of[0][:reference_rows],
            neighbors=settings.neighbors,
        )
    return fit_vector(
        target_vectors, pool_vectors, *folds_of, folds=folds, regularization=settings.regularization
    )


def fit_ratio(
    target: DataFrame,
    pool: DataFrame,
    *,
    content: str,
    kind: str,
    settings: ExplodeSettings,
    target_rows: int,
    pool_rows: int,
    seed: int = 0,
) -> RatioFit:
    """Fit a log density ratio on bounded hash samples of two DataFrames.

    Args:
        target, pool: Rows with `id` and the content column.
        content: Name of the content column: a string, or a vector (BINARY or array of floats).
        kind: `text`, `pairs` (structs of text and output) or `vector`.
        settings: Settings of the explode stage.
        target_rows, pool_rows: Number of rows of each (estimates are enough).
        seed: Seed of the run.

    Raises:
        InputError: If target or pool has fewer than 4 usable rows.
        ConfigError: If an estimator on vectors is set for text.
    """
    from pyspark.sql import functions as F

    salt = fold_salt(seed)
    samples = []
    for dataset, row_count in ((target, target_rows), (pool, pool_rows)):
        column = F.col(quoted_column(content))
        content_rows = dataset.where(column.isNotNull()).select(
            "id", column.alias("gio_content"), hash53("id", salt).alias("gio_fold")
        )
        sampled_rows = hash_sample(
            content_rows, settings.fit_rows, fit_sample_salt(seed), total=row_count
        )
        folds = sampled_rows["gio_fold"].to_numpy().astype(np.int64)
        samples.append(RatioSample(joined(sampled_rows["gio_content"]), folds))
    return fit(samples[0], samples[1], kind=kind, settings=settings, salt=salt)


def score(
    rows: DataFrame, model: RatioModel, *, content: str, keep: Sequence[str] = ("cluster",)
) -> DataFrame:
    """Log density ratios of rows, in one map.

    Args:
        rows: Rows with `id`, the content column and the columns of `keep`.
        model: Fitted density ratio.
        content: Name of the content column.
        keep: Columns to pass through.

    Returns:
        DataFrame(id, *keep, log_ratio FLOAT); the ratio is null where content is null.
    """
    from pyspark.sql import functions as F

    broadcast = broadcast_arrays(rows.sparkSession, model.to_arrays())
    column_names = ["id", *keep]
    pass_through = [F.col(quoted_column(name)) for name in column_names]
    fields = arrow_fields(rows.select(*pass_through))
    schema = pa.schema([*fields, pa.field("log_ratio", pa.float32())])
    prepared = rows.select(
        *pass_through,
        F.col(quoted_column(content)).alias("gio_content"),
        hash53("id", model.salt).alias("gio_fold"),
    )

    return map_arrow(prepared, _score_batches(broadcast.load, column_names), schema)


def _score_batches(
    load: Callable[[], Arrays], column_names: list[str]
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.Table]]:
    def score_batches(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
        model = RatioModel.from_arrays(load())
        for batch in batches:
            hashes = batch.column("gio_fold").to_numpy(zero_copy_only=False)
            ratio = model.log_ratio(batch.column("gio_content"), hashes)
            columns = {name: batch.column(name) for name in column_names}
            columns["log_ratio"] = pa.array(ratio, mask=np.isnan(ratio))
            yield pa.table(columns)

    return score_batches
