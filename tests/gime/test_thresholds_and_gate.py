"""Automatic thresholds, the gate's verdict, and quota reallocated until they are met."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from test_sensitivity_analysis import noisy_labels

from gio_spark.errors import ConfigError, InputError
from gio_spark.gime.metric_gate import (
    ClusterStats,
    cluster_bounds,
    judge,
    meet_thresholds,
    reallocate_quota,
    robust_values,
)
from gio_spark.gime.metric_thresholds import (
    Threshold,
    attainable_ranges,
    automatic_thresholds,
    efficiency_curve,
    excess_over_random,
    rescaled_thresholds,
    response,
)
from gio_spark.gime.sensitivity_analysis import Sensitivity

SIGNS = {"scope": 1, "distortion": -1, "delay": -1, "aggregation": 0}


def found_by_hand() -> Sensitivity:
    rng = np.random.default_rng(0)
    distortion = np.linspace(0.1, 0.5, 60)
    score = 0.9 - 0.8 * np.maximum(0, distortion - 0.2) + rng.normal(0, 0.003, 60)
    screen = pd.DataFrame(
        {"distortion": distortion, "scope": rng.uniform(0.4, 0.9, 60), "score": score}
    )
    table = pd.DataFrame(
        {
            "metrics": ["distortion", "scope"],
            "class": ["high", "low"],
            "change": [-0.2, 0.001],
            "band_low": [None, None],
            "band_high": [None, None],
        }
    )
    return Sensitivity(table, screen, screen.iloc[:0], (0.8, 0.01), 0.9, 100, 1.0, 60, ())


def test_ranges_have_the_right_ends():
    ranges = attainable_ranges(found_by_hand(), SIGNS).set_index("metric")
    assert ranges.loc["distortion", "worst"] == 0.5
    assert ranges.loc["distortion", "best"] == 0.1
    assert ranges.loc["scope", "best"] > ranges.loc["scope", "worst"]


def test_the_threshold_stands_where_the_response_reaches_the_level():
    thresholds, table = automatic_thresholds(found_by_hand(), SIGNS, level=0.95)
    (one,) = thresholds
    assert one.metric == "distortion"
    assert one.direction == "less"
    # 95 % of 0.9 is reached at a distortion of 0.256; high sensitivity asks for 0.8 of the range.
    assert one.bound <= 0.256 + 0.02
    row = table.set_index("metric").loc["distortion"]
    assert row["share at 90%"] < row["share at 95%"] < row["share at 99%"]


def test_the_share_of_a_level_is_the_first_whose_response_reaches_it():
    scope = np.repeat(np.linspace(0, 1, 41), 20)
    screen = pd.DataFrame({"scope": scope, "score": np.where(scope < 0.5, 0.5, 1.0)})
    table = pd.DataFrame(
        {"metrics": ["scope"], "class": ["high"], "change": [0.5], "band_low": [None],
         "band_high": [None]}
    )  # fmt: skip
    runs = Sensitivity(table, screen, screen.iloc[:0], (0.5, 0.0), 1.0, 100, 1.0, 60, ())
    _, shares = automatic_thresholds(runs, SIGNS, level=1.0)
    assert shares[["share at 90%", "share at 100%"]].to_numpy().tolist() == [[0.5, 0.5]]


def test_no_share_is_said_of_seven_subsets_or_of_a_metric_that_never_changes():
    runs = found_by_hand()
    few = replace(runs, screen=runs.screen.iloc[::9])
    assert len(few.screen) == 7
    constant = replace(runs, screen=runs.screen.assign(distortion=0.3))
    for one in (few, constant):
        row = automatic_thresholds(one, SIGNS, level=0.95)[1].set_index("metric").loc["distortion"]
        assert row.filter(like="share at").isna().all()
    eight = replace(runs, screen=runs.screen.iloc[::8])
    row = automatic_thresholds(eight, SIGNS, level=0.5)[1].set_index("metric").loc["distortion"]
    assert row.filter(like="share at").notna().any()


def test_shares_are_set_by_hand_and_wrong_ones_are_refused():
    thresholds, _ = automatic_thresholds(
        found_by_hand(), SIGNS, manual_shares={"scope": 0.5, "distortion": 0.25}
    )
    bounds = {t.metric: t for t in thresholds}
    assert bounds["distortion"].bound == pytest.approx(0.4)
    assert bounds["scope"].kind == "by hand"
    with pytest.raises(ConfigError, match="0 to 1"):
        automatic_thresholds(found_by_hand(), SIGNS, manual_shares={"scope": 1.5})
    with pytest.raises(ConfigError, match="No threshold can be set"):
        automatic_thresholds(found_by_hand(), SIGNS, manual_shares={"aggregation": 0.5})


@pytest.mark.parametrize("digits", [1, 8])
def test_the_response_is_that_of_isotonic_regression(digits):
    from sklearn.isotonic import IsotonicRegression

    rng = np.random.default_rng(4)
    share = rng.random(120).round(digits)
    score = share + rng.normal(0, 0.3, 120)
    grid, fitted, _ = response(share, score, repeats=1)
    model = IsotonicRegression(out_of_bounds="clip").fit(share, score)
    np.testing.assert_allclose(fitted, model.predict(grid), rtol=1e-12)


def test_the_lower_bound_lies_below_a_rising_response():
    rng = np.random.default_rng(1)
    share = rng.random(80)
    _, middle, lower = response(share, share + rng.normal(0, 0.1, 80))
    assert np.all(np.diff(middle) >= 0)
    assert np.mean(lower <= middle + 1e-12) > 0.95


def test_excess_of_a_random_draw_is_small_and_of_one_cluster_large():
    sample, _ = noisy_labels()
    rng = np.random.default_rng(5)
    fair = excess_over_random(sample, rng.choice(1500, 100, replace=False)).set_index("metric")
    one_cluster = np.flatnonzero(sample.rows["cluster"].values == 3)[:100]
    tight = excess_over_random(sample, one_cluster).set_index("metric")
    assert abs(fair.loc["variety", "z"]) < 5
    assert tight.loc["variety", "excess"] < -5
    assert tight.loc["mismatch", "excess"] > 0.3


def test_the_efficiency_curve_counts_rows_tokens_and_seconds():
    sample, task = noisy_labels(400)
    good = np.argsort(-sample.rows["quality"].values)[:60]
    ways = {"random": [np.arange(60)], "best": [good]}
    curve = efficiency_curve(None, task, ways, tokens=sample.rows["tokens"].values)
    assert set(curve["way"]) == {"random", "best", "full"}
    assert curve.set_index("way").loc["full", "of_full"] == 1
    assert (curve["tokens"] > 0).all()


def test_the_verdict_says_why():
    thresholds = [
        Threshold.at_share("scope", 0.5, 0.2, 0.8, "more", "moderate"),
        Threshold.at_share("distortion", 0.5, 0.6, 0.2, "less", "high"),
    ]
    assert [round(t.bound, 6) for t in thresholds] == [0.5, 0.4]
    good = judge({"scope": 0.6, "distortion": 0.3}, thresholds)
    assert good.passed
    bad = judge({"scope": 0.3, "distortion": 0.3}, thresholds)
    assert not bad.passed
    assert "scope: 0.3, but at least 0.5" in bad.why
    assert "0.8" in bad.why
    assert "distortion" not in bad.why
    missing = judge({"scope": 0.6}, thresholds)
    assert "no value" in missing.why


def test_a_band_has_two_ends():
    band = Threshold("delay", 1.0, "less", "band", np.nan, 5.0, 0.0, upper=2.0)
    assert band.met(1.5)
    assert not band.met(0.5)
    assert not band.met(2.5)
    assert "1 to 2" in judge({"delay": 3.0}, [band]).why


def test_failure_signs_are_named():
    threshold = Threshold.at_share("scope", 1.0, 0.2, 0.8, "more", "high")
    verdict = judge({"scope": 0.3}, [threshold], score=0.5, full_score=0.9, repeats=[0.5, 0.7, 0.4])
    text = " ".join(verdict.notes)
    assert "high sensitivity" in text
    assert "not attainable" in text
    assert "too loose" in text


def test_robust_values_of_a_group_are_read_from_a_metrics_table():
    figures = pd.DataFrame(
        {
            "group": ["a", "a", "b"],
            "metric": ["scope", "scope", "scope"],
            "form": ["robust", "literal", "robust"],
            "value": [0.5, 7.0, 0.1],
        }
    )
    assert robust_values(figures, "a") == {"scope": 0.5}
    with pytest.raises(InputError, match="No group"):
        robust_values(figures, "c")


SIZES = np.array([100, 50, 50, 10, 0, 40])
TARGET = np.array([0.1, 0.3, 0.3, 0.2, 0.0, 0.1])


def measured(take):
    share = take / take.sum()
    return {
        "scope": float(np.mean(take > 0)),
        "mismatch": float(np.abs(share - TARGET).sum() / 2),
        "distortion": float(share @ np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.9])),
    }


@pytest.mark.parametrize("metric", ["scope", "mismatch", "coverage", "variety", "distortion"])
def test_reallocated_quota_keeps_the_budget_and_cluster_sizes(metric):
    take = np.array([60, 0, 0, 0, 0, 0])
    clusters = ClusterStats(SIZES, TARGET, {"distortion": np.array([0.5, 0.2, 0.3, 0.4, 0.5, 0.9])})
    changed = reallocate_quota(take, metric, "less", clusters, share=0.2)
    assert changed.sum() == 60
    assert np.all((changed >= 0) & (changed <= SIZES))
    assert not np.array_equal(changed, take)


def test_quota_is_reallocated_until_the_thresholds_are_met():
    thresholds = [
        Threshold("scope", 4 / 6, "more", "moderate", 0.5, 0.1, 5 / 6),
        Threshold("mismatch", 0.12, "less", "high", 0.9, 0.9, 0.05),
    ]
    start, stats = np.array([60, 0, 0, 0, 0, 0]), ClusterStats(SIZES, TARGET)
    take, verdict = meet_thresholds(start, stats, thresholds, measured, tries=60, share=0.1)
    assert verdict.passed, verdict.why
    assert verdict.tries > 0
    assert take.sum() == 60
    assert np.all(take <= SIZES)


def test_a_threshold_that_cannot_be_met_is_reported_with_the_best_that_can():
    thresholds = [Threshold("scope", 1.0, "more", "high", 1.0, 0.1, 1.0)]
    take, verdict = meet_thresholds(
        np.array([60, 0, 0, 0, 0, 0]), ClusterStats(SIZES, TARGET), thresholds, measured
    )
    assert not verdict.passed
    assert np.count_nonzero(take) == 5  # one cluster holds nothing
    assert "reached 0.8333" in verdict.why


def test_bounds_of_the_budgeted_kl_need_a_row_in_enough_clusters_and_close_bad_ones():
    means = {"distortion": np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.95])}
    thresholds = [
        Threshold("scope", 0.5, "more", "moderate", 0.5, 0.1, 1.0),
        Threshold("distortion", 0.3, "less", "high", 0.8, 0.6, 0.2),
    ]
    least, most = cluster_bounds(thresholds, ClusterStats(SIZES, TARGET, means), 60)
    assert least.sum() == 3
    assert least[[1, 2, 3]].tolist() == [1, 1, 1]
    assert most[5] == 0
    assert np.all((least <= most) & (most <= SIZES))


def test_thresholds_follow_the_random_draw_of_another_size():
    thresholds = [
        Threshold.at_share("mismatch", 0.5, 0.6, 0.2, "less", "high"),
        Threshold.at_share("volume", 0.5, 100.0, 300.0, "more", "moderate"),
        Threshold("delay", 1.0, "less", "band", float("nan"), 0.0, 5.0, 2.0),
    ]
    changed = rescaled_thresholds(thresholds, {"mismatch": 0.3, "volume": 200.0, "delay": 3.0},
                     {"mismatch": 0.1, "volume": 2000.0})  # fmt: skip
    assert changed[0].bound == pytest.approx(0.2) and changed[0].best == pytest.approx(0.0)
    assert changed[1].bound == pytest.approx(2000.0)
    assert repr(changed[2]) == repr(thresholds[2])  # its share is NaN


def test_tightened_bounds_lie_inside():
    more = Threshold.at_share("scope", 0.5, 0.2, 0.8, "more", "high").tightened(0.1)
    less = Threshold.at_share("mismatch", 0.5, 0.6, 0.2, "less", "high").tightened(0.1)
    band = Threshold("delay", 1.0, "less", "band", float("nan"), 0.0, 5.0, 2.0).tightened(0.5)
    assert (more.bound, less.bound) == (pytest.approx(0.56), pytest.approx(0.36))
    assert 1.0 < band.bound < band.upper < 2.0
