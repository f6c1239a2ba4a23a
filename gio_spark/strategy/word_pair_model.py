"""Model of pairs of words, or of any codes, of a selection and its cross-entropy on other texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gio_spark.kernels.ngrams import word_grams

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

# Number of codes that words are hashed to; one more code marks the start of a text.
CODES = 1 << 16
_START = CODES


def word_codes(texts: pa.Array) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Codes of the words of texts.

    Args:
        texts: n texts; null counts as empty.

    Returns:
        codes: (t,) int32 code of every word, in order of text and position.
        ends: (n,) int64 end of each text in `codes`.

    Example:
        >>> import pyarrow as pa
        >>> codes, ends = word_codes(pa.array(["a b a", None]))
        >>> bool(codes[0] == codes[2]), ends.tolist()
        (True, [3, 3])
    """
    grams, owner = word_grams(texts.to_pylist(), 1)
    ends = np.cumsum(np.bincount(owner, minlength=len(texts)))
    return (grams % np.uint64(CODES)).astype(np.int32), ends.astype(np.int64)


def word_positions(ends: NDArray[np.int64], rows: NDArray[np.intp]) -> NDArray[np.int64]:
    """Positions of the words of some texts, in order of these texts.

    Args:
        ends: (n,) end of each text.
        rows: Numbers of the texts.

    Example:
        >>> word_positions(np.array([2, 3, 5]), np.array([2, 0])).tolist()
        [3, 4, 0, 1]
    """
    starts = np.r_[0, ends[:-1]][rows]
    lengths = ends[rows] - starts
    words_before = np.cumsum(lengths) - lengths
    return np.arange(lengths.sum()) + np.repeat(starts - words_before, lengths)


def previous_words(codes: NDArray[np.int32], ends: NDArray[np.int64]) -> NDArray[np.int64]:
    """Code of the word before each word, (t,); the first word of a text follows `CODES`."""
    previous = np.empty(len(codes), dtype=np.int64)
    previous[1:] = codes[:-1]
    starts = np.r_[0, ends[:-1]]
    previous[starts[starts < ends]] = _START
    return previous


@dataclass(frozen=True, eq=False)
class WordPairs:
    """Numbered word pairs of a pool, so that a model of a selection only has to count numbers.

    Attributes:
        pair: (t,) int32 number of the pair of each pool word with the word before it.
        first: (P,) int32 first word of each pair.
        held_out: (u,) int32 number of the pair of each held-out word, -1 if the pool has none.
    """

    pair: NDArray[np.int32]
    first: NDArray[np.int32]
    held_out: NDArray[np.int32]

    @classmethod
    def from_words(
        cls,
        words: NDArray[np.integer],
        previous: NDArray[np.int64],
        held_words: NDArray[np.integer],
        held_previous: NDArray[np.int64],
    ) -> WordPairs:
        """Pairs of the words of a pool, (t,), and their numbers for held-out words, (u,)."""
        distinct, pair = np.unique(previous * CODES + words, return_inverse=True)
        held_codes = held_previous * CODES + held_words
        positions = np.searchsorted(distinct, held_codes).clip(max=max(0, len(distinct) - 1))
        is_known = (
            distinct[positions] == held_codes if len(distinct) else np.zeros(len(held_codes), bool)
        )
        return cls(
            pair.astype(np.int32),
            (distinct // CODES).astype(np.int32),
            np.where(is_known, positions, -1).astype(np.int32),
        )


def cross_entropy(
    words: NDArray[np.integer],
    pair: NDArray[np.integer],
    pairs: WordPairs,
    held_words: NDArray[np.integer],
    held_previous: NDArray[np.integer],
) -> float:
    """Cross-entropy of held-out texts under a word pair model, in nats per word.

    For the arguments and the model see `log_probabilities`.
    """
    return float(-log_probabilities(words, pair, pairs, held_words, held_previous).mean())


def log_probabilities(
    words: NDArray[np.integer],
    pair: NDArray[np.integer],
    pairs: WordPairs,
    held_words: NDArray[np.integer],
    held_previous: NDArray[np.integer],
) -> NDArray[np.float64]:
    """Log probability of each held-out word under a word pair model of a selection, (u,), in nats.

    The model interpolates pair shares with word shares, and these with the uniform distribution,
    with a weight of as many counts as there are distinct words (Witten and Bell 1991, method C).
    It has no parameter to choose, and an empty selection gives -log(CODES).

    Args:
        words: (t,) words of the selection.
        pair: (t,) number of the pair of each word with the word before it.
        pairs: Numbered pairs of the pool and of the held-out words.
        held_words: (u,) held-out words, u > 0.
        held_previous: (u,) word before each held-out word.
    """
    word_counts = np.bincount(words, minlength=CODES).astype(np.float64)
    distinct_words = float(np.count_nonzero(word_counts))
    word_probability = (word_counts[held_words] + max(distinct_words, 1.0) / CODES) / (
        len(words) + max(distinct_words, 1.0)
    )
    counts = np.bincount(pair, minlength=len(pairs.first))
    used_pairs = np.flatnonzero(counts)
    first = pairs.first[used_pairs]
    distinct_followers = np.bincount(first, minlength=CODES + 1).astype(np.float64)
    total_after = np.bincount(first, weights=counts[used_pairs], minlength=CODES + 1)
    held_counts = np.where(pairs.held_out >= 0, np.append(counts, 0)[pairs.held_out], 0)
    followers = distinct_followers[held_previous]
    context = total_after[held_previous] + followers
    has_context = context > 0
    pair_probability = np.where(
        has_context,
        (held_counts + followers * word_probability) / np.where(has_context, context, 1.0),
        word_probability,
    )
    return np.log(pair_probability)
