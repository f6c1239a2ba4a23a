"""Averages of static word vectors: what wordllama and model2vec share.

The libraries pad batches or loop over rows to average; one sparse product does the same sums in
the same order (row by row, token by token), so the result has the same bits, does not depend on
the batch, and leaves tokenising as the only cost.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_matrix


def pool_tokens(token_ids: Sequence[Sequence[int]], embedding: np.ndarray) -> np.ndarray:
    """Average the vectors of each row's tokens.

    Args:
        token_ids: One sequence of indices into `embedding` for each of n rows.
        embedding: (vocabulary, d) float32.

    Returns:
        (n, d) float32; zeros for a row without tokens.
    """
    rows = len(token_ids)
    sizes = np.fromiter(map(len, token_ids), np.int64, rows)
    total = int(sizes.sum())
    flat = np.fromiter(itertools.chain.from_iterable(token_ids), np.int32, total)
    np.clip(flat, 0, len(embedding) - 1, out=flat)
    ends = np.concatenate([[0], np.cumsum(sizes)])
    # Weights of one: a fused multiply-add rounds as a plain addition does.
    picks = csr_matrix((np.ones(total, np.float32), flat, ends), shape=(rows, len(embedding)))
    sums = np.asarray(picks @ embedding)
    sums /= np.maximum(sizes, 1).astype(np.float32)[:, None]
    return sums
