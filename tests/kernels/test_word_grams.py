"""Word n-gram hashes."""

from __future__ import annotations

import numpy as np

from gio_spark.kernels.ngrams import gram_share, word_grams


def test_grams_depend_on_words_and_their_order_alone():
    grams, owner = word_grams(["a b c d", "A, b... C; d!", "a b d c", None, "", "x y"], 3)
    np.testing.assert_array_equal(owner, [0, 0, 1, 1, 2, 2, 5])
    np.testing.assert_array_equal(grams[:2], grams[2:4])
    assert len({*grams[:2], *grams[4:]}) == 5


def test_grams_do_not_cross_from_one_text_into_the_next():
    together, owner = word_grams(["one two three", "four five six"], 2)
    np.testing.assert_array_equal(owner, [0, 0, 1, 1])
    alone, _ = word_grams(["four five six"], 2)
    np.testing.assert_array_equal(together[2:], alone)


def test_share_counts_known_grams():
    known = np.unique(word_grams(["the quick brown fox jumps"], 3)[0])
    share = gram_share(["The quick brown fox runs", "other words here now", "", "quick"], known, 3)
    np.testing.assert_allclose(share, [2 / 3, 0, 0, 0])
    assert gram_share(["a b"], np.empty(0, np.uint64), 2).tolist() == [0.0]
