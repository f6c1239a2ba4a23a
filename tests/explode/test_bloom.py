"""The Bloom filter: nothing lost, few strangers, bounded size."""

from __future__ import annotations

import numpy as np

from gio_spark.explode.bloom import (
    BLOCK_BITS,
    block_of,
    build,
    build_block,
    contains,
    plan_bloom,
)


def test_every_id_passes_and_few_others_do():
    rng = np.random.default_rng(0)
    h = rng.integers(0, 1 << 53, 300_000)
    inside, outside = h[:150_000], h[150_000:]
    plan = plan_bloom(inside.size, megabytes=64)
    filter_ = build(inside, plan)
    assert plan.blocks > 1
    assert contains(filter_, inside, plan.bits_per_id).all()
    rate = contains(filter_, outside, plan.bits_per_id).mean()
    assert rate < 0.006
    assert abs(rate - plan.rate) < 0.002


def test_a_bounded_filter_lets_as_many_strangers_pass_as_it_says():
    rng = np.random.default_rng(1)
    h = rng.integers(0, 1 << 53, 3_000_000)
    plan = plan_bloom(2_900_000, megabytes=1)
    assert plan.size_bytes == 1 << 20
    filter_ = build(h[:2_900_000], plan)
    assert contains(filter_, h[:1_000], plan.bits_per_id).all()
    rate = contains(filter_, h[2_900_000:], plan.bits_per_id).mean()
    assert abs(rate - plan.rate) < 0.01


def test_a_block_is_the_same_whatever_the_order_of_its_ids():
    h = np.random.default_rng(2).integers(0, 1 << 53, 5_000)
    plan = plan_bloom(20_000_000, megabytes=64)
    own = h[block_of(h, plan.blocks) == 0]
    assert build_block(own, plan) == build_block(own[::-1], plan)


def test_one_id_still_gets_a_whole_block():
    plan = plan_bloom(0, megabytes=1)
    assert plan.blocks * BLOCK_BITS == 8 * plan.size_bytes
    assert 0 <= plan.rate < 1e-6
