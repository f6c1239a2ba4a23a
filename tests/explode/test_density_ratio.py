"""Density ratios on arrays: against closed forms, cross-fitted, calibrated, storable."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from gio_spark.engine import encode_vectors
from gio_spark.errors import ConfigError, InputError
from gio_spark.explode import RatioModel, RatioSample, fit, ratio_keys
from gio_spark.settings.explode import ExplodeSettings

D = 6


def sample(content: pa.Array, seed: int) -> RatioSample:
    return RatioSample(content, np.random.default_rng(seed).integers(0, 1 << 53, len(content)))


def gaussians(n: int, m: int, shift: float = 0.7, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return (
        rng.normal(shift, 1.0, (n, D)).astype(np.float32),
        rng.normal(0.0, 1.2, (m, D)).astype(np.float32),
    )


def log_ratio_of_gaussians(x: np.ndarray, shift: float = 0.7) -> np.ndarray:
    return -0.5 * ((x - shift) ** 2).sum(1) + 0.5 * (x / 1.2).__pow__(2).sum(1) + D * np.log(1.2)


def texts(n: int, low: int, high: int, seed: int) -> pa.Array:
    rng = np.random.default_rng(seed)
    words = np.array(
        ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa"]
    )
    return pa.array([" ".join(words[rng.integers(low, high, 8)]) for _ in range(n)])


@pytest.fixture(scope="module")
def text_fit():
    return fit(
        sample(texts(800, 0, 7, 1), 1),
        sample(texts(1_500, 2, 10, 2), 2),
        kind="text",
        settings=ExplodeSettings(),
        salt="s",
    )


@pytest.mark.parametrize(("estimator", "least"), [("classifier", 0.95), ("knn", 0.75)])
def test_the_ratio_of_two_gaussians_follows_its_closed_form(estimator, least):
    target, pool = gaussians(1_500, 3_000)
    ratio_fit = fit(
        sample(encode_vectors(target), 1),
        sample(encode_vectors(pool), 2),
        kind="vector",
        settings=ExplodeSettings(estimator=estimator, knn_rows=1_000),
    )
    new = gaussians(10, 1_000, seed=5)[1]
    hashes = np.random.default_rng(9).integers(0, 1 << 53, len(new))
    ratio = ratio_fit.model.log_ratio(encode_vectors(new), hashes)
    assert np.corrcoef(ratio, log_ratio_of_gaussians(new))[0, 1] > least
    assert ratio_fit.calibration.error < 0.03
    assert ratio_fit.calibration.auc > 0.7


def test_the_pools_mean_ratio_is_one_in_every_fold(text_fit):
    pool = sample(texts(1_500, 2, 10, 2), 2)
    ratio = np.exp(text_fit.model.log_ratio(pool.content, pool.hashes).astype(np.float64))
    for f in range(text_fit.model.folds):
        assert abs(ratio[pool.hashes % text_fit.model.folds == f].mean() - 1.0) < 1e-5


def test_one_law_gives_flat_ratios_and_says_so():
    target, pool = gaussians(1_000, 2_000, seed=3)[1][:900], gaussians(10, 2_000, seed=4)[1]
    ratio_fit = fit(
        sample(encode_vectors(target), 1),
        sample(encode_vectors(pool), 2),
        kind="vector",
        settings=ExplodeSettings(),
    )
    ratio = ratio_fit.model.log_ratio(encode_vectors(pool), np.arange(2_000))
    assert np.abs(ratio).mean() < 0.15
    assert any("told apart" in note for note in ratio_fit.warnings)


@pytest.mark.parametrize("kind", ["text", "classifier", "knn", "retrieval"])
def test_a_row_has_the_same_bits_in_any_batch(kind, text_fit):
    if kind == "text":
        model, content = text_fit.model, texts(300, 0, 10, 7)
    else:
        target, pool = gaussians(300, 600)
        content = encode_vectors(pool)
        model = fit(
            sample(encode_vectors(target), 1),
            sample(content, 2),
            kind="vector",
            settings=ExplodeSettings(estimator=kind),
        ).model
    hashes = np.random.default_rng(3).integers(0, 1 << 53, len(content))
    at_once = model.log_ratio(content, hashes)
    parts = [model.log_ratio(content.slice(i, 37), hashes[i : i + 37]) for i in
             range(0, len(content), 37)]  # fmt: skip
    np.testing.assert_array_equal(at_once, np.concatenate(parts))


def test_a_stored_model_scores_as_before(text_fit):
    content, hashes = texts(100, 0, 10, 11), np.arange(100)
    arrays = text_fit.model.to_arrays()
    assert all(isinstance(a, np.ndarray) and a.dtype != object for a in arrays.values())
    restored = RatioModel.from_arrays(arrays)
    np.testing.assert_array_equal(
        restored.log_ratio(content, hashes), text_fit.model.log_ratio(content, hashes)
    )
    del arrays["offset"]
    with pytest.raises(InputError, match="again"):
        RatioModel.from_arrays(arrays)


def test_a_row_is_not_scored_by_a_model_that_saw_it():
    # Random labels: a model that saw its rows would tell the sides apart.
    rng = np.random.default_rng(0)
    words = np.array([f"w{i}" for i in range(3_000)])
    random_texts = [" ".join(words[rng.integers(0, 3_000, 6)]) for _ in range(1_200)]
    ratio_fit = fit(
        sample(pa.array(random_texts[:600]), 1),
        sample(pa.array(random_texts[600:]), 2),
        kind="text",
        settings=ExplodeSettings(char_ngrams=()),
    )
    assert abs(ratio_fit.calibration.auc - 0.5) < 0.06


def test_null_content_gets_no_ratio_and_is_not_learned_from(text_fit):
    content = pa.array(["alpha beta", None, "kappa"])
    ratio = text_fit.model.log_ratio(content, np.arange(3))
    assert np.isnan(ratio).tolist() == [False, True, False]
    with_null = pa.array([None, *texts(200, 0, 7, 1).to_pylist()])
    ratio_fit = fit(
        sample(with_null, 1),
        sample(texts(300, 2, 10, 2), 2),
        kind="text",
        settings=ExplodeSettings(),
    )
    assert ratio_fit.target_rows == 200


def test_advice_for_targets_of_few_rows_is_one_that_helps():
    good_shares = {"0.0": 0.0, "0.25": 0.0}
    for seed in range(6):
        target, _ = gaussians(20, 1, seed=seed)
        good, others = gaussians(200, 1_800, seed=100 + seed)
        pool = sample(encode_vectors(np.concatenate([good, others])), seed)
        settings = ExplodeSettings()
        ratio_fit = fit(
            sample(encode_vectors(target), 50 + seed), pool, kind="vector", settings=settings
        )
        (warning,) = [note for note in ratio_fit.warnings if "20 rows" in note]
        assert "exact_count" not in warning and "explode.temperature: 0" in warning
        ratio = ratio_fit.model.log_ratio(pool.content, pool.hashes)
        for temperature in good_shares:
            keys = ratio_keys(ratio, pool.hashes, temperature=float(temperature))
            good_shares[temperature] += float(np.mean(np.argsort(-keys)[:200] < 200)) / 6
    # Random rows have .10 good ones.
    assert good_shares["0.0"] > good_shares["0.25"] > 0.15
    strict = fit(
        sample(encode_vectors(target), 1), pool, kind="vector",
        settings=ExplodeSettings(temperature=0.0),
    )  # fmt: skip
    assert not any("temperature" in note for note in strict.warnings)


def test_small_constant_or_unfit_samples_are_named():
    few = sample(texts(3, 0, 7, 1), 1)
    pool = sample(texts(300, 2, 10, 2), 2)
    settings = ExplodeSettings()
    with pytest.raises(InputError, match="target has 3 usable rows"):
        fit(few, pool, kind="text", settings=settings)
    small = fit(sample(texts(15, 0, 7, 1), 4), pool, kind="text", settings=settings)
    assert small.model.folds == 3
    assert any("15 target" in note for note in small.warnings)
    with pytest.raises(ConfigError, match="vectors, not on text"):
        fit(pool, pool, kind="text", settings=ExplodeSettings(estimator="retrieval"))
    empty = sample(pa.array([""] * 50), 1)
    with pytest.raises(InputError, match="n-gram"):
        fit(empty, empty, kind="text", settings=settings)
    constant = sample(encode_vectors(np.ones((50, 3), dtype=np.float32)), 1)
    flat = fit(constant, constant, kind="vector", settings=settings)
    assert (flat.model.log_ratio(constant.content, constant.hashes) == 0).all()
    broken = sample(encode_vectors(np.full((50, 3), np.nan, dtype=np.float32)), 1)
    with pytest.raises(InputError, match="NaN"):
        fit(broken, constant, kind="vector", settings=settings)


def test_word_pairs_tell_apart_texts_of_the_same_words():
    rng = np.random.default_rng(3)
    words = np.array([f"{letter}x{letter}" for letter in "abcdefgh"])

    def cycles(rows: int, step: int) -> pa.Array:
        # Each word is followed by the one `step` places on; a separator hides the characters.
        starts = rng.integers(len(words), size=rows)
        places = (starts[:, None] + step * np.arange(len(words))) % len(words)
        return pa.array([" -- ".join(words[row]) for row in places])

    target = RatioSample(cycles(300, 1), np.arange(300))
    pool = RatioSample(pa.concat_arrays([cycles(300, 1), cycles(300, 3)]), np.arange(600))
    alone = fit(target, pool, kind="text", settings=ExplodeSettings())
    pairs = fit(target, pool, kind="text", settings=ExplodeSettings(word_ngrams=2))
    assert alone.calibration.auc < 0.6
    assert pairs.calibration.auc > 0.7
    restored = RatioModel.from_arrays(pairs.model.to_arrays())
    ratios = pairs.model.log_ratio(pool.content, pool.hashes)
    np.testing.assert_array_equal(restored.log_ratio(pool.content, pool.hashes), ratios)
