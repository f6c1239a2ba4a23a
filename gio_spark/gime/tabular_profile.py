"""Profile "tabular" for tables such as click logs: metrics of features, users and items."""

from __future__ import annotations

from collections.abc import Iterable

from gio_spark.gime import divergences
from gio_spark.gime.accumulators import (
    CLASSES,
    CLUSTER_COUNTS,
    DAY,
    DELAY,
    QUALITY,
    TIME,
    VOLUME,
    distinct_of,
)
from gio_spark.gime.distinct_sketch import count_distinct
from gio_spark.gime.feature_metrics import (
    FIELDS,
    by_field,
    codes,
    effective_values,
    field_coverage,
    field_mismatch,
    missing_rows,
    missing_share,
    mixed,
)
from gio_spark.gime.metric_profile import Constants, Metric, Profile, Value, register_entry
from gio_spark.gime.row_batch import Column, Rows
from gio_spark.gime.shared_values import (
    States,
    absent,
    counted,
    delay,
    disagreement,
    duration,
    sampling_rate,
)


def prepare(rows: Rows, constants: Constants) -> Rows:
    """Add hashes of the feature combination, the (user, item) pair and the user's day."""
    names = constants.get("fields", ())
    derived = {}
    if names:
        # A missing value is a value of its own here: -1 is no code.
        filled = [(codes(rows, n) + 1) * rows[n].valid - 1 for n in names]
        combination = mixed(*filled)
        derived["combination"] = Column(combination, combination == combination)
    if "user" in rows and "item" in rows:
        has_both = rows.both("user", "item")
        derived["pair"] = Column(mixed(rows["user"].values, rows["item"].values), has_both)
    if "user" in rows and "event_time" in rows:
        has_both = rows.both("user", "event_time")
        day = rows["event_time"].values // DAY
        derived["user_day"] = Column(mixed(rows["user"].values, day), has_both)
    return rows.with_columns(**derived)


def volume(states: States, target: States | None, constants: Constants) -> Iterable[Value]:
    """Bits of the features (robust: values x entropy); rows (literal)."""
    rows = states["volume"].number("rows")
    fields = states.get("fields")
    if fields is None or not fields["values"].size:
        yield Value("robust", rows, "rows", "more", caveat="no feature columns: rows")
    else:
        bits = sum(
            int(counts[1].sum()) * divergences.entropy_bits(counts[1])
            for _, counts in by_field(fields["values"])
        )
        yield Value("robust", bits, "bits", "more", 0.0, missing_rows(states))
        yield Value("cells", int(fields["known"].sum()), "cells", "more")
    yield Value("literal", rows, "rows", "more")
    yield Value("rows", rows, "rows", "more")
    yield from counted(states, "combinations", "rows", "distinct")


def scope(states: States, target: States | None, constants: Constants) -> Iterable[Value]:
    """Distinct (user, item) pairs, or feature combinations (robust); users (literal)."""
    if "pairs" in states:
        yield from counted(states, "pairs", "pairs", "robust")
    elif "combinations" in states:
        yield from counted(states, "combinations", "combinations", "robust")
    else:
        yield absent("robust", "pairs", "more", "no user and item, and no features")
    if "users" in states:
        yield from counted(states, "users", "users", "literal")
    elif "combinations" in states:
        yield from counted(states, "combinations", "combinations", "literal")
    else:
        yield absent("literal", "users", "more", "no user column")
    yield from counted(states, "items", "items", "items")


def granularity(states: States, target: States | None, constants: Constants) -> Iterable[Value]:
    """Rows per distinct feature combination (robust); per user (literal: measure of an atom)."""
    rows = states["volume"].number("rows")
    for form, name, unit in (
        ("robust", "combinations", "rows/combination"),
        ("literal", "users" if "users" in states else "combinations", "rows/key"),
    ):
        if name not in states:
            yield absent(form, unit, "less", "no feature columns")
            continue
        count, error = count_distinct(states[name]["distinct"])
        nulls = states[name].number("nulls")
        if count:
            yield Value(form, (rows - nulls) / count, unit, "less", error, nulls)
        else:
            yield absent(form, unit, "less", "all keys are missing", nulls)


def impressions(states: States, target: States | None, constants: Constants) -> Iterable[Value]:
    """Rows per user and day (robust); instants per day of the gaps (literal)."""
    shared = list(sampling_rate(states, target, constants))
    if "user_days" not in states:
        yield from shared
        return
    state = states["user_days"]
    count, error = count_distinct(state["distinct"])
    nulls = state.number("nulls")
    if count:
        rate = (states["volume"].number("rows") - nulls) / count
        yield Value("robust", rate, "rows/user-day", "more", error, nulls)
    else:
        yield absent("robust", "rows/user-day", "more", "no row has both user and time", nulls)
    for one in shared:
        if one.form != "robust":
            yield one


def aggregation(states: States, target: States | None, constants: Constants) -> Iterable[Value]:
    """Edges per node of the user-item graph (both forms: relations / states)."""
    if not {"pairs", "users", "items"} <= set(states):
        reason = "needs user and item columns"
        yield absent("robust", "edges/node", "unknown", reason)
        yield absent("literal", "edges/node", "unknown", reason)
        return
    edges, error = count_distinct(states["pairs"]["distinct"])
    users, user_error = count_distinct(states["users"]["distinct"])
    items, item_error = count_distinct(states["items"]["distinct"])
    nulls = states["pairs"].number("nulls")
    for form in ("robust", "literal"):
        if users + items == 0:
            yield absent(form, "edges/node", "unknown", "no users and no items", nulls)
        else:
            bound = error + max(user_error, item_error)
            value = edges / (users + items)
            yield Value(form, value, "edges/node", "unknown", bound, nulls)


def distortion(states: States, target: States | None, constants: Constants) -> Iterable[Value]:
    """Share of missing values (robust); missing values per row (literal); label disagreement."""
    yield from missing_share(states)
    yield from disagreement(states)


TABULAR = register_entry(
    "tabular",
    Profile(
        name="tabular",
        roles={
            "numeric*": "real",
            "categorical*": "key",
            "user": "key",
            "item": "key",
            "cluster": "whole",
            "label": "key",
            "content": "key",
            "tokens": "whole",
            "bytes": "whole",
            "reason": "key",
            "quality": "real",
            "event_time": "time",
            "ingest_time": "time",
        },
        accumulators=(
            VOLUME,
            FIELDS,
            distinct_of("combination", "combinations"),
            distinct_of("user", "users"),
            distinct_of("item", "items"),
            distinct_of("pair", "pairs"),
            distinct_of("user_day", "user_days"),
            DELAY,
            TIME,
            CLUSTER_COUNTS,
            CLASSES,
            QUALITY,
        ),
        metrics=(
            Metric("volume", ("volume", "fields", "combinations"), volume),
            Metric("delay", ("volume", "delay"), delay),
            Metric("scope", ("pairs", "combinations", "users", "items"), scope),
            Metric("granularity", ("volume", "combinations", "users"), granularity),
            Metric("variety", ("volume", "fields"), lambda states, t, c: effective_values(states)),
            Metric("duration", ("volume", "time"), duration),
            Metric("sampling_rate", ("volume", "time", "user_days"), impressions),
            Metric("aggregation", ("pairs", "users", "items"), aggregation),
            Metric("coverage", ("fields",), lambda states, t, c: field_coverage(states, t)),
            Metric("distortion", ("volume", "fields", "classes"), distortion),
            Metric("mismatch", ("fields",), lambda states, t, c: field_mismatch(states, t)),
        ),
        prepare=prepare,
    ),
)
