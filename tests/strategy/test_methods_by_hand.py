"""Methods against figures worked out by hand, brute force, or the packages they stand for."""

from __future__ import annotations

import gc
import math
import time
import weakref

import numpy as np
import pyarrow as pa
import pytest

from gio_spark.strategy.evaluation_dataset import EvaluationDataset
from gio_spark.strategy.methods import (
    baselines,
    bm25,
    compute_once,
    dsir,
    facility_location,
    hash_draws,
    language_models,
    method,
    neighbor_lists,
    optimal_transport,
    run_method,
    text_corpus,
)
from gio_spark.strategy.methods.method_registry import METHODS
from gio_spark.strategy.methods.shared_work import Meter

from .planted_dataset import planted_dataset


def dataset_of(vectors, target, **fields):
    """Dataset of one cluster whose rows stand in the order of their hashes."""
    vectors = np.asarray(vectors, np.float32)
    return EvaluationDataset(
        vectors=vectors,
        hashes=np.arange(len(vectors), dtype=np.uint64),
        target_vectors=np.asarray(target, np.float32),
        centroids=vectors.mean(axis=0, keepdims=True),
        cluster=np.zeros(len(vectors), np.int32),
        target_mass=np.ones(1),
        held_vectors=np.asarray(target, np.float32),
        **fields,
    )


def text_dataset(texts, target):
    """Dataset of texts with vectors that say nothing."""
    return dataset_of(
        np.zeros((len(texts), 2)),
        np.zeros((len(target), 2)),
        texts=pa.array(texts),
        target_texts=pa.array(target),
    )


def words_of(texts):
    """Texts as words whose numbers follow the alphabet."""
    split = [t.split() for t in texts]
    names = sorted({w for line in split for w in line})
    code = np.array([names.index(w) for line in split for w in line], np.int32)
    owner = np.repeat(np.arange(len(texts)), [len(line) for line in split]).astype(np.int32)
    return text_corpus.Words(code, owner, len(texts)), names


# --- rankings and draws ---------------------------------------------------------------------


def test_top_gives_ties_to_the_lowest_row_and_puts_missing_scores_last():
    assert hash_draws.top([1.0, math.nan, 2.0, 2.0, 2.0], 2).tolist() == [2, 3]
    assert hash_draws.top([math.nan, -5.0], 1).tolist() == [1]


def test_within_takes_the_best_of_each_cluster():
    cluster = np.array([1, 0, 1, 0, 1, 0])
    scores = [5.0, 1.0, 9.0, 3.0, 9.0, 2.0]
    assert hash_draws.top_of_clusters(cluster, np.array([1, 2]), scores).tolist() == [2, 3, 4]
    assert hash_draws.top_of_clusters(cluster, np.array([0, 3]), scores).tolist() == [0, 2, 4]


