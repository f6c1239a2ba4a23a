"""Density ratios of pairs: scores do not depend on batches, and small or odd samples have one."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from gio_spark.explode import RatioModel, RatioSample, fit
from gio_spark.explode.pair_match import fit_match, halves_of
from gio_spark.settings.explode import ExplodeSettings


def pairs(rows: int, seed: int, bad: int = 0) -> pa.StructArray:
    """Sentences and their translations word by word; the first `bad` have another's."""
    random = np.random.default_rng(seed)
    numbers = random.integers(0, 40, (rows, 6))
    others = np.concatenate([np.roll(numbers[:bad], 1, axis=0), numbers[bad:]])
    texts = [" ".join(f"wort{n}" for n in row) for row in numbers]
    outputs = [" ".join(f"mot{n * 7 % 40}" for n in row) for row in others]
    return pa.StructArray.from_arrays([pa.array(texts), pa.array(outputs)], ["text", "output"])


def fitted(target: pa.StructArray, pool: pa.StructArray, seed: int = 0) -> RatioModel:
    random = np.random.default_rng(seed)
    samples = [RatioSample(one, random.integers(0, 1 << 40, len(one))) for one in (target, pool)]
    return fit(*samples, kind="pairs", settings=ExplodeSettings()).model


@pytest.fixture(scope="module")
def model():
    return fitted(pairs(200, 1), pairs(800, 2, bad=200))


def test_pairs_that_do_not_match_have_a_low_ratio(model):
    ratio = model.log_ratio(pairs(400, 3, bad=200), np.arange(400))
    assert np.median(ratio[:200]) < np.quantile(ratio[200:], 0.02)


def test_scores_have_the_same_bits_in_any_batch_and_from_stored_arrays(model):
    rows = pairs(301, 4, bad=100)
    whole = model.log_ratio(rows, np.arange(301))
    stored = RatioModel.from_arrays(model.to_arrays())
    parts = [
        stored.log_ratio(rows.slice(start, 7), np.arange(start, min(start + 7, 301)))
        for start in range(0, 301, 7)
    ]
    assert np.array_equal(whole, np.concatenate(parts))


def test_a_null_pair_has_no_ratio(model):
    rows = pa.concat_arrays([pairs(3, 5), pa.nulls(1, pairs(1, 5).type)])
    assert np.isnan(model.log_ratio(rows, np.arange(4))).tolist() == [False, False, False, True]


@pytest.mark.parametrize("seed", range(6))
def test_samples_of_a_few_rows_have_a_ratio(seed):
    model = fitted(pairs(5, 6), pairs(6, 7), seed)
    assert np.isfinite(model.log_ratio(pairs(10, 8), np.arange(10))).all()


def test_folds_that_are_all_even_or_all_odd_have_a_ratio():
    samples = [RatioSample(pairs(n, n), np.arange(n) * 2) for n in (40, 60)]
    model = fit(*samples, kind="pairs", settings=ExplodeSettings()).model
    assert np.isfinite(model.log_ratio(pairs(10, 8), np.arange(10))).all()


def test_the_match_of_a_row_is_fitted_on_folds_of_the_other_group():
    fold, label = np.arange(400) % 4, (np.arange(400) < 100).astype(np.int64)
    text, output = halves_of(pairs(400, 9))
    others = pa.array(np.where(fold % 2 == 1, "mot1 mot2", output.to_numpy(zero_copy_only=False)))
    match = fit_match(text, output, fold, label)
    with_other_odd_folds = fit_match(text, others, fold, label)
    assert np.array_equal(match.output[1], with_other_odd_folds.output[1])
    assert not np.array_equal(match.output[0], with_other_odd_folds.output[0])


def test_empty_halves_have_a_ratio(model):
    empty = pa.array(["", "wort1"])
    rows = pa.StructArray.from_arrays([empty, empty], ["text", "output"])
    assert np.isfinite(model.log_ratio(rows, np.arange(2))).all()


def test_the_score_of_a_pair_is_the_sum_of_both_halves_and_their_match(model):
    scorer, content, fold = model.scorer, pairs(12, seed=5), np.arange(12) % 2
    text, output = content.field("text"), content.field("output")
    match = (scorer.match.features(text, output, fold) * scorer.weights[fold]).sum(axis=1)
    expected = scorer.text.raw(text, fold) + scorer.output.raw(output, fold) + match
    assert np.ptp(scorer.output.raw(output, fold)) > 0
    np.testing.assert_allclose(scorer.raw(content, fold), expected)
