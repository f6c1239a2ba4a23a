"""Hashes that workspaces store, against plain loops over whole numbers: no constant may change."""

from __future__ import annotations

import hashlib
import itertools
import re

import numpy as np
import pytest

from gio_spark.kernels.ngrams import (
    CHUNK_BYTES,
    NgramSpec,
    byte_ngrams,
    chunks,
    code_point_features,
    gram_share,
    word_grams,
)
from gio_spark.kernels.splitmix import mix64

ALL_BITS = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15
TEXTS = [
    "Hello world, hello AGAIN",
    "",
    "wörld 東京 ok-zz",
    "a",
    "[no@space;`but{signs/09:19",
    "  The  quick\tbrown fox ",
    "Z" * 300,
]


def mixed(value: int) -> int:
    """SplitMix64's finalizer, as its authors print it."""
    value &= ALL_BITS
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 & ALL_BITS
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB & ALL_BITS
    return value ^ (value >> 31)


def polynomial(codes) -> int:
    return sum(code * pow(GOLDEN, place, 2**64) for place, code in enumerate(codes)) & ALL_BITS


def byte_features(text: str, spec: NgramSpec) -> list[int]:
    data = text.encode()[: spec.limit]
    features = []
    words = [
        mixed(polynomial(mixed(byte + 1) for byte in word))
        for word in re.findall(rb"[0-9a-z\x80-\xff]+", data.lower())
    ]
    for length in range(1, spec.words + 1):
        for start in range(len(words) - length + 1):
            run = words[start]
            for word in words[start + 1 : start + length]:
                run = mixed(run * GOLDEN + word)
            features.append(mixed(run + length))
    for length in spec.chars:
        for start in range(len(data) - length + 1):
            gram = polynomial(mixed(byte + 1) for byte in data[start : start + length])
            features.append(mixed(gram + 1000 + length))
    return sorted(feature % 2**spec.bits for feature in features)


def joined(texts):
    data = [text.encode() for text in texts]
    offsets = np.cumsum([0, *map(len, data)])
    return np.frombuffer(b"".join(data), np.uint8), offsets


def features_by_text(texts, spec):
    row, feature = byte_ngrams(*joined(texts), spec)
    return [sorted(feature[row == i].tolist()) for i in range(len(texts))]


def test_mixing_equals_the_finalizer_on_whole_numbers():
    values = [0, 1, 2**30, 2**63, ALL_BITS, GOLDEN]
    assert mix64(np.array(values, np.uint64)).tolist() == [mixed(v) for v in values]


@pytest.mark.parametrize(
    "spec",
    [
        NgramSpec(),
        NgramSpec(words=3, chars=(), bits=31),
        NgramSpec(words=0, chars=(1, 4), bits=20),
        NgramSpec(words=2, chars=(5,), limit=9),
    ],
)
def test_byte_ngrams_equal_a_loop_over_bytes(spec):
    assert features_by_text(TEXTS, spec) == [byte_features(text, spec) for text in TEXTS]


def test_defaults_of_stored_ngrams_are_words_and_runs_of_two_and_three_bytes():
    assert NgramSpec() == NgramSpec(words=1, chars=(2, 3), bits=18, limit=8192)
    assert NgramSpec().features == 262_144


def test_texts_of_several_chunks_have_the_features_they_have_alone():
    texts = [f"text {i} " + "ab c" * 200_000 for i in range(3)]
    spec = NgramSpec(limit=40)
    assert len(chunks(joined(texts)[1])) == 3
    assert features_by_text(texts, spec) == [byte_features(text, spec) for text in texts]


def test_chunks_end_before_the_text_that_passes_their_size():
    assert CHUNK_BYTES == 2**20
    offsets = np.array([0, 4, 10, 11, 31, 36])
    # 10 bytes fill a chunk; a text of 20 is one of its own.
    assert chunks(offsets, 10) == [(0, 2), (2, 3), (3, 4), (4, 5)]
    assert chunks(offsets, 11) == [(0, 3), (3, 4), (4, 5)]
    assert chunks(np.array([0]), 10) == []


def test_no_texts_and_empty_texts_have_no_byte_ngrams():
    for texts in ([], ["", ""]):
        row, feature = byte_ngrams(*joined(texts), NgramSpec())
        assert len(row) == len(feature) == 0


def point_features(text: str):
    letters = re.sub(
        "[\0-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+", " ", text
    )
    hashes = [
        sum((ord(c) + 1) * pow(GOLDEN, place + 1, 2**64) for place, c in enumerate(word)) % 2**64
        for word in re.findall("[0-9A-Za-z\x80-\U0010ffff]+", letters)
    ]
    pairs = [(a * GOLDEN + b) % 2**64 for a, b in itertools.pairwise(hashes)]
    runs = []
    for three in zip(letters, letters[1:], letters[2:], strict=False):
        a, b, c = (ord(letter) + 1 for letter in three)
        runs.append(((a * GOLDEN + b) * GOLDEN + c) % 2**64)
    return [sorted(kind) for kind in (hashes, pairs, runs)]


def test_code_point_features_equal_a_loop_over_letters():
    spaces = "\t\x1f\x85\xa0\u1680\u2000\u200a\u2028\u2029\u202f\u205f\u3000"
    texts = [f" {text.lower()} " for text in [*TEXTS, "a".join(spaces), "\u200b\u2001 \u1681"]]
    points = np.array([ord(c) for text in texts for c in text], np.uint32)
    kinds = code_point_features(points, np.array([len(text) for text in texts]))
    assert [weight for _, _, weight in kinds] == [2, 1, 1]
    for i, text in enumerate(texts):
        features = [sorted(hashes[row == i].tolist()) for hashes, row, _ in kinds]
        assert features == point_features(text)


def word_gram_hashes(text: str, length: int) -> list[int]:
    words = [
        int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")
        for word in re.findall(r"\w+", text.lower())
    ]
    grams = []
    for start in range(max(len(words) - length + 1, min(1, len(words)))):
        value = 0
        for word in words[start : start + length]:
            value = mixed(value * GOLDEN + word)
        grams.append(value)
    return grams


@pytest.mark.parametrize("length", [1, 2, 3, 13])
def test_word_grams_equal_a_loop_over_words(length):
    grams, owner = word_grams(TEXTS, length)
    expected = [word_gram_hashes(text, length) for text in TEXTS]
    np.testing.assert_array_equal(owner, np.repeat(range(len(TEXTS)), [len(e) for e in expected]))
    assert grams.tolist() == list(itertools.chain(*expected))


def test_grams_above_and_below_all_known_ones_are_not_shared():
    grams = np.sort(np.array(word_gram_hashes("a b c d e f g", 1), np.uint64))
    share = gram_share(["a b c d e f g"], grams[2:4], 1)
    assert share.tolist() == [2 / 7]
