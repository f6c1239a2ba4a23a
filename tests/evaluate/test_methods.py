"""Every method on a small planted pool: exact budgets, determinism, and better than chance."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pytest

from gio_spark.errors import BudgetError, ConfigError, InputError, MissingExtraError
from gio_spark.evaluate.methods import Chosen, choose, get, method, methods
from gio_spark.evaluate.methods.base import _METHODS, reordered

from .planted import planted_arena

BUDGET = 120
BLIND = ("random", "stratified", "full")
#: These see clusters alone, and half of the rows of a good cluster are good.
CLUSTERS_ALONE = (
    "published_exact", "published_jump", "knn_kl", "energy_distance", "kl_hash", "gime",
    "gime_gio",
)  # fmt: skip
DRAWN = (
    "random", "stratified", "oracle", "classifier_resample", "dsir", "dsir_length", "tsds",
    "kl_hash", "kl_ratio_t1", "facility_location",
)  # fmt: skip


@pytest.fixture(scope="module")
def dataset():
    return planted_arena()


def run(name, dataset, budget=BUDGET, seed=0):
    if name == "bm25":
        pytest.importorskip("bm25s")
    return choose(name, dataset, budget, seed)


def test_all_methods_of_the_bake_off_are_there():
    wanted = {
        "oracle", "random", "stratified", "nearest", "knn_retrieval", "bm25", "moore_lewis",
        "classifier_top", "classifier_resample", "herding", "tsds", "tsds_kde", "dsir",
        "dsir_length", "facility_location", "published_exact", "published_jump", "knn_kl",
        "energy_distance", "kl_hash", "kl_ratio_t0", "kl_ratio_t025", "kl_ratio_t1", "kl_knn_t0",
        "kl_knn_t025", "kl_knn_t1", "gime", "gime_gio", "full",
    }  # fmt: skip
    assert wanted <= set(methods())
    assert all(get(name).summary.endswith((".", ":")) for name in wanted)


@pytest.mark.parametrize("name", methods())
def test_a_method_takes_the_budget_exactly_whatever_the_order_of_the_rows(name, dataset):
    found = run(name, dataset)
    assert found.problem == ""
    assert found.rows.dtype == np.int64
    assert len(found.rows) == (dataset.rows if name == "full" else BUDGET)
    assert np.array_equal(found.rows, np.unique(found.rows))
    assert found.seconds > 0
    places = np.random.default_rng(5).permutation(dataset.rows)
    other = run(name, reordered(dataset, places))
    assert np.array_equal(np.sort(dataset.hashes[found.rows]), np.sort(
        dataset.hashes[places][other.rows]))  # fmt: skip


@pytest.mark.parametrize("name", [m for m in methods() if m not in BLIND])
def test_a_method_finds_more_good_rows_than_random(name, dataset):
    found = run(name, dataset)
    chance = dataset.good.mean()
    assert chance < 0.15
    least = 0.35 if name in CLUSTERS_ALONE or name == "herding" else 0.4
    assert dataset.good[found.rows].mean() > least, found.note


@pytest.mark.parametrize("name", [m for m in methods() if m != "full"])
@pytest.mark.parametrize("budget", [1, 1_150])
def test_the_smallest_and_a_large_budget_work(name, budget, dataset):
    found = run(name, dataset, budget)
    assert (found.problem, len(found.rows)) == ("", budget)


@pytest.mark.parametrize("name", DRAWN)
def test_another_seed_draws_other_rows(name, dataset):
    assert not np.array_equal(run(name, dataset).rows, run(name, dataset, seed=1).rows)


@pytest.mark.parametrize("name", ["kl_ratio_t025", "tsds", "dsir_length"])
def test_what_was_computed_before_changes_nothing(name, dataset):
    fresh = choose(name, planted_arena(), BUDGET, 3)
    assert np.array_equal(choose(name, dataset, BUDGET, 3).rows, fresh.rows)


def test_texts_decide_where_vectors_cannot_tell(dataset):
    """Inside a good cluster, only the texts of good rows are like the target's."""
    for name in ("kl_ratio_t0", "moore_lewis", "classifier_top", "dsir"):
        assert dataset.good[run(name, dataset).rows].mean() > 0.6, name


def test_vectors_alone_serve_most_methods():
    bare = planted_arena(texts=False)
    names = methods(bare)
    assert not {"bm25", "moore_lewis", "dsir", "dsir_length"} & set(names)
    for name in names:
        assert choose(name, bare, BUDGET, 0).problem == ""


def test_an_unknown_name_lists_the_known_ones(dataset):
    with pytest.raises(InputError, match=r"'beste'.*Known: .*random.*Register"):
        choose("beste", dataset, BUDGET)


def test_a_missing_need_is_named():
    with pytest.raises(InputError, match="'moore_lewis' needs texts, target_texts"):
        choose("moore_lewis", planted_arena(texts=False), BUDGET)


@pytest.mark.parametrize("budget", [0, 10_000])
def test_a_budget_outside_the_pool_is_an_error(dataset, budget):
    with pytest.raises(BudgetError) as raised:
        choose("random", dataset, budget)
    assert raised.value.largest == dataset.rows


@pytest.fixture
def registry():
    before = dict(_METHODS)
    yield
    _METHODS.clear()
    _METHODS.update(before)


def test_a_users_own_method_runs_like_the_others(dataset, registry):
    @method("mine", needs=("target_vectors",))
    def mine(dataset, budget, seed):
        """Take the first rows by hash."""
        return Chosen(np.arange(budget), "by hash")

    found = choose("mine", dataset, 10)
    assert found.note == "by hash"
    assert set(dataset.hashes[found.rows]) == set(np.sort(dataset.hashes)[:10])
    assert get("mine").summary == "Take the first rows by hash."


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda b: np.zeros(b, int), "1 of them different"),
        (lambda b: np.arange(b + 1), "were wanted"),
        (lambda b: np.arange(b) - 1, "outside"),
        (lambda b: np.linspace(0, 1, b), "not row indices"),
    ],
)
def test_a_method_that_answers_nonsense_is_a_row_that_says_so(dataset, registry, answer, words):
    method("bad")(lambda dataset, budget, seed: answer(budget))
    found = choose("bad", dataset, 10)
    assert words in found.problem
    assert len(found.rows) == 0


def test_a_method_that_fails_is_a_row_that_says_so(dataset, registry):
    @method("fails")
    def fails(dataset, budget, seed):
        raise MissingExtraError("thing", "evaluate", "This method")

    found = choose("fails", dataset, 10)
    assert found.problem.startswith("MissingExtraError: This method needs the package 'thing'")


def test_a_need_that_no_arena_has_is_refused():
    with pytest.raises(ConfigError, match="'colour', which no dataset has"):
        method("painted", needs=("colour",))


def test_rows_beyond_the_targets_clusters_are_taken_in_proportion(dataset):
    found = choose("kl_hash", dataset, 1_150, 0)
    assert "the rest is in proportion" in found.note
    reached = dataset.target_mass > 0
    held = int(dataset.sizes[reached].sum())
    assert np.count_nonzero(reached[dataset.cluster[found.rows]]) == held


def test_nulls_among_the_texts_count_as_empty(dataset):
    texts = dataset.texts.to_pylist()
    texts[0] = texts[7] = None
    holed = dataclasses.replace(dataset, texts=pa.array(texts))
    for name in ("moore_lewis", "dsir_length", "classifier_top", "bm25"):
        assert run(name, holed).problem == ""
