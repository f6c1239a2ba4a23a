"""Hashed n-grams of many texts at once, by three tokenizers that stored models depend on.

- Bytes (`byte_ngrams`), for the density ratio: words are runs of ASCII letters and digits, folded
  to lower case, and of bytes above 127 (UTF-8 letters of other scripts); character runs are runs of
  the raw bytes, punctuation and case included, so that spelling and formatting show.
- Code points (`code_point_features`), for the n-gram embedder: words are runs of ASCII letters and
  digits and of everything else that is no space; character runs include spaces.
- Unicode words (`word_grams`), for held-out sets: runs of letters and digits in lower case.

The hashes of each are part of what workspaces store, so none is changed.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gio_spark.kernels.splitmix import mix64

UIntArray = npt.NDArray[np.uint64]

_STEP = np.uint64(0x9E3779B97F4A7C15)

# ---- bytes -------------------------------------------------------------------------------------
#
# The bytes of all texts lie in one buffer. With a polynomial prefix hash (Karp and Rabin 1987) in
# 64-bit arithmetic, `H[i] = sum over j < i of code(byte_j) * B^j`, the hash of any run of bytes is
# `(H[end] - H[start]) * B^-start`, so all words and all runs are hashed by a handful of array
# operations. These leave Python's interpreter lock, which the embedded engine shares between its
# workers; a tokenizer in Python would not.

_BASE = 0x9E3779B97F4A7C15 | 1
_MASK = (1 << 64) - 1
_INVERSE = pow(_BASE, -1, 1 << 64)
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class NgramSpec:
    """Lengths of the n-grams of a text and the number of hashed features.

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
    random = mix64(np.arange(1, 257, dtype=np.uint64))
    return lower | upper | digit | (codes >= 128), random, random[folded]


_IS_WORD, _RAW, _FOLDED = _tables()


class _Powers:
    """Powers of the base and of its inverse modulo 2^64, computed once and extended on demand."""

    def __init__(self) -> None:
        self._pair: tuple[UIntArray, UIntArray] = (
            np.ones(1, dtype=np.uint64),
            np.ones(1, dtype=np.uint64),
        )

    def upto(self, n: int) -> tuple[UIntArray, UIntArray]:
        powers = self._pair
        if powers[0].size < n:
            size = max(n, 2 * powers[0].size, CHUNK_BYTES + 1)
            powers = tuple(_powers(b, size) for b in (_BASE, _INVERSE))  # type: ignore[assignment]
            self._pair = powers  # one assignment: threads see the old pair or the new one
        return powers


def _powers(base: int, size: int) -> UIntArray:
    steps = np.full(size, base & _MASK, dtype=np.uint64)
    steps[0] = 1
    return np.cumprod(steps)


_POWERS = _Powers()


def chunks(offsets: npt.NDArray[np.int64], size: int = CHUNK_BYTES) -> list[tuple[int, int]]:
    """Ranges (first, last) of texts with about `size` bytes, each of at least one text."""
    cuts = [0]
    n = offsets.size - 1
    while cuts[-1] < n:
        end = int(np.searchsorted(offsets, offsets[cuts[-1]] + size, side="right")) - 1
        cuts.append(min(n, max(end, cuts[-1] + 1)))
    return list(itertools.pairwise(cuts))


def byte_ngrams(
    data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64], spec: NgramSpec
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Hashed n-grams of a batch of texts as (row, feature) pairs.

    Args:
        data: Bytes of all texts, one after the other.
        offsets: (n + 1,) start of each of n texts, and the end of the last one.
        spec: Lengths of the n-grams and number of features.

    Returns:
        row: int32 (m,), feature: int32 (m,); an n-gram that occurs twice is listed twice. The
        pairs of a row do not depend on the other rows.
    """
    rows: list[npt.NDArray[np.int32]] = []
    features: list[npt.NDArray[np.int32]] = []
    for first, last in chunks(offsets):
        part, part_offsets = cut_texts(data, offsets[first : last + 1], spec.limit)
        for row, feature in _byte_features(part, part_offsets, spec):
            rows.append((row + first).astype(np.int32))
            features.append((feature & np.uint64(spec.features - 1)).astype(np.int32))
    if not rows:
        return np.empty(0, dtype=np.int32), np.empty(0, dtype=np.int32)
    return np.concatenate(rows), np.concatenate(features)


def cut_texts(
    data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64], limit: int
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Bytes and offsets of consecutive texts, each text cut at `limit` bytes."""
    lengths = np.diff(offsets)
    part = data[offsets[0] : offsets[-1]]
    if lengths.max(initial=0) <= limit:
        return part, offsets - offsets[0]
    inside = np.arange(part.size) - np.repeat(offsets[:-1] - offsets[0], lengths)
    cut_offsets = np.concatenate(([0], np.cumsum(np.minimum(lengths, limit))))
    return part[inside < limit], cut_offsets


