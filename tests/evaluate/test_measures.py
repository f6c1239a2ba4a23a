from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pytest

from gio_spark.errors import ConfigError, InputError, MissingExtraError
from gio_spark.evaluate import proxies
from gio_spark.evaluate.language import (
    CODES,
    Pairs,
    cross_entropy,
    places,
    previous_words,
    word_codes,
)
from gio_spark.evaluate.measure_inputs import make_ruler, mean_distance
from gio_spark.evaluate.measures import MEASURES, two_sample_auc, wanted_measures
from gio_spark.gio.divergence_estimators import energy_distance

from .datasets import small_arena


@pytest.fixture(scope="module")
def dataset():
    return small_arena(900)


@pytest.fixture(scope="module")
def ruler(dataset):
    return make_ruler(dataset)


@pytest.mark.parametrize("name", [n for n in MEASURES if n != "proxy_cnn"])
def test_rows_like_the_target_are_better_than_random_ones_by_every_measure(dataset, ruler, name):
    measure = MEASURES[name]
    like = np.flatnonzero(dataset.good == 1)[:150]
    mixed = np.arange(150)
    best, usual = (measure.judge(dataset, ruler, rows, 0) for rows in (like, mixed))
    assert best > usual if measure.higher_is_better else best < usual


def test_the_energy_distance_is_the_exact_one_to_single_precision(dataset, ruler):
    rows = np.arange(0, 300)
    exact = energy_distance(dataset.vectors[rows], dataset.held_vectors, unbiased=True)
    assert MEASURES["energy"].judge(dataset, ruler, rows, 0) == pytest.approx(exact, abs=1e-4)


def test_the_mean_distance_leaves_a_row_and_itself_out():
    assert mean_distance(np.array([[0.0], [3.0]], np.float32), None) == pytest.approx(3.0)


def test_coverage_is_one_for_a_selection_with_the_targets_own_shares(dataset, ruler):
    mode = np.repeat(np.arange(len(ruler.mode_share)), 300)
    share = np.full(len(ruler.mode_share), 1 / len(ruler.mode_share))
    from dataclasses import replace

    same = replace(ruler, mode=mode.astype(np.int32), mode_share=share)
    every = np.arange(len(mode))
    assert MEASURES["coverage"].judge(dataset, same, every, 0) == pytest.approx(1.0)
    assert MEASURES["coverage"].judge(dataset, same, every[:300], 0) == pytest.approx(share[0])


def test_an_empty_model_knows_nothing_and_a_copy_of_the_text_knows_most():
    texts = pa.array(["the cat sat", "the dog sat", None])
    codes, ends = word_codes(texts)
    assert ends.tolist() == [3, 6, 6]
    before = previous_words(codes, ends)
    pairs = Pairs.of(codes, before, codes[:3], before[:3])

    def of(row):
        at = places(ends, np.array([row]))
        return cross_entropy(codes[at], pairs.pair[at], pairs, codes[:3], before[:3])

    assert of(2) == pytest.approx(np.log(CODES))
    assert of(0) < of(1) < np.log(CODES)


def test_the_cross_entropy_is_that_of_counting_the_pairs_one_by_one():
    rng = np.random.default_rng(5)
    words, held = rng.integers(0, 9, 60), rng.integers(0, 12, 40)
    previous, before = np.r_[CODES, words[:-1]], np.r_[CODES, held[:-1]]
    kinds = len(set(words.tolist()))
    nats = []
    for word, history in zip(held.tolist(), before.tolist(), strict=True):
        alone = (np.sum(words == word) + kinds / CODES) / (len(words) + kinds)
        after = words[previous == history]
        open_kinds = len(set(after.tolist()))
        seen = len(after) + open_kinds
        nats.append(-np.log((np.sum(after == word) + open_kinds * alone) / seen if seen else alone))
    pairs = Pairs.of(words, previous, held, before)
    found = cross_entropy(words, pairs.pair, pairs, held, before)
    assert found == pytest.approx(np.mean(nats), rel=1e-12)


