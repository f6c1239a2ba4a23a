"""A small language model of a selection: how well it predicts the target's own words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gio_spark.kernels.grams import word_grams

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

# Words are hashed to so many codes; one more stands for the start of a text.
CODES = 1 << 16
_START = CODES


def word_codes(texts: pa.Array) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Hash the words of texts.

    Args:
        texts: n texts; null counts as empty.

    Returns:
        codes: (t,) code of every word, in order of text and place.
        ends: (n,) where each text ends in `codes`.
    """
    grams, owner = word_grams(texts.to_pylist(), 1)
    ends = np.cumsum(np.bincount(owner, minlength=len(texts)))
    return (grams % np.uint64(CODES)).astype(np.int32), ends.astype(np.int64)


def gather(
    codes: NDArray[np.int32], ends: NDArray[np.int64], rows: NDArray[np.intp]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return each word of some texts with the word before it (or the start of the text)."""
    starts = np.r_[0, ends[:-1]][rows]
    lengths = ends[rows] - starts
    before = np.cumsum(lengths) - lengths
    place = np.arange(lengths.sum()) - np.repeat(before, lengths)
    at = np.repeat(starts, lengths) + place
    words = codes[at].astype(np.int64)
    previous = np.where(place > 0, codes[np.maximum(at - 1, 0)], _START).astype(np.int64)
    return words, previous


def cross_entropy(
    words: NDArray[np.int64],
    previous: NDArray[np.int64],
    held_words: NDArray[np.int64],
    held_previous: NDArray[np.int64],
) -> float:
    """Return the nats per word of held-out texts under a model of pairs of words.

    The model interpolates pairs with single words and those with equal chances, each by as many
    counts as there are kinds (Witten and Bell 1991, method C): no parameter has to be chosen, and
    an empty selection gives log(CODES).

    Args:
        words: (t,) words of the selection.
        previous: (t,) the word before each.
        held_words: (h,) held-out words, h > 0.
        held_previous: (h,) the word before each.
    """
    single = np.bincount(words, minlength=CODES).astype(np.float64)
    kinds = float(np.count_nonzero(single))
    alone = (single[held_words] + max(kinds, 1.0) / CODES) / (len(words) + max(kinds, 1.0))
    pairs, counts = np.unique(previous * CODES + words, return_counts=True)
    first = pairs // CODES
    following = np.bincount(first, minlength=CODES + 1).astype(np.float64)
    total = np.bincount(first, weights=counts, minlength=CODES + 1)
    wanted = held_previous * CODES + held_words
    seen = np.zeros(len(wanted))
    if len(pairs):
        at = np.searchsorted(pairs, wanted).clip(max=len(pairs) - 1)
        seen = np.where(pairs[at] == wanted, counts[at], 0)
    open_kinds = following[held_previous]
    context = total[held_previous] + open_kinds
    known = context > 0
    paired = np.where(known, (seen + open_kinds * alone) / np.where(known, context, 1.0), alone)
    return float(-np.log(paired).mean())
