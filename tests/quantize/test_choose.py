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


def test_clusters_are_twice_the_root_of_the_rows_and_twenty_rows_each():
    roomy = {"memory_bytes": 1 << 40}
    for rows, clusters in ((0, 1), (19, 1), (59, 2), (1_000, 50), (1_600, 80), (1_700, 82),
                           (10_000, 200), (2**30, 65_536), (2**36, 65_536)):  # fmt: skip
        assert auto_clusters(rows, 8, **roomy) == clusters


def test_too_little_memory_for_any_cluster_still_means_one():
    assert auto_clusters(10**6, 384, memory_bytes=1) == 1


def test_memory_falls_by_fifths_of_the_clusters():
    limit = forecast(51_000, 256).worker
    # 65,536 is above the limit and 52,428 is; 41,942 is below.
    assert auto_clusters(2**34, 256, memory_bytes=limit) == 41_942


def test_memory_of_a_fit_is_the_sum_of_what_is_listed():
    mib = 1 << 20
    small = forecast(1_000, 100)
    assert small.shared == 260 * mib + 400_000
    # Sums, three score blocks, four batches of 8,192 rows, rounded rows, two messages.
    terms = [800_000, 6_144_000, 13_107_200, 19_660_800, 32 * mib]
    assert small.task == sum(terms)
    assert small.worker == small.shared + small.task
    assert small.between == 800_000
    sample = 4 * 100 * 16_000
    assert small.driver == 260 * mib + 3 * sample + 3 * 800_000 + 3 * 400_000
    assert small.together(8) == 600 * mib + small.driver + small.shared + 8 * (small.task + 800_000)
    assert forecast(1_000, 100, rows=500).driver == small.driver - 3 * (sample - 500 * 400)


def test_memory_of_two_levels_has_three_codebooks_and_fewer_scores():
    two, one = (forecast(10_000, 256, two_level=way) for way in (True, False))
    assert two.shared - one.shared == 2 * 10_000 * 256 * 4
    # Four roots of the clusters are compared instead of all.
    assert one.task - two.task == 3 * 512 * 4 * (10_000 - 400)
    assert forecast(8_193, 256) == forecast(8_193, 256, two_level=True)
    assert forecast(8_192, 256) == forecast(8_192, 256, two_level=False)
    batches = 4 * (32_768 - 8_192) * 256 * 4
    assert forecast(8_193, 256, two_level=False).task - forecast(8_192, 256).task == (
        batches + 256 * 8 + 3 * 512 * 4
    )


def test_the_curve_has_powers_of_two_to_an_eighth_of_the_sample():
    x = np.random.default_rng(0).standard_normal((70, 3)).astype(np.float32)
    assert [point["clusters"] for point in error_curve(x)] == [1, 2, 4, 8]
    assert [point["clusters"] for point in error_curve(x[:62])] == [1, 2, 4]
    assert [point["clusters"] for point in error_curve(x[:1])] == [1]
    assert error_curve(x[:1])[0]["share"] == 0.0


def test_the_error_is_that_of_the_other_half_of_the_rows():
    x = np.array([[0.0], [5.0], [2.0], [1.0], [10.0], [9.0]], np.float32)
    # Centres are means of 0, 2 and 10; errors those of 5, 1 and 9.
    one, three = error_curve(x, [3, 1, 3])
    assert one["error"] == (1 + 9 + 25) / 3
    assert one["share"] == 1.0
    assert three["error"] == (9 + 1 + 1) / 3
    assert three["share"] == (11 / 3) / (35 / 3)
