from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pytest

from gio_spark.errors import ConfigError, InputError, MissingExtraError
from gio_spark.evaluate import proxy_models
from gio_spark.evaluate.measure_inputs import mean_distance, prepare_measure_inputs
from gio_spark.evaluate.measures import MEASURES, measures_of_settings, two_sample_auc
from gio_spark.gime.proxy_training import score_kind
from gio_spark.gio.divergence_estimators import energy_distance
from gio_spark.strategy.word_pair_model import (
    CODES,
    WordPairs,
    cross_entropy,
    previous_words,
    word_codes,
    word_positions,
)

from .small_datasets import small_dataset


@pytest.fixture(scope="module")
def dataset():
    return small_dataset(900)


@pytest.fixture(scope="module")
def inputs(dataset):
    return prepare_measure_inputs(dataset)


@pytest.mark.parametrize("name", [n for n in MEASURES if n != "proxy_cnn"])
def test_rows_like_the_target_are_better_than_random_ones_by_every_measure(dataset, inputs, name):
    measure = MEASURES[name]
    good_rows = np.flatnonzero(dataset.good == 1)[:150]
    random_rows = np.arange(150)
    good_score, random_score = (
        measure.compute(dataset, inputs, rows, 0) for rows in (good_rows, random_rows)
    )
    assert good_score > random_score if measure.higher_is_better else good_score < random_score


def test_the_energy_distance_is_the_exact_one_to_single_precision(dataset, inputs):
    rows = np.arange(0, 300)
    exact = energy_distance(dataset.vectors[rows], dataset.held_vectors, unbiased=True)
    assert MEASURES["energy"].compute(dataset, inputs, rows, 0) == pytest.approx(exact, abs=1e-4)


def test_the_mean_distance_leaves_a_row_and_itself_out():
    assert mean_distance(np.array([[0.0], [3.0]], np.float32), None) == pytest.approx(3.0)


def test_coverage_is_one_for_a_selection_with_the_targets_own_shares(dataset, inputs):
    mode = np.repeat(np.arange(len(inputs.mode_share)), 300)
    share = np.full(len(inputs.mode_share), 1 / len(inputs.mode_share))
    from dataclasses import replace

    equal_shares = replace(inputs, mode=mode.astype(np.int32), mode_share=share)
    all_rows = np.arange(len(mode))
    assert MEASURES["coverage"].compute(dataset, equal_shares, all_rows, 0) == pytest.approx(1.0)
    assert MEASURES["coverage"].compute(dataset, equal_shares, all_rows[:300], 0) == pytest.approx(
        share[0]
    )


def test_an_empty_model_knows_nothing_and_a_copy_of_the_text_knows_most():
    texts = pa.array(["the cat sat", "the dog sat", None])
    codes, ends = word_codes(texts)
    assert ends.tolist() == [3, 6, 6]
    previous = previous_words(codes, ends)
    pairs = WordPairs.from_words(codes, previous, codes[:3], previous[:3])

    def entropy_of(row):
        positions = word_positions(ends, np.array([row]))
        return cross_entropy(
            codes[positions], pairs.pair[positions], pairs, codes[:3], previous[:3]
        )

    assert entropy_of(2) == pytest.approx(np.log(CODES))
    assert entropy_of(0) < entropy_of(1) < np.log(CODES)


def test_the_cross_entropy_is_that_of_counting_the_pairs_one_by_one():
    rng = np.random.default_rng(5)
    words, held_words = rng.integers(0, 9, 60), rng.integers(0, 12, 40)
    previous, held_previous = np.r_[CODES, words[:-1]], np.r_[CODES, held_words[:-1]]
    kinds = len(set(words.tolist()))
    nats = []
    for word, history in zip(held_words.tolist(), held_previous.tolist(), strict=True):
        word_probability = (np.sum(words == word) + kinds / CODES) / (len(words) + kinds)
        followers = words[previous == history]
        open_kinds = len(set(followers.tolist()))
        total = len(followers) + open_kinds
        nats.append(
            -np.log(
                (np.sum(followers == word) + open_kinds * word_probability) / total
                if total
                else word_probability
            )
        )
    pairs = WordPairs.from_words(words, previous, held_words, held_previous)
    entropy = cross_entropy(words, pairs.pair, pairs, held_words, held_previous)
    assert entropy == pytest.approx(np.mean(nats), rel=1e-12)


