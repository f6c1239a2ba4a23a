"""Averages of static word vectors, shared by wordllama and model2vec.

The libraries pad batches or loop over rows to average; one sparse product computes the same sums in
the same order (row by row, token by token), so the result is bit-identical, does not depend on the
batch, and its cost is negligible beside tokenization.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_matrix


def pool_tokens(token_ids: Sequence[Sequence[int]], embedding: np.ndarray) -> np.ndarray:
    """Average of the token vectors of each row.

    Args:
        token_ids: One sequence of indices into `embedding` for each of n rows.
        embedding: (vocabulary, d) float32.

    Returns:
        (n, d) float32; zeros for a row without tokens.
    """
    rows = len(token_ids)
    sizes = np.fromiter(map(len, token_ids), np.int64, rows)
    total = int(sizes.sum())
    flat_ids = np.fromiter(itertools.chain.from_iterable(token_ids), np.int32, total)
    np.clip(flat_ids, 0, len(embedding) - 1, out=flat_ids)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    # With weights of one, a fused multiply-add rounds like a plain addition.
    token_matrix = csr_matrix(
        (np.ones(total, np.float32), flat_ids, offsets), shape=(rows, len(embedding))
    )
    sums = np.asarray(token_matrix @ embedding)
    sums /= np.maximum(sizes, 1).astype(np.float32)[:, None]
    return sums
