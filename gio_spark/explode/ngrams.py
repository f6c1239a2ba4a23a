"""Hashed word and character n-grams of a batch of texts, without a loop over rows or words.

The bytes of all texts lie in one buffer. With a polynomial prefix hash (Karp and Rabin 1987) in
64-bit arithmetic, `H[i] = sum over j < i of code(byte_j) * B^j`, the hash of any run of bytes is
`(H[end] - H[start]) * B^-start`, so all words and all runs are hashed by a handful of array
operations. These leave Python's interpreter lock, which the embedded engine shares between its
workers; a tokeniser in Python would not.

Words are runs of ASCII letters and digits (folded to lower case) and of bytes above 127 (UTF-8
letters of other scripts). Character runs are runs of the raw bytes, punctuation and case
included, so that spelling and formatting show.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gio_spark.engine.arrow import joined

_BASE = 0x9E3779B97F4A7C15 | 1
_MASK = (1 << 64) - 1
_INVERSE = pow(_BASE, -1, 1 << 64)
CHUNK_BYTES = 1 << 20

UIntArray = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class NgramSpec:
    """Which n-grams are made.

    Attributes:
        words: Longest run of words (0: none).
        chars: Lengths of the character runs, in bytes.
        bits: Features are numbered 0 .. 2^bits - 1.
        limit: Bytes at the start of a text that are read.
    """

    words: int = 1
    chars: tuple[int, ...] = (2, 3)
    bits: int = 18
    limit: int = 8_192

    @property
    def features(self) -> int:
        """Number of features."""
        return 1 << self.bits


def _tables() -> tuple[npt.NDArray[np.bool_], UIntArray, UIntArray]:
    codes = np.arange(256)
    lower = (codes >= ord("a")) & (codes <= ord("z"))
    upper = (codes >= ord("A")) & (codes <= ord("Z"))
    digit = (codes >= ord("0")) & (codes <= ord("9"))
    folded = np.where(upper, codes + 32, codes)
    random = _mix(np.arange(1, 257, dtype=np.uint64))
    return lower | upper | digit | (codes >= 128), random, random[folded]


def _mix(x: UIntArray) -> UIntArray:
    """Return well mixed 64-bit numbers (the finaliser of SplitMix64, Steele et al. 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(x ^ (x >> np.uint64(31)))


_IS_WORD, _RAW, _FOLDED = _tables()


class _Powers:
    """Powers of the base and of its inverse modulo 2^64, made once and grown when needed."""

    def __init__(self) -> None:
        self._made: tuple[UIntArray, UIntArray] = (
            np.ones(1, dtype=np.uint64),
            np.ones(1, dtype=np.uint64),
        )

    def upto(self, n: int) -> tuple[UIntArray, UIntArray]:
        made = self._made
        if made[0].size < n:
            size = max(n, 2 * made[0].size, CHUNK_BYTES + 1)
            made = tuple(_powers(b, size) for b in (_BASE, _INVERSE))  # type: ignore[assignment]
            self._made = made  # one assignment: threads see the old pair or the new one
        return made


def _powers(base: int, size: int) -> UIntArray:
    steps = np.full(size, base & _MASK, dtype=np.uint64)
    steps[0] = 1
    return np.cumprod(steps)


_POWERS = _Powers()


def text_bytes(texts: pa.Array) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Return the bytes of an Arrow string array and its offsets (n + 1); nulls are empty."""
    texts = joined(texts)
    if not (pa.types.is_string(texts.type) or pa.types.is_large_string(texts.type)):
        texts = texts.cast(pa.large_string())
    if texts.null_count:
        texts = texts.fill_null("")
    width = np.int64 if pa.types.is_large_string(texts.type) else np.int32
    _, offsets_buffer, data_buffer = texts.buffers()
    n = len(texts)
    if n == 0 or data_buffer is None:
        return np.empty(0, dtype=np.uint8), np.zeros(n + 1, dtype=np.int64)
    offsets = np.frombuffer(offsets_buffer, dtype=width)[texts.offset : texts.offset + n + 1]
    start = int(offsets[0])
    data = np.frombuffer(data_buffer, dtype=np.uint8)[start : int(offsets[-1])]
    return data, offsets.astype(np.int64) - start


def chunks(offsets: npt.NDArray[np.int64], size: int = CHUNK_BYTES) -> list[tuple[int, int]]:
    """Cut texts into runs (first, last) of about `size` bytes, each of at least one text."""
    cuts = [0]
    n = offsets.size - 1
    while cuts[-1] < n:
        end = int(np.searchsorted(offsets, offsets[cuts[-1]] + size, side="right")) - 1
        cuts.append(min(n, max(end, cuts[-1] + 1)))
    return list(itertools.pairwise(cuts))


def ngrams(texts: pa.Array, spec: NgramSpec) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Return the n-grams of a batch of texts as (row, feature) pairs.

    Args:
        texts: Arrow string array of n texts; nulls count as empty.
        spec: Which n-grams.

    Returns:
        row: int32 (m,), feature: int32 (m,); an n-gram that occurs twice is listed twice. The
        pairs of a row do not depend on the other rows.
    """
    data, offsets = text_bytes(texts)
    rows: list[npt.NDArray[np.int32]] = []
    found: list[npt.NDArray[np.int32]] = []
    for first, last in chunks(offsets):
        part, own = _cut(data, offsets[first : last + 1], spec.limit)
        for row, feature in _features(part, own, spec):
            rows.append((row + first).astype(np.int32))
            found.append((feature & np.uint64(spec.features - 1)).astype(np.int32))
    if not rows:
        return np.empty(0, dtype=np.int32), np.empty(0, dtype=np.int32)
    return np.concatenate(rows), np.concatenate(found)


def _cut(
    data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64], limit: int
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Return the bytes and offsets of a run of texts, each text cut at `limit` bytes."""
    lengths = np.diff(offsets)
    part = data[offsets[0] : offsets[-1]]
    if lengths.max(initial=0) <= limit:
        return part, offsets - offsets[0]
    inside = np.arange(part.size) - np.repeat(offsets[:-1] - offsets[0], lengths)
    kept = np.concatenate(([0], np.cumsum(np.minimum(lengths, limit))))
    return part[inside < limit], kept


def _features(
    data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64], spec: NgramSpec
) -> list[tuple[npt.NDArray[np.int64], UIntArray]]:
    n, size = offsets.size - 1, data.size
    if size == 0:
        return []
    power, inverse = _POWERS.upto(size + 1)
    row_of_byte = np.repeat(np.arange(n), np.diff(offsets))
    out: list[tuple[npt.NDArray[np.int64], UIntArray]] = []
    if spec.words:
        starts, ends = _word_bounds(data, offsets)
        prefix = _prefix(_FOLDED[data], power)
        word = _mix((prefix[ends] - prefix[starts]) * inverse[starts])
        row = row_of_byte[starts]
        run = word
        for n_words in range(1, spec.words + 1):
            if n_words > 1:
                run = _mix(run[:-1] * np.uint64(_BASE) + word[n_words - 1 :])
                same = row[: run.size] == row[n_words - 1 :]
                out.append((row[: run.size][same], _mix(run[same] + np.uint64(n_words))))
            else:
                out.append((row, _mix(run + np.uint64(n_words))))
    if spec.chars:
        prefix = _prefix(_RAW[data], power)
        for length in spec.chars:
            if size < length:
                continue
            whole = np.flatnonzero(row_of_byte[: size - length + 1] == row_of_byte[length - 1 :])
            gram = (prefix[whole + length] - prefix[whole]) * inverse[whole]
            out.append((row_of_byte[whole], _mix(gram + np.uint64(1000 + length))))
    return out


def _prefix(codes: UIntArray, power: UIntArray) -> UIntArray:
    prefix = np.zeros(codes.size + 1, dtype=np.uint64)
    np.cumsum(codes * power[: codes.size], out=prefix[1:])
    return prefix


def _word_bounds(
    data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return where words start and end (exclusive); no word runs across two texts."""
    inside = _IS_WORD[data]
    first = np.zeros(data.size + 1, dtype=bool)
    first[offsets] = True
    before = np.concatenate(([False], inside[:-1])) & ~first[:-1]
    after = np.concatenate((inside[1:], [False])) & ~first[1:]
    return np.flatnonzero(inside & ~before), np.flatnonzero(inside & ~after) + 1
