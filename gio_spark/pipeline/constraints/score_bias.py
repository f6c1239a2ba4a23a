"""Score biases: order of rows inside clusters that favors metrics which a plan would miss.

Sums and means over rows (volume, delay, granularity, distortion) depend on which rows of a cluster
are taken. So they are enforced there first: the plan's rows per cluster and its divergence stay as
they are. A row's key gets weight * z: z is its standardized value in the direction that helps. With
fixed quotas, the sum over the selected rows never gets worse as the weight rises.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np
from pyspark.sql import functions as F

from gio_spark.gime.accumulators import DAY
from gio_spark.gime.metric_gate import threshold_distance
from gio_spark.gime.metric_thresholds import additive
from gio_spark.pipeline.run_records import GateFacts, RequiredRow, ScoreBias

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pyspark.sql import Column, DataFrame

    from gio_spark.gime.metric_thresholds import Threshold
    from gio_spark.gime.tilted_subsets import Sample

    Figures = dict[str, dict[str, float]]

# First and largest weight; every weight tried is measured, so they are few.
_FIRST, _LAST, _RAISES = 0.5, 16.0, 6
# Metrics of rows, and the roles that they are read from; all stand in the assignments.
READS = {
    "volume": ("tokens",),
    "delay": ("event_time", "ingest_time"),
    "granularity": ("distance",),
    "distortion": ("quality",),
}


def bias_column(bias: ScoreBias) -> Column:
    """Bias of a row's key, from columns of the assignments; 0 where the value is unknown."""
    source, _, metric = bias.metric.rpartition("/")
    value = _value(metric, {role: _number(role) for role in READS[metric]})
    weighted = (value - F.lit(bias.mean)) / F.lit(bias.scale) * F.lit(bias.sign * bias.weight)
    if source:
        weighted = F.when(F.coalesce("source", F.lit("")) == F.lit(source), weighted)
    return F.coalesce(weighted, F.lit(0.0))


def bias_values(
    biases: Sequence[ScoreBias], columns: Mapping[str, NDArray[Any]]
) -> NDArray[np.float64]:
    """Biases of the keys of n rows, float64 (n,): the sum of `bias_column`, with the same bits.

    Args:
        biases: At least one.
        columns: source (text, "" for none), tokens, quality, distance and both times in
            microseconds, float64 (n,) with NaN where the value is unknown.
    """
    columns = {**columns, "tokens": np.nan_to_num(columns["tokens"], nan=0.0)}
    total = np.zeros(len(columns["source"]))
    for bias in biases:
        source, _, metric = bias.metric.rpartition("/")
        value = (_value(metric, columns) - bias.mean) / bias.scale * (bias.sign * bias.weight)
        if source:
            value = np.where(columns["source"] == source, value, 0.0)
        total = total + np.nan_to_num(value, nan=0.0)
    return total


@dataclass(frozen=True)
class Order:
    """Order of the rows of a cluster beside the rule of the settings.

    Attributes:
        score_biases: Metrics that rows are pulled towards.
        required_rows: Rows that are always kept.
    """

    score_biases: tuple[ScoreBias, ...] = ()
    required_rows: tuple[RequiredRow, ...] = ()

    @classmethod
    def stored(cls, gate: GateFacts | None) -> Order:
        """Order of a plan, from the facts of its gate."""
        return cls() if gate is None else cls(gate.score_biases, gate.required_rows)

    @property
    def columns(self) -> list[Column]:
        """Columns `bias` and `pinned` of the assignments, where the order has any."""
        added_columns = []
        if self.score_biases:
            added_columns.append(
                reduce(lambda a, b: a + b, [bias_column(one) for one in self.score_biases]).alias(
                    "pull"
                )
            )
        if self.required_rows:
            added_columns.append(
                F.col("id").isin([required.id for required in self.required_rows]).alias("pinned")
            )
        return added_columns


def to_choose_from(assigned: DataFrame, scores: DataFrame | None, order: Order) -> DataFrame:
    """The rows that a plan chooses from: id, cluster; log_ratio, bias, pinned if there are.

    Args:
        assigned: Assignments of the pool.
        scores: id, cluster, log_ratio of the same rows; None where the rule uses none.
        order: Score biases and required rows; without any there are no such columns, and no join.
    """
    added = order.columns
    if scores is None:
        return assigned.select("id", "cluster", *added)
    rows = scores.select("id", "cluster", "log_ratio")
    return rows.join(assigned.select("id", *added), "id") if added else rows


