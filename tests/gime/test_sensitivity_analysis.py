"""Sensitivity runs on a task where it is known which metric matters."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from gio_spark.errors import ConfigError, InputError
from gio_spark.gime import Constants
from gio_spark.gime.metric_factors import merged_factors, turning_point
from gio_spark.gime.proxy_training import CustomScore, Task, frequency_codes, train_many, train_one
from gio_spark.gime.sensitivity_analysis import (
    _effects,
    _failure_signs,
    forecast_training,
    sensitivity,
)
from gio_spark.gime.tilted_subsets import Sample, random_tilts, tilts_of
from gio_spark.settings.gime import GimeSettings

CLUSTERS = 12


def noisy_labels(n=1500, seed=0, measure="accuracy", proxy="linear"):
    """A sample whose labels are wrong with probability 1 - quality: distortion must matter."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, 6)).astype(np.float32)
    quality = rng.random(n) ** 0.7
    truth = (x[:, 0] + x[:, 1] > 0).astype(np.int64)
    labels = np.where(rng.random(n) < quality, truth, 1 - truth)
    table = pa.table(
        {
            "cluster": rng.integers(0, CLUSTERS, n),
            "tokens": rng.integers(5, 50, n),
            "quality": quality,
            "event_time": rng.integers(0, 10**14, n),
        }
    )
    sample = Sample.from_arrow(table, "text", Constants({"clusters": CLUSTERS}), table)
    held = rng.standard_normal((800, 6)).astype(np.float32)
    task = Task(x, labels, held, (held[:, 0] + held[:, 1] > 0).astype(np.int64), measure, proxy)
    return sample, task


QUICK = GimeSettings(screen=30, levels=5, seeds=3)
TINY = GimeSettings(screen=20, levels=5, seeds=2)


def test_the_metric_that_matters_is_found_and_noise_is_low():
    sample, task = noisy_labels()
    result = sensitivity(None, sample, task, size=150, settings=QUICK)
    rows = result.table.set_index("metrics")
    distortion = next(name for name in rows.index if "distortion" in name)
    assert rows.loc[distortion, "class"] in ("high", "moderate")
    assert rows.loc[distortion, "change"] < 0
    assert result.table.iloc[0]["metrics"] == distortion
    assert result.models == 31 + len(result.sweeps)
    assert result.seconds > 0
    high = result.table.loc[result.table["class"] == "high", "metrics"]
    assert not high.str.contains("volume").any()


def clicks(rows=8_000, held_out=2_000, users=800, items=400, proxy="linear"):
    """Clicks that depend on user and item alone: fields of many values and no number."""
    rng = np.random.default_rng(0)
    user, item = ((n * rng.beta(1, 2, rows + held_out)).astype(int) for n in (users, items))
    odds = rng.normal(0, 1.2, users)[user] + rng.normal(0, 1.2, items)[item]
    clicked = (rng.random(rows + held_out) < 1 / (1 + np.exp(-odds))).astype(np.int64)
    fields = [frequency_codes(f[:rows], f[rows:]) for f in (user, item)]
    codes, held_codes = (np.stack([f[side] for f in fields], axis=1) for side in (0, 1))
    none = np.zeros((rows, 0), np.float32), np.zeros((held_out, 0), np.float32)
    return Task(
        none[0], clicked[:rows], none[1], clicked[rows:], "auc", proxy,
        categories=codes, test_categories=held_codes,
    )  # fmt: skip


@pytest.mark.parametrize(("proxy", "least"), [("linear", 0.74), ("boosting", 0.66)])
def test_proxies_see_fields_of_many_values(proxy, least):
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.preprocessing import OneHotEncoder

    task = clicks(proxy=proxy)
    score = float(train_many(None, task, [np.arange(8_000)])["score"][0])
    assert score > least
    if proxy == "linear":
        encoder = OneHotEncoder(handle_unknown="ignore")
        plain = LogisticRegression(max_iter=500)
        plain.fit(encoder.fit_transform(task.categories), task.labels)
        decided = plain.decision_function(encoder.transform(task.test_categories))
        assert score > roc_auc_score(task.test_labels, decided) - 0.01


