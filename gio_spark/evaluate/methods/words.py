"""Texts as arrays: strings without nulls, and words as numbers in one vocabulary."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa

from gio_spark.engine.arrow import joined
from gio_spark.errors import InputError
from gio_spark.evaluate.methods.shared import shared
from gio_spark.explode.text_features import text_ngrams
from gio_spark.kernels.ngrams import NgramSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gio_spark.evaluate.dataset import EvaluationDataset

#: Words are told apart by 30 bits: of 100,000 words about 5 share a number with another.
_WORDS = NgramSpec(words=1, chars=(), bits=30, limit=8_192)


class Words(NamedTuple):
    """The words of some texts, in order.

    Attributes:
        code: (w,) int32 number of each word, 0 to vocabulary - 1.
        owner: (w,) int32 text that it belongs to, ascending.
        texts: Number of texts.
    """

    code: NDArray[np.int32]
    owner: NDArray[np.int32]
    texts: int

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(texts,) words of each text."""
        return np.bincount(self.owner, minlength=self.texts)


class Corpus(NamedTuple):
    """Words of the pool and of the target, numbered alike."""

    pool: Words
    target: Words
    vocabulary: int


def strings(texts: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Texts as one Arrow array of large strings; a missing one is empty."""
    return joined(texts).cast(pa.large_string()).fill_null("")


def corpus(dataset: EvaluationDataset) -> Corpus:
    """Words of the dataset's texts, each text's first 8,192 bytes.

    Raises:
        InputError: The target has no words.
    """
    return shared(dataset, "words", lambda: _read(dataset))


def _read(dataset: EvaluationDataset) -> Corpus:
    owner, code = text_ngrams(strings(dataset.texts), _WORDS)
    target_owner, target_code = text_ngrams(strings(dataset.target_texts), _WORDS)
    if not len(target_code):
        raise InputError("The target's texts have no words: is the text column right?")
    known = np.unique(np.concatenate([np.unique(code), np.unique(target_code)]))
    pool = Words(np.searchsorted(known, code).astype(np.int32), owner, dataset.rows)
    m = len(dataset.target_texts or ())
    target = Words(np.searchsorted(known, target_code).astype(np.int32), target_owner, m)
    return Corpus(pool, target, len(known))
