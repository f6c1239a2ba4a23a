"""Hashed n-grams of an Arrow array of texts, as the classifier of the density ratio reads them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gio_spark.engine.arrow import text_bytes
from gio_spark.kernels.ngrams import NgramSpec, byte_ngrams


def text_ngrams(
    texts: pa.Array, spec: NgramSpec
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Return the n-grams of texts as (row, feature) pairs, see `kernels.ngrams.byte_ngrams`.

    Args:
        texts: Arrow string array; nulls count as empty.
        spec: Which n-grams.
    """
    return byte_ngrams(*text_bytes(texts), spec)
