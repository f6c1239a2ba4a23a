"""Exact thresholds against a full sort, with ties of every weight."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gio_spark.errors import InputError
from gio_spark.explode.exact_thresholds import (
    Histogram,
    Refinement,
    find_thresholds,
    merge,
    thresholds_of_arrays,
)
from gio_spark.explode.rank_keys import HASH_RANGE, TAKE_ALL, TAKE_NONE, hash_keys, keep, ratio_keys


def by_sorting(cluster, keys, ties, take):
    order = np.lexsort((-ties, -keys, cluster))
    start = np.searchsorted(cluster[order], np.arange(take.size))
    rank = np.empty(cluster.size, dtype=np.int64)
    rank[order] = np.arange(cluster.size) - start[cluster[order]]
    return rank < take[cluster]


def make(seed: int, kind: str):
    rng = np.random.default_rng(seed)
    n, k = int(rng.integers(1, 3_000)), int(rng.integers(1, 25))
    cluster = rng.integers(0, k, n)
    h = rng.integers(0, HASH_RANGE, n)
    keys = {
        "hash": lambda: hash_keys(h),
        "noisy": lambda: ratio_keys(rng.normal(size=n), h, temperature=0.25),
        "tied ratios": lambda: ratio_keys(rng.integers(0, 3, n), h, temperature=0.0),
        "tied keys": lambda: rng.integers(-2, 3, n),
        "one key": lambda: np.zeros(n, dtype=np.int64),
    }[kind]()
    take = np.minimum(rng.integers(0, 200, k), np.bincount(cluster, minlength=k) + 3)
    return cluster, keys, rng.permutation(HASH_RANGE // n * np.arange(n)), take


@given(
    seed=st.integers(0, 10_000),
    kind=st.sampled_from(["hash", "noisy", "tied ratios", "tied keys", "one key"]),
    candidates=st.sampled_from([0, 20, 200_000]),
)
@settings(max_examples=60, deadline=None)
def test_thresholds_keep_the_rows_that_a_full_sort_would(seed, kind, candidates):
    cluster, keys, ties, take = make(seed, kind)
    found = thresholds_of_arrays(cluster, keys, ties, take, chunk=500, candidates=candidates)
    kept = keep(keys, ties, found.threshold[cluster], found.tie[cluster])
    np.testing.assert_array_equal(kept, by_sorting(cluster, keys, ties, take))
    np.testing.assert_array_equal(np.bincount(cluster[kept], minlength=take.size), found.kept)


def test_a_few_passes_are_enough_even_when_nothing_may_be_fetched():
    rng = np.random.default_rng(0)
    n, k = 100_000, 20
    cluster = rng.integers(0, k, n)
    keys = ratio_keys(rng.integers(0, 3, n), rng.integers(0, HASH_RANGE, n), temperature=0.0)
    ties = rng.integers(0, HASH_RANGE, n)
    found = thresholds_of_arrays(cluster, keys, ties, np.full(k, 1_000), candidates=0)
    assert found.passes <= 6
    assert (found.kept == 1_000).all()


@pytest.mark.parametrize("told", ["right", "too few", "none"])
@pytest.mark.parametrize("kind", ["noisy", "tied ratios", "one key"])
def test_few_rows_are_fetched_at_once_and_decided_as_by_passes(kind, told):
    cluster, keys, ties, take = make(11, kind)
    k, calls = take.size, []
    there = np.bincount(cluster, minlength=k)

    def count(state):
        calls.append("count")
        return state.count(cluster, keys, ties)

    def fetch(state, limit):
        calls.append("fetch")
        at, _ = state.candidates(cluster, keys, ties)
        return (cluster[at], keys[at], ties[at]) if len(at) <= limit else None

    rows = {"right": there, "too few": there // 3, "none": None}[told]
    limit = int(there[take > 0].sum()) - (told == "too few")
    found = find_thresholds(take, count, fetch, rows=rows, candidates=limit)
    by_passes = thresholds_of_arrays(cluster, keys, ties, take, candidates=limit)
    np.testing.assert_array_equal(found.threshold, by_passes.threshold)
    np.testing.assert_array_equal(found.tie, by_passes.tie)
    np.testing.assert_array_equal(found.kept, by_passes.kept)
    if told == "right":
        assert calls == ["fetch"]
        assert found.passes == 1
    else:
        assert "count" in calls


def test_a_cluster_taken_whole_or_not_at_all_needs_no_search():
    found = thresholds_of_arrays([0, 0, 1, 1], [5, 6, 7, 8], [0, 0, 0, 0], [2, 0, 4])
    assert found.threshold.tolist() == [TAKE_ALL, TAKE_NONE, TAKE_NONE]
    assert found.kept.tolist() == [2, 0, 0]


def test_the_merge_of_histograms_does_not_depend_on_how_rows_were_split():
    cluster, keys, ties, take = make(5, "noisy")
    k = take.size
    state = Refinement(
        active=np.ones(k, dtype=bool),
        on_tie=np.zeros(k, dtype=bool),
        low=np.full(k, keys.min()),
        high=np.full(k, keys.max()),
        width=np.full(k, (keys.max() - keys.min()) // 16 + 1, dtype=np.uint64),
        threshold=np.zeros(k, dtype=np.int64),
    )
    whole = state.count(cluster, keys, ties)
    cuts = np.array_split(np.random.default_rng(1).permutation(keys.size), 9)
    parts = merge(state.count(cluster[c], keys[c], ties[c]) for c in cuts)
    for name in Histogram.__annotations__:
        np.testing.assert_array_equal(getattr(whole, name), getattr(parts, name))


def test_rows_that_share_key_and_tie_are_kept_together_and_reported(caplog):
    found = thresholds_of_arrays(np.zeros(4), np.zeros(4), np.zeros(4), [2], candidates=0)
    assert found.kept.tolist() == [4]
    assert "excess=2" in caplog.text


@pytest.mark.parametrize("take", [[-1.0], [0.5], [[1.0]]])
def test_part_rows_are_refused(take):
    with pytest.raises(InputError, match="whole numbers"):
        find_thresholds(take, lambda _: merge([]), lambda *_: ([], [], []))
