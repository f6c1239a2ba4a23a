"""Figures of clusters from counted cells, against a plain loop over the rows."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest

from gio_spark.quantize.cluster_statistics import ClusterStats, _histogram, _summarize


def upper_edge(distance) -> float:
    """The largest float32 whose sign, exponent and first five bits are those of a distance."""
    if distance < 2.0**-140:
        return 0.0
    mantissa, exponent = math.frexp(float(distance))
    step = 2.0**-6
    return math.ldexp(math.floor(mantissa / step) * step + step - 2.0**-24, exponent)


@pytest.mark.parametrize("quantile", [0.5, 0.9, 0.995, 1.0])
def test_figures_are_those_of_a_loop_over_rows(quantile):
    rng = np.random.default_rng(0)
    cluster = rng.choice([0, 1, 3], 400)
    distance = (rng.gamma(1.0, size=400) * 10.0 ** rng.integers(-4, 5, 400)).astype(np.float32)
    distance[::17] = 0.0
    tokens = rng.integers(0, 50, 400)
    columns = {"cluster": cluster, "distance": distance, "tokens": tokens}
    batches = pa.table(columns).to_batches(max_chunksize=90)
    stats = _summarize(_histogram(batches), 4, quantile)
    np.testing.assert_array_equal(stats.rows, np.bincount(cluster, minlength=4))
    np.testing.assert_array_equal(stats.tokens, np.bincount(cluster, tokens, minlength=4))
    all_squares = math.fsum(distance.tolist())
    reaches = []
    for c in (0, 1, 3):
        squares = np.sort(distance[cluster == c])
        total = math.fsum(squares.tolist())
        assert stats.inertia[c] == pytest.approx(total, rel=1e-14)
        radius = math.sqrt((total + all_squares / 400) / (len(squares) + 1))
        assert stats.radius[c] == pytest.approx(radius, rel=1e-12)
        last = squares[math.ceil(quantile * len(squares)) - 1]
        assert stats.far[c] == pytest.approx(math.sqrt(upper_edge(last)), rel=1e-12)
        reaches += [math.sqrt(upper_edge(d)) / radius for d in squares]
    assert stats.far[2] == 0.0
    limit = sorted(reaches)[math.ceil(quantile * 400) - 1]
    assert stats.limit == pytest.approx(limit, rel=1e-12)


def test_distances_below_the_smallest_normal_number_are_counted_exactly():
    tiny = np.float32([1e-45, 3e-45, 1e-40, 2.0**-126, 1.5 * 2.0**-126])
    columns = {"cluster": [0] * 5, "distance": tiny, "tokens": [0] * 5}
    stats = _summarize(_histogram(pa.table(columns).to_batches()), 1, 1.0)
    assert stats.inertia[0] == math.fsum(float(d) for d in tiny)


def test_skew_is_worked_out_from_shares():
    none = np.zeros(3)
    stats = ClusterStats(np.array([2, 0, 6]), none, none, none, none, 0.0, 0.5)
    entropy = 0.25 * math.log(4) + 0.75 * math.log(4 / 3)
    expected = {
        "empty": 1.0, "largest_share": 0.75, "over_mean": 2.25,
        "effective": math.exp(entropy) / 3,
    }  # fmt: skip
    assert stats.skew() == pytest.approx(expected)
    empty = ClusterStats(np.zeros(3, int), none, none, none, none, 0.0, 0.5).skew()
    assert empty == {"empty": 3.0, "largest_share": 0.0, "over_mean": 0.0, "effective": 0.0}
