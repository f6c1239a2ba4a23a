import pyarrow as pa
import pytest
from pyspark.sql import functions as F

from gio_spark.engine import (
    bounded,
    hash53,
    hash_sample,
    hash_samples,
    hash_share,
    map_arrow,
    row_hash,
)
from gio_spark.errors import InputError

pytestmark = pytest.mark.embedded


@pytest.fixture
def rows(spark):
    return spark.range(5000).select(F.col("id").cast("string").alias("id"))


def test_a_sample_is_the_same_at_any_partitioning(rows):
    samples = [
        hash_sample(rows.repartition(n), 100, "test", total=total)["id"].to_pylist()
        for n, total in [(1, 5000), (4, 5000), (7, 1_000)]
    ]
    assert len(samples[0]) == 100
    assert samples[0] == samples[1] == samples[2]


def test_a_sample_larger_than_the_table_is_the_table(rows):
    assert hash_sample(rows, 10_000, "test", total=5000).num_rows == 5000


def test_salts_give_different_samples(rows):
    one, two = (set(hash_sample(rows, 500, s, total=5000)["id"].to_pylist()) for s in ("a", "b"))
    assert 20 < len(one & two) < 90  # 50 expected


def test_hashes_fit_53_bits_and_shares_are_met(rows):
    table = rows.select(hash53("id", "s").alias("h")).toArrow()
    values = table["h"].to_numpy()
    assert values.min() >= 0
    assert values.max() < 2**53
    kept = rows.where(hash_share("id", 0.2, "s")).count()
    assert 880 < kept < 1120


def test_the_driver_refuses_more_rows_than_agreed(rows):
    assert bounded(rows.limit(10), 10, "ten").num_rows == 10
    with pytest.raises(InputError, match="More than 10 rows of ids"):
        bounded(rows, 10, "ids")


def test_columns_of_one_value_are_hashed_and_no_row_is_lost_in_a_map(spark, folder):
    table = pa.table({"id": [f"a{i}" for i in range(20)], "same": ["x"] * 20})
    spark.createDataFrame(table).write.format("delta").save(str(folder / "t"))
    stored = spark.read.format("delta").load(str(folder / "t"))
    in_memory = spark.createDataFrame(table)
    found = [
        map_arrow(df.select(row_hash(df, F.col("same")).alias("h")), iter, "h bigint").toArrow()
        for df in (stored, in_memory)
    ]
    assert found[0]["h"].to_pylist() == found[1]["h"].to_pylist()
    assert len(found[0]) == 20 and len(set(found[0]["h"].to_pylist())) == 1


def test_samples_of_several_frames_by_one_job_are_those_of_each_alone(spark):
    frames = {name: spark.range(n).selectExpr(f"concat('{name}', id) AS id", "id AS value")
              for name, n in [("a", 500), ("b", 40), ("c", 3_000)]}  # fmt: skip
    # The second is told to be far larger than it is: its first try brings too few rows.
    parts = {
        "a": (frames["a"], 30, 500),
        "b": (frames["b"], 40, 4_000),
        "c": (frames["c"], 7, 3_000),
    }
    together = hash_samples(parts, "here")
    for name, (df, rows, total) in parts.items():
        alone = hash_sample(df, rows, "here", total=total)
        assert together[name].equals(alone)
        assert alone.num_rows == rows
