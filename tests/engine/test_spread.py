"""Small inputs over all cores of a local engine, and no shuffle where it would gain nothing."""

from __future__ import annotations

import pytest

from gio_spark.engine import slots, spread
from gio_spark.engine.spread import SPLIT_BYTES, TINY_BYTES

SMALL = TINY_BYTES + 1


def cores_used(df):
    from pyspark.sql import functions as F

    return df.select(F.spark_partition_id().alias("p")).distinct().count()


@pytest.mark.spark
def test_an_input_of_one_piece_is_spread_over_the_cores(local_spark):
    rows = local_spark.range(1000).coalesce(1)
    assert cores_used(rows) == 1
    cores = slots(local_spark)
    assert cores_used(spread(rows, "id", SMALL, lambda tasks: 1.0)) == cores
    assert cores_used(spread(rows, "id", SMALL, lambda tasks: None)) == cores


@pytest.mark.spark
@pytest.mark.parametrize(
    ("stored", "share"), [(SMALL, 0.0), (TINY_BYTES - 1, 1.0), (None, 1.0), (1 << 50, 1.0)]
)
def test_even_tiny_unknown_and_large_inputs_are_left_as_they_are(local_spark, stored, share):
    rows = local_spark.range(1000).coalesce(1)
    assert slots(local_spark) * SPLIT_BYTES < 1 << 50
    assert spread(rows, "id", stored, lambda tasks: share) is rows


@pytest.mark.embedded
def test_the_embedded_engine_needs_no_spreading(spark):
    rows = spark.range(10)
    assert spread(rows, "id", SMALL, lambda tasks: 1.0) is rows
