"""Texts as codes of words and of bytes, for language models of selections and for near copies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gio_spark.engine.arrow import text_bytes as utf8_bytes
from gio_spark.explode.text_features import text_ngrams
from gio_spark.kernels.ngrams import NgramSpec, cut_texts
from gio_spark.strategy.methods.text_corpus import text_array
from gio_spark.strategy.word_pair_model import CODES, previous_words

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

#: Bytes at the start of each text that are read.
TEXT_BYTES = 1_024


@dataclass(frozen=True, eq=False)
class TextCodes:
    """Codes of the words, or bytes, of n texts with the context that each is predicted from.

    Attributes:
        code: (t,) int32 codes below `CODES`.
        previous: (t,) int64 code of the context; `CODES` at the start of a text.
        ends: (n,) int64 end of each text in `code`.
    """

    code: NDArray[np.int32]
    previous: NDArray[np.int64]
    ends: NDArray[np.int64]

    @property
    def counts(self) -> NDArray[np.int64]:
        """Number of codes of each text, (n,)."""
        return np.diff(self.ends, prepend=0)


def word_codes_of(
    texts: pa.Array | pa.ChunkedArray | None, text_bytes: int = TEXT_BYTES
) -> TextCodes:
    """Words of texts, each with the word before it as context.

    Args:
        texts: Texts, UTF-8.
        text_bytes: Bytes at the start of each text that are read.
    """
    array = text_array(texts)
    words = NgramSpec(words=1, chars=(), bits=CODES.bit_length() - 1, limit=text_bytes)
    owner, code = text_ngrams(array, words)
    ends = np.cumsum(np.bincount(owner, minlength=len(array))).astype(np.int64)
    return TextCodes(code, previous_words(code, ends), ends)


def byte_codes_of(
    texts: pa.Array | pa.ChunkedArray | None, text_bytes: int = TEXT_BYTES
) -> TextCodes:
    """Bytes of texts, each with the two bytes before it as context.

    Args:
        texts: Texts, UTF-8.
        text_bytes: Bytes at the start of each text that are read.

    Example:
        >>> import pyarrow as pa
        >>> codes = byte_codes_of(pa.array(["abc"]))
        >>> codes.previous.tolist() == [CODES, ord("a") * 256, ord("b") * 256 + ord("a")]
        True
    """
    data, offsets = cut_texts(*utf8_bytes(text_array(texts)), text_bytes)
    code, ends = data.astype(np.int32), offsets[1:].astype(np.int64)
    last = previous_words(code, ends)
    before_last = np.zeros(len(code), dtype=np.int64)
    before_last[1:] = np.where(last[:-1] == CODES, 0, last[:-1])
    return TextCodes(code, np.where(last == CODES, CODES, last * 256 + before_last), ends)
