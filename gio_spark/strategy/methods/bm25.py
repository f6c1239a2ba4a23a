"""BM25 with the target's texts as queries, by the package bm25s."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from gio_spark.errors import MissingExtraError
from gio_spark.strategy.methods.hash_draws import uniform
from gio_spark.strategy.methods.method_registry import MethodResult, method
from gio_spark.strategy.methods.neighbor_lists import first_rank, list_length, smallest
from gio_spark.strategy.methods.shared_work import compute_once
from gio_spark.strategy.methods.text_corpus import Words, corpus

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gio_spark.strategy.evaluation_dataset import EvaluationDataset

#: Number of distinct words of a query that are used, rarest first; more would be common words.
QUERY_WORDS = 64
#: Most entries of the result lists.
_MAX_ENTRIES = 2**25


@method("bm25", needs=("texts", "target_texts"))
def bm25(dataset: EvaluationDataset, budget: int, seed: int) -> MethodResult:
    """Take each target text's next best BM25 match in turn (Lucene's form, k1 1.5, b .75)."""
    longest = min(dataset.rows, max(1, _MAX_ENTRIES // max(1, len(dataset.target_vectors))))
    length = list_length(4 * budget // len(dataset.target_vectors), longest)
    while True:
        lists = matches(dataset, length)
        rank = first_rank(lists, dataset.rows)
        listed = int(np.count_nonzero(rank < length))
        if listed >= budget or length >= longest:
            break
        length = list_length(length + 1, longest)
    note = ""
    if listed < budget:
        note = f"{budget - listed} rows match no target text within the lists: taken at random."
    order = np.lexsort((uniform(dataset, seed, "bm25"), rank))
    return MethodResult(np.sort(order[:budget]).astype(np.int64), note)


def matches(dataset: EvaluationDataset, length: int) -> NDArray[np.int32]:
    """Best matches of each target text, (m, length) int32 rows; -1 is no match."""

    def compute() -> NDArray[np.int32]:
        index = _index(dataset)
        queries = _queries(dataset)
        best = np.full((len(queries), length), -1, dtype=np.int32)
        for position, query in enumerate(queries):
            if len(query):
                scores = np.asarray(index.get_scores_from_ids(query), dtype=np.float32)
                rows, negative = smallest(-scores[None, :], length)
                best[position] = np.where(negative[0] < 0, rows[0], -1)
        return best

    return compute_once(dataset, ("bm25", length), compute)


def _index(dataset: EvaluationDataset) -> Any:
    """BM25 index of the pool texts."""
    try:
        import bm25s
    except ImportError as error:
        raise MissingExtraError("bm25s", "evaluate", "BM25") from error
    logging.getLogger("bm25s").setLevel(logging.WARNING)  # it logs at DEBUG by default

    def compute() -> Any:
        words, _, vocabulary = corpus(dataset)
        documents = [codes.tolist() for codes in _split(words)]
        index = bm25s.BM25(method="lucene", backend="numpy")
        ids = {word: word for word in range(vocabulary)}
        index.index((documents, ids), show_progress=False, create_empty_token=False)
        return index

    return compute_once(dataset, "bm25 index", compute)


def _queries(dataset: EvaluationDataset) -> list[list[int]]:
    """Distinct words of each target text, rarest in the pool first."""
    pool, target, vocabulary = corpus(dataset)
    text_words = np.unique(pool.owner.astype(np.int64) * vocabulary + pool.code)
    rows_with = np.bincount(text_words % vocabulary, minlength=vocabulary)
    queries = []
    for words in _split(target):
        distinct = np.unique(words)
        distinct = distinct[rows_with[distinct] > 0]
        rarest = np.argsort(rows_with[distinct], kind="stable")[:QUERY_WORDS]
        queries.append(distinct[rarest].tolist())
    return queries


def _split(words: Words) -> list[NDArray[np.int32]]:
    return np.split(words.code, np.cumsum(words.lengths)[:-1])