def test_the_language_model_gives_every_history_chances_that_sum_to_one():
    rng = np.random.default_rng(0)
    words = rng.integers(0, 50, 400)
    previous = np.r_[CODES, words[:-1]]
    codes = np.arange(CODES)

    def probability(word, history):
        word_and_history = np.array([word]), np.array([history])
        pairs = WordPairs.from_words(words, previous, *word_and_history)
        return np.exp(-cross_entropy(words, pairs.pair, pairs, *word_and_history))

    for history in (7, 60, CODES):  # seen, never seen, the start of a text
        known_probabilities = [probability(w, history) for w in range(50)]
        unknown_probability = probability(999, history)
        assert sum(known_probabilities) + unknown_probability * (len(codes) - 50) == pytest.approx(
            1.0, abs=1e-6
        )


def test_the_words_of_some_texts_are_found_and_each_text_starts_anew():
    codes, ends = word_codes(pa.array(["a b", "c", "", "d e f"]))
    positions = word_positions(ends, np.array([3, 2, 0]))
    assert codes[positions].tolist() == [*codes[3:6], *codes[0:2]]
    previous = previous_words(codes, ends)
    assert previous.tolist() == [CODES, codes[0], CODES, CODES, codes[3], codes[4]]


def test_two_samples_of_one_law_cannot_be_told_apart():
    rng = np.random.default_rng(1)
    first, second = (rng.standard_normal((500, 5)).astype(np.float32) for _ in range(2))
    assert two_sample_auc(first, second) == pytest.approx(0.5, abs=0.06)
    assert two_sample_auc(first, 3 * second) > 0.8  # equal means, other spread


def test_measures_that_the_data_does_not_allow_are_left_out_or_refused():
    names = [m.name for m in measures_of_settings((), texts=False, labels=False)]
    assert names == ["energy", "jsd", "coverage", "two_sample_auc"]
    with pytest.raises(InputError, match=r"needs labels .* set columns.label"):
        measures_of_settings(("proxy_linear",), texts=True, labels=False)
    with pytest.raises(InputError, match="needs texts"):
        measures_of_settings(("cross_entropy",), texts=False, labels=True)
    with pytest.raises(ConfigError, match="did you mean 'energy'"):
        measures_of_settings(("enery",), texts=True, labels=True)


def test_proxies_are_judged_by_what_the_labels_are(dataset, inputs):
    assert score_kind(dataset.held_labels) == "auc"
    assert score_kind(np.arange(120) % 3) == "accuracy"
    assert score_kind(np.linspace(0, 1, 120)) == "skill"
    with pytest.raises(InputError, match="labels"):
        proxy_models.linear(small_dataset(held_labels=None), inputs, np.arange(50), 0)


def test_the_cnn_says_what_it_needs(dataset, inputs):
    error = InputError if proxy_models.has_torch() else MissingExtraError
    with pytest.raises(error, match="proxy_cnn"):
        MEASURES["proxy_cnn"].compute(dataset, inputs, np.arange(50), 0)


def test_the_cnn_learns_shapes_and_gives_the_same_score_beside_others():
    pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 500)
    images = rng.random((500, 10, 10), dtype=np.float32)
    for image, label in zip(images, labels, strict=True):
        row, column = rng.integers(0, 7, 2)  # a bar anywhere: up, along, or none
        image[row : row + (4 if label == 0 else 1), column : column + (4 if label == 1 else 1)] += 2
    features = images.reshape(500, 100)
    dataset = small_dataset(
        400,
        labels=labels[:400],
        held_labels=labels[400:],
        features=features[:400],
        held_features=features[400:],
    )
    compute = MEASURES["proxy_cnn"].compute
    rows = np.arange(300)
    first = compute(dataset, None, rows, 0)
    assert first > 0.75
    with ThreadPoolExecutor(2) as pool:
        assert set(pool.map(lambda _: compute(dataset, None, rows, 0), range(2))) == {first}
