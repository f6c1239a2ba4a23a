"""A Bloom filter of row ids, so that a join moves about the selected rows and not the pool.

Blocked form (Putze, Sanders, Singler 2007): a hash picks one block of 64 KiB and all bits of an
id lie in it. So the filter is built block by block by a grouped map over the ids' hashes (16
bytes a row are moved, and each task holds one block), and at this block size the rate of false
positives is that of a plain filter: (1 - exp(-k n / m))^k for k bits an id, n ids and m bits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

BLOCK_BYTES = 1 << 16
BLOCK_BITS = BLOCK_BYTES * 8
_MIB = 1 << 20
_BITS_PER_ID = 12.0

UIntArray = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class BloomPlan:
    """Size of a filter.

    Attributes:
        blocks: Number of 64 KiB blocks.
        bits_per_id: Bits set for each id (k).
        rate: Expected share of other rows that pass.
    """

    blocks: int
    bits_per_id: int
    rate: float

    @property
    def size_bytes(self) -> int:
        """Memory of the filter, once per worker process."""
        return self.blocks * BLOCK_BYTES


def plan_bloom(ids: int, *, megabytes: int) -> BloomPlan:
    """Choose the size for a number of ids: 12 bits each (0.3 % pass) as long as they fit.

    Args:
        ids: Ids to hold (an estimate is enough).
        megabytes: Largest size in MiB. Beyond it the rate grows: at 64 MiB it is 0.3 % for 45M
            ids, 6 % for 90M and 37 % for 250M.
    """
    n = max(1, ids)
    wanted = math.ceil(n * _BITS_PER_ID / BLOCK_BITS)
    blocks = max(1, min(wanted, megabytes * _MIB // BLOCK_BYTES))
    per_id = blocks * BLOCK_BITS / n
    k = int(np.clip(round(per_id * math.log(2)), 1, 8))
    return BloomPlan(blocks, k, (1.0 - math.exp(-k / per_id)) ** k)


def block_of(hashes: npt.ArrayLike, blocks: int) -> npt.NDArray[np.int64]:
    """Return the block of each 53-bit hash, int64 (n,)."""
    return np.asarray(hashes, dtype=np.int64) % blocks


def _positions(hashes: npt.NDArray[np.int64], blocks: int, k: int) -> npt.NDArray[np.int64]:
    """Return the k bits inside its block of each hash, int64 (n, k)."""
    mixed = np.multiply((hashes // blocks).astype(np.uint64), np.uint64(0x9E3779B97F4A7C15))
    mixed = np.multiply(mixed ^ (mixed >> np.uint64(32)), np.uint64(0xD6E8FEB86659FD93))
    mixed = mixed ^ (mixed >> np.uint64(32))
    # Double hashing (Kirsch, Mitzenmacher 2006): k positions from two numbers, the step odd.
    first = mixed & np.uint64(BLOCK_BITS - 1)
    step = (mixed >> np.uint64(32)) | np.uint64(1)
    at: UIntArray = np.add(first[:, None], step[:, None] * np.arange(k, dtype=np.uint64))
    return np.asarray((at & np.uint64(BLOCK_BITS - 1)).astype(np.int64))


def build_block(hashes: npt.ArrayLike, plan: BloomPlan) -> bytes:
    """Return the 64 KiB of one block that holds the given hashes, all of that block."""
    bits = np.zeros(BLOCK_BITS, dtype=np.uint8)
    bits[_positions(np.asarray(hashes, dtype=np.int64), plan.blocks, plan.bits_per_id)] = 1
    return np.packbits(bits, bitorder="little").tobytes()


def build(hashes: npt.ArrayLike, plan: BloomPlan) -> npt.NDArray[np.uint8]:
    """Return the whole filter, uint8 (blocks, 65536), from hashes held in one array."""
    h = np.asarray(hashes, dtype=np.int64)
    filter_ = np.zeros((plan.blocks, BLOCK_BYTES), dtype=np.uint8)
    own = block_of(h, plan.blocks)
    for b in np.unique(own):
        filter_[b] = np.frombuffer(build_block(h[own == b], plan), dtype=np.uint8)
    return filter_


def contains(
    filter_: npt.NDArray[np.uint8], hashes: npt.ArrayLike, bits_per_id: int
) -> npt.NDArray[np.bool_]:
    """Return which hashes may be in the filter, (n,): never False for one that is."""
    h = np.asarray(hashes, dtype=np.int64)
    blocks = filter_.shape[0]
    own = block_of(h, blocks)
    at = _positions(h, blocks, bits_per_id)
    byte = filter_[own[:, None], at >> 3]
    return np.asarray(((byte >> (at & 7).astype(np.uint8)) & 1).all(axis=1))
