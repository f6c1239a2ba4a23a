"""Cosine thresholds and the choice among duplicates."""

from __future__ import annotations

import numpy as np

from gio_spark.kernels.cosine_threshold import cosine_at_least, representatives


def unit(x):
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def brute(rows, threshold):
    kept_rows, representative = [], []
    exact = rows.astype(np.float64) @ rows.astype(np.float64).T
    for i in range(len(rows)):
        similar_rows = [k for k in kept_rows if exact[i, k] >= threshold]
        representative.append(similar_rows[0] if similar_rows else i)
        if not similar_rows:
            kept_rows.append(i)
    return representative


def test_representatives_match_the_plain_loop_at_any_block_size():
    rng = np.random.default_rng(0)
    places = rng.standard_normal((40, 16))
    rows = unit(places[rng.integers(0, 40, 600)] + 0.1 * rng.standard_normal((600, 16)))
    expected = brute(rows, 0.985)
    assert 0 < sum(k == i for i, k in enumerate(expected)) < 600
    for block in (7, 128, 1024):
        np.testing.assert_array_equal(representatives(rows, 0.985, block=block), expected)


def test_rows_on_the_threshold_are_decided_exactly():
    a = unit(np.array([[3.0, 4.0], [1.0, 0.0]]))
    exact = a[0].astype(np.float64) @ a[1].astype(np.float64)
    assert cosine_at_least(a[:1], a[1:], exact)[0, 0]
    assert not cosine_at_least(a[:1], a[1:], np.nextafter(exact, 1))[0, 0]


def test_no_rows_have_no_representatives():
    assert len(representatives(np.empty((0, 4), np.float32), 0.9)) == 0
