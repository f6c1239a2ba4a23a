"""A small language model of a selection: how well it predicts the target's own words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gio_spark.kernels.ngrams import word_grams

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


def places(ends: NDArray[np.int64], rows: NDArray[np.intp]) -> NDArray[np.int64]:
    """Return where the words of some texts stand, in order of these texts."""
    starts = np.r_[0, ends[:-1]][rows]
    lengths = ends[rows] - starts
    before = np.cumsum(lengths) - lengths
    return np.arange(lengths.sum()) + np.repeat(starts - before, lengths)


def previous_words(codes: NDArray[np.int32], ends: NDArray[np.int64]) -> NDArray[np.int64]:
    """Word before each word of all texts, or the start of a text."""
    before = np.empty(len(codes), dtype=np.int64)
    before[1:] = codes[:-1]
    starts = np.r_[0, ends[:-1]]
    before[starts[starts < ends]] = _START
    return before


@dataclass(frozen=True, eq=False)
class Pairs:
    """The pairs of words of a pool, numbered once, so that models of selections only count.

    Attributes:
        pair: (t,) int32 number of each of the pool's words with the word before it.
        first: (P,) int32 first word of each pair.
        held: (u,) int32 number of each held-out word with the one before it, -1 for none.
    """

    pair: NDArray[np.int32]
    first: NDArray[np.int32]
    held: NDArray[np.int32]

    @classmethod
    def of(
        cls,
        words: NDArray[np.integer],
        previous: NDArray[np.int64],
        held_words: NDArray[np.integer],
        held_previous: NDArray[np.int64],
    ) -> Pairs:
        """Number the pairs of a pool's words, (t,), and find those of held-out words, (u,)."""
        known, pair = np.unique(previous * CODES + words, return_inverse=True)
        wanted = held_previous * CODES + held_words
        at = np.searchsorted(known, wanted).clip(max=max(0, len(known) - 1))
        there = known[at] == wanted if len(known) else np.zeros(len(wanted), bool)
        return cls(
            pair.astype(np.int32),
            (known // CODES).astype(np.int32),
            np.where(there, at, -1).astype(np.int32),
        )


def cross_entropy(
    words: NDArray[np.integer],
    pair: NDArray[np.integer],
    pairs: Pairs,
    held_words: NDArray[np.integer],
    held_previous: NDArray[np.integer],
) -> float:
    """Nats per word of held-out texts under a model of pairs of words.

    The model interpolates pairs with single words and those with equal chances, each by as many
    counts as there are kinds (Witten and Bell 1991, method C): no parameter has to be chosen, and
    an empty selection gives log(CODES).

    Args:
        words: (t,) words of the selection.
        pair: (t,) number of each with the word before it.
        pairs: What the numbers mean, and those of the held-out words.
        held_words: (u,) held-out words, u > 0.
        held_previous: (u,) the word before each.
    """
    single = np.bincount(words, minlength=CODES).astype(np.float64)
    kinds = float(np.count_nonzero(single))
    alone = (single[held_words] + max(kinds, 1.0) / CODES) / (len(words) + max(kinds, 1.0))
    counts = np.bincount(pair, minlength=len(pairs.first))
    there = np.flatnonzero(counts)
    first = pairs.first[there]
    following = np.bincount(first, minlength=CODES + 1).astype(np.float64)
    total = np.bincount(first, weights=counts[there], minlength=CODES + 1)
    seen = np.where(pairs.held >= 0, np.append(counts, 0)[pairs.held], 0)
    open_kinds = following[held_previous]
    context = total[held_previous] + open_kinds
    known = context > 0
    paired = np.where(known, (seen + open_kinds * alone) / np.where(known, context, 1.0), alone)
    return float(-np.log(paired).mean())
