"""DSIR (Xie and others, NeurIPS 2023): importance resampling on hashed word n-grams.

The weights are those of the authors' package `data-selection`, to the last digits but a few (a test
compares the two), with every different n-gram hashed once instead of in every text anew.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gio_spark.evaluate.methods.base import method
from gio_spark.evaluate.methods.draws import gumbel, top
from gio_spark.evaluate.methods.shared import shared
from gio_spark.evaluate.methods.words import strings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gio_spark.evaluate.dataset import EvaluationDataset

#: Buckets and smoothing of the published package.
BUCKETS = 10_000
_SMOOTHING = 1e-8
# Runs of word characters, or of anything else that is not a space, as nltk's WordPunct tokenizer.
_TOKEN = re.compile(r"\w+|[^\w\s]+")


class Weights(NamedTuple):
    """Log importance weights of texts, (n,), and the n-grams in each, (n,)."""

    log_weight: NDArray[np.float64]
    grams: NDArray[np.int64]


class Grams(NamedTuple):
    """Buckets of all unigrams and bigrams of some texts, and the text each belongs to."""

    bucket: NDArray[np.int32]
    owner: NDArray[np.int32]
    texts: int


def hashed_grams(
    texts: list[str], known: dict[str, int] | None = None, buckets: int = BUCKETS
) -> Grams:
    """Hashed unigrams and bigrams of texts, as the package makes them.

    Args:
        texts: Texts; case is folded.
        known: Words with their numbers; grows.
        buckets: SHA-256 of the n-gram (its words joined by a space) modulo this.
    """
    names: dict[str, int] = {} if known is None else known
    words = [_TOKEN.findall(text.lower()) for text in texts]
    lengths = np.array([len(line) for line in words], dtype=np.int64)
    code = np.fromiter(
        (names.setdefault(word, len(names)) for line in words for word in line),
        dtype=np.int64,
        count=int(lengths.sum()),
    )
    owner = np.repeat(np.arange(len(texts), dtype=np.int32), lengths)
    spelling = list(names)
    single = np.fromiter((_bucket(w, buckets) for w in spelling), np.int32, len(spelling))
    together = owner[1:] == owner[:-1] if len(owner) else np.zeros(0, dtype=bool)
    pair = code[:-1][together] * len(spelling) + code[1:][together]
    different, back = np.unique(pair, return_inverse=True)
    double = np.fromiter(
        (
            _bucket(f"{spelling[first]} {spelling[second]}", buckets)
            for first, second in zip(
                (different // max(1, len(spelling))).tolist(),
                (different % max(1, len(spelling))).tolist(),
                strict=True,
            )
        ),
        np.int32,
        len(different),
    )
    return Grams(
        np.concatenate([single[code], double[back]]),
        np.concatenate([owner, owner[:-1][together] if len(owner) else owner]),
        len(texts),
    )


def own_weights(pool: list[str], target: list[str], buckets: int = BUCKETS) -> Weights:
    """Log weights: the sum over a text's n-grams of log p_target - log p_pool.

    Both laws are shares of the n-grams per bucket, plus 1e-8.
    """
    raw, special = hashed_grams(pool, buckets=buckets), hashed_grams(target, buckets=buckets)
    laws = []
    for grams in (special, raw):
        count = np.bincount(grams.bucket, minlength=buckets).astype(np.float64)
        laws.append(np.log(count / max(1.0, count.sum()) + _SMOOTHING))
    gain = laws[0] - laws[1]
    total = np.bincount(raw.owner, gain[raw.bucket], minlength=raw.texts)
    return Weights(total.astype(np.float64), np.bincount(raw.owner, minlength=raw.texts))


def weights(dataset: EvaluationDataset) -> Weights:
    """Pool's log weights and lengths."""

    def make() -> Weights:
        return own_weights(
            strings(dataset.texts).to_pylist(), strings(dataset.target_texts).to_pylist()
        )

    return shared(dataset, "dsir", make)


@method("dsir", needs=("texts", "target_texts"))
def dsir(dataset: EvaluationDataset, budget: int, seed: int) -> NDArray[np.int64]:
    """Draw rows in proportion to their importance weights on hashed n-grams (DSIR)."""
    return top(weights(dataset).log_weight + gumbel(dataset, seed, "dsir"), budget)


@method("dsir_length", needs=("texts", "target_texts"))
def dsir_length(dataset: EvaluationDataset, budget: int, seed: int) -> NDArray[np.int64]:
    """Draw rows by DSIR's weights per n-gram, times the median length of a row.

    Sums grow with the length of a text, so that plain weights choose among long texts alone; with
    the mean per n-gram all lengths compete. The factor keeps the weights as far apart, against
    the noise of the draw, as those of a row of median length.
    """
    found = weights(dataset)
    lengths = np.maximum(found.grams, 1)
    normalised = found.log_weight / lengths * float(np.median(lengths))
    return top(normalised + gumbel(dataset, seed, "dsir_length"), budget)


def _bucket(gram: str, buckets: int) -> int:
    return int.from_bytes(hashlib.sha256(gram.encode("utf-8")).digest(), "big") % buckets