def test_the_effect_of_a_seed_is_that_of_its_own_sweeps():
    rng = np.random.default_rng(0)
    value = np.linspace(0.0, 1.0, 40)
    screen = pd.DataFrame({"scope": value, "volume": rng.random(40), "score": np.full(40, np.nan)})
    factors = merged_factors(screen[["scope", "volume"]])
    sweeps = pd.DataFrame(
        {
            "seed": np.repeat([0, 1], 40),
            "scope": np.tile(value, 2),
            "volume": rng.random(80),
            "score": np.r_[2.0 * value, -3.0 * value],
        }
    )
    effects = _effects(factors, screen, sweeps, 2)
    # From the 10th to the 90th percentile of a uniform value; the ridge takes about a percent.
    np.testing.assert_allclose(effects[:, 0], [1.6, -2.4], rtol=0.03)
    np.testing.assert_allclose(effects[:, 1], 0, atol=0.03)


def test_failure_signs_compare_with_two_deviations_and_half_of_the_spread():
    scored, table = pd.DataFrame({"score": [0.5]}), pd.DataFrame({"class": ["high"]})

    def signs(full, deviation):
        notes = _failure_signs(full, (0.5, deviation), 0.1, scored, table)
        return [("as good as" in note, "vary about" in note) for note in notes]

    assert signs(0.59, 0.04) == []
    assert signs(0.57, 0.04) == [(True, False)]
    assert signs(0.7, 0.06) == [(False, True)]


def test_chance_is_the_share_of_the_most_frequent_label():
    features = np.zeros((10, 1), np.float32)
    labels = np.array([0] * 7 + [1] * 2 + [2])
    accuracy, error = Task(features, labels, features, labels, "accuracy").chance()
    assert (accuracy, error) == pytest.approx((0.7, np.sqrt(0.7 * 0.3 / 10)))
    binary = np.array([0] * 8 + [1] * 2)
    precision, _ = Task(features, binary, features, binary, "average_precision").chance()
    assert precision == pytest.approx(0.2)


def test_many_models_are_those_trained_one_by_one():
    task = replace(noisy_labels(proxy="boosting")[1], small=True)
    index = np.arange(0, 1_500, 3)
    score = train_many(None, task, [index], seeds=(1,))["score"][0]
    assert (
        score == train_one(task, index, 1)[0] != train_one(replace(task, small=False), index, 1)[0]
    )


def test_codes_follow_frequency_and_know_no_labels():
    values = np.array(["b", "a", "b", "c", "b", "a"])
    codes, held_codes = frequency_codes(values, np.array(["z", "a", "b"]))
    assert codes.tolist() == [0, 1, 0, 2, 0, 1]
    assert held_codes.tolist() == [3, 1, 0]


def test_the_cost_is_forecast_before_the_runs():
    sample, task = noisy_labels()
    forecast = forecast_training(sample, task, size=150, settings=QUICK)
    assert forecast.screen == QUICK.screen + 1
    assert forecast.sweeps == len(sample.metrics()) * QUICK.seeds * QUICK.levels
    assert 0 < forecast.least < forecast.most


def test_the_same_seed_gives_the_same_table():
    sample, task = noisy_labels(600)
    first, second = (
        sensitivity(None, sample, task, size=80, settings=TINY).table for _ in range(2)
    )
    pd.testing.assert_frame_equal(first, second)


def test_rows_are_tilted_by_the_targets_share_of_their_cluster():
    table = pa.table({"cluster": [0] * 6 + [1] * 3, "tokens": range(9)})
    target = pa.table({"cluster": [0] * 1 + [1] * 3, "tokens": range(4)})
    sample = Sample.from_arrow(table, "text", Constants({"clusters": 2}), target)
    tilts = tilts_of(sample)
    assert tilts.names == ("tokens", "target ratio")
    ratio = tilts.values[:, 1]
    assert len(set(ratio[:6])) == len(set(ratio[6:])) == 1 and ratio[0] < 0 < ratio[6]
    assert tilts.clusters.tolist() == [0] * 6 + [1] * 3


def test_rows_of_no_cluster_are_drawn_as_well():
    table = pa.table({"cluster": pa.array([0, None, 0, 0]), "tokens": range(4)})
    tilts = tilts_of(Sample.from_arrow(table, "text", Constants({"clusters": 1}), table))
    drawn = [tilts.draw(np.array([0.0, 1.0]), 2, seed).tolist() for seed in range(20)]
    assert any(1 in rows for rows in drawn) and all(len(set(rows)) == 2 for rows in drawn)


