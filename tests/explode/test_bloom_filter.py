"""The Bloom filter: nothing lost, few strangers, bounded size."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gio_spark.explode.bloom_filter import (
    BLOCK_BITS,
    BloomPlan,
    block_numbers,
    build_block,
    build_filter_of_arrays,
    contains,
    plan_bloom,
)


def test_every_id_passes_and_few_others_do():
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 1 << 53, 300_000)
    members, others = hashes[:150_000], hashes[150_000:]
    plan = plan_bloom(members.size, megabytes=64)
    bloom_filter = build_filter_of_arrays(members, plan)
    assert plan.blocks > 1
    assert contains(bloom_filter, members, plan.bits_per_id).all()
    rate = contains(bloom_filter, others, plan.bits_per_id).mean()
    assert rate < 0.006
    assert abs(rate - plan.rate) < 0.002


def test_a_bounded_filter_lets_as_many_strangers_pass_as_it_says():
    rng = np.random.default_rng(1)
    hashes = rng.integers(0, 1 << 53, 3_000_000)
    plan = plan_bloom(2_900_000, megabytes=1)
    assert plan.size_bytes == 1 << 20
    bloom_filter = build_filter_of_arrays(hashes[:2_900_000], plan)
    assert contains(bloom_filter, hashes[:1_000], plan.bits_per_id).all()
    rate = contains(bloom_filter, hashes[2_900_000:], plan.bits_per_id).mean()
    assert abs(rate - plan.rate) < 0.01


def test_a_block_is_the_same_whatever_the_order_of_its_ids():
    hashes = np.random.default_rng(2).integers(0, 1 << 53, 5_000)
    plan = plan_bloom(20_000_000, megabytes=64)
    block_hashes = hashes[block_numbers(hashes, plan.blocks) == 0]
    assert build_block(block_hashes, plan) == build_block(block_hashes[::-1], plan)


def test_one_id_still_gets_a_whole_block():
    plan = plan_bloom(0, megabytes=1)
    assert plan.blocks * BLOCK_BITS == 8 * plan.size_bytes
    assert 0 <= plan.rate < 1e-6


def test_a_filter_has_twelve_bits_an_id_while_they_fit():
    # 1,000,000 ids need 12,000,000 bits: 23 blocks of 524,288.
    plan = plan_bloom(1_000_000, megabytes=64)
    assert (plan.blocks, plan.bits_per_id) == (23, 8)
    assert plan.size_bytes == 23 * 65_536
    bits = 23 * 524_288 / 1_000_000
    assert plan.rate == pytest.approx((1 - math.exp(-8 / bits)) ** 8)


@pytest.mark.parametrize(
    ("ids", "bits", "rate"), [(45e6, 8, 0.003), (9e7, 4, 0.06), (25e7, 1, 0.37)]
)
def test_beyond_its_size_a_filter_sets_fewer_bits_and_lets_more_pass(ids, bits, rate):
    plan = plan_bloom(int(ids), megabytes=64)
    assert plan.size_bytes == 64 << 20
    assert plan.bits_per_id == bits
    assert plan.rate == pytest.approx(rate, rel=0.15)


@pytest.mark.parametrize("k", [1, 8])
def test_ids_of_one_block_set_bits_all_over_it(k):
    """Positions of an id differ, and those of many ids are spread evenly."""
    plan = BloomPlan(7, k, 0.0)

    def bits_of(hashes):
        return np.unpackbits(np.frombuffer(build_block(hashes, plan), np.uint8))

    hashes = np.arange(0, 40_000 * 7, 7)
    bits = bits_of(hashes)
    share = 1 - math.exp(-k * len(hashes) / len(bits))
    for part in [*np.split(bits, 8), bits[0::2], bits[1::2]]:
        assert part.mean() == pytest.approx(share, rel=0.05)
    assert [bits_of(hashes[i : i + 1]).sum() for i in range(20)] == [k] * 20
