"""Rows of a labelled sample drawn as a plan would take them."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from gio_spark.pipeline.commands.proxy_scores import draw_rows


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6))
def test_clusters_give_their_shares_and_all_rows_are_distinct(seed):
    rng = np.random.default_rng(seed)
    clusters = rng.integers(0, 6, 300)
    share = rng.random(6) * (rng.random(6) < 0.8)
    share[0] = 0.9
    rows_per_cluster = np.bincount(clusters, minlength=6)
    count = int((rows_per_cluster * share).sum())
    rows = draw_rows(clusters, share, count, rng)
    assert len(set(rows.tolist())) == rows.size == count
    taken = np.bincount(clusters[rows], minlength=6)
    assert np.all(np.abs(taken - rows_per_cluster * share) < 1.5)
    assert not taken[share == 0].any()


def test_draws_differ_by_their_generator_alone():
    clusters = np.arange(200) % 5
    share = np.full(5, 0.3)
    one, same, other = (draw_rows(clusters, share, 60, np.random.default_rng(s)) for s in (1, 1, 2))
    assert np.array_equal(one, same) and not np.array_equal(one, other)
