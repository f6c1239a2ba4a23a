"""Samples and tasks from labeled tables."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from gio_spark import gime
from gio_spark.engine import encode_vectors
from gio_spark.errors import InputError
from gio_spark.gime.driver_samples import labeled_sample
from gio_spark.settings.gime import GimeSettings

TINY = GimeSettings(screen=20, levels=5, seeds=2)


def frame(n, seed, prefix):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, 4)).astype(np.float32)
    return pd.DataFrame(
        {
            "id": [f"{prefix}{i}" for i in range(n)],
            "vector": encode_vectors(x).to_pylist(),
            "age": np.where(rng.random(n) < 0.1, np.nan, x[:, 0]),
            "job": rng.choice(["a", "b", None], n),
            "quality": rng.random(n),
            "label": np.where(x[:, 0] > 0, "yes", "no"),
            "amount": x[:, 0] * 2.5,
        }
    )


@pytest.fixture(scope="module")
def tables(spark):
    return spark.createDataFrame(frame(300, 0, "p")), spark.createDataFrame(frame(150, 1, "h"))


BOOK = np.random.default_rng(3).standard_normal((8, 4)).astype(np.float32)


def test_vectors_and_two_classes_make_a_task_that_runs_end_to_end(spark, tables):
    pool, held_out = tables
    constants = gime.freeze(pool, target=held_out, codebook=BOOK)
    sample, task, _ = labeled_sample(pool, held_out, "label", constants=constants)
    assert task.measure == "auc"
    assert task.features.shape == (300, 4)
    assert sample.metrics()["mismatch"] >= 0
    result = gime.sensitivity(spark, sample, task, size=60, settings=TINY)
    assert result.full_score > 0.9


def test_features_and_numbers_make_a_regression(tables):
    pool, held_out = tables
    columns = {"numeric": ["age"], "categorical": ["job"]}
    constants = gime.freeze(pool, "tabular", columns=columns)
    sample, task, _ = labeled_sample(
        pool, held_out, "amount", constants=constants, profile="tabular", columns=columns
    )
    assert task.measure == "skill"
    assert task.features.shape == task.categories.shape == (300, 1)
    assert np.isfinite(task.features).all()
    scored = gime.train_many(None, task, [np.arange(300)])
    assert scored["score"][0] > 0.3
    assert sample.metrics()["distortion"] > 0


def test_the_sample_does_not_depend_on_the_partitioning(tables):
    pool, held_out = tables
    constants = gime.freeze(pool, codebook=BOOK)
    samples = [
        labeled_sample(df, held_out, "label", constants=constants, rows=100)
        for df in (pool, pool.repartition(5))
    ]
    assert np.array_equal(samples[0][1].features, samples[1][1].features)
    assert samples[0][0].metrics() == samples[1][0].metrics()


def test_missing_labels_and_features_are_refused(tables):
    pool, held_out = tables
    constants = gime.freeze(pool, codebook=BOOK)
    with pytest.raises(InputError, match="'nope'"):
        labeled_sample(pool, held_out, "nope", constants=constants)
    with pytest.raises(InputError, match="No row"):
        labeled_sample(pool.where("label = 'x'"), held_out, "label", constants=constants)
    with pytest.raises(InputError, match="nothing to learn"):
        labeled_sample(pool.drop("vector"), held_out, "label", constants=constants)
