"""Files and tables that change between two passes of Spark over them."""

from __future__ import annotations

import shutil
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gio_spark.errors import InputError, SnapshotExpiredError
from gio_spark.settings.columns import Columns
from gio_spark.settings.inputs import InputSettings
from gio_spark.tables import open_input

pytestmark = pytest.mark.spark
TEXT = Columns(id="id", text="text")


def opened(spark, location):
    return open_input(spark, InputSettings(location=str(location)), TEXT, "pool")


def write(path, *ids):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"id": list(ids), "text": [f"text {i}" for i in ids]}), path)


@contextmanager
def setting(spark, name):
    before = spark.conf.get(name)
    spark.conf.set(name, "true")
    try:
        yield
    finally:
        spark.conf.set(name, before)


def test_of_ignored_missing_files_the_counts_and_the_check_tell(local_spark, folder):
    for i in range(3):
        write(folder / f"{i}.parquet", f"a{i}", f"b{i}")
    with setting(local_spark, "spark.sql.files.ignoreMissingFiles"):
        opened_input = opened(local_spark, folder)
        assert opened_input.ids == opened_input.rows.count() == 6
        (folder / "1.parquet").unlink()
        assert opened_input.rows.count() == 4 < opened_input.ids
        with pytest.raises(SnapshotExpiredError, match=r"1 gone \[.*/1.parquet\]"):
            opened_input.recheck()


def test_ignored_corrupt_files_do_not_leave_out_rows_in_silence(local_spark, folder):
    for i in range(3):
        write(folder / f"{i}.parquet", f"a{i}", f"b{i}")
    with setting(local_spark, "spark.sql.files.ignoreCorruptFiles"):
        assert opened(local_spark, folder).count == 6
        # A page of the ids spoilt behind a sound footer, then no footer at all.
        content = (folder / "1.parquet").read_bytes()
        (folder / "1.parquet").write_bytes(content[:4] + b"\xff" * 60 + content[64:])
        with pytest.raises(InputError, match=r"read 4 rows, .* say 6\. .*read: .*/1\.parquet\."):
            opened(local_spark, folder)
        (folder / "1.parquet").write_bytes(content)
        (folder / "2.parquet").write_bytes(b"PAR1 no footer PAR1")
        with pytest.raises(InputError, match=r"read 4 rows, .*read: .*/2\.parquet\."):
            opened(local_spark, folder)


def test_files_in_plain_folders_below_are_read_and_odd_ones_named(local_spark, folder):
    write(folder / "plain" / "a.parquet", "a")
    write(folder / "plain" / "deeper" / "b.parquet", "b", "c")
    assert opened(local_spark, folder / "plain").count == 3
    write(folder / "mixed" / "a.parquet", "a")
    write(folder / "mixed" / "x=1" / "b.parquet", "b", "c")
    with pytest.raises(InputError, match=r"the engine read 2 rows.* say 3\. .*/mixed/a\.parquet"):
        opened(local_spark, folder / "mixed")


def test_a_delta_table_made_again_or_put_back_is_noticed(local_spark, folder):
    spark = local_spark
    path = str(folder / "t")
    df = spark.createDataFrame(pa.table({"id": ["a"], "text": ["x"]}))
    df.write.format("delta").save(path)
    shutil.copytree(path, folder / "backup")
    df.write.format("delta").mode("append").save(path)
    opened_input = opened(spark, path)
    df.write.format("delta").mode("append").save(path)
    opened_input.recheck()
    shutil.rmtree(path)
    shutil.copytree(folder / "backup", path)
    with pytest.raises(SnapshotExpiredError, match="version 1 was pinned, and the newest is 0"):
        opened_input.recheck()
    shutil.rmtree(path)
    df.write.format("delta").save(path)
    df.write.format("delta").mode("append").save(path)
    with pytest.raises(SnapshotExpiredError, match=f"its id was {opened_input.table_id} and is "):
        opened_input.recheck()


def test_a_named_delta_table_dropped_and_made_again_is_noticed(local_spark):
    spark = local_spark
    spark.sql("CREATE TABLE comes_again (id STRING, text STRING) USING delta")
    spark.sql("INSERT INTO comes_again VALUES ('a', 'x')")
    opened_input = opened(spark, "comes_again")
    opened_input.recheck()
    spark.sql("DROP TABLE comes_again")
    with pytest.raises(SnapshotExpiredError, match="comes_again is gone"):
        opened_input.recheck()
    spark.sql("CREATE TABLE comes_again (id STRING, text STRING) USING delta")
    spark.sql("INSERT INTO comes_again VALUES ('b', 'y')")
    with pytest.raises(SnapshotExpiredError, match=f"its id was {opened_input.table_id} and is "):
        opened_input.recheck()
    spark.sql("DROP TABLE comes_again")
