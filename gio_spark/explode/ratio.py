"""Row-level log density ratio target over pool: fitted on samples, cross-fitted, applied in a map.

The fitted model is plain arrays: it is stored in the table `models`, shipped to workers and used
unchanged for rows that come later.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gio_spark.engine import broadcast_arrays, decode_vectors, hash53, hash_sample, map_arrow
from gio_spark.engine.arrow import joined
from gio_spark.errors import ConfigError, InputError
from gio_spark.explode.calibration import Calibration, Curve, fit_curve, fold_offsets, measure
from gio_spark.explode.rank_keys import LOG_RATIO_LIMIT
from gio_spark.explode.ratio_fit import fit_knn, fit_text, fit_vector
from gio_spark.explode.ratio_models import Arrays, Scorer, scorer_of
from gio_spark.kernels.ngrams import NgramSpec
from gio_spark.settings.explode import ExplodeSettings
from gio_spark.tables.names import quoted_column

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

log = logging.getLogger(__name__)

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

MIN_ROWS = 4
FEW_PER_FOLD = 5
FEW_TARGET = 100
NO_DIFFERENCE_AUC = 0.52
_FORMAT = 1


def fold_salt(seed: int) -> str:
    """Return the salt of the hash that deals rows to folds."""
    return f"gio.explode.fold:{seed}"


def sample_salt(seed: int) -> str:
    """Return the salt of the hash that picks the rows a ratio is fitted on."""
    return f"gio.explode.fit:{seed}"


@dataclass(frozen=True)
class RatioModel:
    """A fitted log density ratio.

    Attributes:
        scorer: One raw model per fold.
        curve: Makes raw scores log density ratios.
        offset: float64 (F,), puts the folds on one scale: the pool's mean of exp(ratio) is 1.
        salt: Salt of the hash that deals rows to folds.
    """

    scorer: Scorer
    curve: Curve
    offset: FloatArray
    salt: str

    @property
    def folds(self) -> int:
        """Number of folds."""
        return int(self.offset.size)

    @property
    def kind(self) -> str:
        """Kind of content that is scored: text, vector or knn (vectors as well)."""
        return self.scorer.kind

    def log_ratio(self, content: pa.Array, hashes: IntArray) -> npt.NDArray[np.float32]:
        """Return log density ratios, float32 (n,), NaN where content is null.

        Args:
            content: Arrow array of n texts or vectors.
            hashes: 53-bit hashes of the ids under `salt`, int64 (n,).
        """
        fold = np.asarray(hashes, dtype=np.int64) % self.folds
        if content.null_count:
            there = np.flatnonzero(np.asarray(content.is_valid()))
            out = np.full(len(content), np.nan, dtype=np.float32)
            if there.size:
                out[there] = self._scaled(content.take(pa.array(there)), fold[there])
            return out
        return self._scaled(content, fold)

    def _scaled(self, content: pa.Array, fold: IntArray) -> npt.NDArray[np.float32]:
        if self.curve.flat:
            return np.zeros(len(content), dtype=np.float32)
        return self.of_raw(self.scorer.raw(content, fold), fold)

    def of_raw(self, raw: FloatArray, fold: IntArray) -> npt.NDArray[np.float32]:
        """Return log density ratios, float32 (n,), of the scorer's raw scores (n,)."""
        if self.curve.flat:
            return np.zeros(len(raw), dtype=np.float32)
        ratio = self.curve(raw) + self.offset[fold]
        return np.clip(ratio, -LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).astype(np.float32)

    def to_arrays(self) -> Arrays:
        """Return the model as named arrays, for the table `models` (no pickle)."""
        head = json.dumps(
            {"format": _FORMAT, "kind": self.kind, "salt": self.salt},
            sort_keys=True,
        )
        arrays = {f"scorer.{name}": a for name, a in self.scorer.arrays().items()}
        return {
            "head": np.frombuffer(head.encode(), dtype=np.uint8).copy(),
            "offset": self.offset,
            "curve": np.stack([self.curve.raw, self.curve.log_ratio]),
            "lean": np.array([self.curve.lean]),
            **arrays,
        }

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> RatioModel:
        """Make a model from `to_arrays`.

        Raises:
            InputError: If the arrays are from another format of this model.
        """
        try:
            head = json.loads(np.asarray(arrays["head"], dtype=np.uint8).tobytes())
            if head["format"] != _FORMAT:
                raise InputError(
                    f"The stored density ratio has format {head['format']}, this version reads "
                    f"{_FORMAT}: run the explode stage again."
                )
            parts = {n.split(".", 1)[1]: a for n, a in arrays.items() if n.startswith("scorer.")}
            scorer = scorer_of(head["kind"], parts)
            raw, log_ratio = arrays["curve"]
            curve = Curve(raw, log_ratio, float(arrays["lean"][0]))
            return cls(scorer, curve, arrays["offset"], head["salt"])
        except (KeyError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"The stored density ratio is incomplete ({error}): run the explode stage again."
            ) from error


