"""Accumulators and metrics of features: one histogram per field, in one state."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from gio_spark.gime import divergences
from gio_spark.gime.accumulators import DAY, LABEL_BITS, Fields, scalar
from gio_spark.gime.mergeable_sums import bin_middle, histogram, log_bin, split_sum, total
from gio_spark.gime.metric_profile import Accumulator, Constants, Value
from gio_spark.gime.shared_values import States, absent

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gio_spark.gime.row_batch import Rows

# Layout of a histogram key: field, season (0 to 3), value code.
_FIELD, _SEASON, _ZERO = 1 << 48, 1 << 46, 1 << 44
# Numbers are binned 8 to an octave, so that histograms of a few thousand rows can be compared.
_COARSE = 8
_MIX = 0x9E3779B97F4A7C15


def codes(rows: Rows, role: str) -> NDArray[np.int64]:
    """Value code of each row, int64 (n,): a hash for categories, a bin for numbers."""
    values = rows[role].values
    if role.startswith("numeric:"):
        return log_bin(values) // _COARSE
    return values & ((1 << LABEL_BITS) - 1)


def mixed(*columns: NDArray[np.int64]) -> NDArray[np.int64]:
    """Hash several integer columns to one, row by row."""
    state = np.zeros(len(columns[0]), np.uint64)
    for column in columns:
        state = (state ^ column.view(np.uint64)) * np.uint64(_MIX)
        state ^= state >> np.uint64(29)
    return state.view(np.int64)


def season(event: NDArray[np.int64]) -> NDArray[np.int64]:
    """Season 0 to 3 of each time: the quarter of a year of 365.25 days from 1 December on."""
    day = (event // DAY + 31) % 365.25
    return np.minimum(day // 91.3125, 3).astype(np.int64)


def _fields(rows: Rows, constants: Constants) -> Fields:
    names = constants.get("fields", ())
    seasonal = bool(constants.get("seasonal")) and "event_time" in rows
    seasons = season(rows["event_time"].values) if seasonal else np.zeros(rows.count, np.int64)
    parts, known_rows = [], []
    for number, name in enumerate(names):
        column = rows[name]
        key = number * _FIELD + seasons * _SEASON + _ZERO + codes(rows, name)
        parts.append(key[column.valid])
        known_rows.append(rows.count - column.nulls)
    keys = np.concatenate(parts) if parts else np.zeros(0, np.int64)
    return {
        "values": histogram(keys),
        "known": np.array(known_rows, np.int64),
        "complete": scalar(_complete(rows, names)),
    }


def _complete(rows: Rows, names: Iterable[str]) -> int:
    is_complete = np.ones(rows.count, bool)
    for name in names:
        is_complete &= rows[name].valid
    return int(np.count_nonzero(is_complete))


FIELDS = Accumulator(
    "fields",
    1,
    _fields,
    {"values": "histogram", "known": "sum", "complete": "sum"},
    uses=("fields", "seasonal"),
    needs=("fields",),
)


def _pairs(rows: Rows, constants: Constants) -> Fields:
    """Exact first and second moments of every pair of numeric fields, on rows with both values."""
    names = [n for n in constants.get("fields", ()) if n.startswith("numeric:")]
    parts: dict[str, list[NDArray[np.int64]]] = {k: [np.zeros((2, 0), np.int64)] for k in "xyabc"}
    counts = []
    for number, (first, second) in enumerate(itertools.combinations(names, 2)):
        has_both = rows.both(first, second)
        x, y = rows[first].values[has_both], rows[second].values[has_both]
        counts.append(x.size)
        for letter, product in zip("xyabc", (x, y, x * x, y * y, x * y), strict=True):
            parts[letter].append(split_sum(product) + np.array([[number * _PAIR], [0]]))
    return {
        **{letter: np.concatenate(sums, axis=1) for letter, sums in parts.items()},
        "n": np.array(counts, np.int64),
    }


_PAIR = 1 << 20


PAIRS = Accumulator(
    "pairs",
    1,
    _pairs,
    {**dict.fromkeys("xyabc", "histogram"), "n": "sum"},
    uses=("fields",),
    needs=("fields",),
)


def correlations(states: States) -> list[float]:
    """Pearson's correlation of each pair of numeric fields that both vary."""
    pairs = states["pairs"]
    result = []
    for number, n in enumerate(pairs["n"].tolist()):
        if n < 2:
            continue
        x, y, xx, yy, xy = (_total_of_pair(pairs[k], number) / n for k in "xyabc")
        spread = (xx - x * x) * (yy - y * y)
        if spread > 1e-24 * max(1.0, xx * yy):
            result.append((xy - x * y) / math.sqrt(spread))
    return result