def test_tilts_draw_equal_sizes_without_repeats_and_change_the_metrics():
    sample, _ = noisy_labels()
    tilts = tilts_of(sample, 3)
    _, subsets = random_tilts(tilts, 20, 150)
    assert all(len(set(s.tolist())) == 150 for s in subsets)
    scope = [sample.metrics(s)["scope"] for s in subsets]
    distortion = [sample.metrics(s)["distortion"] for s in subsets]
    assert np.ptp(scope) > 0.1
    assert np.ptp(distortion) > 0.1


def test_metrics_that_change_together_are_merged_and_named():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 60))
    near = -a + 0.01 * rng.standard_normal(60)
    table = pd.DataFrame({"scope": a, "mismatch": near, "delay": b, "same": np.ones(60)})
    factors = {f.name: f for f in merged_factors(table)}
    assert set(factors) == {"scope+mismatch", "delay"}
    assert factors["scope+mismatch"].signs.tolist() == [1.0, -1.0]
    assert factors["scope+mismatch"].vif > 10
    assert np.array_equal(factors["delay"].value(table), b)


def test_a_turning_point_becomes_a_band_and_a_slope_does_not():
    rng = np.random.default_rng(0)
    x = np.linspace(0, 10, 21)
    top, low, high = turning_point(x, -((x - 6) ** 2) + rng.normal(0, 0.5, 21))
    assert top == pytest.approx(6, abs=0.5)
    assert low < top < high
    assert turning_point(x, x + rng.normal(0, 0.5, 21)) is None


@pytest.mark.parametrize(
    ("measure", "proxy"),
    [
        ("auc", "linear"),
        ("average_precision", "boosting"),
        ("skill", "linear"),
        ("skill", "boosting"),
    ],
)
def test_every_measure_and_proxy_trains(measure, proxy):
    _, task = noisy_labels(300, measure=measure, proxy=proxy)
    result = train_many(None, task, [np.arange(120), np.arange(50)], seeds=(0, 1))
    assert len(result) == 4
    assert result["score"].between(-0.5, 1).all()
    assert (result["problem"] == "").all()


def test_a_model_that_cannot_be_trained_is_a_row_that_says_so():
    _, task = noisy_labels(50)
    task.features[3, 2] = np.nan
    result = train_many(None, task, [np.arange(40)])
    assert np.isnan(result["score"][0])
    assert "NaN" in result["problem"][0]


def test_executors_give_the_scores_that_the_driver_gives(spark):
    _, task = noisy_labels(200)
    subsets = [np.arange(50), np.arange(30, 150)]
    local = train_many(None, task, subsets, seeds=(0, 1))
    on_spark = train_many(spark, task, subsets, seeds=(0, 1))
    columns = ["subset", "seed", "rows", "score"]
    pd.testing.assert_frame_equal(local[columns], on_spark[columns])


def test_wrong_sizes_and_measures_are_refused():
    sample, task = noisy_labels(50)
    with pytest.raises(InputError, match="smaller than the sample"):
        sensitivity(None, sample, task, size=50)
    with pytest.raises(InputError, match="unknown"):
        Task(task.features, task.labels, task.test_features, task.test_labels, "f1")
    with pytest.raises(InputError, match="0 and 1"):
        Task(task.features, task.labels, task.test_features, task.test_labels + 1, "auc")


def test_a_response_that_levels_off_is_no_turning_point():
    rng = np.random.default_rng(4)
    x = np.linspace(0, 10, 80)
    level = 1 - np.exp(-x) + rng.normal(0, 0.02, 80)
    assert turning_point(x, level) is None
    assert turning_point(x, level - 0.02 * (x - 5) ** 2) is not None


def longer_is_better(rows, seed):
    """Score rows by a column of theirs."""
    return float(np.mean(rows["tokens"].to_numpy())) + seed


def test_a_score_of_the_users_own_takes_the_place_of_labels(spark):
    table = pa.table({"id": [f"r{i}" for i in range(30)], "tokens": np.arange(30)})
    task = CustomScore(table, f"{__name__}:longer_is_better")
    subsets = [np.arange(10), np.arange(20, 30)]
    for session in (None, spark):
        result = train_many(session, task, subsets, seeds=(0, 1))
        assert result["score"].tolist() == [4.5, 5.5, 24.5, 25.5]
    with pytest.raises(ConfigError, match="cannot be found"):
        CustomScore(table, "no.such:thing").resolve()
