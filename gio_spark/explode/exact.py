"""The published objective on all rows of a table, without clusters.

Its score of a row needs the target alone (gio.exact), so one map pass scores a table of any size,
and its best selection of B rows is the B lowest scores: a threshold, found like those of the plan.
Its optimum collapses onto the middle of the target (docs/gio.md): this is for comparison with the
published method, not for use.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gio_spark.engine import bounded, decode_vectors, hash53, map_arrow, ship
from gio_spark.errors import BudgetError, ConfigError, InputError
from gio_spark.explode.keys import IntArray
from gio_spark.explode.rows import _exact, _Rule, tie_salt
from gio_spark.gio.exact import published_divergence_curve, published_scores, target_log_distance

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

_FRACTION_BITS = 30
_WHOSE = "column 'vector' of the rows to score"
"""Scores are kept in steps of 2^-30: far above the rounding of the products, so that the same row
gets the same key wherever it stands; rows closer than that are ties."""

_SUM_SHIFT = 6
_BINS = 4096
_BATCH_ROWS = 4096


@dataclass(frozen=True)
class ExactRows:
    """The best rows by the published objective; a row is kept iff `keeps()` holds for it.

    Attributes:
        threshold: Key above which a row is kept.
        tie: Least hash of a kept row whose key is the threshold.
        rows: Rows kept.
        divergence: Of the rows kept, by the published estimate.
        curve_rows: (m,) numbers of best rows, ascending.
        curve: (m,) divergence of so many best rows.
        seed: Seed of the hash that decides ties.
    """

    threshold: int
    tie: int
    rows: int
    divergence: float
    curve_rows: IntArray
    curve: npt.NDArray[np.float64]
    seed: int

    def keeps(self) -> Column:
        """Return the condition on a scored table; it serves rows that come later, too."""
        from pyspark.sql import functions as F

        hashed = hash53("id", tie_salt(self.seed))
        at = (F.col("key") == F.lit(self.threshold)) & (hashed >= F.lit(self.tie))
        return (F.col("key") > F.lit(self.threshold)) | at


def score_published(
    df: DataFrame, target: npt.ArrayLike, *, weights: npt.ArrayLike | None = None
) -> DataFrame:
    """Score every row by the published objective, in one map pass.

    Args:
        df: id, vector; rows without a vector give no row.
        target: (n, d) target rows or centroids, a bounded number: each row is compared with all.
        weights: (n,) weight of each of them; equal where None.

    Returns:
        id STRING, score DOUBLE (mean log distance to the target, lower is better), key BIGINT
        (higher is better). Write it to a table before `take_published`, which scans it a few times.

    Raises:
        InputError: Bad vectors (when rows are read), or a target that is no matrix.
    """
    from pyspark.sql import functions as F

    points = np.ascontiguousarray(target, dtype=np.float32)
    if points.ndim != 2 or not len(points):
        raise InputError(f"the target must be a matrix (rows, dimension), not {points.shape}")
    share = np.ones(len(points)) if weights is None else np.asarray(weights, dtype=np.float64)
    shipped = ship(df.sparkSession, {"target": points, "weights": share})
    dimension = points.shape[1]

    def work(batches: Iterator[pa.RecordBatch]) -> Iterator[dict[str, object]]:
        held = shipped.load()
        for batch in batches:
            vectors = decode_vectors(batch.column("vector"), dimension, what=_WHOSE)
            if not np.isfinite(vectors).all():
                raise InputError(
                    f"{_WHOSE}: some hold NaN or infinite values. Leave such rows out, as a run "
                    "does by putting them into quarantine."
                )
            score = published_scores(held["target"], vectors, weights=held["weights"])
            key = -np.rint(score * (1 << _FRACTION_BITS)).astype(np.int64)
            yield {"id": batch.column("id"), "score": score, "key": key}

    wanted = df.select("id", "vector").where(F.col("vector").isNotNull())
    return map_arrow(wanted, work, "id string, score double, key bigint", batch_rows=_BATCH_ROWS)


def take_published(
    scored: DataFrame,
    target: npt.ArrayLike,
    budget: int,
    *,
    k: int = 5,
    initial: npt.ArrayLike | None = None,
    weights: npt.ArrayLike | None = None,
    stop: Literal["budget", "increase"] = "budget",
    seed: int = 0,
) -> ExactRows:
    """Choose the best rows of a scored table.

    Args:
        scored: From `score_published`.
        target: (n, d) the target that they were scored with.
        budget: Rows to take.
        k: Neighbour used inside the target.
        initial: (m0, d) data already held, which count in the divergence.
        weights: (n,) as for `score_published`.
        stop: "increase": take no more than up to the first rise of the divergence, as far as the
            curve's bins (4,096 over the scores) tell; "budget": take the budget.
        seed: Seed of the hash that decides ties.

    Raises:
        BudgetError: The budget is not positive or above the rows there are.
        ConfigError: An unknown `stop`.
    """
    from pyspark.sql import functions as F

    if stop not in ("budget", "increase"):
        raise ConfigError(f"stop is {stop!r}; use 'budget' or 'increase'.")
    points = np.ascontiguousarray(target, dtype=np.float32)
    before = np.zeros(0)
    if initial is not None and len(np.atleast_2d(initial)):
        before = published_scores(points, initial, weights=weights)
    rho = target_log_distance(points, k)

    def divergence(total: npt.NDArray, rows: npt.NDArray) -> npt.NDArray:
        held = rows + len(before)
        mean = (total + before.sum()) / held
        return published_divergence_curve(mean, held, rho, len(points), points.shape[1], k)

    counts, sums = _binned(scored)
    rows = np.cumsum(counts)
    if not 1 <= budget <= (rows[-1] if len(rows) else 0):
        largest = float(rows[-1]) if len(rows) else 0.0
        raise BudgetError(
            f"The budget is {budget} rows, but {largest:.0f} rows have a score: ask for 1 to "
            f"{largest:.0f}.",
            largest=largest,
        )
    curve = divergence(np.cumsum(sums), rows.astype(np.float64))
    take = budget
    if stop == "increase":
        rises = np.flatnonzero(np.diff(curve) > 0)
        take = min(budget, int(rows[rises[0]])) if len(rises) else budget
    hashed = scored.select("key", hash53("id", tie_salt(seed)).alias("gio_tie"))
    found = _exact(hashed, _Given("published", 0.0), np.array([float(take)]), rows[-1:])
    chosen = ExactRows(int(found.threshold[0]), int(found.tie[0]), take, 0.0, rows, curve, seed)
    table = bounded(
        scored.where(chosen.keeps()).agg(
            F.count(F.lit(1)).alias("rows"), _whole_sum("key").alias("total")
        ), 1, "sum of the scores",
    )  # fmt: skip
    kept, total = table["rows"][0].as_py(), _score(np.array([table["total"][0].as_py()]))
    return ExactRows(
        chosen.threshold, chosen.tie, kept,
        float(divergence(total, np.array([float(kept)]))[0]), rows, curve, seed,
    )  # fmt: skip


class _Given(_Rule):
    """Rows that bring their key; one group of all rows."""

    def keys(self, batch: pa.RecordBatch) -> tuple[IntArray, IntArray, IntArray]:
        key, tie = (
            batch.column(name).to_numpy(zero_copy_only=False).astype(np.int64)
            for name in ("key", "gio_tie")
        )
        return np.zeros(len(key), dtype=np.int64), key, tie


def _whole_sum(name: str) -> Column:
    from pyspark.sql import functions as F

    return F.sum(F.shiftright(F.col(name), _SUM_SHIFT)).cast("bigint")


def _score(whole: npt.NDArray) -> npt.NDArray[np.float64]:
    return -np.asarray(whole, dtype=np.float64) / (1 << (_FRACTION_BITS - _SUM_SHIFT))


def _binned(scored: DataFrame) -> tuple[IntArray, npt.NDArray[np.float64]]:
    """Return rows and sum of scores per bin of the key, best first; two scans of the table."""
    from pyspark.sql import functions as F

    ends = bounded(scored.agg(F.min("key").alias("low"), F.max("key").alias("high")), 1, "scores")
    low, high = ends["low"][0].as_py(), ends["high"][0].as_py()
    if low is None:
        return np.zeros(0, dtype=np.int64), np.zeros(0)
    width = (high - low) // _BINS + 1
    place = F.expr(f"cast((key - {low}L) div {width}L as int)").alias("bin")
    table = bounded(
        scored.groupBy(place).agg(
            F.count(F.lit(1)).alias("rows"), _whole_sum("key").alias("total")
        ), _BINS + 1, "bins of the scores",
    ).sort_by([("bin", "descending")])  # fmt: skip
    return table["rows"].to_numpy().astype(np.int64), _score(table["total"].to_numpy())
