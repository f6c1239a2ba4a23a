"""The tabular profile against slow computations from its definitions."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from local_states import DAY, figures

from gio_spark.gime import METRICS, Constants
from gio_spark.gime.feature_metrics import mixed
from gio_spark.gime.row_batch import Column, Rows
from gio_spark.gime.tabular_profile import prepare

FIELDS = ("numeric:age", "categorical:job")
CONSTANTS = Constants({"fields": FIELDS, "clusters": 4})
JOBS = np.array([11, 222, 3333, 44444])


def table(n=200, seed=0, **replaced) -> pa.Table:
    rng = np.random.default_rng(seed)
    event = rng.integers(0, 9 * DAY, n)
    columns = {
        "numeric:age": 2.0 ** rng.integers(0, 5, n),
        "categorical:job": rng.choice(JOBS, n),
        "user": rng.integers(0, 30, n),
        "item": rng.integers(0, 12, n),
        "cluster": rng.integers(0, 4, n),
        "label": rng.integers(0, 2, n),
        "event_time": event,
        "ingest_time": event + 1000,
    }
    return pa.table({**columns, **replaced})


def run(rows, target=None, batches=1):
    return figures(rows, CONSTANTS, target, "tabular", batches)


def entropy(values) -> float:
    counts = Counter(values).values()
    n = sum(counts)
    return -sum(c / n * math.log2(c / n) for c in counts)


def test_every_metric_has_one_robust_and_one_literal_form():
    values = run(table(), table(seed=1))
    for form in ("robust", "literal"):
        assert [m for m, f in values if f == form] == list(METRICS)
    assert all(v is not None for v in values.values())


def test_counts_of_users_items_pairs_and_combinations():
    rows = table()
    users, items = rows["user"].to_pylist(), rows["item"].to_pylist()
    both = set(zip(users, items, strict=True))
    combinations = set(zip(*(rows[f].to_pylist() for f in FIELDS), strict=True))
    values = run(rows)
    assert values["scope", "robust"] == len(both)
    assert values["scope", "literal"] == len(set(users))
    assert values["scope", "items"] == len(set(items))
    assert values["granularity", "robust"] == 200 / len(combinations)
    assert values["granularity", "literal"] == 200 / len(set(users))
    assert values["aggregation", "robust"] == len(both) / (len(set(users)) + len(set(items)))
    days = {(u, t // DAY) for u, t in zip(users, rows["event_time"].to_pylist(), strict=True)}
    assert values["sampling_rate", "robust"] == 200 / len(days)


def test_volume_and_variety_per_field():
    rows = table()
    entropies = [entropy(rows[f].to_pylist()) for f in FIELDS]
    values = run(rows)
    assert values["volume", "robust"] == pytest.approx(200 * sum(entropies))
    assert values["volume", "rows"] == 200
    assert values["variety", "robust"] == pytest.approx(np.mean([2**h for h in entropies]))
    assert values["variety", "literal"] == 5 + 4


def test_coverage_and_mismatch_against_the_target():
    rows = table(**{"categorical:job": np.random.default_rng(3).choice(JOBS[:2], 200)})
    target = table(90, 1)
    values = run(rows, target)
    jobs = target["categorical:job"].to_pylist()
    mass = np.mean([j in JOBS[:2] for j in jobs])
    assert values["coverage", "robust"] == pytest.approx((1 + mass) / 2)
    assert values["coverage", "literal"] == pytest.approx((1 + 0.5) / 2)
    expected = []
    for f in FIELDS:
        p, q = Counter(rows[f].to_pylist()), Counter(target[f].to_pylist())
        one = 0.0
        for v in set(p) | set(q):
            a, b = p[v] / 200, q[v] / 90
            one += sum(x / 2 * math.log2(2 * x / (a + b)) for x in (a, b) if x)
        expected.append(one)
    assert values["mismatch", "robust"] == pytest.approx(np.mean(expected))
    same = run(rows, rows)
    assert same["mismatch", "robust"] == same["mismatch", "psi"] == 0


def test_distortion_counts_missing_values():
    age = pa.array([None if i % 4 == 0 else 2.0 for i in range(200)])
    values = run(table(**{"numeric:age": age}))
    assert values["distortion", "robust"] == 50 / 400
    assert values["distortion", "literal"] == 50 / 200


def test_without_users_and_times_there_are_reasons_and_no_errors():
    rows = table().drop_columns(["user", "item", "event_time", "ingest_time"])
    values = run(rows)
    assert values["aggregation", "robust"] is None
    assert values["duration", "robust"] is None
    assert values["scope", "robust"] > 0


def test_all_null_features_and_a_single_row():
    nulls = {"numeric:age": pa.nulls(5, pa.float64()), "categorical:job": pa.nulls(5, pa.int64())}
    values = run(table(5, **nulls))
    assert values["distortion", "robust"] == 1
    assert values["variety", "robust"] is None
    assert run(table(1), table())["variety", "robust"] == 1


def test_batch_boundaries_change_no_bit():
    assert run(table(), table(seed=1)) == run(table(), table(seed=1), batches=9)


@pytest.mark.parametrize(
    ("metric", "better", "sign"),
    [
        ("volume", {"numeric:age": 2.0 ** np.arange(200)}, 1),
        ("scope", {"item": np.arange(200)}, 1),
        ("granularity", {"numeric:age": 2.0 ** np.arange(200)}, -1),
        ("variety", {"categorical:job": np.arange(200)}, 1),
        ("sampling_rate", {"user": np.zeros(200, np.int64)}, 1),
        ("mismatch", {"categorical:job": np.full(200, 11)}, -1),
    ],
)
def test_an_improvement_of_the_data_improves_its_metric(metric, better, sign):
    target = table(60, 2, **{"categorical:job": np.full(60, 11)})
    gain = run(table(**better), target)[metric, "robust"] - run(table(), target)[metric, "robust"]
    assert gain * sign > 0


def test_values_are_mixed_as_integers_of_64_bits():
    columns = np.array([[0, 1, -5, 2**40], [7, -1, 3, 2**62]])
    expected = []
    for row in columns.T.tolist():
        state = 0
        for value in row:
            state = (state ^ value) % 2**64 * 0x9E3779B97F4A7C15 % 2**64
            state ^= state >> 29
        expected.append(state)
    assert mixed(*columns).view(np.uint64).tolist() == expected


def test_a_missing_number_is_no_number():
    numbers = np.concatenate([-np.logspace(9, -9, 400), [0.0], np.logspace(-9, 9, 400)])
    every = Rows(len(numbers), {"numeric:a": Column(numbers, np.ones(len(numbers), bool))})
    missing = Rows(1, {"numeric:a": Column(np.zeros(1), np.zeros(1, bool))})
    constants = Constants({"fields": ("numeric:a",)})
    codes = set(prepare(every, constants)["combination"].values.tolist())
    assert prepare(missing, constants)["combination"].values[0] not in codes
