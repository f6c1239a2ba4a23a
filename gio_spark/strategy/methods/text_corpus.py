"""Corpus of a dataset: texts without nulls, and the words of pool and target in one vocabulary."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa

from gio_spark.engine.arrow import joined
from gio_spark.errors import InputError
from gio_spark.explode.text_features import text_ngrams
from gio_spark.kernels.ngrams import NgramSpec
from gio_spark.strategy.methods.shared_work import compute_once

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gio_spark.strategy.evaluation_dataset import EvaluationDataset

#: Words are hashed to 30 bits: of 100,000 words about 5 share a number with another one.
_WORD_SPEC = NgramSpec(words=1, chars=(), bits=30, limit=8_192)


class Words(NamedTuple):
    """Words of texts, in order.

    Attributes:
        code: (w,) int32 number of each word, 0 to vocabulary - 1.
        owner: (w,) int32 number of the text of each word, ascending.
        texts: Number of texts.
    """

    code: NDArray[np.int32]
    owner: NDArray[np.int32]
    texts: int

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Number of words of each text, (texts,)."""
        return np.bincount(self.owner, minlength=self.texts)


class Corpus(NamedTuple):
    """Words of pool and target in one vocabulary."""

    pool: Words
    target: Words
    vocabulary: int


def text_array(texts: pa.Array | pa.ChunkedArray | None) -> pa.Array:
    """Texts as one Arrow array of large strings; null becomes the empty string.

    Raises:
        InputError: The dataset has no texts.
    """
    if texts is None:
        raise InputError("The data has no texts, which this method reads.")
    return joined(texts).cast(pa.large_string()).fill_null("")


def corpus(dataset: EvaluationDataset) -> Corpus:
    """Words of the dataset's texts, from the first 8,192 bytes of each text.

    Raises:
        InputError: The target has no words.
    """
    return compute_once(dataset, "words", lambda: _build_corpus(dataset))


def _build_corpus(dataset: EvaluationDataset) -> Corpus:
    owner, code = text_ngrams(text_array(dataset.texts), _WORD_SPEC)
    target_owner, target_code = text_ngrams(text_array(dataset.target_texts), _WORD_SPEC)
    if not len(target_code):
        raise InputError("The target's texts have no words: is the text column right?")
    vocabulary = np.unique(np.concatenate([np.unique(code), np.unique(target_code)]))
    pool = Words(np.searchsorted(vocabulary, code).astype(np.int32), owner, dataset.rows)
    target_texts = len(dataset.target_texts or ())
    target = Words(
        np.searchsorted(vocabulary, target_code).astype(np.int32), target_owner, target_texts
    )
    return Corpus(pool, target, len(vocabulary))