def pulled(
    bounds: Sequence[Threshold],
    figures: Figures,
    samples: Mapping[str | None, Sample],
    measure: Callable[[tuple[ScoreBias, ...]], Figures],
    *,
    fixed: Collection[str] = (),
) -> tuple[tuple[ScoreBias, ...], Figures]:
    """Raise the weights of missed metrics until all are met, or the weights reach their limit.

    Args:
        bounds: Thresholds for selections of this size.
        figures: Metrics of the plan's rows ("selected") without score_biases.
        samples: Source (None: all rows) -> a sample of its rows.
        measure: Score biases -> metrics of the rows that the same plan keeps with them.
        fixed: Plain names of metrics that must not be pulled.

    Returns:
        The biases nearest to the thresholds, and their metrics; none where no metric of rows is
        missed: nothing is computed then.
    """
    bounds_by_metric = {
        t.metric: t
        for t in bounds
        if (name := t.metric.rpartition("/")[2]) in READS and name not in fixed
    }
    now = figures["selected"]
    if all(t.met(now.get(m)) or now.get(m) is None for m, t in bounds_by_metric.items()):
        return (), figures
    searches = {m: s for m in bounds_by_metric if (s := _search(m, samples)) is not None}
    best: tuple[tuple[ScoreBias, ...], Figures] = ((), figures)
    short = threshold_distance(now, bounds)
    for _ in range(_RAISES):
        raised = {m: s.step(bounds_by_metric[m], now.get(m)) for m, s in searches.items()}
        if raised == searches:
            break
        searches = raised
        score_biases = tuple(s.bias for s in searches.values() if s.bias.weight > 0)
        measured = measure(score_biases)
        now = measured["selected"]
        away = threshold_distance(now, bounds)
        if away < short:
            best, short = (score_biases, measured), away
        if short == 0:
            break
    return best


@dataclass(frozen=True)
class _Search:
    """Search for the weight of one bias: doubling, then bisection."""

    bias: ScoreBias
    low: float = 0.0
    high: float = math.inf

    def step(self, threshold: Threshold, value: float | None) -> _Search:
        """The next weight for what was measured; the same one where that is enough."""
        if value is None or threshold.met(value):
            return self
        sign = -1 if threshold.direction == "less" else 1
        if threshold.upper is not None:
            sign = 1 if value < threshold.bound else -1
        weight = self.bias.weight
        bias = self.bias if weight else self.bias.model_copy(update={"sign": sign})
        # Only a band is ever passed by.
        low, high = (weight, self.high) if sign == bias.sign else (self.low, weight)
        after = min(max(_FIRST, 2 * low), _LAST) if math.isinf(high) else (low + high) / 2
        return _Search(bias.model_copy(update={"weight": after}), low, high)


def _search(name: str, samples: Mapping[str | None, Sample]) -> _Search | None:
    """First search step; None where the metric is not a sum or mean of a column of rows."""
    source, _, metric = name.rpartition("/")
    values = _of_sample(samples[source or None], metric)
    if values is None:
        return None
    # What a source's rows add up to depends on their number too: rows of others add nothing.
    mean = 0.0 if source and additive(metric) else float(values.mean())
    return _Search(ScoreBias(metric=name, sign=1, mean=mean, scale=float(values.std()), weight=0.0))


def _of_sample(sample: Sample, metric: str) -> NDArray[np.float64] | None:
    """Contribution of each row of the sample to a metric, (n,); None where it is no such metric.

    Profiles define metrics as they like: the sample's own value must be the sum or mean of these.
    """
    rows, reads = sample.rows, READS[metric]
    if any(role not in rows for role in reads):
        return None
    valid = np.all([rows[r].valid for r in reads], axis=0)
    values = np.asarray(_value(metric, {r: rows[r].values for r in reads}), np.float64)
    values = np.where(valid, values, 0.0) if additive(metric) else values[valid]
    sample_value = sample.metrics().get(metric)
    if sample_value is None or values.size == 0 or values.std() == 0:
        return None
    mine = values.sum() if additive(metric) else values.mean()
    return values if math.isclose(mine, sample_value, rel_tol=1e-6, abs_tol=1e-9) else None


def _value(metric: str, columns: Mapping[str, Any]) -> Any:
    """Contribution of a row to a metric, from numpy columns or from Spark's."""
    if metric == "volume":
        return columns["tokens"]
    if metric == "delay":
        return (columns["ingest_time"] - columns["event_time"]) / float(DAY)
    return columns["distance"] if metric == "granularity" else 1.0 - columns["quality"]


def _number(role: str) -> Column:
    if role.endswith("_time"):
        return F.unix_micros(F.col(role).cast("timestamp"))
    value = F.col(role).cast("double")
    # A row without tokens adds none to the volume; other missing values count as the mean.
    return F.coalesce(value, F.lit(0.0)) if role == "tokens" else value
