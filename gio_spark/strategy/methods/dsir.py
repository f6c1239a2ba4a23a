"""DSIR (Xie and others, NeurIPS 2023): importance resampling on hashed word n-grams.

The weights equal those of the authors' package `data-selection` up to the last few digits, which a
test checks; each distinct n-gram is hashed once instead of once per text.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gio_spark.strategy.methods.hash_draws import gumbel, top
from gio_spark.strategy.methods.method_registry import method
from gio_spark.strategy.methods.shared_work import compute_once
from gio_spark.strategy.methods.text_corpus import text_array

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gio_spark.strategy.evaluation_dataset import EvaluationDataset

#: Buckets and smoothing of the published package.
BUCKETS = 10_000
_SMOOTHING = 1e-8
# Runs of word characters, or of anything else that is not a space, as nltk's WordPunct tokenizer.
_TOKEN = re.compile(r"\w+|[^\w\s]+")


class Weights(NamedTuple):
    """Log importance weights of texts, (n,), and their numbers of n-grams, (n,)."""

    log_weight: NDArray[np.float64]
    grams: NDArray[np.int64]


class Grams(NamedTuple):
    """Buckets of all unigrams and bigrams of texts, with the number of the text of each."""

    bucket: NDArray[np.int32]
    owner: NDArray[np.int32]
    texts: int


def hashed_grams(
    texts: list[str], vocabulary: dict[str, int] | None = None, buckets: int = BUCKETS
) -> Grams:
    """Hashed unigrams and bigrams of texts, equal to those of the package.

    Args:
        texts: Texts; case is folded.
        vocabulary: Words with their numbers; new words are added.
        buckets: Number of buckets; a bucket is the SHA-256 of the n-gram (its words joined by a
            space) modulo this.

    Example:
        >>> grams = hashed_grams(["red fish", "red"])
        >>> grams.owner.tolist(), int(grams.bucket[0] == grams.bucket[2])
        ([0, 0, 1, 0], 1)
    """
    word_numbers: dict[str, int] = {} if vocabulary is None else vocabulary
    words = [_TOKEN.findall(text.lower()) for text in texts]
    lengths = np.array([len(tokens) for tokens in words], dtype=np.int64)
    word_of_token = np.fromiter(
        (word_numbers.setdefault(word, len(word_numbers)) for tokens in words for word in tokens),
        dtype=np.int64,
        count=int(lengths.sum()),
    )
    owner = np.repeat(np.arange(len(texts), dtype=np.int32), lengths)
    spelling = list(word_numbers)
    bucket_of_word = np.fromiter(
        (_bucket(word, buckets) for word in spelling), np.int32, len(spelling)
    )
    same_text = owner[1:] == owner[:-1] if len(owner) else np.zeros(0, dtype=bool)
    pairs = word_of_token[:-1][same_text] * len(spelling) + word_of_token[1:][same_text]
    distinct_pairs, pair_of_token = np.unique(pairs, return_inverse=True)
    bucket_of_pair = np.fromiter(
        (
            _bucket(f"{spelling[first]} {spelling[second]}", buckets)
            for first, second in zip(
                (distinct_pairs // max(1, len(spelling))).tolist(),
                (distinct_pairs % max(1, len(spelling))).tolist(),
                strict=True,
            )
        ),
        np.int32,
        len(distinct_pairs),
    )
    return Grams(
        np.concatenate([bucket_of_word[word_of_token], bucket_of_pair[pair_of_token]]),
        np.concatenate([owner, owner[:-1][same_text] if len(owner) else owner]),
        len(texts),
    )


def importance_weights(pool: list[str], target: list[str], buckets: int = BUCKETS) -> Weights:
    """Log importance weights: sum over the n-grams of a text of log p_target - log p_pool.

    Both distributions are shares of the n-grams per bucket, plus 1e-8.
    """
    pool_grams, target_grams = (
        hashed_grams(pool, buckets=buckets),
        hashed_grams(target, buckets=buckets),
    )
    log_shares = []
    for grams in (target_grams, pool_grams):
        count = np.bincount(grams.bucket, minlength=buckets).astype(np.float64)
        log_shares.append(np.log(count / max(1.0, count.sum()) + _SMOOTHING))
    log_ratio = log_shares[0] - log_shares[1]
    total = np.bincount(pool_grams.owner, log_ratio[pool_grams.bucket], minlength=pool_grams.texts)
    return Weights(
        total.astype(np.float64), np.bincount(pool_grams.owner, minlength=pool_grams.texts)
    )


def weights(dataset: EvaluationDataset) -> Weights:
    """Log importance weights and lengths of the pool texts."""

    def compute() -> Weights:
        return importance_weights(
            text_array(dataset.texts).to_pylist(), text_array(dataset.target_texts).to_pylist()
        )

    return compute_once(dataset, "dsir", compute)


@method("dsir", needs=("texts", "target_texts"))
def dsir(dataset: EvaluationDataset, budget: int, seed: int) -> NDArray[np.int64]:
    """Draw rows in proportion to their importance weights on hashed n-grams (DSIR)."""
    return top(weights(dataset).log_weight + gumbel(dataset, seed, "dsir"), budget)


@method("dsir_length", needs=("texts", "target_texts"))
def dsir_length(dataset: EvaluationDataset, budget: int, seed: int) -> NDArray[np.int64]:
    """Draw rows by DSIR's weights per n-gram, times the median length of a row.

    Sums grow with the length of a text, so that plain weights select long texts only; with the
    mean per n-gram texts of all lengths compete. The factor gives all weights the scale of those
    of a row of median length, relative to the noise of the draw.
    """
    log_weights = weights(dataset)
    lengths = np.maximum(log_weights.grams, 1)
    scaled = log_weights.log_weight / lengths * float(np.median(lengths))
    return top(scaled + gumbel(dataset, seed, "dsir_length"), budget)


def _bucket(gram: str, buckets: int) -> int:
    return int.from_bytes(hashlib.sha256(gram.encode("utf-8")).digest(), "big") % buckets
