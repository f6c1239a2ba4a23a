"""Rank keys: order, ranges, and agreement with the laws they stand for."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gio_spark.errors import ConfigError
from gio_spark.explode.rank_keys import (
    HASH_RANGE,
    KEY_LIMIT,
    REQUIRED_KEY,
    TAKE_ALL,
    TAKE_NONE,
    TIE_ALL,
    gumbel,
    hash_keys,
    passes_threshold,
    rank_keys,
    ratio_keys,
    share_thresholds,
)

EXTREME = np.array([0, 1, HASH_RANGE // 2 - 1, HASH_RANGE // 2, HASH_RANGE - 2, HASH_RANGE - 1])


def hashes(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, HASH_RANGE, n)


def test_gumbel_numbers_are_finite_ascending_and_standard():
    ends = gumbel(EXTREME)
    assert np.isfinite(ends).all()
    assert (np.diff(ends) > 0).all()
    sample = gumbel(hashes(200_000))
    assert abs(sample.mean() - np.euler_gamma) < 0.01
    assert abs(sample.var() - np.pi**2 / 6) < 0.03


def test_gumbel_numbers_are_minus_the_log_of_minus_the_log_of_the_hash():
    h = np.array([0, 10**12, HASH_RANGE // 3, HASH_RANGE // 2, HASH_RANGE // 5 * 4])
    expected = [-math.log(-math.log((int(x) + 0.5) / HASH_RANGE)) for x in h]
    np.testing.assert_allclose(gumbel(h), expected, rtol=1e-12)
    # At the top -log(1 - e) is e, which the form above would round away.
    np.testing.assert_allclose(gumbel([HASH_RANGE - 1])[0], 54 * math.log(2), rtol=1e-12)


def plain_key(score, h):
    return math.floor(score * 2**20) * 2**31 + (2**53 - 1 - h) // 2**22


def test_ratio_keys_are_the_score_in_fixed_point_above_hash_bits():
    h = [int(x) for x in np.concatenate([EXTREME, hashes(40)])]
    rng = np.random.default_rng(2)
    ratio, score_bias = rng.normal(0, 20, len(h)), rng.normal(0, 60, len(h))
    noise = gumbel(h)
    keys = ratio_keys(ratio, h, temperature=0.25, score_bias=score_bias)
    clipped = np.clip(ratio, -30, 30) + 0.25 * noise + np.clip(score_bias, -100, 100)
    assert keys.tolist() == [plain_key(s, x) for s, x in zip(clipped.tolist(), h, strict=True)]
    strict = ratio_keys(ratio, h, temperature=0.0).tolist()
    assert strict == [plain_key(max(-30.0, min(30.0, s)), x) for s, x in zip(ratio, h, strict=True)]


def test_pulled_draws_by_hash_put_the_smallest_hashes_first():
    h = hashes(50)
    score_bias = np.linspace(-1, 1, 50)
    for rule in ("hash_share", "exact_count"):
        keys = rank_keys(rule, h, None, temperature=9.0, score_bias=score_bias)
        reversed_hashes = 2**53 - 1 - h
        expected = [
            plain_key(s, int(x))
            for s, x in zip(gumbel(reversed_hashes) + score_bias, reversed_hashes, strict=True)
        ]
        assert keys.tolist() == expected
        assert rank_keys(rule, h, None, temperature=9.0).tolist() == reversed_hashes.tolist()


def test_stored_keys_mean_what_they_meant():
    assert (HASH_RANGE, KEY_LIMIT, REQUIRED_KEY) == (2**53, 2**62, 2**62 - 1)
    assert (TAKE_NONE, TAKE_ALL, TIE_ALL) == (2**63 - 1, -(2**63), 0)
    ratio_keys([0.0], [0], temperature=50.0)
    with pytest.raises(ConfigError):
        ratio_keys([0.0], [0], temperature=50.001)


def test_rows_on_the_threshold_are_kept_from_the_tie_on():
    keys, ties = np.array([4, 5, 5, 5, 6]), np.array([9, 1, 2, 3, 0])
    selected = passes_threshold(keys, ties, np.full(5, 5), np.full(5, 2))
    assert selected.tolist() == [False, False, True, True, True]


def test_keys_stay_inside_their_range_at_the_extremes():
    for ratio in (-np.inf, -1e9, 0.0, 1e9, np.inf, np.nan):
        for temperature in (0.0, 0.25, 50.0):
            keys = ratio_keys(np.full(EXTREME.size, ratio), EXTREME, temperature=temperature)
            assert (np.abs(keys) < KEY_LIMIT).all()
            for score_bias in (-np.inf, 1e9, np.inf, np.nan):
                pulled = ratio_keys(
                    np.full(EXTREME.size, ratio),
                    EXTREME,
                    temperature=temperature,
                    score_bias=np.full(EXTREME.size, score_bias),
                )
                assert (np.abs(pulled) < KEY_LIMIT).all()


def test_at_temperature_zero_a_larger_ratio_always_ranks_higher():
    ratio = np.sort(np.random.default_rng(1).normal(size=500)).astype(np.float32)
    ratio = ratio[np.concatenate(([True], np.diff(ratio) > 1e-5))]
    assert (np.diff(ratio_keys(ratio, hashes(ratio.size), temperature=0.0)) > 0).all()


def test_equal_ratios_are_ranked_by_hash():
    h = hashes(10_000)
    keys = ratio_keys(np.zeros(h.size), h, temperature=0.0)
    assert (np.diff(keys[np.argsort(-h)]) >= 0).all()


def test_a_missing_ratio_counts_as_the_pools_average():
    h = hashes(10)
    missing = ratio_keys(np.full(10, np.nan), h, temperature=0.25)
    np.testing.assert_array_equal(missing, ratio_keys(np.zeros(10), h, temperature=0.25))


def test_temperature_one_draws_in_proportion_to_the_ratio():
    h = hashes(200_000)
    ratio = np.where(np.arange(h.size) % 2 == 0, np.log(3.0), 0.0)
    keys = ratio_keys(ratio, h, temperature=1.0)
    top = np.argsort(-keys)[:2_000]
    assert abs((ratio[top] > 0).mean() - 0.75) < 0.03


def test_a_high_temperature_draws_at_random():
    h = hashes(100_000)
    ratio = np.where(np.arange(h.size) % 2 == 0, 1.0, 0.0)
    top = np.argsort(-ratio_keys(ratio, h, temperature=50.0))[:5_000]
    assert abs((ratio[top] > 0).mean() - 0.5) < 0.03


def test_a_hash_share_keeps_exactly_the_hashes_below_it():
    hash_array = np.concatenate([EXTREME, hashes(1_000)])
    for take, rows in ((0, 8), (1, 8), (8, 8), (3, 7), (9, 8), (0, 0)):
        threshold = share_thresholds([take], [rows])
        selected = passes_threshold(
            hash_keys(hash_array),
            hash_array,
            threshold.repeat(hash_array.size),
            np.zeros(hash_array.size, dtype=np.int64),
        )
        share = min(take / rows, 1.0) if rows else 0.0
        np.testing.assert_array_equal(selected, hash_array < round(share * HASH_RANGE))


@pytest.mark.parametrize("rule", ["exact_count", "density_ratio"])
def test_what_the_rows_taken_add_up_to_rises_with_the_weight_of_its_pull(rule):
    h, random = hashes(20_000), np.random.default_rng(4)
    value, ratio = random.normal(size=(2, h.size))
    sums = []
    for weight in (0.0, 0.5, 1.0, 2.0, 4.0, 16.0):
        keys = rank_keys(rule, h, ratio, temperature=0.25, score_bias=weight * value)
        sums.append(value[np.argsort(-keys)[:2_000]].sum())
    assert (np.diff(sums) > 0).all()
    # Nearly the best 2,000 that there are.
    assert sums[-1] > 0.98 * np.sort(value)[-2_000:].sum()


def test_a_pull_of_zero_draws_by_hash_as_before():
    h = hashes(10_000)
    drawn = rank_keys("exact_count", h, None, temperature=0.25, score_bias=np.zeros(h.size))
    assert set(np.argsort(-drawn)[:500]) == set(np.argsort(-hash_keys(h))[:500])


def test_wrong_rules_and_temperatures_are_refused():
    with pytest.raises(ConfigError, match="temperature"):
        ratio_keys(np.zeros(1), np.zeros(1), temperature=-1.0)
    with pytest.raises(ConfigError, match="best"):
        rank_keys("best", [1], None, temperature=0.0)
    with pytest.raises(ConfigError, match="log_ratio"):
        rank_keys("density_ratio", [1], None, temperature=0.0)
