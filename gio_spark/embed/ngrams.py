"""n-gram embedder: hashed word and character n-grams under a fixed sparse random projection.

Every word, pair of words and sequence of three characters is hashed to 64 bits; four slices of the
hash select four coordinates and signs, which is a sparse random projection with four entries per
column (Kane & Nelson 2014, "Sparser Johnson-Lindenstrauss transforms", section 3) of the
bag of n-grams, never stored as a matrix. Then the signed square root of each coordinate reduces
the weight of repeated words, and vectors are scaled to length one.

Weights are integers, so sums, and the norms after the square root, are exact in any order: the
bits are the same on every platform and in every batch.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gio_spark.embed.embedder import ZERO_NORM, Embedder, Result, set_reason, text_column
from gio_spark.engine.arrow import bytes_of
from gio_spark.errors import ConfigError, InputError
from gio_spark.kernels.ngrams import code_point_features
from gio_spark.kernels.splitmix import mix64

_DEFAULT_DIMENSION = 256
_MAX_DIMENSION = 1 << 15  # 15 bits of a hash select a coordinate
_ENTRIES = 4
# Rows are processed in blocks that fit into the CPU cache.
_BLOCK_CHARACTERS = 1 << 17


@dataclass(frozen=True)
class NgramEmbedder(Embedder):
    """Texts as projected bags of hashed n-grams, case-insensitive."""

    name: ClassVar[str] = "ngrams"

    @property
    def revision(self) -> str:
        """Format version."""
        return "1"

    @property
    def dimension(self) -> int:
        """Dimension of the settings, 256 by default."""
        return self.settings.dimension or _DEFAULT_DIMENSION

    @property
    def normalize(self) -> bool:
        """Whether vectors are scaled to length one (the default here)."""
        return self.settings.normalize is not False

    @property
    def reads(self) -> tuple[str, ...]:
        """The text column."""
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
        space, empty = pa.scalar(" ", lower.type), pa.scalar("", lower.type)
        padded = pc.binary_join_element_wise(space, lower, space, empty)
        vectors = np.empty((len(padded), self.dimension), dtype=np.float32)
        sizes = pc.utf8_length(padded).to_numpy(zero_copy_only=False).astype(np.int64)
        for start, stop in _blocks(sizes):
            counts = ngram_sums(
                padded.slice(start, stop - start), self.dimension, self.settings.seed
            )
            vectors[start:stop] = self._scale(counts, reasons[start:stop])
        return vectors, reasons

    def _scale(self, sums: np.ndarray, reasons: np.ndarray) -> np.ndarray:
        """Signed square roots, scaled to length one if set; sets reasons of zero vectors."""
        magnitude = np.abs(sums)
        vectors = np.copysign(np.sqrt(magnitude), sums)
        if self.normalize:
            norm_squared = magnitude.sum(axis=1)
            set_reason(reasons, norm_squared == 0, ZERO_NORM)
            vectors /= np.sqrt(np.maximum(norm_squared, 1))[:, None]
        return vectors.astype(np.float32)


def _blocks(sizes: np.ndarray) -> list[tuple[int, int]]:
    """Start and end rows of blocks of about _BLOCK_CHARACTERS characters."""
    block = np.cumsum(sizes) // _BLOCK_CHARACTERS
    cuts = (np.flatnonzero(np.diff(block)) + 1).tolist()
    edges = [0, *cuts, len(sizes)] if len(sizes) else []
    return list(itertools.pairwise(edges))


def ngram_sums(texts: pa.Array, dimension: int, seed: int) -> np.ndarray:
    """Sums of the projected n-grams of each text.

    Args:
        texts: Large string array of n texts, each in lower case with a space on either side.
        dimension: Length of a row of the result.
        seed: Seed of the projection.

    Returns:
        (n, dimension) float64, integers.
    """
    data, _ = bytes_of(texts)
    points = np.frombuffer(str(data.data, "utf-8").encode("utf-32-le"), np.uint32)
    sizes = pc.utf8_length(texts).to_numpy(zero_copy_only=False).astype(np.int64)
    sums = np.zeros(len(texts) * dimension)
    for order, (hashes, rows, weight) in enumerate(code_point_features(points, sizes)):
        salt = np.uint64((seed * 16 + order + 1) * 0xD1B54A32D192ED03 & (2**64 - 1))
        mixed = mix64(hashes ^ salt)
        base = rows * dimension
        for entry in range(_ENTRIES):
            slice_ = (mixed >> np.uint64(16 * entry)).astype(np.uint16)
            coordinate = ((slice_ >> np.uint16(1)).astype(np.int64) * dimension) >> 15
            sign = weight * (1.0 - 2.0 * (slice_ & np.uint16(1)))
            sums += np.bincount(base + coordinate, weights=sign, minlength=len(sums))
    return sums.reshape(len(texts), dimension)