def test_gumbel_draws_are_in_proportion_to_the_weights():
    rows = 40_000
    dataset = dataset_of(np.zeros((rows, 1)), [[0.0]])
    is_heavy = np.arange(rows) < rows // 2
    scores = np.log(np.where(is_heavy, 3.0, 1.0)) + hash_draws.gumbel(dataset, 0, "test")
    selected = hash_draws.top(scores, rows // 50)
    assert is_heavy[selected].mean() == pytest.approx(0.75, abs=0.05)


def test_draws_for_different_purposes_and_seeds_are_independent():
    dataset = dataset_of(np.zeros((5_000, 1)), [[0.0]])
    columns = [hash_draws.uniform(dataset, s, p) for s in (0, 1) for p in ("a", "b")]
    assert np.abs(np.corrcoef(columns) - np.eye(4)).max() < 0.05
    assert np.abs(np.mean(columns, axis=1) - 0.5).max() < 0.02


def test_a_budget_is_split_by_largest_remainders():
    assert baselines.proportional(np.array([50, 30, 20, 0]), 7).tolist() == [4, 2, 1, 0]
    assert baselines.proportional(np.array([3, 3]), 6).tolist() == [3, 3]
    assert baselines.proportional(np.array([1, 1, 1]), 2).tolist() == [1, 1, 0]


def test_strata_are_sources_where_there_are_any():
    sources = np.array(["a"] * 80 + ["b"] * 20)
    dataset = dataset_of(np.zeros((100, 1)), [[0.0]], sources=sources)
    assert (sources[run_method("stratified", dataset, 10).rows] == "b").sum() == 2


# --- neighbours -------------------------------------------------------------------------------


def test_each_target_row_takes_its_next_nearest_in_turn():
    pool = [[0.0], [1.0], [2.0], [10.0], [10.5], [12.0], [50.0]]
    dataset = dataset_of(pool, [[0.1], [10.1]])
    assert run_method("knn_retrieval", dataset, 2).rows.tolist() == [0, 3]
    assert run_method("knn_retrieval", dataset, 4).rows.tolist() == [0, 1, 3, 4]
    # The next round of both targets' lists: 2 and 5.
    assert run_method("knn_retrieval", dataset, 6).rows.tolist() == [0, 1, 2, 3, 4, 5]
    assert run_method("nearest", dataset, 3).rows.tolist() == [0, 3, 4]


def test_neighbours_are_those_of_brute_force():
    rng = np.random.default_rng(0)
    pool, target = rng.normal(size=(300, 5)), rng.normal(size=(20, 5))
    dataset = dataset_of(pool, target)
    lists = neighbor_lists.nearest_rows(dataset, 40)
    distances = np.linalg.norm(target.astype(np.float32)[:, None] - pool.astype(np.float32), axis=2)
    order = np.argsort(distances, axis=1)[:, : lists.rows.shape[1]]
    assert (lists.rows == order).mean() > 0.999
    assert np.allclose(
        lists.distance, np.sort(distances, axis=1)[:, : lists.rows.shape[1]], atol=1e-4
    )
    assert np.allclose(neighbor_lists.target_distance(dataset), distances.min(axis=0), atol=1e-4)


def test_first_rank_is_the_best_place_on_any_list():
    lists = np.array([[3, 1, 0], [1, 2, -1]])
    assert neighbor_lists.first_rank(lists, 5).tolist() == [2, 0, 1, 0, 3]


# --- texts ------------------------------------------------------------------------------------


def test_a_bigram_models_probabilities_by_hand_and_they_sum_to_one():
    text, names = words_of(["a b a b", "b c"])
    model = language_models.BigramModel.fit(text, np.ones(2, bool), len(names))
    # Counts a 2, b 3, c 1; four "words" with the unknown one; after a: b twice.
    p_b = (3 + 1) / (6 + 4)
    expected = math.log((2 + 5 * p_b) / (2 + 5))
    result = model.log_probability(np.array([0]), np.array([1]))[0]
    assert result == pytest.approx(expected, abs=1e-12)
    before = np.zeros(3, np.int64)
    known = np.exp(model.log_probability(before, np.arange(3))).sum()
    unknown = 5 * (1 / 10) / 7
    assert known + unknown == pytest.approx(1.0, abs=1e-12)


def test_a_text_that_was_counted_is_scored_without_its_own_counts():
    texts = ["a b a b", "b c", "a b"]
    text, names = words_of(texts)
    all_texts = np.ones(3, bool)
    model = language_models.BigramModel.fit(text, all_texts, len(names))
    result = language_models.cross_entropy(text, model, all_texts)
    for left_out in range(3):
        others = np.arange(3) != left_out
        without = language_models.BigramModel.fit(text, others, len(names))
        expected = language_models.cross_entropy(text, without, np.zeros(3, bool))
        assert result[left_out] == pytest.approx(expected[left_out], abs=1e-12)


def test_scoring_in_batches_changes_nothing(monkeypatch):
    rng = np.random.default_rng(1)
    texts = [" ".join(rng.choice(list("abcdef"), rng.integers(1, 9))) for _ in range(60)]
    text, names = words_of(texts)
    counted = rng.random(60) < 0.5
    model = language_models.BigramModel.fit(text, counted, len(names))
    at_once = language_models.cross_entropy(text, model, counted)
    monkeypatch.setattr(language_models, "_BATCH", 17)
    assert np.array_equal(language_models.cross_entropy(text, model, counted), at_once)


def test_moore_lewis_prefers_what_the_target_says_and_not_what_the_pool_says():
    pool = ["red fish swim"] * 3 + ["stocks fell today"] * 40 + ["", "red fish swim fast"]
    dataset = text_dataset(pool, ["blue fish swim", "red fish sleep", "small fish swim"] * 3)
    assert run_method("moore_lewis", dataset, 4).rows.tolist() == [0, 1, 2, 44]


def test_bm25_scores_are_lucenes_by_hand():
    pytest.importorskip("bm25s")
    pool = ["red fish", "red red bird sings", "blue bird", "stone"]
    dataset = text_dataset(pool, ["red bird"])
    index = bm25._index(dataset)
    query = bm25._queries(dataset)[0]
    result = index.get_scores_from_ids(query)
    mean = (2 + 4 + 2 + 1) / 4
    idf = math.log(1 + (4 - 2 + 0.5) / (2 + 0.5))  # both words are in two of four rows

    def term(count, length):
        return idf * count / (count + 1.5 * (1 - 0.75 + 0.75 * length / mean))

    assert result == pytest.approx([term(1, 2), term(2, 4) + term(1, 4), term(1, 2), 0.0], abs=1e-6)
    assert run_method("bm25", dataset, 1).rows.tolist() == [1]
    assert run_method("bm25", dataset, 3).rows.tolist() == [0, 1, 2]


def test_dsir_weights_by_hand():
    weights = dsir.importance_weights(["a b", "a, a", ""], ["a b b"], buckets=100_003)
    # Target: a 1, b 2, "a b" 1, "b b" 1 of 5. Pool: a 3, b 1, "," 1, "a b", "a ,", ", a" of 8.
    eps = 1e-8

    def gain(target, pool):
        return math.log(target / 5 + eps) - math.log(pool / 8 + eps)

    assert weights.grams.tolist() == [3, 5, 0]
    expected = gain(1, 3) + gain(2, 1) + gain(1, 1)
    assert weights.log_weight[0] == pytest.approx(expected, abs=1e-12)
    expected = 2 * gain(1, 3) + 3 * gain(0, 1)
    assert weights.log_weight[1] == pytest.approx(expected, abs=1e-12)
    assert weights.log_weight[2] == 0.0


def package_weights(pool, target, folder):
    """Log importance weights by the package `data-selection` itself."""
    from data_selection import HashedNgramDSIR

    texts_of = {"pool": pool, "target": target}

    def load(name):
        return [{"text": text} for text in texts_of[name]]

    model = HashedNgramDSIR(
        ["pool"], ["target"], cache_dir=str(folder), raw_load_dataset_fn=load,
        target_load_dataset_fn=load, num_proc=1, min_example_length=0,
    )  # fmt: skip
    model.fit_importance_estimator(num_tokens_to_fit="all")
    model.compute_importance_weights()
    return np.load(folder / "log_importance_weights" / "0.npy", allow_pickle=False)


def test_dsir_weights_are_those_of_the_authors_package(tmp_path):
    pytest.importorskip("data_selection")
    dataset = planted_dataset()
    pool = [*dataset.texts.to_pylist()[:200], "It's 3.5% -- “quoted”, Élan!", "", "one"]
    target = [*dataset.target_texts.to_pylist()[:50], "Not all: the rest (of it)."]
    weights = dsir.importance_weights(pool, target)
    assert package_weights(pool, target, tmp_path) == pytest.approx(weights.log_weight, abs=1e-9)


def test_dsir_per_length_lets_short_texts_compete():
    pool = ["red fish", "red fish red fish red fish red fish stone stone", *["stone bird"] * 30]
    dataset = text_dataset(pool, ["red fish"] * 5)
    weights = dsir.weights(dataset)
    assert weights.log_weight[1] < weights.log_weight[0]
    assert np.argmax(weights.log_weight / np.maximum(1, weights.grams)) == 0


# --- transport, cover, parts ------------------------------------------------------------------


def slow_transport(distance, share, alpha, scale):
    """S by stepping through the events one at a time."""
    m, length = distance.shape
    filled = np.cumsum(share, axis=1)
    events = sorted((filled[j, k], j, k) for j in range(m) for k in range(length - 1))
    cost = np.zeros(m)
    for s, j, k in events:
        cost[j] = sum((distance[j, k + 1] - distance[j, i]) * share[j, i] for i in range(k + 1))
        if alpha / scale * cost.sum() >= (1 - alpha) * m:
            return s
    return events[-1][0]


@pytest.mark.parametrize("with_copies", [False, True])
def test_transport_stops_where_stepping_through_the_lists_stops(with_copies):
    rng = np.random.default_rng(2)
    distance = np.sort(rng.random((6, 12)), axis=1)
    rows = np.stack([rng.permutation(40)[:12] for _ in range(6)])
    density = 1.0 + rng.random(40) * (2.0 if with_copies else 0.0)
    transport = optimal_transport.transport_mass(
        distance, rows, 40, density if with_copies else None, alpha=0.6, scale=0.5
    )
    share = 1.0 / density[rows]
    s = slow_transport(distance, share, 0.6, 0.5)
    expected = np.zeros(40)
    for j in range(6):
        remaining = s
        for k in range(12):
            part = min(remaining, share[j, k]) if k < 11 else remaining
            expected[rows[j, k]] += part / (6 * s)
            remaining -= part
    assert transport.mass.sum() == pytest.approx(1.0)
    assert transport.mass == pytest.approx(expected, abs=1e-12)
    assert 1 < transport.reached_rows < 12


def test_without_a_price_on_evenness_each_target_row_sends_all_to_its_nearest():
    distance = np.array([[0.1, 0.5, 0.9], [0.2, 0.3, 0.4]])
    rows = np.array([[0, 1, 2], [2, 1, 0]])
    transport = optimal_transport.transport_mass(distance, rows, 3, alpha=1.0)
    assert transport.mass == pytest.approx([0.5, 0.0, 0.5])


def test_near_copies_share_the_mass_of_one_row():
    pool = [[0.0, 0.0]] * 4 + [[5.0, 0.0]]
    assert optimal_transport.near_copies(dataset_of(pool, [[0.0, 0.0]]), 1.0) == pytest.approx(
        [4.0, 4.0, 4.0, 4.0, 1.0], abs=1e-4
    )


def test_facility_location_covers_all_parts_of_the_target_first(monkeypatch):
    rng = np.random.default_rng(3)
    centers = np.array([[0.0, 0.0], [20.0, 0.0], [0.0, 20.0]])
    pool = np.concatenate([c + rng.normal(size=(100, 2)) for c in centers])
    target = np.concatenate([c + rng.normal(size=(20, 2)) for c in centers])
    # Nearly no loss: every pick then is the best of all rows.
    monkeypatch.setattr(facility_location, "LOSS", 1e-9)
    rows = run_method("facility_location", dataset_of(pool, target), 9).rows
    assert set(rows // 100) == {0, 1, 2}


def test_herding_follows_the_shares_of_the_targets_modes():
    rng = np.random.default_rng(4)
    centers = np.array([[0.0, 0.0], [8.0, 0.0], [0.0, 8.0]])
    pool = np.concatenate([c + rng.normal(size=(400, 2)) for c in centers])
    target = np.concatenate([centers[0] + rng.normal(size=(150, 2)),
                             centers[1] + rng.normal(size=(50, 2))])  # fmt: skip
    rows = run_method("herding", dataset_of(pool, target), 100).rows
    share = np.bincount(rows // 400, minlength=3) / 100
    assert share == pytest.approx([0.75, 0.25, 0.0], abs=0.12)


@pytest.fixture
def registry():
    before = dict(METHODS.entries)
    yield
    METHODS.entries.clear()
    METHODS.entries.update(before)


def test_shared_work_is_done_once_and_billed_to_everyone_who_uses_it(registry):
    dataset = dataset_of(np.zeros((10, 1)), [[0.0]])
    calls = []

    def inner():
        calls.append("inner")
        time.sleep(0.05)
        return 1

    def outer():
        calls.append("outer")
        time.sleep(0.03)
        return compute_once(dataset, "inner", inner)

    @method("first")
    def first(dataset, budget, seed):
        compute_once(dataset, "inner", inner)
        return np.arange(budget)

    @method("second")
    def second(dataset, budget, seed):
        compute_once(dataset, "outer", outer)
        compute_once(dataset, "inner", inner)
        return np.arange(budget)

    costs = {}
    for name in ("first", "second", "first", "second"):
        costs.setdefault(name, []).append(run_method(name, dataset, 2).seconds)
    assert calls == ["inner", "outer"]
    assert min(costs["first"]) >= 0.05
    assert min(costs["second"]) >= 0.08
    with Meter() as meter:
        compute_once(dataset, "outer", outer)
        compute_once(dataset, "inner", inner)
    assert 0.08 <= meter.borrowed_seconds < sum(costs["second"])  # each part counts once


def test_shared_work_goes_with_its_dataset():
    dataset = dataset_of(np.zeros((10, 1)), [[0.0]])
    value = weakref.ref(compute_once(dataset, "part", lambda: np.zeros(3)))
    dataset_reference = weakref.ref(dataset)
    del dataset
    gc.collect()
    assert dataset_reference() is None
    assert value() is None


def test_parts_that_fail_are_tried_again():
    dataset = dataset_of(np.zeros((4, 1)), [[0.0]])

    def fail():
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        compute_once(dataset, "part", fail)
    assert compute_once(dataset, "part", lambda: 7) == 7
