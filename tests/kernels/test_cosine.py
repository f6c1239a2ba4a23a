"""Cosine thresholds and the choice among duplicates."""

from __future__ import annotations

import numpy as np

from gio_spark.kernels.cosine import keepers, similar


def unit(x):
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def brute(rows, threshold):
    kept, keeper = [], []
    exact = rows.astype(np.float64) @ rows.astype(np.float64).T
    for i in range(len(rows)):
        like = [k for k in kept if exact[i, k] >= threshold]
        keeper.append(like[0] if like else i)
        if not like:
            kept.append(i)
    return keeper


def test_keepers_match_the_plain_loop_at_any_block_size():
    rng = np.random.default_rng(0)
    places = rng.standard_normal((40, 16))
    rows = unit(places[rng.integers(0, 40, 600)] + 0.1 * rng.standard_normal((600, 16)))
    expected = brute(rows, 0.985)
    assert 0 < sum(k == i for i, k in enumerate(expected)) < 600
    for block in (7, 128, 1024):
        np.testing.assert_array_equal(keepers(rows, 0.985, block=block), expected)


def test_rows_on_the_threshold_are_decided_exactly():
    a = unit(np.array([[3.0, 4.0], [1.0, 0.0]]))
    exact = a[0].astype(np.float64) @ a[1].astype(np.float64)
    assert similar(a[:1], a[1:], exact)[0, 0]
    assert not similar(a[:1], a[1:], np.nextafter(exact, 1))[0, 0]


def test_no_rows_have_no_keepers():
    assert len(keepers(np.empty((0, 4), np.float32), 0.9)) == 0
