"""xxHash64 in plain Python, against published values of the algorithm's authors."""

from __future__ import annotations

import pytest

from gio_spark.kernels.xxhash64 import xxhash64


@pytest.mark.parametrize(
    ("data", "seed", "value"),
    [
        (b"", 0, 0xEF46DB3751D8E999),
        (b"a", 0, 0xD24EC4F1A98C6E5B),
        (b"abc", 0, 0x44BC2CF5AD770999),
        (b"Nobody inspects the spammish repetition", 0, 0xFBCEA83C8A378BF1),
    ],
)
def test_hashes_are_the_published_ones(data, seed, value):
    assert xxhash64(data, seed) == value
