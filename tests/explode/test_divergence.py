"""What each rule does to the divergence: quotas keep the clusters' law, the ratio what they miss.

The pool has four clusters and, inside each, a trait that clusters do not see. The target wants
other cluster shares and mostly rows with the trait.
"""

from __future__ import annotations

import numpy as np
import pytest

from gio_spark.explode.exact_thresholds import thresholds_of_arrays
from gio_spark.explode.rank_keys import HASH_RANGE, hash_keys, keep, ratio_keys, share_thresholds

ROWS, BUDGET = 40_000, 4_000
TARGET = np.array([0.4, 0.3, 0.2, 0.1])
TRAIT_IN_TARGET, TRAIT_IN_POOL = 0.8, 0.3


def divergence(law: np.ndarray, counts: np.ndarray) -> float:
    found = (counts + 0.5) / (counts + 0.5).sum()
    return float((law * np.log(law / found)).sum())


@pytest.fixture(scope="module")
def chosen() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    cluster = rng.choice(4, ROWS, p=[0.1, 0.2, 0.3, 0.4])
    trait = rng.random(ROWS) < TRAIT_IN_POOL
    of_cluster = np.log(TARGET / np.array([0.1, 0.2, 0.3, 0.4]))
    of_trait = np.where(
        trait,
        np.log(TRAIT_IN_TARGET / TRAIT_IN_POOL),
        np.log((1 - TRAIT_IN_TARGET) / (1 - TRAIT_IN_POOL)),
    )
    ratio = of_cluster[cluster] + of_trait
    h, tie = rng.integers(0, HASH_RANGE, ROWS), rng.integers(0, HASH_RANGE, ROWS)
    size = np.bincount(cluster, minlength=4)
    take = np.rint(TARGET * BUDGET).astype(np.int64)

    def exact(keys: np.ndarray, groups: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        found = thresholds_of_arrays(groups, keys, tie, wanted)
        return keep(keys, tie, found.threshold[groups], found.tie[groups])

    share = share_thresholds(take, size)[cluster]
    kept = {
        "hash_share": keep(hash_keys(h), tie, share, np.zeros(ROWS, dtype=np.int64)),
        "exact_count": exact(hash_keys(h), cluster, take),
        "random": exact(hash_keys(h), np.zeros(ROWS, dtype=np.int64), np.array([BUDGET])),
    }
    for t in (0.0, 0.25, 1.0):
        keys = ratio_keys(ratio, h, temperature=t)
        kept[f"ratio T={t}"] = exact(keys, cluster, take)
        everything = np.zeros(ROWS, dtype=np.int64)
        kept[f"ranking T={t}"] = exact(keys, everything, np.array([BUDGET]))
    return {
        name: np.array(
            [
                divergence(TARGET, np.bincount(cluster[at], minlength=4)),
                divergence(
                    np.array([1 - TRAIT_IN_TARGET, TRAIT_IN_TARGET]),
                    np.bincount(trait[at].astype(int), minlength=2),
                ),
                at.sum(),
            ]
        )
        for name, at in kept.items()
    }


def test_all_rules_with_quotas_keep_the_clusters_law(chosen):
    for name in ("exact_count", "ratio T=0.0", "ratio T=0.25", "ratio T=1.0"):
        assert chosen[name][0] < 1e-5, name
        assert chosen[name][2] == BUDGET
    assert chosen["hash_share"][0] < 1e-3
    assert abs(chosen["hash_share"][2] - BUDGET) <= 4 * np.sqrt(BUDGET)
    assert chosen["random"][0] > 0.3


def test_a_strict_ranking_without_quotas_loses_the_clusters_law(chosen):
    assert chosen["ranking T=0.0"][0] > 100 * chosen["ratio T=0.0"][0]


def test_only_the_ratio_moves_what_clusters_do_not_see(chosen):
    for name in ("hash_share", "exact_count", "random"):
        assert chosen[name][1] > 0.3, name
    for name in ("ratio T=0.25", "ratio T=1.0"):
        assert chosen[name][1] < 0.2 * chosen["exact_count"][1], name


def test_at_temperature_one_the_traits_law_comes_nearest_to_the_targets(chosen):
    # Drawing in proportion to the ratio gives the target's law where the pool has enough of it;
    # a strict ranking overshoots.
    assert chosen["ratio T=1.0"][1] < chosen["ratio T=0.0"][1]
