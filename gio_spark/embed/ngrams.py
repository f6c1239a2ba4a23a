"""Hashed word and character n-grams under a fixed random projection: no model, no extra.

Every word, pair of words and run of three characters is hashed to 64 bits; four slices of the
hash name four coordinates and signs, which is a sparse random projection with four entries a
column (Kane & Nelson 2014, "Sparser Johnson-Lindenstrauss transforms", section 3) of the
bag of n-grams, never stored as a matrix. Coordinates then get the signed square root (so that a
repeated word does not drown the rest) and vectors are scaled to length one.

Weights are whole numbers, so sums are exact in any order and, after the square root, so are the
norms: the bits are the same on every platform and in every batch.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gio_spark.embed.base import ZERO_NORM, Embedder, Result, set_reason, text_column
from gio_spark.errors import ConfigError, InputError

_DEFAULT_DIMENSION = 256
_MAX_DIMENSION = 1 << 15  # 15 bits of a hash name a coordinate
# Tried on 49 domains of short texts (share of the ten nearest neighbours of one's own domain, and
# mutual information of 100 clusters with the domain): these .355, .176; runs of 3 to 5 characters
# with weights 3, 2, 1 .337, .162; words and pairs alone .349, .173; heavier long words no better.
_CHARACTER_RUNS = (3,)
_WORD_WEIGHT, _PAIR_WEIGHT, _RUN_WEIGHT = 2, 1, 1
_ENTRIES = 4
# Rows are worked on in blocks that stay in the cache.
_BLOCK_CHARACTERS = 1 << 17

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
# White_Space of the Unicode standard beyond ASCII (control characters count as space as well).
_WIDE_SPACES = np.array(
    [0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000],
    dtype=np.uint32,
)
_WORD_ASCII = np.array([chr(c).isalnum() for c in range(128)])


@dataclass(frozen=True)
class NgramEmbedder(Embedder):
    """Texts as projected bags of hashed n-grams; equal for upper and lower case."""

    name: ClassVar[str] = "ngrams"

    @property
    def revision(self) -> str:
        """Return the format version."""
        return "1"

    @property
    def dimension(self) -> int:
        """Return the set dimension, 256 by default."""
        return self.settings.dimension or _DEFAULT_DIMENSION

    @property
    def normalize(self) -> bool:
        """Tell whether vectors are scaled to length one (the default here)."""
        return self.settings.normalize is not False

    @property
    def reads(self) -> tuple[str, ...]:
        """Return the text column."""
        if self.columns.text is None:
            raise InputError("Embedder 'ngrams' needs columns.text: name the text column.")
        return (self.columns.text,)

    def prepare(self) -> NgramEmbedder:
        """Check the dimension."""
        if self.dimension > _MAX_DIMENSION:
            raise ConfigError(
                f"embedder.dimension is {self.dimension}; n-grams go up to {_MAX_DIMENSION}."
            )
        return self

    def embed(self, rows: pa.Table) -> Result:
        """Embed texts."""
        texts, reasons = text_column(rows, self.reads[0])
        lower = pc.utf8_lower(texts.cast(pa.large_string()))
        space, nothing = pa.scalar(" ", lower.type), pa.scalar("", lower.type)
        padded = pc.binary_join_element_wise(space, lower, space, nothing)
        vectors = np.empty((len(padded), self.dimension), dtype=np.float32)
        sizes = pc.utf8_length(padded).to_numpy(zero_copy_only=False).astype(np.int64)
        for start, stop in _blocks(sizes):
            counts = ngram_sums(
                padded.slice(start, stop - start), self.dimension, self.settings.seed
            )
            vectors[start:stop] = self._scale(counts, reasons[start:stop])
        return vectors, reasons

    def _scale(self, sums: np.ndarray, reasons: np.ndarray) -> np.ndarray:
        size = np.abs(sums)
        vectors = np.copysign(np.sqrt(size), sums)
        if self.normalize:
            total = size.sum(axis=1)
            set_reason(reasons, total == 0, ZERO_NORM)
            vectors /= np.sqrt(np.maximum(total, 1))[:, None]
        return vectors.astype(np.float32)


def _blocks(sizes: np.ndarray) -> list[tuple[int, int]]:
    """Cut rows into blocks of about _BLOCK_CHARACTERS characters."""
    block = np.cumsum(sizes) // _BLOCK_CHARACTERS
    cuts = (np.flatnonzero(np.diff(block)) + 1).tolist()
    edges = [0, *cuts, len(sizes)] if len(sizes) else []
    return list(itertools.pairwise(edges))


def ngram_sums(texts: pa.Array, dimension: int, seed: int) -> np.ndarray:
    """Sum the projected n-grams of each text.

    Args:
        texts: Large string array of n texts, each in lower case with a space on either side.
        dimension: Length of a row of the result.
        seed: Names the projection.

    Returns:
        (n, dimension) float64 of whole numbers.
    """
    points, row, last = _code_points(texts)
    sums = np.zeros(len(texts) * dimension)
    for order, (hashes, rows, weight) in enumerate(_features(points, row, last)):
        salt = np.uint64((seed * 16 + order + 1) * 0xD1B54A32D192ED03 & (2**64 - 1))
        mixed = _mix(hashes ^ salt)
        base = rows * dimension
        for entry in range(_ENTRIES):
            part = (mixed >> np.uint64(16 * entry)).astype(np.uint16)
            place = ((part >> np.uint16(1)).astype(np.int64) * dimension) >> 15
            sign = weight * (1.0 - 2.0 * (part & np.uint16(1)))
            sums += np.bincount(base + place, weights=sign, minlength=len(sums))
    return sums.reshape(len(texts), dimension)


def _code_points(texts: pa.Array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return code points with runs of white space as one space, their row and its last index."""
    _, offsets, data = texts.buffers()
    ends = np.frombuffer(offsets, np.int64, len(texts) + 1, texts.offset * 8)
    raw = memoryview(data)[ends[0] : ends[-1]]
    points = np.frombuffer(str(raw, "utf-8").encode("utf-32-le"), np.uint32)
    sizes = pc.utf8_length(texts).to_numpy(zero_copy_only=False).astype(np.int64)
    row = np.repeat(np.arange(len(texts)), sizes)
    space = points <= 32
    wide = points >= 0x85
    if wide.any():
        space[wide] = np.isin(points[wide], _WIDE_SPACES)
    keep = np.ones(len(points), dtype=bool)
    keep[1:] = ~(space[1:] & space[:-1]) | (row[1:] != row[:-1])
    points = np.where(space, np.uint32(32), points)[keep]
    row = row[keep]
    last = np.cumsum(np.bincount(row, minlength=len(texts))) - 1
    return points, row, last[row]