def _byte_features(
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
        word = mix64((prefix[ends] - prefix[starts]) * inverse[starts])
        row = row_of_byte[starts]
        run = word
        for n_words in range(1, spec.words + 1):
            if n_words > 1:
                run = mix64(run[:-1] * np.uint64(_BASE) + word[n_words - 1 :])
                same_text = row[: run.size] == row[n_words - 1 :]
                out.append((row[: run.size][same_text], mix64(run[same_text] + np.uint64(n_words))))
            else:
                out.append((row, mix64(run + np.uint64(n_words))))
    if spec.chars:
        prefix = _prefix(_RAW[data], power)
        for length in spec.chars:
            if size < length:
                continue
            gram_starts = np.flatnonzero(
                row_of_byte[: size - length + 1] == row_of_byte[length - 1 :]
            )
            gram = (prefix[gram_starts + length] - prefix[gram_starts]) * inverse[gram_starts]
            out.append((row_of_byte[gram_starts], mix64(gram + np.uint64(1000 + length))))
    return out


def _prefix(codes: UIntArray, power: UIntArray) -> UIntArray:
    prefix = np.zeros(codes.size + 1, dtype=np.uint64)
    np.cumsum(codes * power[: codes.size], out=prefix[1:])
    return prefix


def _word_bounds(
    data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Starts and ends (exclusive) of the words; no word runs across two texts."""
    inside = _IS_WORD[data]
    first = np.zeros(data.size + 1, dtype=bool)
    first[offsets] = True
    before = np.concatenate(([False], inside[:-1])) & ~first[:-1]
    after = np.concatenate((inside[1:], [False])) & ~first[1:]
    return np.flatnonzero(inside & ~before), np.flatnonzero(inside & ~after) + 1


# ---- code points -------------------------------------------------------------------------------

# Tried on 49 domains of short texts (share of the ten nearest neighbors of one's own domain, and
# mutual information of 100 clusters with the domain): these .355, .176; runs of 3 to 5 characters
# with weights 3, 2, 1 .337, .162; words and pairs alone .349, .173; heavier long words no better.
_CHARACTER_RUNS = (3,)
_WORD_WEIGHT, _PAIR_WEIGHT, _RUN_WEIGHT = 2, 1, 1
# White_Space of the Unicode standard beyond ASCII (control characters count as space as well).
_WIDE_SPACES = np.array(
    [0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000],
    dtype=np.uint32,
)
_WORD_ASCII = np.array([chr(c).isalnum() for c in range(128)])


def code_point_features(
    points: npt.NDArray[np.uint32], sizes: npt.NDArray[np.int64]
) -> list[tuple[UIntArray, npt.NDArray[np.int64], int]]:
    """Hashes of the words, pairs of words and runs of three characters of texts.

    Args:
        points: Code points of all texts, each in lower case with a space on either side.
        sizes: (n,) code points of each text.

    Returns:
        For each kind: hashes, the text that each belongs to, and the weight of the kind.
    """
    row = np.repeat(np.arange(len(sizes)), sizes)
    space = points <= 32
    wide = points >= 0x85
    if wide.any():
        space[wide] = np.isin(points[wide], _WIDE_SPACES)
    # Runs of white space count as one space.
    keep = np.ones(len(points), dtype=bool)
    keep[1:] = ~(space[1:] & space[:-1]) | (row[1:] != row[:-1])
    points = np.where(space, np.uint32(32), points)[keep]
    row = row[keep]
    last = (np.cumsum(np.bincount(row, minlength=len(sizes))) - 1)[row]
    letters = points.astype(np.uint64) + np.uint64(1)
    hashes, rows = _point_words(points, letters, row)
    pairs = rows[1:] == rows[:-1]
    joined = (hashes[:-1] * _STEP + hashes[1:])[pairs]
    features = [(hashes, rows, _WORD_WEIGHT), (joined, rows[1:][pairs], _PAIR_WEIGHT)]
    position = np.arange(len(points))
    run = letters
    for length in range(2, max(_CHARACTER_RUNS) + 1):
        run = run[: max(len(points) - length + 1, 0)] * _STEP + letters[length - 1 :]
        if length in _CHARACTER_RUNS:
            inside = position[: len(run)] + (length - 1) <= last[: len(run)]
            features.append((run[inside], row[: len(run)][inside], _RUN_WEIGHT))
    return features


def _point_words(
    points: npt.NDArray[np.uint32], letters: UIntArray, row: npt.NDArray[np.int64]
) -> tuple[UIntArray, npt.NDArray[np.int64]]:
    """Hash words: runs of ASCII letters and digits and of everything else that is no space."""
    inside = np.where(points < 128, _WORD_ASCII[np.minimum(points, 127)], True)
    # A space ends every row, so no word crosses rows and the last point is never inside.
    edge = np.flatnonzero(np.diff(inside.astype(np.int8), prepend=0))
    starts, stops = edge[0::2], edge[1::2]
    if not len(starts):
        return np.empty(0, np.uint64), np.empty(0, np.int64)
    place = _place(starts, len(points))
    powers = np.cumprod(np.full(int((stops - starts).max()), _STEP))
    terms = np.where(inside, letters, 0) * powers[np.minimum(place, len(powers) - 1)]
    return np.add.reduceat(terms, starts), row[starts]


def _place(starts: npt.NDArray[np.int64], size: int) -> npt.NDArray[np.int64]:
    """Distance of each index from the last start at or before it (0 before the first start)."""
    place = np.arange(size)
    first = np.zeros(size, dtype=np.int64)
    first[starts] = starts
    return np.maximum(place - np.maximum.accumulate(first), 0)


# ---- Unicode words -----------------------------------------------------------------------------

_WORD = re.compile(r"\w+")


def word_grams(
    texts: Sequence[str | None], length: int
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.intp]]:
    """Hashes of every sequence of `length` words of each text.

    Words are runs of letters and digits in lower case. A text of fewer words is one sequence of
    all its words; a text of none gives none.

    Args:
        texts: Texts; None counts as empty.
        length: Words per sequence.

    Returns:
        grams: (m,) uint64 hashes, in order of text and place.
        owner: (m,) index of the text that each belongs to.
    """
    words = [_WORD.findall(text.lower()) if text else [] for text in texts]
    counts = np.array([len(w) for w in words], dtype=np.intp)
    flat = [word for line in words for word in line]
    if not flat:
        return np.empty(0, dtype=np.uint64), np.empty(0, dtype=np.intp)
    word_codes: dict[str, int] = {}
    word_index = np.fromiter(
        (word_codes.setdefault(w, len(word_codes)) for w in flat), np.intp, len(flat)
    )
    codes = np.fromiter((_hash(w) for w in word_codes), np.uint64, len(word_codes))[word_index]
    return code_sequences(codes, counts, length)


def code_sequences(
    codes: npt.NDArray[np.uint64], counts: npt.NDArray[np.integer], length: int
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.intp]]:
    """Hashes of every sequence of `length` words of each text, from the codes of the words.

    Args:
        codes: (t,) codes of the words of all texts, in order.
        counts: (n,) words of each text.
        length: Words per sequence; a text of fewer words is one sequence of all its words.

    Returns:
        (m,) hashes and (m,) index of the text that each belongs to, as of `word_grams`.
    """
    ends = np.cumsum(counts)
    owner = np.repeat(np.arange(len(counts)), counts)
    words_left = ends[owner] - np.arange(len(codes))
    first = np.arange(len(codes)) == (ends - counts)[owner]
    # A sequence starts wherever `length` words are left, or at the start of a shorter text.
    start = np.flatnonzero((words_left >= length) | (first & (words_left < length)))
    hashes = np.zeros(len(start), dtype=np.uint64)
    with np.errstate(over="ignore"):
        for offset in range(length):
            inside = offset < words_left[start]
            position = np.minimum(start + offset, len(codes) - 1)
            hashes = np.where(inside, mix64(hashes * _STEP + codes[position]), hashes)
    return hashes, owner[start]


def gram_share(
    texts: Sequence[str | None], known_hashes: npt.NDArray[np.uint64], length: int
) -> npt.NDArray[np.float64]:
    """Share of each text's word sequences that are among the known ones.

    Args:
        texts: Texts.
        known_hashes: (k,) sorted hashes from `word_grams`.
        length: Words per sequence.

    Returns:
        (n,) float64 from 0 to 1; 0 for texts without words.
    """
    return known_share(*word_grams(texts, length), known_hashes, len(texts))


def known_share(
    grams: npt.NDArray[np.uint64],
    owner: npt.NDArray[np.intp],
    known_hashes: npt.NDArray[np.uint64],
    texts: int,
) -> npt.NDArray[np.float64]:
    """Share of the sequences of each of `texts` texts that are among the known, sorted ones."""
    total = np.bincount(owner, minlength=texts)
    position = np.searchsorted(known_hashes, grams).clip(max=max(len(known_hashes) - 1, 0))
    is_known = (
        known_hashes[position] == grams if len(known_hashes) else np.zeros(len(grams), dtype=bool)
    )
    shared = np.bincount(owner[is_known], minlength=texts)
    return np.divide(shared, total, out=np.zeros(texts), where=total > 0)


def _hash(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")
