"""Blocks of rows are selected together; metrics and models read the rows."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from gio_spark.errors import InputError
from gio_spark.gime import Constants, Sample, Task, in_blocks, select, train_many
from gio_spark.settings.gime import GimeSettings

DAYS, HOURS = 30, 24


@pytest.fixture(scope="module")
def days():
    rng = np.random.default_rng(0)
    n = DAYS * HOURS
    heat = np.repeat(rng.normal(10, 5, DAYS), HOURS) + rng.normal(0, 1, n)
    table = pa.table(
        {
            "numeric:heat": heat,
            "event_time": np.arange(n) * 3_600_000_000,
            "station": np.zeros(n, np.int64),
            "cluster": np.zeros(n, np.int64),
        }
    )
    constants = Constants(
        {
            "fields": ("numeric:heat",),
            "clusters": 4,
            "seasonal": True,
            "tile_degrees": 0.25,
            "step_microseconds": 3_600_000_000,
            "correlation_tau": 0.5,
            "bucket_microseconds": 86_400_000_000,
        }
    )
    sample = Sample.from_arrow(table, "spatiotemporal", constants, table)
    features = heat[:, None].astype(np.float32)
    task = Task(features, heat, features[:50], heat[:50], "skill")
    blocks = np.repeat(np.arange(DAYS), HOURS)
    clusters = np.arange(DAYS) % 4
    return sample, *in_blocks(sample, task, blocks, clusters, clusters)


def test_metrics_of_blocks_are_those_of_their_rows(days):
    sample, joined, _ = days
    assert joined.rows.count == DAYS
    rows = np.r_[2 * HOURS : 3 * HOURS, 7 * HOURS : 8 * HOURS]
    assert joined.metrics(np.array([7, 2])) == sample.metrics(rows)
    assert joined.metrics() == sample.metrics()
    assert joined.directions() == sample.directions()


def test_a_block_has_the_mean_of_its_rows(days):
    sample, joined, _ = days
    heat = sample.rows["numeric:heat"].values.reshape(DAYS, HOURS).mean(axis=1)
    np.testing.assert_allclose(joined.rows["numeric:heat"].values, heat)


def test_a_block_without_a_valid_value_has_none():
    heat = pa.array([1.0, None, None, None, 5.0, 7.0])
    constants = Constants({"fields": ("numeric:heat",), "clusters": 1, "seasonal": False,
                           "tile_degrees": 0.25, "step_microseconds": 1, "correlation_tau": 0.5,
                           "bucket_microseconds": 86_400_000_000})  # fmt: skip
    table = pa.table(
        {"numeric:heat": heat, "event_time": range(6), "station": [0] * 6, "cluster": [0] * 6}
    )
    sample = Sample.from_arrow(table, "spatiotemporal", constants, table)
    task = Task(np.zeros((6, 1), np.float32), np.arange(6.0), np.zeros((2, 1), np.float32),
                np.arange(2.0), "skill")  # fmt: skip
    joined, _ = in_blocks(sample, task, np.array([0, 0, 1, 1, 2, 2]), np.zeros(3, int))
    column = joined.rows["numeric:heat"]
    assert column.valid.tolist() == [True, False, True]
    assert column.values[[0, 2]].tolist() == [1.0, 6.0]


def test_models_are_trained_on_the_rows_of_blocks(days):
    _, _, task = days
    scores = train_many(None, task, [np.arange(3), np.arange(DAYS)])
    assert scores["rows"].tolist() == [3 * HOURS, DAYS * HOURS]
    assert scores["score"].iloc[1] > 0.9


def test_quotas_count_blocks(days):
    _, joined, _ = days
    chosen = select(joined, np.arange(DAYS) % 4, 8, [], {}, joined.directions())
    assert len(chosen.rows) == 8 and chosen.take.sum() == 8
    assert np.unique(chosen.rows).size == 8


def test_wrong_block_numbers_are_refused(days):
    sample, _, task = days
    with pytest.raises(InputError, match="a block per row"):
        in_blocks(sample, task, np.arange(3), np.arange(3))
    gap = np.repeat(np.arange(DAYS), HOURS)
    gap[gap == 5] = 6
    with pytest.raises(InputError, match="Every block needs a row"):
        in_blocks(sample, task, gap, np.arange(DAYS))


def test_settings_of_the_runs_are_bounded():
    assert GimeSettings(accepted_loss=0.05).performance_level == pytest.approx(0.95)
    assert (
        not GimeSettings().enforces_thresholds
        and GimeSettings(thresholds={"scope": 0.5}).enforces_thresholds
    )