def _features(
    points: np.ndarray, row: np.ndarray, last: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray, int]]:
    """Return hashes, rows and weight of words, pairs of words and runs of characters."""
    letters = points.astype(np.uint64) + np.uint64(1)
    hashes, rows = _words(points, letters, row)
    pairs = rows[1:] == rows[:-1]
    joined = (hashes[:-1] * _MULTIPLIER + hashes[1:])[pairs]
    features = [(hashes, rows, _WORD_WEIGHT), (joined, rows[1:][pairs], _PAIR_WEIGHT)]
    position = np.arange(len(points))
    run = letters
    for length in range(2, max(_CHARACTER_RUNS) + 1):
        run = run[: max(len(points) - length + 1, 0)] * _MULTIPLIER + letters[length - 1 :]
        if length in _CHARACTER_RUNS:
            inside = position[: len(run)] + (length - 1) <= last[: len(run)]
            features.append((run[inside], row[: len(run)][inside], _RUN_WEIGHT))
    return features


def _words(
    points: np.ndarray, letters: np.ndarray, row: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Hash words: runs of ASCII letters and digits and of everything else that is no space."""
    inside = np.where(points < 128, _WORD_ASCII[np.minimum(points, 127)], True)
    # A space ends every row, so no word crosses rows and the last point is never inside.
    edge = np.flatnonzero(np.diff(inside.astype(np.int8), prepend=0))
    starts, stops = edge[0::2], edge[1::2]
    if not len(starts):
        return np.empty(0, np.uint64), np.empty(0, np.int64)
    place = _place(starts, len(points))
    powers = np.cumprod(np.full(int((stops - starts).max()), _MULTIPLIER))
    terms = np.where(inside, letters, 0) * powers[np.minimum(place, len(powers) - 1)]
    return np.add.reduceat(terms, starts), row[starts]


def _place(starts: np.ndarray, size: int) -> np.ndarray:
    """Return each index's distance from the last start at or before it (0 before the first)."""
    place = np.arange(size)
    first = np.zeros(size, dtype=np.int64)
    first[starts] = starts
    return np.maximum(place - np.maximum.accumulate(first), 0)


def _mix(values: np.ndarray) -> np.ndarray:
    """Spread 64-bit values over all bits (the finaliser of splitmix64)."""
    values = (values ^ (values >> np.uint64(30))) * _MIX_1
    values = (values ^ (values >> np.uint64(27))) * _MIX_2
    return values ^ (values >> np.uint64(31))
