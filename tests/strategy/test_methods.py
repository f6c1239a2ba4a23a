"""Every method on a small planted pool: exact budgets, determinism, and better than chance."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pytest

import gio_spark.evaluate.auto_method  # noqa: F401 - registers `auto`
from gio_spark.errors import BudgetError, ConfigError, InputError, MissingExtraError
from gio_spark.strategy.methods import MethodResult, get, method, methods, run_method
from gio_spark.strategy.methods.method_registry import METHODS, reordered

from .planted_dataset import planted_dataset

BUDGET = 120
BLIND = ("random", "stratified", "sparse_regions", "full")
#: These see clusters alone, and half of the rows of a good cluster are good.
CLUSTERS_ALONE = (
    "published_exact", "published_jump", "knn_kl", "energy_distance", "kl_hash", "gime",
    "gime_gio", "crisp", "betr",
)  # fmt: skip
DRAWN = (
    "random", "stratified", "oracle", "classifier_resample", "dsir", "dsir_length", "tsds",
    "kl_hash", "kl_ratio_t1", "facility_location", "crisp",
)  # fmt: skip


@pytest.fixture(scope="module")
def dataset():
    return planted_dataset()


def run_if_installed(name, dataset, budget=BUDGET, seed=0):
    if name == "bm25":
        pytest.importorskip("bm25s")
    return run_method(name, dataset, budget, seed)


def test_all_methods_of_the_bake_off_are_there():
    expected = {
        "oracle", "random", "stratified", "nearest", "knn_retrieval", "bm25", "moore_lewis",
        "classifier_top", "classifier_resample", "herding", "tsds", "tsds_kde", "dsir",
        "dsir_length", "facility_location", "published_exact", "published_jump", "knn_kl",
        "energy_distance", "kl_hash", "kl_ratio_t0", "kl_ratio_t025", "kl_ratio_t1", "kl_knn_t0",
        "kl_knn_t025", "kl_knn_t1", "gime", "gime_gio", "full",
        "logistic_words", "crisp", "betr",
    }  # fmt: skip
    assert expected <= set(methods())
    assert all(get(name).summary.endswith((".", ":")) for name in expected)


@pytest.mark.parametrize("name", methods())
def test_a_method_takes_the_budget_exactly_whatever_the_order_of_the_rows(name, dataset):
    selection = run_if_installed(name, dataset)
    assert selection.problem == ""
    assert selection.rows.dtype == np.int64
    assert len(selection.rows) == (dataset.rows if name == "full" else BUDGET)
    assert np.array_equal(selection.rows, np.unique(selection.rows))
    assert selection.seconds > 0
    positions = np.random.default_rng(5).permutation(dataset.rows)
    reordered_selection = run_if_installed(name, reordered(dataset, positions))
    assert np.array_equal(np.sort(dataset.hashes[selection.rows]), np.sort(
        dataset.hashes[positions][reordered_selection.rows]))  # fmt: skip


@pytest.mark.parametrize("name", [m for m in methods() if m not in BLIND])
def test_a_method_finds_more_good_rows_than_random(name, dataset):
    selection = run_if_installed(name, dataset)
    chance = dataset.good.mean()
    assert chance < 0.15
    least = 0.35 if name in CLUSTERS_ALONE or name == "herding" else 0.4
    assert dataset.good[selection.rows].mean() > least, selection.note


@pytest.mark.parametrize("name", [m for m in methods() if m != "full"])
@pytest.mark.parametrize("budget", [1, 1_150])
def test_the_smallest_and_a_large_budget_work(name, budget, dataset):
    selection = run_if_installed(name, dataset, budget)
    assert (selection.problem, len(selection.rows)) == ("", budget)


@pytest.mark.parametrize("name", DRAWN)
def test_another_seed_draws_other_rows(name, dataset):
    assert not np.array_equal(
        run_if_installed(name, dataset).rows, run_if_installed(name, dataset, seed=1).rows
    )


@pytest.mark.parametrize("name", ["kl_ratio_t025", "tsds", "dsir_length"])
def test_what_was_computed_before_changes_nothing(name, dataset):
    selection = run_method(name, planted_dataset(), BUDGET, 3)
    assert np.array_equal(run_method(name, dataset, BUDGET, 3).rows, selection.rows)


def test_texts_decide_where_vectors_cannot_tell(dataset):
    """Inside a good cluster, only the texts of good rows are like the target's."""
    for name in ("kl_ratio_t0", "moore_lewis", "classifier_top", "dsir", "logistic_words"):
        assert dataset.good[run_if_installed(name, dataset).rows].mean() > 0.6, name


