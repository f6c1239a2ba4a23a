"""The spatio-temporal profile against slow computations from its definitions."""

from __future__ import annotations

import datetime as dt
import itertools
import math

import numpy as np
import pyarrow as pa
import pytest
import scipy.stats
from local_states import DAY, figures, sketched

from gio_spark.gime import METRICS, Constants, get_profile

HOUR = DAY // 24
FIELDS = ("numeric:temp", "numeric:pm", "numeric:wind")
CONSTANTS = Constants({**get_profile("spatiotemporal").defaults, "fields": FIELDS})


def table(n=400, seed=0, **replaced) -> pa.Table:
    rng = np.random.default_rng(seed)
    station = rng.integers(0, 4, n)
    event = rng.integers(0, 24 * 200, n) * HOUR
    temp = rng.normal(15, 8, n)
    columns = {
        "station": station,
        "latitude": 39.1 + station * 0.4,
        "longitude": 116.1 + station * 0.4,
        "numeric:temp": temp,
        "numeric:pm": temp * 2 + rng.normal(0, 3, n),
        "numeric:wind": rng.random(n),
        "value": temp,
        "reference": temp + 2,
        "event_time": event,
        "ingest_time": event + 2 * HOUR,
    }
    return pa.table({**columns, **replaced})


def run(rows, target=None, batches=1):
    return figures(rows, CONSTANTS, target, "spatiotemporal", batches)


def test_every_metric_has_one_robust_and_one_literal_form():
    values = run(table(), table(seed=1))
    for form in ("robust", "literal"):
        assert [m for m, f in values if f == form] == list(METRICS)
    assert all(v is not None for v in values.values())


def test_space():
    values = run(table())
    tiles = {math.floor((39.1 + s * 0.4 + 90) / 0.25) for s in range(4)}
    km = 0.25 * 111.195
    area = sum(km * km * math.cos(math.radians(t * 0.25 - 90 + 0.125)) for t in tiles)
    assert values["scope", "robust"] == pytest.approx(area)
    assert values["scope", "literal"] == 4
    assert values["granularity", "robust"] == pytest.approx(area / 4)


def test_time():
    rows = table()
    times = rows["event_time"].to_pylist()
    steps = set(zip(rows["station"].to_pylist(), (t // HOUR for t in times), strict=True))
    expected = 4 * ((max(times) - min(times)) // HOUR + 1)
    values = run(rows)
    assert values["sampling_rate", "robust"] == pytest.approx(len(steps) / expected)
    months = {dt.datetime.fromtimestamp(t / 1e6, dt.timezone.utc).strftime("%Y-%m") for t in times}
    assert values["duration", "robust"] == len(months)
    assert values["delay", "robust"] == pytest.approx(2 / 24)


def test_volume_and_distortion():
    temp = pa.array([None if i % 10 == 0 else float(i) for i in range(400)])
    values = run(table(**{"numeric:temp": temp}))
    assert values["volume", "robust"] == 3 * 400 - 40
    assert values["volume", "literal"] == 32 * (3 * 400 - 40)
    assert values["distortion", "robust"] == pytest.approx(40 / 1200)
    assert values["distortion", "literal"] == pytest.approx(2)


def test_quantiles_of_the_delay_alone_are_sketched():
    inexact = sketched(table(), CONSTANTS, table(seed=1), "spatiotemporal")
    assert inexact == {("delay", "q50"), ("delay", "q99")}


def test_aggregation_counts_correlated_pairs():
    rows = table()
    matrix = np.corrcoef([rows[f].to_numpy() for f in FIELDS])
    above = sum(abs(matrix[i, j]) > 0.5 for i, j in itertools.combinations(range(3), 2))
    values = run(rows)
    assert values["aggregation", "literal"] == above == 1
    assert values["aggregation", "robust"] == pytest.approx(1 / 3)


def test_coverage_and_mismatch_against_the_target():
    day = table(200, 3, event_time=(np.arange(200) % 12) * HOUR)
    night = table(200, 4, event_time=(12 + np.arange(200) % 12) * HOUR)
    both = pa.concat_tables([day, night])
    assert run(day, both)["coverage", "robust"] == 0.5
    assert run(both, day)["coverage", "literal"] == 1
    values = run(day, night)
    distances = []
    for f in FIELDS:
        x, y = day[f].to_numpy(), night[f].to_numpy()
        distances.append(scipy.stats.wasserstein_distance(x, y) / y.std())
    # Numbers are binned 8 to an octave, so points move by up to 6 %.
    assert values["mismatch", "literal"] == pytest.approx(np.mean(distances), rel=0.15)
    assert run(day, day)["mismatch", "robust"] == 0
    shifted = table(200, 3, **{"numeric:temp": day["numeric:temp"].to_numpy() + 30})
    assert run(shifted, night)["mismatch", "robust"] > values["mismatch", "robust"]


def test_batch_boundaries_change_no_bit():
    assert run(table(), table(seed=1)) == run(table(), table(seed=1), batches=11)


def test_missing_places_times_and_a_single_row_have_reasons():
    bare = table().drop_columns(["latitude", "longitude", "station", "event_time", "ingest_time"])
    values = run(bare, table(seed=1))
    for metric in ("scope", "granularity", "duration", "delay", "coverage", "sampling_rate"):
        assert values[metric, "robust"] is None
    one = run(table(1), table(seed=1))
    assert one["sampling_rate", "robust"] == 1
    assert one["aggregation", "robust"] is None