@dataclass(frozen=True)
class RatioFit:
    """A fitted ratio with what is known about it."""

    model: RatioModel
    calibration: Calibration
    target_rows: int
    pool_rows: int
    warnings: tuple[str, ...] = field(default=())


@dataclass(frozen=True)
class Sample:
    """Rows of one side: content (n texts or vectors) and hashes of the ids for the folds (n,)."""

    content: pa.Array
    hashes: IntArray

    def __len__(self) -> int:
        return len(self.content)


def fit(
    target: Sample, pool: Sample, *, kind: str, settings: ExplodeSettings, salt: str = ""
) -> RatioFit:
    """Fit a log density ratio on samples held in arrays.

    Args:
        target, pool: The samples; rows whose content is null are left out.
        kind: `text`, or `vector`.
        settings: Of the explode stage.
        salt: Salt that `hashes` were made with; kept in the model.

    Raises:
        InputError: If a side has fewer than 4 usable rows.
        ConfigError: If the k-NN estimator is asked for on text.
    """
    notes: list[str] = []
    target, pool = _usable(target), _usable(pool)
    for side, sample in (("target", target), ("pool", pool)):
        if len(sample) < MIN_ROWS:
            raise InputError(
                f"The {side} has {len(sample)} usable rows for the density ratio, at least "
                f"{MIN_ROWS} are needed: use within_cluster: exact_count, or give more rows."
            )
    folds = min(settings.folds, max(2, min(len(target), len(pool)) // FEW_PER_FOLD))
    if folds < settings.folds:
        notes.append(
            f"Only {len(target)} target and {len(pool)} pool rows for {settings.folds} folds: "
            f"{folds} folds are used."
        )
    if len(target) < FEW_TARGET:
        notes.append(
            f"The target has {len(target)} rows; a density ratio from fewer than {FEW_TARGET} is "
            "little better than chance. Consider within_cluster: exact_count."
        )
    folds_of = (_folds(target.hashes, folds), _folds(pool.hashes, folds))
    scorer = _fit_scorer(target, pool, folds_of, folds, kind, settings)
    raw_target = scorer.raw(target.content, folds_of[0])
    raw_pool = scorer.raw(pool.content, folds_of[1])
    curve = fit_curve(raw_target, raw_pool)
    model = RatioModel(scorer, curve, fold_offsets(curve(raw_pool), folds_of[1], folds), salt)
    calibration = measure(
        model.of_raw(raw_target, folds_of[0]).astype(np.float64),
        model.of_raw(raw_pool, folds_of[1]).astype(np.float64),
    )
    n, m = len(target), len(pool)
    chance = 0.5 + 3.0 * math.sqrt((n + m + 1) / (12.0 * n * m))  # Mann-Whitney under one law
    if calibration.auc < max(NO_DIFFERENCE_AUC, chance):
        notes.append(
            f"Target and pool cannot be told apart row by row (AUC {calibration.auc:.3f}): inside "
            "clusters rows are taken nearly at random."
        )
    log.info(
        "ratio kind=%s target=%d pool=%d folds=%d auc=%.4f log_loss=%.4f error=%.4f",
        kind, n, m, folds, calibration.auc, calibration.log_loss,
        calibration.error,
    )  # fmt: skip
    return RatioFit(model, calibration, len(target), len(pool), tuple(notes))


def _usable(sample: Sample) -> Sample:
    if not sample.content.null_count:
        return sample
    there = np.flatnonzero(np.asarray(sample.content.is_valid()))
    return Sample(sample.content.take(pa.array(there)), sample.hashes[there])


def _folds(hashes: IntArray, folds: int) -> IntArray:
    fold = np.asarray(hashes, dtype=np.int64) % folds
    if np.bincount(fold, minlength=folds).max() == len(fold):
        raise InputError(
            "All rows of a side fall into one fold: too few rows, or ids that repeat. Use "
            "within_cluster: exact_count."
        )
    return fold


def _fit_scorer(
    target: Sample,
    pool: Sample,
    folds_of: tuple[IntArray, IntArray],
    folds: int,
    kind: str,
    settings: ExplodeSettings,
) -> Scorer:
    if kind == "text":
        if settings.estimator == "knn":
            raise ConfigError("explode.estimator knn works on vectors, not on text.")
        spec = NgramSpec(
            settings.word_ngrams, settings.char_ngrams, settings.hash_bits, settings.text_bytes
        )
        c = settings.regularisation
        return fit_text(
            target.content, pool.content, *folds_of, folds=folds, spec=spec, regularisation=c
        )
    if kind != "vector":
        raise ConfigError(f"A density ratio is fitted on text or vector content, not '{kind}'.")
    x = decode_vectors(target.content, what="content of the target")
    y = decode_vectors(pool.content, x.shape[1], what="content of the pool")
    for side, matrix in (("target", x), ("pool", y)):
        if not np.isfinite(matrix).all():
            raise InputError(
                f"content of the {side}: sampled vectors hold NaN or infinite values. Leave such "
                "rows out, as a run does by putting them into quarantine."
            )
    if settings.estimator == "knn":
        n = settings.knn_rows
        return fit_knn(
            x[:n], y[:n], folds_of[0][:n], folds_of[1][:n], neighbours=settings.neighbours
        )
    return fit_vector(x, y, *folds_of, folds=folds, regularisation=settings.regularisation)


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
        kind: `text` or `vector`.
        settings: Of the explode stage.
        target_rows, pool_rows: Rows of each (estimates are enough).
        seed: Seed of the run.
    """
    from pyspark.sql import functions as F

    salt = fold_salt(seed)
    samples = []
    for df, total in ((target, target_rows), (pool, pool_rows)):
        column = F.col(quoted_column(content))
        named = df.where(column.isNotNull()).select(
            "id", column.alias("gio_content"), hash53("id", salt).alias("gio_fold")
        )
        rows = hash_sample(named, settings.fit_rows, sample_salt(seed), total=total)
        folds = rows["gio_fold"].to_numpy().astype(np.int64)
        samples.append(Sample(joined(rows["gio_content"]), folds))
    return fit(samples[0], samples[1], kind=kind, settings=settings, salt=salt)


def score(
    rows: DataFrame, model: RatioModel, *, content: str, keep: Sequence[str] = ("cluster",)
) -> DataFrame:
    """Score rows in one map pass.

    Args:
        rows: Rows with `id`, the content column and the columns to keep.
        model: The fitted ratio.
        content: Name of the content column.
        keep: Columns to pass through.

    Returns:
        DataFrame(id, *keep, log_ratio FLOAT); the ratio is null where content is null.
    """
    from pyspark.sql import functions as F
    from pyspark.sql.pandas.types import to_arrow_type

    handle = broadcast_arrays(rows.sparkSession, model.to_arrays())
    names = ["id", *keep]
    selected = [F.col(quoted_column(n)) for n in names]
    types = {f.name: f.dataType for f in rows.select(*selected).schema.fields}
    schema = pa.schema(
        [
            *(pa.field(n, to_arrow_type(types[n])) for n in names),
            pa.field("log_ratio", pa.float32()),
        ]
    )
    prepared = rows.select(
        *selected,
        F.col(quoted_column(content)).alias("gio_content"),
        hash53("id", model.salt).alias("gio_fold"),
    )

    return map_arrow(prepared, _scoring(handle.load, names), schema)


def _scoring(
    load: Callable[[], Arrays], names: list[str]
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.Table]]:
    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
        model = RatioModel.from_arrays(load())
        for batch in batches:
            hashes = batch.column("gio_fold").to_numpy(zero_copy_only=False)
            ratio = model.log_ratio(batch.column("gio_content"), hashes)
            columns = {n: batch.column(n) for n in names}
            columns["log_ratio"] = pa.array(ratio, mask=np.isnan(ratio))
            yield pa.table(columns)

    return run
