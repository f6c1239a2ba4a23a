"""Metric values shared by several profiles: delay, duration, sampling rate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from gio_spark.gime.accumulators import DAY, LABEL_BITS
from gio_spark.gime.distinct_sketch import count_distinct
from gio_spark.gime.divergences import label_disagreement
from gio_spark.gime.mergeable_sums import BIN_ERROR, bin_middle, key_quantile, total
from gio_spark.gime.metric_profile import Constants, Value

if TYPE_CHECKING:
    from gio_spark.gime.metric_state import State

States = Mapping[str, "State"]

NO_TARGET = "no target given"
NO_CLUSTERS = "no cells: give a codebook or assignments"


def absent(form: str, unit: str, direction: str, reason: str, nulls: int = 0) -> Value:
    """Missing value of a metric, with the reason as its caveat."""
    return Value(form, None, unit, direction, nulls=nulls, caveat=reason)


def delay(states: States, target: States | None, constants: Constants) -> Iterable[Value]:
    """Mean of ingest - event (robust); last ingest - last event (literal: sup T_m - sup T_h)."""
    unit, direction = "days", "less"
    if "delay" not in states or states["delay"].number("known") == 0:
        nulls = states["volume"].number("rows")
        for form in ("robust", "literal"):
            yield absent(form, unit, direction, "no row has both event and ingest time", nulls)
        return
    state = states["delay"]
    known, nulls, negative = state.number("known"), state.number("nulls"), state.number("negative")
    caveat = f"{negative} rows were ingested before their event" if negative else ""
    yield Value("robust", total(state["total"]) / known / DAY, unit, direction, 0.0, nulls, caveat)
    literal = (state.number("last_ingest") - state.number("last_event")) / DAY
    yield Value("literal", literal, unit, direction, 0.0, nulls, caveat)
    for name, share in (("q50", 0.5), ("q99", 0.99)):
        key = key_quantile(state["bins"], share)
        middle = float(bin_middle(np.array([key]))[0]) / DAY
        yield Value(name, middle, unit, direction, BIN_ERROR, nulls)
    yield Value("negative", negative / known, "share", direction, 0.0, nulls)


def duration(states: States, target: States | None, constants: Constants) -> Iterable[Value]:
    """Occupied days (robust); last - first event (literal: sup T_h - inf T_h)."""
    if "time" not in states or states["time"]["days"].size == 0:
        nulls = states["volume"].number("rows")
        for form in ("robust", "literal"):
            yield absent(form, "days", "more", "no event times", nulls)
        return
    state = states["time"]
    days, nulls = state["days"], state.number("nulls")
    yield Value("robust", days.shape[1], "days", "more", 0.0, nulls)
    literal = (state.number("last") - state.number("first")) / DAY
    yield Value("literal", literal, "days", "more", 0.0, nulls)
    span = key_quantile(days, 0.99) - key_quantile(days, 0.01)
    yield Value("q01_q99", span, "days", "more", 0.0, nulls)


def sampling_rate(states: States, target: States | None, constants: Constants) -> Iterable[Value]:
    """Share of occupied time buckets (robust); instants per day of the gaps (literal)."""
    if "time" not in states or states["time"]["days"].size == 0:
        nulls = states["volume"].number("rows")
        yield absent("robust", "share", "more", "no event times", nulls)
        yield absent("literal", "1/day", "more", "no event times", nulls)
        return
    state = states["time"]
    nulls = state.number("nulls")
    buckets = state["buckets"][0]
    span = int(buckets[-1] - buckets[0]) + 1
    yield Value("robust", buckets.size / span, "share", "more", 0.0, nulls)
    length = (state.number("last") - state.number("first")) / DAY
    if length <= 0:
        yield absent("literal", "1/day", "more", "one instant only: there is no gap", nulls)
        return
    instants, error = count_distinct(state["instants"])
    yield Value("literal", (instants - 1) / length, "1/day", "more", error, nulls)
    rows = int(state["days"][1].sum())
    yield Value("rows_per_day", rows / length, "1/day", "more", 0.0, nulls)


def counted(states: States, name: str, unit: str, form: str) -> Iterable[Value]:
    """Distinct count as a value, if its column is in the data."""
    if name in states:
        count, error = count_distinct(states[name]["distinct"])
        yield Value(form, count, unit, "more", error, states[name].number("nulls"))


def disagreement(states: States) -> Iterable[Value]:
    """Share of labels that differ from the majority of their cluster, if there are labels."""
    classes = states.get("classes")
    if classes is not None and classes["classes"].size:
        value = label_disagreement(classes["classes"], LABEL_BITS)
        nulls = classes.number("nulls")
        yield Value("label_disagreement", value, "share", "less", 0.0, nulls)
