"""Hash xxHash64 of texts in plain Python, with the same bits as the engines' `xxhash64`."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

_MASK = (1 << 64) - 1
_P1, _P2, _P3 = 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9
_P4, _P5 = 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5
_ENGINE_SEED = 42
_DROPPED_BITS = 11


def hash53_of_texts(texts: Sequence[str], salts: Sequence[str]) -> npt.NDArray[np.int64]:
    """Hashes in [0, 2^53) of texts under several salts, as `engine.hash53` computes them.

    Args:
        texts: n texts.
        salts: m salts.

    Returns:
        int64 (m, n).

    Example:
        >>> hash53_of_texts(["p00001"], ["gio.explode.rank:0"]).shape
        (1, 1)
    """
    seeds = [xxhash64(text.encode(), _ENGINE_SEED) for text in texts]
    hashes = [[xxhash64(salt.encode(), seed) >> _DROPPED_BITS for seed in seeds] for salt in salts]
    return np.array(hashes, dtype=np.int64).reshape(len(salts), len(texts))


def xxhash64(data: bytes, seed: int) -> int:
    """xxHash64 of bytes, an unsigned number of 64 bits.

    Example:
        >>> hex(xxhash64(b"", 0))
        '0xef46db3751d8e999'
    """
    length, start = len(data), 0
    if length >= 32:
        start = length // 32 * 32
        lanes = [(seed + _P1 + _P2) & _MASK, (seed + _P2) & _MASK, seed, (seed - _P1) & _MASK]
        for words in struct.iter_unpack("<4Q", data[:start]):
            lanes = [_round(lane, word) for lane, word in zip(lanes, words, strict=True)]
        value = sum(_rotate(lane, by) for lane, by in zip(lanes, (1, 7, 12, 18), strict=True))
        for lane in lanes:
            value = ((value ^ _round(0, lane)) * _P1 + _P4) & _MASK
    else:
        value = seed + _P5
    value = (value + length) & _MASK
    while start + 8 <= length:
        (word,) = struct.unpack_from("<Q", data, start)
        value = (_rotate(value ^ _round(0, word), 27) * _P1 + _P4) & _MASK
        start += 8
    if start + 4 <= length:
        (word,) = struct.unpack_from("<I", data, start)
        value = (_rotate(value ^ (word * _P1 & _MASK), 23) * _P2 + _P3) & _MASK
        start += 4
    for byte in data[start:]:
        value = _rotate(value ^ (byte * _P5 & _MASK), 11) * _P1 & _MASK
    value = (value ^ (value >> 33)) * _P2 & _MASK
    value = (value ^ (value >> 29)) * _P3 & _MASK
    return value ^ (value >> 32)


def _rotate(value: int, by: int) -> int:
    return ((value << by) | (value >> (64 - by))) & _MASK


def _round(lane: int, word: int) -> int:
    return _rotate((lane + word * _P2) & _MASK, 31) * _P1 & _MASK