def test_vectors_alone_serve_most_methods():
    without_texts = planted_dataset(texts=False)
    names = methods(without_texts)
    assert not {"bm25", "moore_lewis", "dsir", "dsir_length", "logistic_words"} & set(names)
    for name in names:
        assert run_method(name, without_texts, BUDGET, 0).problem == ""


def test_an_unknown_name_lists_the_known_ones(dataset):
    with pytest.raises(ConfigError, match=r"'beste'.*Known: .*random.*gio_spark\.register"):
        run_method("beste", dataset, BUDGET)


def test_a_missing_need_is_named():
    with pytest.raises(InputError, match="'moore_lewis' needs texts, target_texts"):
        run_method("moore_lewis", planted_dataset(texts=False), BUDGET)


@pytest.mark.parametrize("budget", [0, 10_000])
def test_a_budget_outside_the_pool_is_an_error(dataset, budget):
    with pytest.raises(BudgetError) as raised:
        run_method("random", dataset, budget)
    assert raised.value.largest == dataset.rows


@pytest.fixture
def registry():
    before = dict(METHODS.entries)
    yield
    METHODS.entries.clear()
    METHODS.entries.update(before)


def test_a_users_own_method_runs_like_the_others(dataset, registry):
    @method("mine", needs=("target_vectors",))
    def mine(dataset, budget, seed):
        """Take the first rows by hash."""
        return MethodResult(np.arange(budget), "by hash")

    selection = run_method("mine", dataset, 10)
    assert selection.note == "by hash"
    assert set(dataset.hashes[selection.rows]) == set(np.sort(dataset.hashes)[:10])
    assert get("mine").summary == "Take the first rows by hash."


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda b: np.zeros(b, int), "1 of them different"),
        (lambda b: np.arange(b + 1), "were wanted"),
        (lambda b: np.arange(b) - 1, "outside"),
        (lambda b: np.linspace(0, 1, b), "not row indices"),
    ],
)
def test_a_method_that_answers_nonsense_is_a_row_that_says_so(dataset, registry, answer, message):
    method("bad")(lambda dataset, budget, seed: answer(budget))
    selection = run_method("bad", dataset, 10)
    assert message in selection.problem
    assert len(selection.rows) == 0


def test_a_method_that_fails_is_a_row_that_says_so(dataset, registry):
    @method("fails")
    def fails(dataset, budget, seed):
        raise MissingExtraError("thing", "evaluate", "This method")

    selection = run_method("fails", dataset, 10)
    assert selection.problem.startswith("MissingExtraError: This method needs the package 'thing'")


def test_a_need_that_no_dataset_has_is_refused():
    with pytest.raises(ConfigError, match="'colour', which no dataset has"):
        method("painted", needs=("colour",))(lambda dataset, budget, seed: None)


def test_rows_beyond_the_targets_clusters_are_taken_in_proportion(dataset):
    selection = run_method("kl_hash", dataset, 1_150, 0)
    assert "the rest is in proportion" in selection.note
    is_reachable = dataset.target_mass > 0
    reachable_rows = int(dataset.sizes[is_reachable].sum())
    assert np.count_nonzero(is_reachable[dataset.cluster[selection.rows]]) == reachable_rows


def test_nulls_among_the_texts_count_as_empty(dataset):
    texts = dataset.texts.to_pylist()
    texts[0] = texts[7] = None
    with_nulls = dataclasses.replace(dataset, texts=pa.array(texts))
    for name in ("moore_lewis", "dsir_length", "classifier_top", "bm25"):
        assert run_if_installed(name, with_nulls).problem == ""
