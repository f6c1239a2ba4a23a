"""Hashes of word n-grams of many texts at once, without a loop over texts or grams."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

_WORD = re.compile(r"\w+")
_STEP = np.uint64(0x9E3779B97F4A7C15)


def word_grams(
    texts: Sequence[str | None], length: int
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.intp]]:
    """Hash every sequence of `length` words of each text.

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
    names: dict[str, int] = {}
    places = np.fromiter((names.setdefault(w, len(names)) for w in flat), np.intp, len(flat))
    codes = np.fromiter((_hash(w) for w in names), np.uint64, len(names))[places]
    ends = np.cumsum(counts)
    owner = np.repeat(np.arange(len(texts)), counts)
    left = ends[owner] - np.arange(len(flat))
    first = np.arange(len(flat)) == (ends - counts)[owner]
    # A sequence starts wherever `length` words are left, or at the start of a shorter text.
    start = np.flatnonzero((left >= length) | (first & (left < length)))
    value = np.zeros(len(start), dtype=np.uint64)
    with np.errstate(over="ignore"):
        for offset in range(length):
            inside = offset < left[start]
            at = np.minimum(start + offset, len(flat) - 1)
            value = np.where(inside, _mix(value * _STEP + codes[at]), value)
    return value, owner[start]


def gram_share(
    texts: Sequence[str | None], known: npt.NDArray[np.uint64], length: int
) -> npt.NDArray[np.float64]:
    """Return the share of each text's word sequences that are among `known`.

    Args:
        texts: Texts.
        known: (k,) sorted hashes from `word_grams`.
        length: Words per sequence.

    Returns:
        (n,) float64 from 0 to 1; 0 for texts without words.
    """
    grams, owner = word_grams(texts, length)
    total = np.bincount(owner, minlength=len(texts))
    place = np.searchsorted(known, grams).clip(max=max(len(known) - 1, 0))
    hit = known[place] == grams if len(known) else np.zeros(len(grams), dtype=bool)
    shared = np.bincount(owner[hit], minlength=len(texts))
    return np.divide(shared, total, out=np.zeros(len(texts)), where=total > 0)


def _hash(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")


def _mix(value: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Stir the bits (splitmix64's finaliser), so that sums of like words do not collide."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
