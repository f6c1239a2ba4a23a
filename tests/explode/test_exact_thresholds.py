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
    merge_histograms,
    thresholds_of_arrays,
)
from gio_spark.explode.rank_keys import (
    HASH_RANGE,
    TAKE_ALL,
    TAKE_NONE,
    hash_keys,
    passes_threshold,
    ratio_keys,
)


def selected_by_sorting(cluster, keys, ties, take):
    order = np.lexsort((-ties, -keys, cluster))
    start = np.searchsorted(cluster[order], np.arange(take.size))
    rank = np.empty(cluster.size, dtype=np.int64)
    rank[order] = np.arange(cluster.size) - start[cluster[order]]
    return rank < take[cluster]


def random_rows(seed: int, kind: str):
    rng = np.random.default_rng(seed)
    row_count, cluster_count = int(rng.integers(1, 3_000)), int(rng.integers(1, 25))
    cluster = rng.integers(0, cluster_count, row_count)
    hashes = rng.integers(0, HASH_RANGE, row_count)
    keys = {
        "hash": lambda: hash_keys(hashes),
        "noisy": lambda: ratio_keys(rng.normal(size=row_count), hashes, temperature=0.25),
        "tied ratios": lambda: ratio_keys(rng.integers(0, 3, row_count), hashes, temperature=0.0),
        "tied keys": lambda: rng.integers(-2, 3, row_count),
        "one key": lambda: np.zeros(row_count, dtype=np.int64),
    }[kind]()
    take = np.minimum(
        rng.integers(0, 200, cluster_count), np.bincount(cluster, minlength=cluster_count) + 3
    )
    return cluster, keys, rng.permutation(HASH_RANGE // row_count * np.arange(row_count)), take


@given(
    seed=st.integers(0, 10_000),
    kind=st.sampled_from(["hash", "noisy", "tied ratios", "tied keys", "one key"]),
    candidates=st.sampled_from([0, 20, 200_000]),
)
@settings(max_examples=60, deadline=None)
def test_thresholds_keep_the_rows_that_a_full_sort_would(seed, kind, candidates):
    cluster, keys, ties, take = random_rows(seed, kind)
    thresholds = thresholds_of_arrays(cluster, keys, ties, take, chunk=500, candidates=candidates)
    selected = passes_threshold(keys, ties, thresholds.threshold[cluster], thresholds.tie[cluster])
    np.testing.assert_array_equal(selected, selected_by_sorting(cluster, keys, ties, take))
    np.testing.assert_array_equal(
        np.bincount(cluster[selected], minlength=take.size), thresholds.selected_rows
    )


def test_an_allocation_of_no_rows_reads_no_rows():
    def no_pass(*_):
        raise AssertionError("a pass over the rows")

    thresholds = find_thresholds([0, 0], no_pass, no_pass, rows=[5, 5])
    assert thresholds.passes == 0 and thresholds.threshold.tolist() == [TAKE_NONE] * 2


def test_a_few_passes_are_enough_even_when_nothing_may_be_fetched():
    rng = np.random.default_rng(0)
    row_count, cluster_count = 100_000, 20
    cluster = rng.integers(0, cluster_count, row_count)
    keys = ratio_keys(
        rng.integers(0, 3, row_count), rng.integers(0, HASH_RANGE, row_count), temperature=0.0
    )
    ties = rng.integers(0, HASH_RANGE, row_count)
    thresholds = thresholds_of_arrays(
        cluster, keys, ties, np.full(cluster_count, 1_000), candidates=0
    )
    assert thresholds.passes <= 6
    assert (thresholds.selected_rows == 1_000).all()


@pytest.mark.parametrize("row_counts", ["right", "too few", "none"])
@pytest.mark.parametrize("kind", ["noisy", "tied ratios", "one key"])
def test_few_rows_are_fetched_at_once_and_decided_as_by_passes(kind, row_counts):
    cluster, keys, ties, take = random_rows(11, kind)
    cluster_count, calls = take.size, []
    rows_of_cluster = np.bincount(cluster, minlength=cluster_count)

    def count(state):
        calls.append("count")
        return state.count(cluster, keys, ties)

    def fetch(state, limit):
        calls.append("fetch")
        positions, _ = state.candidates(cluster, keys, ties)
        return (
            (cluster[positions], keys[positions], ties[positions])
            if len(positions) <= limit
            else None
        )

    rows = {"right": rows_of_cluster, "too few": rows_of_cluster // 3, "none": None}[row_counts]
    limit = int(rows_of_cluster[take > 0].sum()) - (row_counts == "too few")
    thresholds = find_thresholds(take, count, fetch, rows=rows, candidates=limit)
    by_passes = thresholds_of_arrays(cluster, keys, ties, take, candidates=limit)
    np.testing.assert_array_equal(thresholds.threshold, by_passes.threshold)
    np.testing.assert_array_equal(thresholds.tie, by_passes.tie)
    np.testing.assert_array_equal(thresholds.selected_rows, by_passes.selected_rows)
    if row_counts == "right":
        assert calls == ["fetch"]
        assert thresholds.passes == 1
    else:
        assert "count" in calls


def test_a_cluster_taken_whole_or_not_at_all_needs_no_search():
    thresholds = thresholds_of_arrays([0, 0, 1, 1], [5, 6, 7, 8], [0, 0, 0, 0], [2, 0, 4])
    assert thresholds.threshold.tolist() == [TAKE_ALL, TAKE_NONE, TAKE_NONE]
    assert thresholds.selected_rows.tolist() == [2, 0, 0]


def test_the_merge_of_histograms_does_not_depend_on_how_rows_were_split():
    cluster, keys, ties, take = random_rows(5, "noisy")
    cluster_count = take.size
    state = Refinement(
        active=np.ones(cluster_count, dtype=bool),
        on_tie=np.zeros(cluster_count, dtype=bool),
        low=np.full(cluster_count, keys.min()),
        high=np.full(cluster_count, keys.max()),
        width=np.full(cluster_count, (keys.max() - keys.min()) // 16 + 1, dtype=np.uint64),
        threshold=np.zeros(cluster_count, dtype=np.int64),
    )
    at_once = state.count(cluster, keys, ties)
    slices = np.array_split(np.random.default_rng(1).permutation(keys.size), 9)
    parts = merge_histograms(state.count(cluster[c], keys[c], ties[c]) for c in slices)
    for name in Histogram.__annotations__:
        np.testing.assert_array_equal(getattr(at_once, name), getattr(parts, name))


def test_rows_that_share_key_and_tie_are_kept_together_and_reported(caplog):
    thresholds = thresholds_of_arrays(np.zeros(4), np.zeros(4), np.zeros(4), [2], candidates=0)
    assert thresholds.selected_rows.tolist() == [4]
    assert "excess=2" in caplog.text


@pytest.mark.parametrize("take", [[-1.0], [0.5], [[1.0]]])
def test_part_rows_are_refused(take):
    with pytest.raises(InputError, match="whole numbers"):
        find_thresholds(take, lambda _: merge_histograms([]), lambda *_: ([], [], []))
