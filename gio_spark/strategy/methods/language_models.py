"""Cross-entropy difference (Moore and Lewis 2010) with smoothed word bigram models."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.compute as pc

from gio_spark.strategy.methods.hash_draws import row_keys, top
from gio_spark.strategy.methods.method_registry import method
from gio_spark.strategy.methods.shared_work import compute_once
from gio_spark.strategy.methods.text_corpus import Words, corpus, text_array

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gio_spark.strategy.evaluation_dataset import EvaluationDataset

#: Backoff strength: a context with this count weighs as much as the unigram model.
BACKOFF = 5.0
#: Words scored at a time.
_BATCH = 2_000_000


@dataclass(frozen=True, eq=False)
class BigramModel:
    """Word bigram model, smoothed to unigrams, which are smoothed to the uniform distribution.

    p(w) = (c(w) + 1) / (N + V), p(w | v) = (c(v, w) + b p(w)) / (c(v) + b) (MacKay and Peto 1995),
    where V is the size of the vocabulary plus one for unknown words, and b = 5.

    Attributes:
        single: (V,) counts of words.
        pair: Codes of the counted pairs, ascending.
        pair_count: Count of each pair.
        context: (V + 1,) counts of words as contexts; the last one is the start of a text.
        vocabulary: Number of words, plus one for unknown words.
    """

    single: NDArray[np.int64]
    pair: NDArray[np.int64]
    pair_count: NDArray[np.int64]
    context: NDArray[np.int64]
    vocabulary: int

    @classmethod
    def fit(cls, words: Words, texts: NDArray[np.bool_], vocabulary: int) -> BigramModel:
        """Model of the words of some texts.

        Args:
            words: Words of all texts.
            texts: (texts,) mask of the texts to count.
            vocabulary: Number of distinct words.
        """
        is_counted = texts[words.owner]
        previous = _previous_words(words, vocabulary)[is_counted]
        code = words.code[is_counted].astype(np.int64)
        pair, count = np.unique(previous * (vocabulary + 1) + code, return_counts=True)
        return cls(
            np.bincount(code, minlength=vocabulary),
            pair,
            count.astype(np.int64),
            np.bincount(previous, minlength=vocabulary + 1),
            vocabulary + 1,
        )

    def log_probability(
        self,
        before: NDArray[np.int64],
        code: NDArray[np.int64],
        own_counts: tuple[NDArray[np.int64], ...] | None = None,
    ) -> NDArray[np.float64]:
        """Log p(word | word before), (w,), in nats.

        Args:
            before: (w,) word before, `vocabulary` at the start of a text.
            code: (w,) words.
            own_counts: Counts that the text of each word has added and that are left out: of the
                pair, the context, the word and all words, each (w,).
        """
        pair_code = before * self.vocabulary + code
        position = np.minimum(np.searchsorted(self.pair, pair_code), max(0, len(self.pair) - 1))
        is_known = (
            self.pair[position] == pair_code if len(self.pair) else np.zeros(len(pair_code), bool)
        )
        pair = np.where(is_known, self.pair_count[position] if len(self.pair) else 0, 0)
        context, single, total = self.context[before], self.single[code], self.single.sum()
        if own_counts is not None:
            pair, context = pair - own_counts[0], context - own_counts[1]
            single, total = single - own_counts[2], total - own_counts[3]
        unigram = (single + 1.0) / (total + self.vocabulary)
        return np.log((pair + BACKOFF * unigram) / (context + BACKOFF))


def cross_entropy(
    words: Words, model: BigramModel, counted: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Cross-entropy of each text in nats per word, (texts,); NaN for texts without words.

    Args:
        words: Words of the texts.
        model: Bigram model.
        counted: (texts,) mask of the texts that the model has counted; each is scored without its
            own counts, since the model would otherwise overfit it.
    """
    lengths = words.lengths
    total = np.zeros(words.texts)
    vocabulary = model.vocabulary - 1
    previous = _previous_words(words, vocabulary)
    ends = np.cumsum(lengths)
    batch_ends = np.searchsorted(ends, np.arange(0, int(lengths.sum()), _BATCH), side="right")
    batch_ends = np.append(np.unique(batch_ends), words.texts)
    for first, last in itertools.pairwise(batch_ends.tolist()):
        part = slice(int(ends[first] - lengths[first]), int(ends[last - 1]))
        code = words.code[part].astype(np.int64)
        owner = words.owner[part].astype(np.int64)
        own_counts = None
        if counted[first:last].any():
            is_counted = counted[owner].astype(np.int64)
            text = owner - first
            code_width = model.vocabulary
            own_counts = (
                is_counted * _count_in_text(text, previous[part] * code_width + code),
                is_counted * _count_in_text(text, previous[part]),
                is_counted * _count_in_text(text, code),
                is_counted * lengths[owner],
            )
        nats = -model.log_probability(previous[part], code, own_counts)
        total += np.bincount(owner, nats, minlength=words.texts)
    return np.divide(total, lengths, out=np.full(words.texts, np.nan), where=lengths > 0)


