"""Which rows a mini-batch has."""

from __future__ import annotations

import numpy as np
import pytest

from gio_spark.engine import hash53
from gio_spark.quantize.kmeans_pass import bucket_filter, in_bucket

RANGE = 2**53


@pytest.mark.parametrize("share", [0.3, 0.5, 0.74, 1.0, 1e-18])
@pytest.mark.parametrize("number", [0, 1, 3, 7])
def test_batches_are_windows_that_follow_one_another_round_the_range(share, number):
    width = max(1, round(share * RANGE))
    start = number * width % RANGE
    edges = [(start + gap) % RANGE for gap in (-1, 0, 1, width - 1, width, width + 1)]
    positions = [0, RANGE // 2, RANGE - 1, *edges]
    expected = [(position - number * width) % RANGE < width for position in positions]
    assert in_bucket(np.array(positions), share, number).tolist() == expected


@pytest.mark.embedded
def test_the_engine_keeps_the_rows_that_arrays_do(spark):
    from pyspark.sql import functions as F

    rows = spark.range(400).select(F.col("id").cast("string").alias("id"))
    hashes = dict(rows.select("id", hash53("id", "salt")).toArrow().to_pandas().to_numpy().tolist())
    for share, number in ((0.3, 0), (0.3, 1), (0.3, 3), (0.5, 1), (1.0, 2)):
        kept = rows.where(bucket_filter(share, number, "salt")).toArrow()["id"].to_pylist()
        inside = in_bucket(np.array(list(hashes.values())), share, number)
        assert sorted(kept) == sorted(np.array(list(hashes))[inside])


@pytest.mark.embedded
def test_a_batch_begins_at_its_first_hash_and_ends_before_that_of_the_next(spark):
    from pyspark.sql import functions as F

    rows = spark.range(20).select(F.col("id").cast("string").alias("id"))
    hashes = dict(rows.select("id", hash53("id", "salt")).toArrow().to_pandas().to_numpy().tolist())
    low = [name for name, position in hashes.items() if position < RANGE // 2][:3]
    for name in low:
        share = hashes[name] / RANGE  # the second batch begins at this row
        first, second = (
            rows.where(bucket_filter(share, number, "salt")).toArrow()["id"].to_pylist()
            for number in (0, 1)
        )
        assert name in second and name not in first
