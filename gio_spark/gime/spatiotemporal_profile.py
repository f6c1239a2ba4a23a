"""Profile "spatiotemporal" for data such as weather: metrics of stations, places and times.

The unit of selection is a (station or tile, block of time), not a row, because rows of one block
are near copies of one another.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from gio_spark.gime import divergences
from gio_spark.gime.accumulators import (
    CLASSES,
    CLUSTER_COUNTS,
    DAY,
    DELAY,
    TIME,
    VOLUME,
    Fields,
    distinct_of,
    mean_of,
    scalar,
)
from gio_spark.gime.distinct_sketch import count_distinct
from gio_spark.gime.feature_metrics import (
    FIELDS,
    PAIRS,
    correlations,
    effective_values,
    field_mismatch,
    missing_rows,
    missing_share,
    mixed,
    numeric_transport,
    season,
)
from gio_spark.gime.mergeable_sums import histogram, total
from gio_spark.gime.metric_profile import (
    Accumulator,
    Constants,
    Metric,
    Profile,
    Value,
    register_entry,
)
from gio_spark.gime.row_batch import Column, Rows
from gio_spark.gime.shared_values import States, absent, counted, delay, sampling_rate

_KM_PER_DEGREE = 111.195
_STEPS = 1 << 22  # latitude steps that a place key has room for
_HOUR = DAY // 24


def prepare(rows: Rows, constants: Constants) -> Rows:
    """Add the tile of a place, the (station, time step) and the error against a reference."""
    derived = {}
    if "latitude" in rows and "longitude" in rows:
        size = float(constants.get("tile_degrees", 0.25))
        south = np.floor((rows["latitude"].values + 90) / size).astype(np.int64)
        west = np.floor((rows["longitude"].values + 180) / size).astype(np.int64)
        derived["tile"] = Column(west * _STEPS + south, rows.both("latitude", "longitude"))
    place = rows.columns.get("station") or derived.get("tile")
    if place is not None and "event_time" in rows:
        step = rows["event_time"].values // int(constants.get("step_microseconds", _HOUR))
        has_both = place.valid & rows["event_time"].valid
        derived["place"] = place
        derived["sample"] = Column(mixed(place.values, step), has_both)
    if "value" in rows and "reference" in rows:
        gap = rows["value"].values - rows["reference"].values
        derived["squared_error"] = Column(gap * gap, rows.both("value", "reference"))
    return rows.with_columns(**derived)


def _tiles(rows: Rows, constants: Constants) -> Fields:
    return {"tiles": histogram(rows["tile"].valid_values()), "nulls": scalar(rows["tile"].nulls)}


TILES = Accumulator(
    "tiles",
    1,
    _tiles,
    {"tiles": "histogram", "nulls": "sum"},
    uses=("tile_degrees",),
    needs=("tile",),
)


def _climate(rows: Rows, constants: Constants) -> Fields:
    """Count rows by (cluster, hour of the day, season); the cluster is 0 without assignments."""
    event_time = rows["event_time"]
    valid, cluster = event_time.valid, np.zeros(rows.count, np.int64)
    if "cluster" in rows:
        valid, cluster = rows.both("event_time", "cluster"), rows["cluster"].values
    hour = event_time.values // _HOUR % 24
    key = (cluster * 24 + hour) * 4 + season(event_time.values)
    return {
        "bins": histogram(key[valid]),
        "months": histogram(_month(event_time.values[valid])),
        "nulls": scalar(np.count_nonzero(~valid)),
    }


def _month(event: np.ndarray) -> np.ndarray:
    return event.astype("datetime64[us]").astype("datetime64[M]").astype(np.int64)


CLIMATE = Accumulator(
    "climate",
    1,
    _climate,
    {"bins": "histogram", "months": "histogram", "nulls": "sum"},
    uses=("clusters", "codebook_version"),
    needs=("event_time",),
)
ERRORS = mean_of("squared_error", "errors")


def volume(states: States, target: States | None, constants: Constants) -> Iterable[Value]:
    """Values measured (robust); their bits at 32 each (literal)."""
    rows = states["volume"].number("rows")
    known = int(states["fields"]["known"].sum()) if "fields" in states else 0
    if known:
        yield Value("robust", known, "values", "more", 0.0, missing_rows(states))
        yield Value("literal", 32 * known, "bits", "more", 0.0, missing_rows(states))
    else:
        reason = "no measured variables: rows"
        yield Value("robust", rows, "rows", "more", caveat=reason)
        yield Value("literal", rows, "rows", "more", caveat=reason)
    yield Value("rows", rows, "rows", "more")
    yield from counted(states, "samples", "samples", "distinct")


def _area(states: States, constants: Constants) -> tuple[float, int, int]:
    """Km^2 of the occupied tiles, their number, and the rows without a place."""
    state = states["tiles"]
    size = float(constants.get("tile_degrees", 0.25))
    south = state["tiles"][0] % _STEPS * size - 90
    middle = np.radians(south + size / 2)
    area = math.fsum((size * _KM_PER_DEGREE) ** 2 * np.cos(middle))
    return area, state["tiles"].shape[1], state.number("nulls")


def scope(states: States, target: States | None, constants: Constants) -> Iterable[Value]:
    """Square kilometres of distinct tiles (robust), or stations; their number (literal)."""
    if "tiles" in states:
        area, count, nulls = _area(states, constants)
        yield Value("robust", area, "km^2", "more", 0.0, nulls)
        yield Value("literal", count, "tiles", "more", 0.0, nulls)
        yield from counted(states, "stations", "stations", "stations")
    elif "stations" in states:
        for form in ("robust", "literal"):
            yield from counted(states, "stations", "stations", form)
    else:
        for form in ("robust", "literal"):
            yield absent(form, "km^2", "more", "no latitude and longitude, and no station")


def granularity(states: States, target: States | None, constants: Constants) -> Iterable[Value]:
    """Square kilometres per occupied tile (robust), per station (literal: measure of an atom)."""
    if "tiles" not in states:
        for form in ("robust", "literal"):
            yield absent(form, "km^2", "less", "no latitude and longitude")
        return
    area, count, nulls = _area(states, constants)
    if count == 0:
        for form in ("robust", "literal"):
            yield absent(form, "km^2", "less", "no row has a place", nulls)
        return
    yield Value("robust", area / count, "km^2", "less", 0.0, nulls)
    if "stations" in states:
        stations, error = count_distinct(states["stations"]["distinct"])
        if stations:
            yield Value("literal", area / stations, "km^2/station", "less", error, nulls)
            return
    yield Value("literal", area / count, "km^2", "less", 0.0, nulls, "no stations: per tile")


def variety(states: States, target: States | None, constants: Constants) -> Iterable[Value]:
    """Mean effective values of a variable and season (robust); regime classes where known."""
    yield from effective_values(states)
    classes = states.get("classes")
    if classes is not None and classes["classes"].size:
        value = divergences.effective_classes(classes["classes"][1])
        yield Value("regimes", value, "classes", "more", 0.0, classes.number("nulls"))


def duration(states: States, target: States | None, constants: Constants) -> Iterable[Value]:
    """Occupied months (robust); last - first event in days (literal)."""
    climate = states.get("climate")
    nulls = states["volume"].number("rows") if climate is None else climate.number("nulls")
    if climate is None or not climate["months"].size:
        yield absent("robust", "months", "more", "no event times", nulls)
        yield absent("literal", "days", "more", "no event times", nulls)
        return
    yield Value("robust", climate["months"].shape[1], "months", "more", 0.0, nulls)
    moments = states["time"]
    length = (moments.number("last") - moments.number("first")) / DAY
    yield Value("literal", length, "days", "more", 0.0, moments.number("nulls"))


def steps_present(states: States, target: States | None, constants: Constants) -> Iterable[Value]:
    """Share of each place's expected time steps with a row (robust); literal as shared."""
    shared = list(sampling_rate(states, target, constants))
    if "samples" not in states or not states["time"]["days"].size:
        yield from shared
        return
    samples, error = count_distinct(states["samples"]["distinct"])
    places, place_error = count_distinct(states["places"]["distinct"])
    step = int(constants.get("step_microseconds", _HOUR))
    first, last = (states["time"].number(k) // step for k in ("first", "last"))
    nulls = states["samples"].number("nulls")
    if places:
        value = samples / (places * (last - first + 1))
        yield Value("robust", value, "share", "more", error + place_error, nulls)
    else:
        yield absent("robust", "share", "more", "no row has both place and time", nulls)
    for one in shared:
        yield replace(one, form="buckets") if one.form == "robust" else one


def aggregation(states: States, target: States | None, constants: Constants) -> Iterable[Value]:
    """Share of variable pairs with |correlation| above tau (robust); their number (literal)."""
    correlations_found = correlations(states) if "pairs" in states else []
    tau = float(constants.get("correlation_tau", 0.5))
    if not correlations_found:
        for form in ("robust", "literal"):
            yield absent(form, "share", "unknown", "fewer than two variables that vary")
        return
    above_tau = sum(abs(c) > tau for c in correlations_found)
    note = f"|correlation| above {tau:g}"
    yield Value("robust", above_tau / len(correlations_found), "share", "unknown", 0.0, 0, note)
    yield Value("literal", above_tau, "pairs", "unknown", 0.0, 0, note)


def coverage(states: States, target: States | None, constants: Constants) -> Iterable[Value]:
    """Share of the target's (cluster, hour, season) bins filled: by mass (robust), by count."""
    if not target or "climate" not in states or "climate" not in target:
        reason = "no target given" if not target else "no event times"
        yield absent("robust", "share of target", "more", reason)
        yield absent("literal", "share of bins", "more", reason)
        return
    bins, target_bins = states["climate"]["bins"], target["climate"]["bins"]
    is_present = np.isin(target_bins[0], bins[0])
    nulls = states["climate"].number("nulls")
    reached_mass = int(target_bins[1][is_present].sum()) / max(int(target_bins[1].sum()), 1)
    yield Value("robust", reached_mass, "share of target", "more", 0.0, nulls)
    filled = float(is_present.mean()) if is_present.size else 0.0
    yield Value("literal", filled, "share of bins", "more", 0.0, nulls)


def distortion(states: States, target: States | None, constants: Constants) -> Iterable[Value]:
    """Share of missing values (robust); RMSE to the reference (literal), where there is one."""
    errors = states.get("errors")
    for one in missing_share(states):
        if one.form == "robust":
            yield one
        elif errors is not None and errors.number("known"):
            mean = total(errors["total"]) / errors.number("known")
            nulls = errors.number("nulls")
            yield Value("literal", math.sqrt(mean), "unit of the value", "less", 0.0, nulls)
        else:
            yield replace(one, caveat="no reference values: missing cells per row")


def mismatch(states: States, target: States | None, constants: Constants) -> Iterable[Value]:
    """Mean Jensen-Shannon divergence of the climatologies (robust); mean W1 (literal)."""
    for one in field_mismatch(states, target):
        if one.form != "literal":
            yield one
    distances = numeric_transport(states, target, constants)
    if distances:
        value = math.fsum(distances) / len(distances)
        yield Value("literal", value, "spreads of the target", "less")
    else:
        yield absent("literal", "spreads of the target", "less", "no target, or nothing varies")


SPATIOTEMPORAL = register_entry(
    "spatiotemporal",
    Profile(
        name="spatiotemporal",
        roles={
            "numeric*": "real",
            "categorical*": "key",
            "station": "key",
            "latitude": "real",
            "longitude": "real",
            "value": "real",
            "reference": "real",
            "cluster": "whole",
            "label": "key",
            "tokens": "whole",
            "bytes": "whole",
            "reason": "key",
            "event_time": "time",
            "ingest_time": "time",
        },
        accumulators=(
            VOLUME,
            FIELDS,
            PAIRS,
            TILES,
            CLIMATE,
            ERRORS,
            distinct_of("station", "stations"),
            distinct_of("place", "places"),
            distinct_of("sample", "samples"),
            DELAY,
            TIME,
            CLUSTER_COUNTS,
            CLASSES,
        ),
        metrics=(
            Metric("volume", ("volume", "fields", "samples"), volume),
            Metric("delay", ("volume", "delay"), delay),
            Metric("scope", ("tiles", "stations"), scope),
            Metric("granularity", ("tiles", "stations"), granularity),
            Metric("variety", ("volume", "fields", "classes"), variety),
            Metric("duration", ("volume", "climate", "time"), duration),
            Metric("sampling_rate", ("volume", "time", "samples", "places"), steps_present),
            Metric("aggregation", ("pairs",), aggregation),
            Metric("coverage", ("climate",), coverage),
            Metric("distortion", ("volume", "fields", "errors"), distortion),
            Metric("mismatch", ("fields",), mismatch),
        ),
        prepare=prepare,
        defaults={
            "seasonal": True,
            "tile_degrees": 0.25,
            "step_microseconds": _HOUR,
            "correlation_tau": 0.5,
        },
    ),
)