def _previous_words(words: Words, vocabulary: int) -> NDArray[np.int64]:
    """Word before each word, (w,); `vocabulary` at the start of a text."""
    previous = np.empty(len(words.code), dtype=np.int64)
    previous[1:] = words.code[:-1]
    starts = np.empty(len(words.code), dtype=bool)
    starts[:1] = True
    starts[1:] = words.owner[1:] != words.owner[:-1]
    previous[starts] = vocabulary
    return previous


def _count_in_text(text: NDArray[np.int64], code: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number of times that the code of each entry occurs in its text."""
    order = np.lexsort((code, text))
    is_first = np.empty(len(order), dtype=bool)
    is_first[:1] = True
    is_first[1:] = (text[order][1:] != text[order][:-1]) | (code[order][1:] != code[order][:-1])
    group = np.cumsum(is_first) - 1
    counts = np.empty(len(order), dtype=np.int64)
    counts[order] = np.bincount(group)[group]
    return counts


def cross_entropy_difference(dataset: EvaluationDataset, seed: int) -> NDArray[np.float64]:
    """Cross-entropy of each row under the pool model minus that under the target model, (n,).

    In nats per word. Both models count about equally many words: the pool model counts a random
    sample, as published.
    """

    def compute() -> NDArray[np.float64]:
        pool, target, vocabulary = corpus(dataset)
        order = np.argsort(row_keys(dataset, seed, "moore_lewis"), kind="stable")
        sample_texts = np.searchsorted(np.cumsum(pool.lengths[order]), len(target.code)) + 1
        sample = np.zeros(dataset.rows, dtype=bool)
        sample[order[:sample_texts]] = True
        all_texts = np.ones(target.texts, dtype=bool)
        pool_model = BigramModel.fit(pool, sample, vocabulary)
        target_model = BigramModel.fit(target, all_texts, vocabulary)
        copies = _copies(dataset)
        return cross_entropy(pool, pool_model, sample) - cross_entropy(pool, target_model, copies)

    return compute_once(dataset, ("cross-entropy difference", seed), compute)


def _copies(dataset: EvaluationDataset) -> NDArray[np.bool_]:
    """Mask of the pool rows whose text occurs in the target; their own counts are left out."""
    is_copy = pc.is_in(text_array(dataset.texts), value_set=text_array(dataset.target_texts))
    return np.asarray(is_copy.to_numpy(zero_copy_only=False), dtype=bool)


@method("moore_lewis", needs=("texts", "target_texts"))
def moore_lewis(dataset: EvaluationDataset, budget: int, seed: int) -> NDArray[np.int64]:
    """Take the rows of the largest cross-entropy difference, pool's model less target's."""
    return top(cross_entropy_difference(dataset, seed), budget)
