"""Choosing K."""

from __future__ import annotations

import numpy as np

from gio_spark.quantize import auto_clusters, error_curve, forecast


def test_more_rows_never_mean_fewer_clusters():
    chosen = [auto_clusters(n, 384) for n in (1, 10, 1_000, 100_000, 10**7, 10**10)]
    assert chosen == sorted(chosen)
    assert chosen[0] == 1
    assert chosen[-1] <= 65_536


def test_clusters_fit_the_memory_given():
    small = auto_clusters(10**9, 1024, memory_bytes=700 << 20)
    assert forecast(small, 1024).worker <= 700 << 20
    assert 1 < small < auto_clusters(10**9, 1024)


def test_a_worker_that_does_all_passes_is_forecast_to_hold_their_rows():
    small, large = (forecast(1_500, 256, rows=n) for n in (200_000, 10**8))
    assert small.worker - large.worker > 200_000 * 256 * 4 * 0.9
    assert large.worker == forecast(1_500, 256).worker
    # The embedded engine does such fits pass by pass, unless they are tiny.
    assert small.task == large.task


def test_error_falls_and_has_its_elbow_at_the_planted_clusters():
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((16, 10)) * 10
    x = (centres[rng.integers(0, 16, 4000)] + rng.standard_normal((4000, 10))).astype(np.float32)
    curve = error_curve(x, [1, 4, 16, 64], seed=1)
    assert error_curve(x, rows=200, seed=1) == error_curve(x[:200], seed=1)
    shares = [point["share"] for point in curve]
    assert shares == sorted(shares, reverse=True)
    assert 0.9 < shares[0] < 1.1
    assert shares[1] / shares[2] > 3 > shares[2] / shares[3]
