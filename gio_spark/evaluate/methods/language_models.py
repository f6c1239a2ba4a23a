"""Cross-entropy difference (Moore and Lewis 2010) with smoothed bigram models on arrays."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.compute as pc

from gio_spark.evaluate.methods.base import method
from gio_spark.evaluate.methods.draws import keys, top
from gio_spark.evaluate.methods.shared import shared
from gio_spark.evaluate.methods.words import Words, corpus, strings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gio_spark.evaluate.dataset import EvaluationDataset

#: Strength of the backing-off: a context seen this often weighs as much as the words alone.
BACKING = 5.0
#: Words scored at a time.
_BATCH = 2_000_000


@dataclass(frozen=True, eq=False)
class BigramModel:
    """Word bigrams smoothed towards words, and words towards the uniform law.

    p(w) = (c(w) + 1) / (N + V), p(w | v) = (c(v, w) + b p(w)) / (c(v) + b) (MacKay and Peto 1995),
    V the size of the vocabulary and one more for unknown words, b = 5.

    Attributes:
        single: (V,) counts of words.
        pair: Codes of the pairs seen, ascending.
        pair_count: Counts of them.
        context: (V + 1,) counts of words as contexts; the last one is the start of a text.
        vocabulary: Words that there are, unknown ones counted once.
    """

    single: NDArray[np.int64]
    pair: NDArray[np.int64]
    pair_count: NDArray[np.int64]
    context: NDArray[np.int64]
    vocabulary: int

    @classmethod
    def fit(cls, words: Words, texts: NDArray[np.bool_], vocabulary: int) -> BigramModel:
        """Count the words of some texts.

        Args:
            words: Texts.
            texts: (texts,) which of them count.
            vocabulary: Different words.
        """
        used = texts[words.owner]
        before = _before(words, vocabulary)[used]
        code = words.code[used].astype(np.int64)
        pair, count = np.unique(before * (vocabulary + 1) + code, return_counts=True)
        return cls(
            np.bincount(code, minlength=vocabulary),
            pair,
            count.astype(np.int64),
            np.bincount(before, minlength=vocabulary + 1),
            vocabulary + 1,
        )

    def log_probability(
        self,
        before: NDArray[np.int64],
        code: NDArray[np.int64],
        own: tuple[NDArray[np.int64], ...] | None = None,
    ) -> NDArray[np.float64]:
        """Log p(word | word before), (w,), in nats.

        Args:
            before: (w,) word before, `vocabulary` at the start of a text.
            code: (w,) words.
            own: What the word's own text has added to the counts, to be left out: of the pair, of
                the context, of the word, of all words, each (w,).
        """
        at = before * self.vocabulary + code
        place = np.minimum(np.searchsorted(self.pair, at), max(0, len(self.pair) - 1))
        seen = self.pair[place] == at if len(self.pair) else np.zeros(len(at), bool)
        pair = np.where(seen, self.pair_count[place] if len(self.pair) else 0, 0)
        context, single, total = self.context[before], self.single[code], self.single.sum()
        if own is not None:
            pair, context = pair - own[0], context - own[1]
            single, total = single - own[2], total - own[3]
        unigram = (single + 1.0) / (total + self.vocabulary)
        return np.log((pair + BACKING * unigram) / (context + BACKING))


def cross_entropy(
    words: Words, model: BigramModel, counted: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Nats per word of each text, (texts,); NaN for texts without words.

    Args:
        words: Texts.
        model: The model.
        counted: (texts,) texts that the model has counted; each is scored by the model without
            its own counts, or the model would know by heart what it was fitted on.
    """
    lengths = words.lengths
    total = np.zeros(words.texts)
    vocabulary = model.vocabulary - 1
    before = _before(words, vocabulary)
    ends = np.cumsum(lengths)
    cuts = np.searchsorted(ends, np.arange(0, int(lengths.sum()), _BATCH), side="right")
    cuts = np.append(np.unique(cuts), words.texts)
    for first, last in itertools.pairwise(cuts.tolist()):
        part = slice(int(ends[first] - lengths[first]), int(ends[last - 1]))
        code = words.code[part].astype(np.int64)
        owner = words.owner[part].astype(np.int64)
        held_out = None
        if counted[first:last].any():
            mine = counted[owner].astype(np.int64)
            text = owner - first
            width = model.vocabulary
            held_out = (
                mine * _same(text, before[part] * width + code),
                mine * _same(text, before[part]),
                mine * _same(text, code),
                mine * lengths[owner],
            )
        nats = -model.log_probability(before[part], code, held_out)
        total += np.bincount(owner, nats, minlength=words.texts)
    return np.divide(total, lengths, out=np.full(words.texts, np.nan), where=lengths > 0)


def _before(words: Words, vocabulary: int) -> NDArray[np.int64]:
    """Word before each word, `vocabulary` at the start of a text."""
    before = np.empty(len(words.code), dtype=np.int64)
    before[1:] = words.code[:-1]
    starts = np.empty(len(words.code), dtype=bool)
    starts[:1] = True
    starts[1:] = words.owner[1:] != words.owner[:-1]
    before[starts] = vocabulary
    return before


def _same(text: NDArray[np.int64], code: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how often each entry's code occurs in its text."""
    order = np.lexsort((code, text))
    new = np.empty(len(order), dtype=bool)
    new[:1] = True
    new[1:] = (text[order][1:] != text[order][:-1]) | (code[order][1:] != code[order][:-1])
    group = np.cumsum(new) - 1
    out = np.empty(len(order), dtype=np.int64)
    out[order] = np.bincount(group)[group]
    return out


def cross_entropy_difference(dataset: EvaluationDataset, seed: int) -> NDArray[np.float64]:
    """Return each row's nats per word under the pool's model less those under the target's, (n,).

    Both models see about equally many words: the pool's sees a random sample, as published.
    """

    def make() -> NDArray[np.float64]:
        pool, target, vocabulary = corpus(dataset)
        drawn = np.argsort(keys(dataset, seed, "moore_lewis"), kind="stable")
        enough = np.searchsorted(np.cumsum(pool.lengths[drawn]), len(target.code)) + 1
        sample = np.zeros(dataset.rows, dtype=bool)
        sample[drawn[:enough]] = True
        everything = np.ones(target.texts, dtype=bool)
        general = BigramModel.fit(pool, sample, vocabulary)
        special = BigramModel.fit(target, everything, vocabulary)
        copies = _copies(dataset)
        return cross_entropy(pool, general, sample) - cross_entropy(pool, special, copies)

    return shared(dataset, ("cross-entropy difference", seed), make)


def _copies(dataset: EvaluationDataset) -> NDArray[np.bool_]:
    """Return which rows of the pool are texts of the target, whose counts must be held out."""
    found = pc.is_in(strings(dataset.texts), value_set=strings(dataset.target_texts))
    return np.asarray(found.to_numpy(zero_copy_only=False), dtype=bool)


@method("moore_lewis", needs=("texts", "target_texts"))
def moore_lewis(dataset: EvaluationDataset, budget: int, seed: int) -> NDArray[np.int64]:
    """Take the rows of the largest cross-entropy difference, pool's model less target's."""
    return top(cross_entropy_difference(dataset, seed), budget)