def _total_of_pair(summed: NDArray[np.int64], number: int) -> float:
    of_pair = summed[:, summed[0] // _PAIR == number]
    return total(of_pair - np.array([[number * _PAIR], [0]]))


def by_field(values: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Cut the common histogram by field; keys keep season and value code."""
    fields = values[0] // _FIELD
    for field in np.unique(fields).tolist():
        of_field = values[:, fields == field]
        yield field, of_field - np.array([[field * _FIELD], [0]])


def effective_values(states: States) -> Iterable[Value]:
    """Mean effective number of values of a field (robust); distinct values (literal)."""
    if "fields" not in states or not states["fields"]["values"].size:
        for form in ("robust", "literal"):
            yield absent(form, "values", "more", "no feature columns")
        return
    fields = states["fields"]
    effective = [divergences.effective_classes(h[1]) for _, h in by_field(fields["values"])]
    nulls = missing_rows(states)
    yield Value("robust", math.fsum(effective) / len(effective), "values/field", "more", 0.0, nulls)
    count = fields["values"].shape[1]
    yield Value("literal", count, "(field, value)", "more", 0.0, nulls)


def missing_rows(states: States) -> int:
    """Number of rows that lack at least one feature."""
    return states["volume"].number("rows") - states["fields"].number("complete")


def missing_share(states: States) -> Iterable[Value]:
    """Share of missing feature values (robust); missing values per row (literal: distance)."""
    fields = states.get("fields")
    if fields is None or fields["known"].size == 0:
        yield absent("robust", "share", "less", "no feature columns")
        yield absent("literal", "cells/row", "less", "no feature columns")
        return
    rows, width = states["volume"].number("rows"), fields["known"].size
    missing = rows * width - int(fields["known"].sum())
    yield Value("robust", missing / (rows * width), "share", "less", 0.0, missing_rows(states))
    yield Value("literal", missing / rows, "cells/row", "less", 0.0, missing_rows(states))


def field_coverage(states: States, target: States | None) -> Iterable[Value]:
    """Share of the target's field values that occur: by mass (robust), by count (literal)."""
    pairs = list(_paired_fields(states, target))
    if not pairs:
        yield absent("robust", "share of target", "more", _reason_absent(target))
        yield absent("literal", "share of values", "more", _reason_absent(target))
        return
    reached, present = [], []
    for counts, target_counts in pairs:
        is_present = np.isin(target_counts[0], counts[0])
        reached.append(int(target_counts[1][is_present].sum()) / int(target_counts[1].sum()))
        present.append(float(is_present.mean()))
    count = len(pairs)
    yield Value("robust", math.fsum(reached) / count, "share of target", "more")
    yield Value("literal", math.fsum(present) / count, "share of values", "more")


def field_mismatch(states: States, target: States | None) -> Iterable[Value]:
    """Mean Jensen-Shannon divergence of the fields (robust); mean total variation (literal)."""
    pairs = list(_paired_fields(states, target))
    if not pairs:
        yield absent("robust", "bits", "less", _reason_absent(target))
        yield absent("literal", "share", "less", _reason_absent(target))
        return
    count = len(pairs)
    jsd = [divergences.jensen_shannon_bits(a, b) for a, b in pairs]
    yield Value("robust", math.fsum(jsd) / count, "bits", "less")
    apart = [divergences.total_variation(a, b) for a, b in pairs]
    yield Value("literal", math.fsum(apart) / count, "share", "less")
    stability = [divergences.population_stability(a, b) for a, b in pairs]
    yield Value("psi", math.fsum(stability) / count, "nats", "less")


def numeric_transport(states: States, target: States | None, constants: Constants) -> list[float]:
    """The Wasserstein-1 distance of each numeric field, in units of the target's spread."""
    names = constants.get("fields", ())
    result = []
    counts, target_counts = (_values(s) for s in (states, target or {}))
    for field in sorted(set(counts) & set(target_counts)):
        if not names[field].startswith("numeric:"):
            continue
        x, p = _points(counts[field])
        y, q = _points(target_counts[field])
        center = float(np.average(y, weights=q))
        spread = math.sqrt(float(np.average((y - center) ** 2, weights=q)))
        if spread > 0:
            result.append(divergences.transport(x, p, y, q) / spread)
    return result


def _points(counted: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    coarse = counted[0] % _SEASON - _ZERO
    return bin_middle(coarse * _COARSE + _COARSE // 2), counted[1]


def _values(states: States) -> dict[int, NDArray[np.int64]]:
    return dict(by_field(states["fields"]["values"])) if "fields" in states else {}


def _paired_fields(
    states: States, target: States | None
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    counts, target_counts = _values(states), _values(target or {})
    for field in sorted(target_counts):
        yield counts.get(field, np.zeros((2, 0), np.int64)), target_counts[field]


def _reason_absent(target: States | None) -> str:
    return "no target given" if not target else "no feature columns"
