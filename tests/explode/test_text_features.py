"""Hashed n-grams: what they are, against a plain loop, and independence of the batch."""

from __future__ import annotations

import itertools
import re
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from gio_spark.explode.text_features import text_ngrams
from gio_spark.kernels.ngrams import NgramSpec, chunks

TEXTS = [
    "Hello world, hello again",
    "",
    None,
    "wörld 東京 ok",
    "a",
    "no-space;but_signs",
    "x" * 300,
    "The quick brown fox",
]


def features_of(text: str | None, spec: NgramSpec) -> np.ndarray:
    return np.sort(text_ngrams(pa.array([text], pa.string()), spec)[1])


def test_counts_equal_those_of_a_plain_loop():
    words = NgramSpec(words=2, chars=())
    chars = NgramSpec(words=0, chars=(3,))
    for text in TEXTS:
        data = (text or "").encode()
        tokens = re.findall(rb"[0-9a-z\x80-\xff]+", data.lower())
        pairs = list(itertools.pairwise(tokens))
        assert features_of(text, words).size == len(tokens) + len(pairs)
        expected = sorted(Counter([*tokens, *pairs]).values())
        assert sorted(Counter(features_of(text, words).tolist()).values()) == expected
        grams = [data[i : i + 3] for i in range(len(data) - 2)]
        assert sorted(Counter(features_of(text, chars).tolist()).values()) == sorted(
            Counter(grams).values()
        )


def test_words_ignore_case_and_position_but_runs_of_characters_see_case():
    words = NgramSpec(words=1, chars=())
    assert features_of("Hello", words) == features_of("hello", words)
    assert features_of("say hello", words)[0] in features_of("hello say", words)
    runs = NgramSpec(words=0, chars=(5,))
    assert features_of("Hello", runs) != features_of("hello", runs)


@pytest.mark.parametrize("arrow_type", [pa.string(), pa.large_string()])
def test_a_text_has_the_same_features_in_any_batch(arrow_type):
    spec = NgramSpec()
    batch = pa.array(["unrelated", *TEXTS, "tail"], arrow_type).slice(1, len(TEXTS))
    row, feature = text_ngrams(batch, spec)
    for i, text in enumerate(TEXTS):
        np.testing.assert_array_equal(np.sort(feature[row == i]), features_of(text, spec))


def test_no_word_runs_from_one_text_into_the_next():
    spec = NgramSpec(words=2, chars=())
    features = text_ngrams(pa.array(["ab", "cd"]), spec)[1]
    np.testing.assert_array_equal(
        np.sort(features), np.sort([features_of("ab", spec)[0], features_of("cd", spec)[0]])
    )


def test_long_texts_are_read_up_to_the_limit():
    spec = NgramSpec(words=1, chars=(), limit=10)
    np.testing.assert_array_equal(
        features_of("abcde fghi jklm", spec), features_of("abcde fghi", spec)
    )
    rows_and_features = text_ngrams(pa.array(["abcde fghi jklm", "abcde"]), spec)
    assert (rows_and_features[0] == 1).sum() == 1


def test_texts_are_cut_into_chunks_of_bounded_size_without_losing_any():
    offsets = np.concatenate(([0], np.cumsum([10, 0, 50, 3, 3, 3, 200, 1])))
    ranges = chunks(offsets, 60)
    assert ranges[0][0] == 0
    assert ranges[-1][1] == 8
    assert all(a[1] == b[0] for a, b in itertools.pairwise(ranges))
    assert all(offsets[b] - offsets[a] <= 60 or b == a + 1 for a, b in ranges)


def test_many_different_words_rarely_share_a_feature():
    texts = pa.array([f"word{i}" for i in range(2_000)])
    feature = text_ngrams(texts, NgramSpec(words=1, chars=(), bits=22))[1]
    assert np.unique(feature).size > 1_990
