"""Small inputs over all cores of a Spark, and no shuffle where it would gain nothing."""

from __future__ import annotations

import pytest

from gio_spark.engine import ensure_parallelism, slots
from gio_spark.engine.parallelism import SMALL_BYTES

LEAST, MOST = SMALL_BYTES


@pytest.mark.spark
def test_an_input_of_one_piece_is_repartitioned_and_no_row_is_lost(local_spark):
    from pyspark.sql import functions as F

    parted = ensure_parallelism(local_spark.range(1000).coalesce(1), "id", LEAST)
    of_part = parted.groupBy(F.spark_partition_id()).count().collect()
    assert len(of_part) == slots(local_spark)
    assert sum(count for _, count in of_part) == 1000


@pytest.mark.spark
@pytest.mark.parametrize("stored", [None, 0, LEAST - 1, MOST])
def test_tiny_unknown_and_large_inputs_are_left_as_they_are(local_spark, stored):
    rows = local_spark.range(1000).coalesce(1)
    assert ensure_parallelism(rows, "id", stored) is rows


@pytest.mark.embedded
def test_the_embedded_engine_needs_no_repartitioning(spark):
    rows = spark.range(10)
    assert ensure_parallelism(rows, "id", LEAST) is rows
