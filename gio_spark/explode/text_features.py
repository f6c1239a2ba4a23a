"""Hashed n-grams of Arrow texts, the features of the text classifier of the density ratio."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gio_spark.engine.arrow import text_bytes
from gio_spark.kernels.ngrams import NgramSpec, byte_ngrams


def text_ngrams(
    texts: pa.Array, spec: NgramSpec
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """N-grams of texts as (row, feature) pairs, see `kernels.ngrams.byte_ngrams`.

    Args:
        texts: Arrow string array; nulls count as empty.
        spec: Lengths of the n-grams and number of features.

    Returns:
        Row numbers and feature numbers, each int32 of one entry per n-gram.

    Example:
        >>> rows, features = text_ngrams(pa.array(["a b", None]), NgramSpec(words=1, chars=()))
        >>> rows.tolist(), len(set(features.tolist()))
        ([0, 0], 2)
    """
    return byte_ngrams(*text_bytes(texts), spec)
