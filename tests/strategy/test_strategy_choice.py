"""Choice of a strategy: who wins, who does not, what candidates never see, and the guard."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import roc_auc_score

from gio_spark import register
from gio_spark.settings.load import build
from gio_spark.settings.strategy_settings import STRATEGIES
from gio_spark.strategy import strategy_sample as strategy_sampling
from gio_spark.strategy.candidate_strategies import (
    DEFAULT,
    RANDOM,
    try_candidate,
)
from gio_spark.strategy.evaluation_dataset import EvaluationDataset
from gio_spark.strategy.held_out_judge import TextJudge, auc_score, label_problem
from gio_spark.strategy.methods import run_method
from gio_spark.strategy.methods.density_ratios import log_ratio
from gio_spark.strategy.methods.method_registry import METHODS
from gio_spark.strategy.strategy_choice import (
    CandidateFigures,
    StrategyChoice,
    choose_strategy,
    decide,
)
from gio_spark.strategy.strategy_sample import (
    LARGE_SAMPLE_ROWS,
    SAMPLE_ROWS,
    is_small_budget,
    sampling_rates,
    split_target,
    strategy_sample,
    target_distribution,
)
from gio_spark.strategy.text_codes import byte_codes_of, word_codes_of

ROWS, TARGET, CLUSTERS, BUDGET = 5_000, 400, 12, 250


def classes(vectors: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.digitize(vectors[:, 0] + 0.3 * rng.normal(size=len(vectors)), [-0.43, 0.43])


def labelled_dataset(seed: int = 0, *, misleading: bool = True) -> EvaluationDataset:
    """Rows of three classes by their first number, and a target of the pool's own law.

    If `misleading`, the target is one of two groups of rows: the labels of the other group are in
    the reverse order, and those of the rows most like the target are drawn at random. Quotas find
    the group; a density ratio picks the rows in it from which nothing can be learned.
    """
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(ROWS, 3)).astype(np.float32)
    target = rng.normal(size=(TARGET, 3)).astype(np.float32)
    labels = classes(vectors, rng)
    if misleading:
        target[:, 2] *= 0.1
        target[:, 1] += 4
        is_other = rng.random(ROWS) < 0.8
        vectors[:, 1] += np.where(is_other, -4, 4)
        labels[is_other] = 2 - labels[is_other]
        is_near = np.abs(vectors[:, 2]) < 0.7
        labels[is_near] = rng.integers(0, 3, int(is_near.sum()))
    centroids = vectors[:CLUSTERS] * np.float32([1, 1, 0])
    return EvaluationDataset(
        vectors=vectors,
        hashes=np.sort(rng.integers(0, 2**63, ROWS).astype(np.uint64)),
        target_vectors=target,
        centroids=centroids,
        cluster=np.argmin(((vectors[:, None] - centroids) ** 2).sum(2), axis=1).astype(np.int32),
        target_mass=target_distribution(target, centroids),
        held_vectors=target[:0],
        labels=labels,
        target_labels=classes(target, rng),
    )


def figures(name: str, gain: float, over_random: float, error: float = 0.01) -> CandidateFigures:
    base, random = error * (name != DEFAULT), error * (name != RANDOM)
    return CandidateFigures(name, gain, base, over_random, random, 0.1)


def without_times(choice: StrategyChoice) -> StrategyChoice:
    candidates = tuple(dataclasses.replace(c, seconds=0.0) for c in choice.figures)
    return dataclasses.replace(choice, seconds=0.0, figures=candidates)


@pytest.fixture(scope="module")
def misleading():
    return labelled_dataset()


def test_a_strategy_that_is_better_by_the_labels_wins(misleading):
    choice = choose_strategy(misleading, BUDGET, 0, names=("kl_hash", "classifier_top"))
    gain = {candidate.name: candidate for candidate in choice.figures}
    assert choice.strategy == "kl_hash", choice.note()
    assert choice.judge == "accuracy of a proxy"
    assert (choice.splits, choice.judging_rows) == (3, 300)
    assert gain["kl_hash"].gain > 3 * gain["kl_hash"].gain_error
    assert gain["classifier_top"].gain < gain["kl_hash"].gain
    assert gain[DEFAULT].gain == gain[RANDOM].over_random == 0.0


def test_the_method_auto_takes_the_rows_of_the_choice_and_says_so(misleading):
    import gio_spark.evaluate.auto_method  # noqa: F401 - registers it

    selection = run_method("auto", misleading, BUDGET, 0)
    strategy = selection.note.split(":")[0]
    assert strategy != DEFAULT
    assert "Judge: accuracy of a proxy, 300 target rows" in selection.note
    assert np.array_equal(selection.rows, run_method(strategy, misleading, BUDGET, 0).rows)
    is_known = strategy in STRATEGIES
    in_run = f"select.strategy: {strategy}" if is_known else "a run cannot carry it out yet"
    assert f"In a run: {in_run}" in selection.note


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_strategy_of_a_run_is_a_method_and_a_setting(strategy):
    inputs = {"pool": "pool", "target": "target"}
    named = build({**inputs, "select": {"strategy": strategy}})
    chosen = build({**inputs, "select": {"strategy": "auto"}}).with_strategy(strategy)
    assert strategy in METHODS.names()
    assert (named.explode, named.select.objective) == (chosen.explode, chosen.select.objective)
    assert (named == build(inputs)) == (strategy == DEFAULT)


def test_the_same_data_give_the_same_choice_and_figures(misleading):
    first = choose_strategy(misleading, BUDGET, 0, names=("kl_hash",))
    again = choose_strategy(labelled_dataset(), BUDGET, 0, names=("kl_hash",), threads=3)
    assert without_times(first) == without_times(again)


def test_where_the_target_is_of_the_pools_own_law_nothing_is_promised():
    names = ("kl_hash", "knn_retrieval", "stratified")
    choice = choose_strategy(labelled_dataset(misleading=False), BUDGET, 0, names=names)
    assert choice.strategy in (DEFAULT, RANDOM)
    assert all(abs(candidate.over_random) < 0.3 for candidate in choice.figures)


def test_a_scoring_function_of_the_user_judges_in_place_of_labels(misleading):
    rows_seen = []

    def share_of_even_rows(rows, seed):
        rows_seen.append(rows)
        return float(np.mean(misleading.vectors[rows, 2] > 1.0))

    choice = choose_strategy(
        misleading, BUDGET, 0, names=("sparse_regions",), scorer=share_of_even_rows
    )
    assert (choice.strategy, choice.judge) == ("sparse_regions", "own score")
    assert len(rows_seen) == 9


def test_candidates_see_neither_judging_rows_nor_their_copies_nor_labels(misleading):
    copied = np.r_[np.arange(0, 200), np.arange(0, 200)]
    vectors = misleading.vectors.copy()
    vectors[:400] = misleading.target_vectors[copied] + np.float32(1e-5)
    dataset = dataclasses.replace(misleading, vectors=vectors)
    seen = []

    @register("method", "spy", weighted=True)
    def spy(dataset, budget, seed):
        """Take the first rows."""
        seen.append(dataset)
        return np.arange(budget)

    try:
        choice = choose_strategy(dataset, BUDGET, 0, names=("spy", "kl_hash"))
    finally:
        METHODS.entries.pop("spy")
    assert "spy" in [candidate.name for candidate in choice.figures]
    splits = split_target(dataset, 0)
    assert len(seen) == len(splits) == 3
    for given, split in zip(seen, splits, strict=True):
        judges = dataset.target_vectors[split.judging]
        for rows in (given.vectors, given.target_vectors):
            squared = ((rows[:, None] - judges) ** 2).sum(2)
            assert squared.min() > 1e-8
        assert len(given.held_vectors) == 0
        for name in ("labels", "target_labels", "held_labels", "held_texts", "good", "features"):
            assert getattr(given, name) is None
        np.testing.assert_allclose(
            given.target_mass, target_distribution(given.target_vectors, given.centroids)
        )
    judging = np.concatenate([split.judging for split in splits])
    assert len(np.unique(judging)) == len(judging) == 300


def test_texts_that_share_most_of_their_words_with_a_judging_row_leave_the_sample(misleading):
    rng = np.random.default_rng(0)

    def texts(count):
        return pa.array(
            [" ".join(f"w{w}" for w in row) for row in rng.integers(0, 500, (count, 8))]
        )

    target_texts = texts(TARGET)
    pool_texts = pa.concat_arrays([target_texts.slice(0, 100), texts(ROWS - 100)])
    dataset = dataclasses.replace(misleading, texts=pool_texts, target_texts=target_texts)
    words = word_codes_of(pool_texts), word_codes_of(target_texts)
    for split in split_target(dataset, 0, words):
        judging_texts = set(target_texts.take(pa.array(split.judging)).to_pylist())
        assert judging_texts.isdisjoint(split.dataset.texts.to_pylist())
        assert judging_texts.isdisjoint(split.dataset.target_texts.to_pylist())
        assert split.dataset.rows >= ROWS - 100 - 50


def test_no_split_separates_the_rows_of_a_group(misleading):
    groups = np.arange(TARGET) // 9
    for split in split_target(dataclasses.replace(misleading, target_groups=groups), 0):
        visible = {tuple(row) for row in split.dataset.target_vectors.tolist()}
        is_visible = [tuple(row) in visible for row in misleading.target_vectors.tolist()]
        assert not set(groups[split.judging]) & set(groups[is_visible])
    pool_groups = np.arange(ROWS) % 100
    with_groups = dataclasses.replace(misleading, target_groups=groups, groups=pool_groups)
    for split in split_target(with_groups, 0):
        assert set(groups[split.judging]).isdisjoint(pool_groups[split.rows])
        assert len(set(pool_groups[split.rows])) > 50
    one_group = dataclasses.replace(misleading, target_groups=np.zeros(TARGET, int))
    assert choose_strategy(one_group, BUDGET, 0).reason.startswith("the target's groups")


@pytest.mark.parametrize(
    ("changes", "budget", "reason"),
    [
        ({"labels": None}, BUDGET, "with vectors alone no judge"),
        ({"target_labels": None}, BUDGET, "with vectors alone no judge"),
        ({}, 150, "the sample has 150 of the rows"),
    ],
)
def test_the_default_is_kept_where_nothing_can_judge(misleading, changes, budget, reason):
    choice = choose_strategy(dataclasses.replace(misleading, **changes), budget, 0)
    assert (choice.strategy, choice.figures) == (DEFAULT, ())
    assert choice.reason.startswith(reason)


RARE = np.arange(ROWS) % 500 == 0


@pytest.mark.parametrize(
    ("labels", "target_labels", "problem"),
    [
        (np.zeros(ROWS, int), None, "fewer than 20 pool rows have another label"),
        (RARE.astype(int), None, "fewer than 20 pool rows have another label"),
        (None, np.zeros(TARGET, int), "fewer than 20 target rows have another label"),
        (None, (np.arange(TARGET) < 19).astype(int), "fewer than 20 target rows have another"),
        (np.arange(ROWS), None, "they are of more than 200 classes"),
        (None, 5 + np.arange(TARGET) % 2, "fewer than half of the target's labels occur"),
    ],
)
def test_labels_that_say_nothing_leave_the_judgement_to_the_texts(
    misleading, labels, target_labels, problem
):
    labels = misleading.labels if labels is None else labels
    target_labels = misleading.target_labels if target_labels is None else target_labels
    assert label_problem(labels, target_labels).startswith(problem)
    dataset = dataclasses.replace(misleading, labels=labels, target_labels=target_labels)
    reason = choose_strategy(dataset, BUDGET, 0).reason
    assert reason.startswith(f"the labels cannot judge: {problem}")
    texts = pa.array([f"w{i} w{i % 5}" for i in range(TARGET + ROWS)])
    dataset = dataclasses.replace(
        dataset, texts=texts.slice(TARGET), target_texts=texts.slice(0, TARGET)
    )
    choice = choose_strategy(dataset, BUDGET, 0, names=("kl_hash",))
    assert choice.judge.startswith("cross-entropy")


@pytest.mark.parametrize("classes", [2, 3])
def test_labels_that_no_model_can_predict_keep_the_default(misleading, classes):
    rng = np.random.default_rng(0)
    labels = [rng.integers(0, classes, rows) for rows in (ROWS, TARGET)]
    dataset = dataclasses.replace(misleading, labels=labels[0], target_labels=labels[1])
    choice = choose_strategy(dataset, BUDGET, 0, names=("kl_hash",))
    assert (choice.strategy, choice.figures) == (DEFAULT, ())
    assert choice.reason == "the target's labels cannot be predicted from the rows."


def test_labels_of_few_rows_classes_and_numbers_can_judge():
    few = (np.arange(TARGET) < 20).astype(int)
    assert label_problem(np.arange(ROWS) % 2, few) == ""
    assert label_problem(np.arange(ROWS) % 200, np.arange(TARGET) % 150) == ""
    assert label_problem(np.arange(ROWS) / 7, np.arange(TARGET) / 3) == ""


def test_texts_of_one_template_keep_the_default(misleading):
    line = "your order number {} has been sent to you by mail on monday".format
    texts = [pa.array([line(i) for i in range(rows)]) for rows in (ROWS, TARGET)]
    alike = dataclasses.replace(misleading, labels=None, texts=texts[0], target_texts=texts[1])
    choice = choose_strategy(alike, BUDGET, 0)
    assert choice.strategy == DEFAULT and "its rows too alike" in choice.reason


def test_a_target_of_few_rows_keeps_the_default(misleading):
    few = dataclasses.replace(misleading, target_vectors=misleading.target_vectors[:99],
                              target_labels=misleading.target_labels[:99])  # fmt: skip
    assert choose_strategy(few, BUDGET, 0).reason.startswith("the target has 99 rows")


@pytest.mark.parametrize(
    ("strategy", "warns", "candidates"),
    [
        # Clearly better than the default, and the best of those that are.
        ("b", False, [figures("b", 0.05, 0.25), figures("a", 0.03, 0.23)]),
        # Better by less than its error allows.
        (DEFAULT, False, [figures("b", 0.05, 0.25, 0.04)]),
        # The largest gain is not clear, a smaller one is.
        ("a", False, [figures("b", 0.05, 0.25, 0.04), figures("a", 0.03, 0.23)]),
    ],
)
def test_another_strategy_must_be_clearly_better_than_the_default(strategy, warns, candidates):
    rows = [*candidates, figures(DEFAULT, 0.0, 0.2), figures(RANDOM, -0.2, 0.0)]
    choice, _, warning = decide(rows, 1.64)
    assert (choice, bool(warning)) == (strategy, warns)


@pytest.mark.parametrize(
    ("strategy", "over_random", "error"),
    [
        (DEFAULT, 0.002, 0.03),  # the interval includes a useful gain
        (RANDOM, 0.002, 0.005),  # it does not
        (RANDOM, -0.05, 0.02),  # the default is clearly worse
    ],
)
def test_random_rows_are_taken_only_if_a_useful_gain_is_excluded(strategy, over_random, error):
    rows = [figures(DEFAULT, 0.0, over_random, error), figures(RANDOM, -over_random, 0.0, error)]
    choice, _, warning = decide(rows, 1.64)
    assert choice == strategy
    assert warning


def test_a_weighted_sample_takes_of_each_cluster_what_the_pool_would(monkeypatch):
    monkeypatch.setattr(strategy_sampling, "LARGE_SAMPLE_ROWS", 1_000)
    dataset = labelled_dataset()
    mass = np.where(np.arange(CLUSTERS) < 2, 0.5, 0.0)
    dataset = dataclasses.replace(dataset, target_mass=mass)
    sample, positions = strategy_sample(dataset, 0, small_budget=True)
    assert positions is not None
    assert sample.rows == pytest.approx(1_000, abs=100)
    assert sample.weights.sum() == pytest.approx(ROWS)
    is_relevant = np.isin(sample.cluster, [0, 1])
    assert is_relevant.mean() > 2 * np.isin(dataset.cluster, [0, 1]).mean()
    budget = int(dataset.sizes[:2].sum() / 3)
    whole = run_method("kl_ratio_t0", dataset, budget, 0).rows
    taken = run_method("kl_ratio_t0", sample, budget, 0).rows
    assert sample.weights[taken].sum() == pytest.approx(budget, rel=0.05)
    shares = [
        np.bincount(dataset.cluster[whole], minlength=CLUSTERS) / len(whole),
        np.bincount(sample.cluster[taken], sample.weights[taken], CLUSTERS) / budget,
    ]
    np.testing.assert_allclose(*shares, atol=0.05)
    for name in ("random", "classifier_top", "classifier_resample", "knn_retrieval", "stratified"):
        rows = run_method(name, sample, budget, 0).rows
        assert sample.weights[rows].sum() == pytest.approx(budget, rel=0.05), name


def test_a_budget_of_a_tiny_share_of_a_huge_pool_is_tried_as_such(misleading):
    weights = np.where(misleading.vectors[:, 1] < 0, 250_000.0, 1.0)
    dataset = dataclasses.replace(misleading, weights=weights)
    assert dataset.pool_rows > 900_000_000
    choice = choose_strategy(dataset, BUDGET, 0, names=("kl_hash",))
    gain = {candidate.name: candidate for candidate in choice.figures}
    assert choice.strategy == "kl_hash", choice.note()
    assert gain[RANDOM].gain < gain["kl_hash"].gain
    # Random rows of such a pool are of the other group.
    random_rows = try_candidate(RANDOM, dataset, BUDGET, BUDGET, 0).rows
    assert (misleading.vectors[random_rows, 1] < 0).all()
    # It is a weighted sample already.
    assert strategy_sample(dataset, 0, small_budget=True) == (dataset, None)


@pytest.mark.parametrize("rows", [1, 300, 4_000, 9_999, 10_000, 20_000])
def test_sampling_rates_give_as_many_rows_as_asked(monkeypatch, rows):
    monkeypatch.setattr(strategy_sampling, "SAMPLE_ROWS", rows)
    monkeypatch.setattr(strategy_sampling, "LARGE_SAMPLE_ROWS", rows)
    rng = np.random.default_rng(0)
    sizes = np.r_[rng.integers(1, 400, 40), 0]
    sizes[0] += 10_000 - sizes.sum()
    mass = np.r_[0.0, rng.dirichlet(np.full(39, 0.2)), 0.0]
    alike = sampling_rates(sizes, mass, small_budget=False)
    assert alike[sizes > 0] == pytest.approx(np.full(40, min(1.0, rows / 10_000)))
    rates = sampling_rates(sizes, mass, small_budget=True)
    assert (rates * sizes).sum() == pytest.approx(min(rows, 10_000))
    assert rates.min() > 0 and rates.max() <= 1.0
    part = 0.25 * sizes / 10_000 + 0.75 * np.sqrt(mass * sizes) / np.sqrt(mass * sizes).sum()
    factor = (rates * sizes / np.maximum(part, 1e-300))[(rates < 1) & (sizes > 0)]
    assert len(factor) == 0 or np.ptp(factor) <= 1e-9 * factor.max()
    assert (len(factor) == 0) == (rows >= 10_000)


def test_a_small_budget_is_tried_on_a_larger_sample_where_the_target_is():
    sizes, mass = np.array([9_000_000, 1_000_000]), np.array([0.2, 0.8])
    assert not is_small_budget(150_000, 10_000_000)
    assert is_small_budget(149_999, 10_000_000)
    usual, larger = (sampling_rates(sizes, mass, small_budget=small) for small in (False, True))
    assert (usual * sizes).sum() == pytest.approx(SAMPLE_ROWS)
    assert (larger * sizes).sum() == pytest.approx(LARGE_SAMPLE_ROWS)
    assert larger[1] > 3 * larger[0] and usual[1] == usual[0]


def test_the_ratio_of_a_weighted_sample_is_that_of_the_pool(misleading, monkeypatch):
    monkeypatch.setattr(strategy_sampling, "LARGE_SAMPLE_ROWS", 1_500)
    sample, positions = strategy_sample(misleading, 0, small_budget=True)
    whole = log_ratio(misleading, 0, "classifier").log_ratio[positions]
    assert np.corrcoef(log_ratio(sample, 0, "classifier").log_ratio, whole)[0, 1] > 0.9
    best = run_method("kl_ratio_t0", misleading, BUDGET, 0).rows
    taken = positions[run_method("kl_ratio_t0", sample, BUDGET, 0).rows]
    assert np.isin(taken, best).mean() > 0.8


def test_the_auc_of_a_judge_has_the_error_of_its_rows():
    rng = np.random.default_rng(0)
    truth = (rng.random(2_000) < 0.3).astype(int)
    predicted = np.round(truth + 1.5 * rng.normal(size=2_000), 1)
    score = auc_score(predicted, truth)
    assert score.value == pytest.approx(roc_auc_score(truth, predicted))
    assert score.influence.sum() == pytest.approx(0.0, abs=1e-9)
    draws = [rng.integers(0, 2_000, 2_000) for _ in range(100)]
    spread = np.std([roc_auc_score(truth[d], predicted[d]) for d in draws])
    assert np.sqrt(np.square(score.influence).sum()) == pytest.approx(spread, rel=0.25)


def test_texts_are_judged_in_the_unit_of_the_budget_and_by_their_spelling(misleading):
    rng = np.random.default_rng(0)
    vocabulary = np.array([f"{a}{b}" for a in ("ba", "do", "ki", "lu") for b in ("ne", "ro", "ti")])

    def texts(count, length, *, misspelt=False):
        lines = [" ".join(words) for words in vocabulary[rng.integers(0, 12, (count, length))]]
        return [line.replace("n", "nn").replace("k", "c") for line in lines] if misspelt else lines

    pool = pa.array([*texts(300, 8), *texts(300, 24), *texts(300, 8, misspelt=True)])
    target = pa.array(texts(TARGET, 8))
    pairs = [(codes(pool), codes(target)) for codes in (word_codes_of, byte_codes_of)]
    split = split_target(misleading, 0)[0]
    rows = {"base": np.arange(60), "long": np.arange(300, 360), "misspelt": np.arange(600, 660)}
    by_words, by_rows = (
        TextJudge(*pairs, equal_words=equal).gains(split, rows, "base", "base", 0)
        for equal in (True, False)
    )
    assert by_words["base"].value == by_rows["base"].value == 0.0
    assert by_rows["long"].value > 0.02 > 2 * abs(by_words["long"].value)
    assert by_words["misspelt"].value < -0.1
