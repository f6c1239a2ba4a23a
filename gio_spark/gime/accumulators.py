"""Accumulators shared by several profiles: rows, time, delay, clusters, values. No Spark here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gio_spark.gime.distinct_sketch import distinct
from gio_spark.gime.mergeable_sums import gram, grid_sums, histogram, log_bin, project, split_sum
from gio_spark.gime.metric_profile import Accumulator, Constants

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from gio_spark.gime.row_batch import Rows

Fields = dict[str, "NDArray[Any]"]

DAY = 86_400_000_000  # microseconds
LABEL_BITS = 40
_LABEL_MASK = (1 << LABEL_BITS) - 1
_NEVER = np.iinfo(np.int64)


def scalar(value: int | np.integer) -> NDArray[np.int64]:
    """Field that holds one integer, int64 (1,)."""
    return np.array([value], np.int64)


def _span(values: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    if values.size == 0:
        return scalar(_NEVER.max), scalar(_NEVER.min)
    return scalar(values.min()), scalar(values.max())


def _volume(rows: Rows, constants: Constants) -> Fields:
    tokens = rows["tokens"].valid_values() if "tokens" in rows else np.zeros(0, np.int64)
    size = np.zeros(0, np.int64)
    if "bytes" in rows:
        size = rows["bytes"].valid_values()
    vector_bytes = 0
    if "vector" in rows:
        vector_bytes = (rows.count - rows["vector"].nulls) * int(constants.get("dimension", 0)) * 4
    unusable = rows.count - rows["reason"].nulls if "reason" in rows else 0
    return {
        "rows": scalar(rows.count),
        "tokens": scalar(tokens.sum(dtype=np.int64)),
        "token_rows": scalar(tokens.size),
        "bytes": scalar(int(size.sum(dtype=np.int64)) + vector_bytes),
        "unusable": scalar(unusable),
    }


VOLUME = Accumulator(
    "volume",
    1,
    _volume,
    {"rows": "sum", "tokens": "sum", "token_rows": "sum", "bytes": "sum", "unusable": "sum"},
    uses=("dimension",),
)


def distinct_of(role: str, name: str) -> Accumulator:
    """Build an accumulator that sketches the distinct values of a role."""

    def update(rows: Rows, constants: Constants) -> Fields:
        column = rows[role]
        return {
            "distinct": distinct(column.valid_values(), constants.get("sketch_log_size", 12)),
            "nulls": scalar(column.nulls),
        }

    merges = {"distinct": "distinct", "nulls": "sum"}
    return Accumulator(name, 1, update, merges, uses=("sketch_log_size",), needs=(role,))


def _time(rows: Rows, constants: Constants) -> Fields:
    column = rows["event_time"]
    times = column.valid_values()
    first, last = _span(times)
    return {
        "buckets": histogram(times // int(constants.get("bucket_microseconds", DAY))),
        "days": histogram(times // DAY),
        "first": first,
        "last": last,
        "instants": distinct(times, constants.get("sketch_log_size", 12)),
        "nulls": scalar(column.nulls),
    }


TIME = Accumulator(
    "time",
    1,
    _time,
    {
        "buckets": "histogram",
        "days": "histogram",
        "first": "min",
        "last": "max",
        "instants": "distinct",
        "nulls": "sum",
    },
    uses=("bucket_microseconds", "sketch_log_size"),
    needs=("event_time",),
)


def _delay(rows: Rows, constants: Constants) -> Fields:
    has_both = rows.both("event_time", "ingest_time")
    event = rows["event_time"].values[has_both]
    ingest = rows["ingest_time"].values[has_both]
    delay = (ingest - event).astype(np.float64)
    return {
        "total": split_sum(delay),
        "bins": histogram(log_bin(delay)),
        "known": scalar(delay.size),
        "nulls": scalar(rows.count - delay.size),
        "negative": scalar(np.count_nonzero(delay < 0)),
        "last_event": _span(event)[1],
        "last_ingest": _span(ingest)[1],
    }


DELAY = Accumulator(
    "delay",
    1,
    _delay,
    {
        "total": "histogram",
        "bins": "histogram",
        "known": "sum",
        "nulls": "sum",
        "negative": "sum",
        "last_event": "max",
        "last_ingest": "max",
    },
    needs=("event_time", "ingest_time"),
)


def _cluster_counts(rows: Rows, constants: Constants) -> Fields:
    column = rows["cluster"]
    return {
        "cells": histogram(column.valid_values()),
        "clusters": scalar(constants.get("clusters", 0)),
        "nulls": scalar(column.nulls),
    }


CLUSTER_COUNTS = Accumulator(
    "cells",
    1,
    _cluster_counts,
    {"cells": "histogram", "clusters": "same", "nulls": "sum"},
    uses=("clusters", "codebook_version"),
    needs=("cluster",),
)


def _classes(rows: Rows, constants: Constants) -> Fields:
    has_both = rows.both("cluster", "label")
    cluster = rows["cluster"].values[has_both]
    label = rows["label"].values[has_both] & _LABEL_MASK
    return {
        "classes": histogram((cluster << LABEL_BITS) | label),
        "nulls": scalar(rows.count - cluster.size),
    }


CLASSES = Accumulator(
    "classes",
    1,
    _classes,
    {"classes": "histogram", "nulls": "sum"},
    uses=("clusters", "codebook_version"),
    needs=("cluster", "label"),
)


def mean_of(
    role: str,
    name: str,
    transform: Callable[[NDArray[Any]], NDArray[Any]] | None = None,
    uses: tuple[str, ...] = (),
) -> Accumulator:
    """Build an accumulator for the exact mean of a numeric role, and of a transform of it."""

    def update(rows: Rows, constants: Constants) -> Fields:
        values = rows[role].valid_values()
        fields = {
            "total": split_sum(values),
            "known": scalar(values.size),
            "nulls": scalar(rows[role].nulls),
        }
        if transform is not None:
            fields["transformed"] = split_sum(transform(values))
        return fields

    merges = {"total": "histogram", "known": "sum", "nulls": "sum"}
    if transform is not None:
        merges["transformed"] = "histogram"
    return Accumulator(name, 1, update, merges, uses=uses, needs=(role,))


def _root(values: NDArray[Any]) -> NDArray[Any]:
    return np.sqrt(np.clip(values, 0, None))


DISTANCE = mean_of("distance", "distance", _root, uses=("clusters", "codebook_version"))
QUALITY = mean_of("quality", "quality")


def _vectors(rows: Rows, constants: Constants) -> Fields:
    unit = rows["unit"].valid_values()
    basis = constants.get("basis")
    low = unit.astype(np.float64) if basis is None else project(unit, basis)
    summed, squares = grid_sums(unit)
    return {
        "known": scalar(unit.shape[0]),
        "nulls": scalar(rows["unit"].nulls),
        "sum": summed,
        "squares": scalar(squares),
        "low_sum": low.sum(axis=0).astype(np.int64),
        "low_gram": gram(low),
    }


VECTORS = Accumulator(
    "vectors",
    1,
    _vectors,
    {
        "known": "sum",
        "nulls": "sum",
        "sum": "sum",
        "squares": "sum",
        "low_sum": "sum",
        "low_gram": "sum",
    },
    uses=("basis", "dimension"),
    needs=("unit",),
)


def _probes(rows: Rows, constants: Constants) -> Fields:
    unit = rows["unit"].valid_values()
    probes = constants.get("probe_grid")
    best = np.full(probes.shape[0], -np.inf, np.float32)
    for start in range(0, unit.shape[0], 512):
        scores = unit[start : start + 512] @ probes.T
        np.maximum(best, scores.max(axis=0), out=best)
    finite_best = np.where(np.isfinite(best), best, 0).astype(np.int64)
    return {
        "best": np.where(np.isfinite(best), finite_best, _NEVER.min),
        "nulls": scalar(rows["unit"].nulls),
    }


PROBES = Accumulator(
    "probes",
    1,
    _probes,
    {"best": "max", "nulls": "sum"},
    uses=("probe_grid",),
    needs=("unit", "probe_grid"),
)
