"""Drift over refreshes, and one verdict over several sources."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from gio_spark.errors import InputError
from gio_spark.gime.metric_drift import compare_groups, drift, joint_verdict
from gio_spark.gime.metric_gate import judge
from gio_spark.gime.metric_thresholds import Threshold


def series(values, metric="scope"):
    return pd.DataFrame({"refresh": range(len(values)), "metric": metric, "value": values})


def test_a_jump_is_a_drift_and_noise_is_not():
    values = 0.5 + 0.01 * np.random.default_rng(0).standard_normal(12)
    calm = drift(series(values))
    assert not calm["drifted"].any()
    jump = drift(series([*values, 0.8]))
    assert jump["drifted"].tolist() == [False] * 12 + [True]
    assert jump["change"].iloc[-1] == pytest.approx(0.8 - values[-1])


def test_the_order_of_rows_does_not_matter_and_short_histories_say_nothing():
    both = pd.concat([series([1.0, 2, 3]), series([5.0, 5, 9], "delay")])
    first, second = drift(both), drift(both.sample(frac=1, random_state=1))
    pd.testing.assert_frame_equal(first, second)
    assert first["z"].isna().all()


def test_a_constant_metric_drifts_when_it_changes():
    assert drift(series([1.0] * 6 + [1.1]))["drifted"].iloc[-1]


def test_missing_columns_and_doubled_values_are_refused():
    with pytest.raises(InputError, match="columns"):
        drift(pd.DataFrame({"metric": []}))
    with pytest.raises(InputError, match="two values"):
        drift(pd.concat([series([1.0]), series([2.0])]))
    with pytest.raises(InputError, match="no verdict"):
        joint_verdict({})


def test_one_gate_fails_when_one_source_fails():
    threshold = Threshold.at_share("scope", 0.5, 0.0, 1.0, "more", "moderate")
    good, bad = judge({"scope": 0.6}, [threshold]), judge({"scope": 0.1}, [threshold])
    assert joint_verdict({"text": good, "images": good}).passed
    joined = joint_verdict({"text": good, "images": bad})
    assert not joined.passed
    assert "images: scope: 0.1" in joined.why
    assert "text" not in joined.why


def test_a_selection_is_compared_with_a_random_draw():
    figures = pd.DataFrame(
        {
            "group": ["selected"] * 3 + ["random"] * 3,
            "metric": ["mismatch", "scope", "aggregation"] * 2,
            "form": "robust",
            "unit": "",
            "direction": ["less", "more", "unknown"] * 2,
            "value": [0.1, 0.7, 0.2, 0.3, 0.8, 0.1],
        }
    )
    comparison = compare_groups(figures, "selected", "random").set_index("metric")
    assert comparison["better"].to_dict() == {"mismatch": True, "scope": False, "aggregation": None}
    assert comparison.loc["mismatch", "excess"] == pytest.approx(-0.2)
    with pytest.raises(InputError, match="No group"):
        compare_groups(figures, "selected", "pool")


def test_a_drift_is_four_scaled_deviations_from_the_median_of_five():
    for last, drifted in ((3 + 4.001 * 1.4826, True), (3 + 3.999 * 1.4826, False)):
        table = drift(series([1.0, 2.0, 3.0, 4.0, 5.0, last]))
        assert table["z"].isna().tolist() == [True] * 5 + [False]
        assert table["z"].iloc[-1] == pytest.approx((last - 3) / 1.4826)
        assert table["drifted"].iloc[-1] == drifted
    assert drift(series([1.0, 2.0, 3.0, 4.0, 9e9]))["z"].isna().all()


def test_missing_values_are_no_history():
    table = drift(series([1.0, np.nan, 2.0, 3.0, 4.0, 5.0, 3.5, np.nan]))
    assert table["z"].isna().tolist() == [True] * 6 + [False, True]
    assert table["z"].iloc[6] == pytest.approx(0.5 / 1.4826)


def test_a_metric_of_no_spread_has_a_billionth_of_its_size_as_one():
    table = drift(series([200.0] * 5 + [200 + 1e-6]))
    assert table["z"].iloc[-1] == pytest.approx(1e-6 / 2e-7, rel=1e-4)


def test_joint_verdict_counts_the_reallocations_of_all_sources():
    threshold = Threshold.at_share("scope", 0.5, 0.0, 1.0, "more", "moderate")
    verdict = judge({"scope": 0.6}, [threshold])
    both = joint_verdict({"a": replace(verdict, tries=2), "b": replace(verdict, tries=3)})
    assert both.tries == 5
    assert [check.metric for check in both.checks] == ["a/scope", "b/scope"]