def test_the_language_model_gives_every_history_chances_that_sum_to_one():
    rng = np.random.default_rng(0)
    words = rng.integers(0, 50, 400)
    previous = np.r_[CODES, words[:-1]]
    every = np.arange(CODES)

    def chance(word, history):
        held = np.array([word]), np.array([history])
        pairs = Pairs.of(words, previous, *held)
        return np.exp(-cross_entropy(words, pairs.pair, pairs, *held))

    for history in (7, 60, CODES):  # seen, never seen, the start of a text
        chances = [chance(w, history) for w in range(50)]
        rest = chance(999, history)
        assert sum(chances) + rest * (len(every) - 50) == pytest.approx(1.0, abs=1e-6)


def test_the_words_of_some_texts_are_found_and_each_text_starts_anew():
    codes, ends = word_codes(pa.array(["a b", "c", "", "d e f"]))
    at = places(ends, np.array([3, 2, 0]))
    assert codes[at].tolist() == [*codes[3:6], *codes[0:2]]
    before = previous_words(codes, ends)
    assert before.tolist() == [CODES, codes[0], CODES, CODES, codes[3], codes[4]]


def test_two_samples_of_one_law_cannot_be_told_apart():
    rng = np.random.default_rng(1)
    first, second = (rng.standard_normal((500, 5)).astype(np.float32) for _ in range(2))
    assert two_sample_auc(first, second) == pytest.approx(0.5, abs=0.06)
    assert two_sample_auc(first, 3 * second) > 0.8  # equal means, other spread


def test_measures_that_the_data_does_not_allow_are_left_out_or_refused():
    names = [m.name for m in wanted_measures((), texts=False, labels=False)]
    assert names == ["energy", "jsd", "coverage", "two_sample_auc"]
    with pytest.raises(InputError, match=r"needs labels .* set columns.label"):
        wanted_measures(("proxy_linear",), texts=True, labels=False)
    with pytest.raises(InputError, match="needs texts"):
        wanted_measures(("cross_entropy",), texts=False, labels=True)
    with pytest.raises(ConfigError, match="did you mean 'energy'"):
        wanted_measures(("enery",), texts=True, labels=True)


def test_proxies_are_judged_by_what_the_labels_are(dataset):
    assert proxies.kind_of(dataset) == "auc"
    assert proxies.kind_of(small_arena(held_labels=np.arange(120) % 3)) == "accuracy"
    assert proxies.kind_of(small_arena(held_labels=np.linspace(0, 1, 120))) == "skill"
    with pytest.raises(InputError, match="labels"):
        proxies.kind_of(small_arena(held_labels=None))


def test_the_cnn_says_what_it_needs(dataset, ruler):
    error = InputError if proxies.has_torch() else MissingExtraError
    with pytest.raises(error, match="proxy_cnn"):
        MEASURES["proxy_cnn"].judge(dataset, ruler, np.arange(50), 0)


def test_the_cnn_learns_shapes_and_gives_the_same_score_beside_others():
    pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 500)
    images = rng.random((500, 10, 10), dtype=np.float32)
    for image, label in zip(images, labels, strict=True):
        row, column = rng.integers(0, 7, 2)  # a bar anywhere: up, along, or none
        image[row : row + (4 if label == 0 else 1), column : column + (4 if label == 1 else 1)] += 2
    seen = images.reshape(500, 100)
    dataset = small_arena(400, labels=labels[:400], held_labels=labels[400:], features=seen[:400],
                        held_features=seen[400:])  # fmt: skip
    judge = MEASURES["proxy_cnn"].judge
    rows = np.arange(300)
    first = judge(dataset, None, rows, 0)
    assert first > 0.75
    with ThreadPoolExecutor(2) as beside:
        assert set(beside.map(lambda _: judge(dataset, None, rows, 0), range(2))) == {first}
