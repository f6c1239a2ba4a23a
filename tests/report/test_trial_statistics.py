from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from gio_spark.report import trial_statistics

from .sample_reports import bake_off_trials


def trials_of(rows) -> pd.DataFrame:
    columns = ["task", "method", "budget", "seed", "measure", "value", "higher_is_better"]
    return trial_statistics.checked_trials(pd.DataFrame(rows, columns=columns))


def test_intervals_are_students_over_seeds():
    table = trials_of([("t", "a", 0.1, s, "acc", v, True) for s, v in enumerate((1.0, 2.0, 4.0))])
    result = trial_statistics.mean_scores(table).iloc[0]
    low, high = stats.t.interval(0.95, 2, np.mean([1, 2, 4]), stats.sem([1, 2, 4]))
    assert result["mean"] == pytest.approx(7 / 3)
    assert result["half"] == pytest.approx((high - low) / 2)
    assert np.isnan(trial_statistics.mean_scores(table[table["seed"] == 0]).iloc[0]["half"])


def test_ranks_follow_the_direction_of_each_measure_and_share_ties():
    rows = []
    for task in "uvwxyz":
        for method, accuracy, loss in (("good", 0.9, 1.0), ("twin", 0.9, 1.0), ("bad", 0.5, 3.0)):
            rows += [
                (task, method, 0.1, 0, "accuracy", accuracy, True),
                (task, method, 0.1, 0, "loss", loss, False),
            ]
    result = trial_statistics.method_ranks(trials_of(rows))
    assert result.methods == ["good", "twin", "bad"]
    np.testing.assert_allclose(result.mean, [1.5, 1.5, 3.0])
    assert result.blocks == 12
    assert result.p_value < 0.001


def test_the_critical_difference_is_the_published_one():
    # Demsar 2006, table 5a: q for four methods at 5 % is 2.569
    rng = np.random.default_rng(0)
    rows = [
        (f"t{t}", m, 0.1, 0, "acc", rng.random(), True) for t in range(14) for m in "abcd"
    ]  # fmt: skip
    assert trial_statistics.method_ranks(trials_of(rows)).critical == pytest.approx(
        2.569 * np.sqrt(20 / 84), abs=1e-3
    )


def test_seeds_of_one_task_are_no_independent_comparisons():
    rows = [("t", m, 0.1, s, "acc", float(m == "a"), True) for s in range(50) for m in "ab"]
    result = trial_statistics.method_ranks(trials_of(rows))
    assert result.blocks == 1
    assert np.isnan(result.critical)


def test_a_method_that_mostly_failed_is_left_out_and_the_rest_is_ranked():
    rows = [(f"t{t}", m, 0.1, 0, "acc", 1.0 if m == "a" else 0.5, True)
            for t in range(6) for m in "ab"]  # fmt: skip
    rows += [("t0", "broken", 0.1, 0, "acc", 2.0, True)]
    rows += [(f"t{t}", "broken", 0.1, 0, "acc", np.nan, True) for t in range(1, 6)]
    result = trial_statistics.method_ranks(trials_of(rows))
    assert result.methods == ["a", "b"]
    assert result.left_out == ["broken"]
    assert result.blocks == 6


def test_a_method_that_some_tasks_do_not_allow_takes_no_task_out_of_the_ranks():
    rows = [(f"t{t}", m, 0.1, 0, "acc", 1.0 if m == "a" else 0.5, True)
            for t in range(6) for m in "ab"]  # fmt: skip
    rows += [(f"t{t}", "for_texts", 0.1, 0, "acc", 2.0, True) for t in range(4)]
    result = trial_statistics.method_ranks(trials_of(rows))
    assert result.methods == ["a", "b"]
    assert result.left_out == ["for_texts"]
    assert result.blocks == 6
    assert trial_statistics.method_ranks(trials_of(rows).query("task < 't4'")).methods == [
        "for_texts",
        "a",
        "b",
    ]


def test_comparison_with_the_baseline_is_paired_by_seed():
    rng = np.random.default_rng(3)
    rows = []
    for seed in range(6):
        luck = rng.normal(scale=10)  # far larger than the difference between the methods
        rows += [
            ("t", "random", 0.1, seed, "loss", luck, False),
            ("t", "better", 0.1, seed, "loss", luck - 1 + 0.01 * rng.normal(), False),
            ("t", "alike", 0.1, seed, "loss", luck + 0.01 * rng.normal(), False),
            ("t", "worse", 0.1, seed, "loss", luck + 1 + 0.01 * rng.normal(), False),
        ]
    result = trial_statistics.paired_gains(trials_of(rows), "random").set_index("method")
    assert result["verdict"].to_dict() == {"better": "better", "alike": "", "worse": "worse"}
    assert result.loc["better", "gain"] == pytest.approx(1, abs=0.02)


def test_where_the_oracle_hardly_helps_nothing_is_ranked():
    rng = np.random.default_rng(4)
    rows = []
    for seed in range(5):
        for budget, gain in ((0.1, 1.0), (0.5, 0.0)):
            rows += [
                ("t", "random", budget, seed, "acc", 0.1 * rng.normal(), True),
                ("t", "oracle", budget, seed, "acc", gain + 0.1 * rng.normal(), True),
            ]
    assert trial_statistics.weak_comparisons(trials_of(rows), "oracle", "random") == [
        ("t", "acc", 0.5)
    ]


def test_costs_count_a_cell_once_however_many_measures_it_has():
    cost = trial_statistics.method_costs(
        trial_statistics.checked_trials(bake_off_trials())
    ).set_index("method")
    table = bake_off_trials()
    trials = table.drop_duplicates(["task", "method", "budget", "seed"])
    assert cost["cells"].to_dict() == trials.groupby("method").size().to_dict()
    assert cost.loc["fails", "failed"] == cost.loc["fails", "cells"]


@pytest.mark.parametrize("column", trial_statistics.REQUIRED_COLUMNS)
def test_a_missing_column_is_named(column):
    with pytest.raises(ValueError, match=column):
        trial_statistics.checked_trials(bake_off_trials().drop(columns=column))


def test_a_measure_that_points_both_ways_is_refused():
    rows = [("t", "a", 0.1, 0, "acc", 1.0, True), ("t", "b", 0.1, 0, "acc", 1.0, False)]
    with pytest.raises(ValueError, match="both true and false for: acc"):
        trials_of(rows)
