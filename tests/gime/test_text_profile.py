"""Each metric of the text profile against a slow computation from its definition."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
import scipy.linalg
from local_states import DAY, figures, sketched

from gio_spark.engine import encode_vectors
from gio_spark.gime import METRICS, Constants
from gio_spark.gime.mergeable_sums import BIN_ERROR, on_grid


def table(n=200, seed=0, **replaced) -> pa.Table:
    rng = np.random.default_rng(seed)
    event = rng.integers(0, 40 * DAY, n)
    columns = {
        "cluster": rng.integers(0, 8, n),
        "distance": rng.random(n).astype(np.float32),
        "tokens": rng.integers(1, 50, n),
        "source": rng.integers(0, 5, n),
        "label": rng.integers(0, 3, n),
        "content": rng.integers(0, 10**9, n),
        "quality": rng.random(n),
        "event_time": event,
        "ingest_time": event + rng.integers(0, 5 * DAY, n),
        "vector": encode_vectors(rng.standard_normal((n, 6)).astype(np.float32) + 0.5),
    }
    return pa.table({**columns, **replaced})


def vectors(rows: pa.Table) -> np.ndarray:
    x = np.stack([np.frombuffer(v, np.float32) for v in rows.column("vector").to_pylist()])
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def entropy(values) -> float:
    counts = Counter(values).values()
    n = sum(counts)
    return -sum(c / n * math.log2(c / n) for c in counts)


PROBES = np.random.default_rng(9).standard_normal((4, 6)).astype(np.float32)
CONSTANTS = Constants({"clusters": 10, "dimension": 6, "probe_grid": on_grid(PROBES), "tau": 0.7})


def test_every_metric_has_one_robust_and_one_literal_form():
    values = figures(table(), CONSTANTS, table(seed=1))
    for form in ("robust", "literal"):
        assert [m for m, f in values if f == form] == list(METRICS)
    assert all(v is not None for v in values.values())


def test_volume():
    rows = table()
    values = figures(rows, CONSTANTS)
    assert values["volume", "robust"] == sum(rows.column("tokens").to_pylist())
    assert values["volume", "rows"] == 200
    assert values["volume", "literal"] == 200 * 6 * 4
    assert values["volume", "distinct"] == len(set(rows.column("content").to_pylist()))
    bits = 200 * entropy(rows.column("cluster").to_pylist())
    assert values["volume", "bits"] == pytest.approx(bits)


def test_delay():
    rows = table()
    gaps = np.sort(rows["ingest_time"].to_numpy() - rows["event_time"].to_numpy()) / DAY
    values = figures(rows, CONSTANTS)
    assert values["delay", "robust"] == pytest.approx(gaps.mean(), rel=1e-14)
    literal = max(rows["ingest_time"].to_pylist()) - max(rows["event_time"].to_pylist())
    assert values["delay", "literal"] == literal / DAY
    assert values["delay", "q50"] == pytest.approx(gaps[99], rel=BIN_ERROR)
    assert values["delay", "q99"] == pytest.approx(gaps[197], rel=BIN_ERROR)


def test_scope_and_variety():
    rows = table()
    clusters = rows["cluster"].to_pylist()
    both = list(zip(clusters, rows["label"].to_pylist(), strict=True))
    values = figures(rows, CONSTANTS)
    assert values["scope", "robust"] == len(set(clusters)) / 10
    assert values["scope", "literal"] == len(set(clusters))
    assert values["scope", "sources"] == 5
    assert values["variety", "robust"] == pytest.approx(2 ** entropy(clusters))
    assert values["variety", "labelled"] == pytest.approx(2 ** entropy(both))
    assert values["variety", "literal"] == len(set(both))
    c = np.cov(vectors(rows).T, bias=True)
    expected = np.trace(c) ** 2 / np.trace(c @ c)
    assert values["variety", "spectral"] == pytest.approx(expected, rel=1e-3)


def test_granularity():
    rows = table()
    values = figures(rows, CONSTANTS)
    exact = math.fsum(rows["distance"].to_pylist()) / 200
    assert values["granularity", "robust"] == pytest.approx(exact, rel=1e-15)
    assert values["granularity", "literal"] == np.mean(rows["tokens"].to_pylist())


def test_duration_and_sampling_rate():
    rows = table()
    times = sorted(set(rows["event_time"].to_pylist()))
    days = {t // DAY for t in times}
    values = figures(rows, CONSTANTS)
    assert values["duration", "robust"] == len(days)
    assert values["duration", "literal"] == (times[-1] - times[0]) / DAY
    assert values["sampling_rate", "robust"] == len(days) / (max(days) - min(days) + 1)
    gaps = [b - a for a, b in itertools.pairwise(times)]
    assert values["sampling_rate", "literal"] == pytest.approx(len(gaps) / (sum(gaps) / DAY))


def test_quantiles_of_the_delay_alone_are_sketched():
    assert sketched(table(60), CONSTANTS, table(30)) == {("delay", "q50"), ("delay", "q99")}


def test_aggregation():
    rows = table(60)
    u, clusters = vectors(rows), rows["cluster"].to_pylist()
    values = figures(rows, CONSTANTS)
    cosines = [float(u[i] @ u[j]) for i, j in itertools.combinations(range(60), 2)]
    assert values["aggregation", "robust"] == pytest.approx(np.mean(cosines), abs=1e-4)
    related = sum(a == b for a, b in itertools.combinations(clusters, 2))
    assert values["aggregation", "literal"] == related / 60
    assert values["aggregation", "co_membership"] == related / (60 * 59 / 2)


def test_coverage():
    content = np.arange(200) % 160
    rows, target = table(content=content), table(50, 1)
    values = figures(rows, CONSTANTS, target)
    unit = PROBES / np.linalg.norm(PROBES, axis=1, keepdims=True)
    best = [max(float(p @ x) for x in vectors(rows)) for p in unit]
    assert values["coverage", "robust"] == pytest.approx(np.mean(best), abs=2e-4)
    assert values["coverage", "above_tau"] == np.mean(np.array(best) >= 0.7)
    assert values["coverage", "literal"] == 200 / 160
    clusters = set(rows["cluster"].to_pylist())
    reached = np.mean([c in clusters for c in target["cluster"].to_pylist()])
    assert values["coverage", "cells"] == pytest.approx(reached)


def test_distortion():
    rows = table()
    values = figures(rows, CONSTANTS)
    assert values["distortion", "robust"] == pytest.approx(1 - np.mean(rows["quality"].to_pylist()))
    roots = [math.sqrt(d) for d in rows["distance"].to_pylist()]
    assert values["distortion", "literal"] == pytest.approx(np.mean(roots))
    wrong = 0
    for cluster in range(8):
        labels = [
            label
            for c, label in zip(rows["cluster"].to_pylist(), rows["label"].to_pylist(), strict=True)
            if c == cluster
        ]
        wrong += len(labels) - max(Counter(labels).values())
    assert values["distortion", "label_disagreement"] == pytest.approx(wrong / 200)


def test_mismatch():
    rows, target = table(), table(80, 1)
    values = figures(rows, CONSTANTS, target)
    p = np.bincount(rows["cluster"].to_numpy(), minlength=8) / 200
    q = np.bincount(target["cluster"].to_numpy(), minlength=8) / 80
    m = (p + q) / 2
    expected = (sum(p * np.log2(p / m)) + sum(q * np.log2(q / m))) / 2
    assert values["mismatch", "robust"] == pytest.approx(expected)
    assert values["mismatch", "total_variation"] == pytest.approx(np.abs(p - q).sum() / 2)
    a, b = vectors(rows), vectors(target)
    gap = np.linalg.norm(a.mean(0) - b.mean(0))
    assert values["mismatch", "literal"] == pytest.approx(gap, abs=1e-4)
    ca, cb = np.cov(a.T, bias=True), np.cov(b.T, bias=True)
    expected = gap**2 + np.trace(ca + cb - 2 * scipy.linalg.sqrtm(ca @ cb).real)
    assert values["mismatch", "frechet"] == pytest.approx(expected, abs=1e-3)
    assert figures(rows, CONSTANTS, rows)["mismatch", "robust"] == 0


def test_volume_adds_without_overlap_and_by_inclusion_exclusion_with_it():
    all_rows = table(150)
    a, b, both = all_rows.slice(0, 100), all_rows.slice(60, 90), all_rows.slice(60, 40)
    count = {
        name: figures(part, CONSTANTS)["volume", "distinct"]
        for name, part in {"a": a, "b": b, "both": both, "all": all_rows}.items()
    }
    assert count["all"] == count["a"] + count["b"] - count["both"]
    tokens = [
        figures(p, CONSTANTS)["volume", "robust"] for p in (a, all_rows.slice(100, 50), all_rows)
    ]
    assert tokens[0] + tokens[1] == tokens[2]
    twice = figures(pa.concat_tables([a, a]), CONSTANTS)
    assert twice["volume", "distinct"] == count["a"]
    assert twice["coverage", "literal"] == 2


@pytest.mark.parametrize(
    ("metric", "better"),
    [
        ("volume", {"tokens": np.full(200, 60)}),
        ("delay", {"ingest_time": table()["event_time"].to_numpy() + 1}),
        ("scope", {"cluster": np.arange(200) % 10}),
        ("granularity", {"distance": table()["distance"].to_numpy() / 2}),
        ("variety", {"cluster": np.arange(200) % 10}),
        ("duration", {"event_time": np.arange(200) * DAY}),
        ("sampling_rate", {"event_time": np.arange(200) * DAY // 5}),
        ("coverage", {"vector": encode_vectors(np.repeat(PROBES, 50, axis=0))}),
        ("distortion", {"quality": np.ones(200)}),
        ("mismatch", {"cluster": np.zeros(200, np.int64)}),
    ],
)
def test_an_improvement_of_the_data_improves_its_metric(metric, better):
    target = table(50, 3, cluster=np.zeros(50, np.int64))
    before = figures(table(), CONSTANTS, target)[metric, "robust"]
    after = figures(table(**better), CONSTANTS, target)[metric, "robust"]
    more = metric in ("volume", "scope", "variety", "duration", "sampling_rate", "coverage")
    assert after > before if more else after < before


def test_batch_boundaries_change_no_bit():
    rows, target = table(300), table(50, 1)
    assert figures(rows, CONSTANTS, target) == figures(rows, CONSTANTS, target, batches=13)


def test_all_null_columns_give_nulls_with_reasons():
    n = 20
    empty = {
        name: pa.nulls(n, kind)
        for name, kind in {
            "cluster": pa.int64(),
            "distance": pa.float64(),
            "tokens": pa.int64(),
            "label": pa.int64(),
            "content": pa.int64(),
            "source": pa.int64(),
            "quality": pa.float64(),
            "event_time": pa.int64(),
            "ingest_time": pa.int64(),
            "vector": pa.binary(),
        }.items()
    }
    values = figures(pa.table(empty), CONSTANTS, table(30))
    assert values["volume", "robust"] == 20
    for metric in ("delay", "granularity", "variety", "duration", "aggregation", "coverage"):
        assert values[metric, "robust"] is None
    assert values["distortion", "unusable"] == 1


def test_nan_and_infinity_count_as_missing():
    quality = np.array([0.5, np.nan, np.inf, 1.0])
    assert figures(table(4, quality=quality), CONSTANTS)["distortion", "robust"] == 0.25


def test_missing_times_and_negative_delays_are_reported():
    event = pa.array([DAY, None, 3 * DAY, 4 * DAY])
    ingest = pa.array([2 * DAY, DAY, None, DAY])
    values = figures(table(4, event_time=event, ingest_time=ingest), CONSTANTS)
    assert values["delay", "robust"] == (1 - 3) / 2
    assert values["delay", "negative"] == 0.5


def test_a_single_row_has_values_or_reasons():
    values = figures(table(1), CONSTANTS, table(30, 1))
    assert values["variety", "robust"] == 1
    assert values["duration", "robust"] == 1
    assert values["sampling_rate", "literal"] is None
    assert values["aggregation", "robust"] is None
    assert values["coverage", "robust"] is not None


def test_a_vector_with_nan_is_left_out_and_counted():
    rows = table(20)
    vectors_with_nan = np.random.default_rng(0).standard_normal((20, 6)).astype(np.float32)
    vectors_with_nan[3, 2] = np.nan
    rows = rows.drop_columns(["cluster", "distance"])
    rows = rows.set_column(
        rows.column_names.index("vector"), "vector", encode_vectors(vectors_with_nan)
    )
    book = np.eye(6, dtype=np.float32)
    constants = Constants({"clusters": 6, "dimension": 6, "codebook": book})
    assert figures(rows, constants)["distortion", "unusable"] == 1 / 20
