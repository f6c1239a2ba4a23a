"""What each rule does to the divergence: quotas keep the clusters' law, the ratio what they miss.

The pool has four clusters and, inside each, a trait that clusters do not see. The target wants
other cluster shares and mostly rows with the trait.
"""

from __future__ import annotations

import numpy as np
import pytest

from gio_spark.explode.exact_thresholds import thresholds_of_arrays
from gio_spark.explode.rank_keys import (
    HASH_RANGE,
    hash_keys,
    passes_threshold,
    ratio_keys,
    share_thresholds,
)

ROWS, BUDGET = 40_000, 4_000
TARGET = np.array([0.4, 0.3, 0.2, 0.1])
TRAIT_IN_TARGET, TRAIT_IN_POOL = 0.8, 0.3


def divergence_from(target: np.ndarray, counts: np.ndarray) -> float:
    shares = (counts + 0.5) / (counts + 0.5).sum()
    return float((target * np.log(target / shares)).sum())


@pytest.fixture(scope="module")
def divergences() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    cluster = rng.choice(4, ROWS, p=[0.1, 0.2, 0.3, 0.4])
    trait = rng.random(ROWS) < TRAIT_IN_POOL
    ratio_of_cluster = np.log(TARGET / np.array([0.1, 0.2, 0.3, 0.4]))
    ratio_of_trait = np.where(
        trait,
        np.log(TRAIT_IN_TARGET / TRAIT_IN_POOL),
        np.log((1 - TRAIT_IN_TARGET) / (1 - TRAIT_IN_POOL)),
    )
    ratio = ratio_of_cluster[cluster] + ratio_of_trait
    hashes, tie = rng.integers(0, HASH_RANGE, ROWS), rng.integers(0, HASH_RANGE, ROWS)
    cluster_rows = np.bincount(cluster, minlength=4)
    take = np.rint(TARGET * BUDGET).astype(np.int64)

    def exact(keys: np.ndarray, groups: np.ndarray, take_of_group: np.ndarray) -> np.ndarray:
        thresholds = thresholds_of_arrays(groups, keys, tie, take_of_group)
        return passes_threshold(keys, tie, thresholds.threshold[groups], thresholds.tie[groups])

    share = share_thresholds(take, cluster_rows)[cluster]
    selected = {
        "hash_share": passes_threshold(
            hash_keys(hashes), tie, share, np.zeros(ROWS, dtype=np.int64)
        ),
        "exact_count": exact(hash_keys(hashes), cluster, take),
        "random": exact(hash_keys(hashes), np.zeros(ROWS, dtype=np.int64), np.array([BUDGET])),
    }
    for temperature in (0.0, 0.25, 1.0):
        keys = ratio_keys(ratio, hashes, temperature=temperature)
        selected[f"ratio T={temperature}"] = exact(keys, cluster, take)
        one_group = np.zeros(ROWS, dtype=np.int64)
        selected[f"ranking T={temperature}"] = exact(keys, one_group, np.array([BUDGET]))
    return {
        name: np.array(
            [
                divergence_from(TARGET, np.bincount(cluster[rows], minlength=4)),
                divergence_from(
                    np.array([1 - TRAIT_IN_TARGET, TRAIT_IN_TARGET]),
                    np.bincount(trait[rows].astype(int), minlength=2),
                ),
                rows.sum(),
            ]
        )
        for name, rows in selected.items()
    }


def test_all_rules_with_quotas_keep_the_clusters_law(divergences):
    for name in ("exact_count", "ratio T=0.0", "ratio T=0.25", "ratio T=1.0"):
        assert divergences[name][0] < 1e-5, name
        assert divergences[name][2] == BUDGET
    assert divergences["hash_share"][0] < 1e-3
    assert abs(divergences["hash_share"][2] - BUDGET) <= 4 * np.sqrt(BUDGET)
    assert divergences["random"][0] > 0.3


def test_a_strict_ranking_without_quotas_loses_the_clusters_law(divergences):
    assert divergences["ranking T=0.0"][0] > 100 * divergences["ratio T=0.0"][0]


def test_only_the_ratio_moves_what_clusters_do_not_see(divergences):
    for name in ("hash_share", "exact_count", "random"):
        assert divergences[name][1] > 0.3, name
    for name in ("ratio T=0.25", "ratio T=1.0"):
        assert divergences[name][1] < 0.2 * divergences["exact_count"][1], name


def test_at_temperature_one_the_traits_law_comes_nearest_to_the_targets(divergences):
    # Drawing in proportion to the ratio gives the target's law where the pool has enough of it;
    # a strict ranking overshoots.
    assert divergences["ratio T=1.0"][1] < divergences["ratio T=0.0"][1]
