"""What engines say of a cause, met for real: files cut short, versions swept away, full disks."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gio_spark.engine import bounded, map_arrow
from gio_spark.engine.engine_errors import engine_errors, translated_error
from gio_spark.errors import (
    ConcurrentRunError,
    DataFileError,
    EngineError,
    InputError,
    SnapshotExpiredError,
    WorkspaceError,
)
from gio_spark.tables import delta

TRACEBACK = """An exception was thrown from the Python worker. Please see the stack trace below.
Traceback (most recent call last):
  File "lines.py", line 93, in keys
OSError: zlib inflate failed

The above exception was the direct cause of the following exception:

  File "lines.py", line 99, in keys
gio_spark.errors.{name}: Cannot read it: broken.
 Mend it.
"""


@pytest.mark.parametrize("after", ["\n\tat org.apache.spark.", "\n SQLSTATE: 38000", ""])
@pytest.mark.parametrize(
    ("name", "kind"), [("InputError", InputError), ("MissingExtraError", EngineError)]
)
def test_an_error_of_a_worker_is_raised_as_what_it_is_without_its_traceback(name, kind, after):
    with pytest.raises(kind) as raised, engine_errors():
        raise RuntimeError(TRACEBACK.replace("{name}", name) + after)
    assert str(raised.value) == "Cannot read it: broken. Mend it."


@pytest.mark.parametrize(
    "text",
    ["gio_spark.errors.NoSuch: x", "ValueError: x", "x\n\tat java.util.concurrent.FutureTask.run"],
)
def test_other_errors_are_left_as_they_are(text):
    with pytest.raises(RuntimeError, match="x"), engine_errors(location="/here"):
        raise RuntimeError(text)


def two_files(folder):
    folder.mkdir()
    files = [folder / "0.parquet", folder / "1.parquet"]
    for file in files:
        pq.write_table(pa.table({"id": [str(i) for i in range(500)]}), file)
    return files


def cut_short(file):
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def three_versions(spark, folder):
    for first in range(3):
        rows = spark.range(100 * first, 100 * first + 50).coalesce(1)
        rows.write.format("delta").mode("overwrite").save(str(folder))
    return str(folder)


def newest_file(location):
    commit = sorted((Path(location) / "_delta_log").glob("*.json"))[-1]
    lines = map(json.loads, commit.read_text().splitlines())
    return Path(location) / next(x["add"]["path"] for x in lines if "add" in x)


def write_at_once(spark, location):
    """Overwrite a table twice at the same time; returns what the loser's write raised."""
    barrier = threading.Barrier(2)
    raised = []

    def slow(batches):
        for batch in batches:
            time.sleep(1.5)
            yield batch

    def write():
        rows = map_arrow(spark.range(100).coalesce(1), slow, "id bigint")
        barrier.wait()
        try:
            with engine_errors(location=location):
                rows.write.format("delta").mode("overwrite").save(location)
        except Exception as error:  # noqa: BLE001 - handed to the test's own thread
            raised.append(error)

    threads = [threading.Thread(target=write) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


@pytest.mark.embedded
def test_rows_that_a_map_refuses_are_told_in_one_line(spark):
    def refuse(batches):
        for _ in batches:
            raise InputError("no such rows here")
        yield {"id": []}

    with pytest.raises(InputError, match=r"\Ano such rows here\Z"):
        bounded(map_arrow(spark.range(3), refuse, "id bigint"), 10, "rows")


@pytest.mark.embedded
def test_a_file_that_was_cut_short_is_named_where_the_engine_names_none(spark, folder):
    _, broken = two_files(folder / "data")
    cut_short(broken)
    location = str(folder / "data")
    with (
        pytest.raises(DataFileError, match=r"Cannot read .*1\.parquet .*corrupt") as raised,
        engine_errors(location=location),
    ):
        bounded(spark.read.parquet(location), 2000, "rows")
    assert raised.value.path == str(broken)
    assert raised.value.location == location
    assert "Corrupt footer" in raised.value.cause


@pytest.mark.embedded
def test_damage_inside_a_file_with_a_whole_footer_is_found(spark, folder):
    _, broken = two_files(folder / "data")
    content = bytearray(broken.read_bytes())
    content[4:60] = b"\xff" * 56
    broken.write_bytes(bytes(content))
    with pytest.raises(DataFileError) as raised, engine_errors(location=str(folder / "data")):
        bounded(spark.read.parquet(str(folder / "data")), 2000, "rows")
    assert raised.value.path == str(broken)


@pytest.mark.embedded
def test_a_file_that_a_table_has_lost_is_named(spark, folder):
    location = three_versions(spark, folder / "t")
    lost = newest_file(location)
    lost.unlink()
    with pytest.raises(DataFileError, match="does not exist") as raised:
        bounded(delta.read(spark, location), 100, "rows")
    assert raised.value.path == str(lost)


@pytest.mark.embedded
def test_a_file_that_is_lost_or_cut_short_is_named_where_a_map_reads_it(spark, folder):
    def as_it_is(batches):
        yield from batches

    location = three_versions(spark, folder / "t")
    lost = newest_file(location)
    lost.unlink()
    mapped = map_arrow(delta.read(spark, location), as_it_is, "id bigint")
    with pytest.raises(DataFileError, match="does not exist") as raised:
        bounded(mapped, 100, "rows")
    assert raised.value.path == str(lost)
    _, broken = two_files(folder / "data")
    mapped = map_arrow(spark.read.parquet(str(folder / "data")), as_it_is, "id string")
    cut_short(broken)
    with pytest.raises(DataFileError), engine_errors(location=str(folder / "data")):
        bounded(mapped, 2000, "rows")


@pytest.mark.embedded
def test_of_two_writes_at_once_the_second_says_so(spark, folder):
    location = three_versions(spark, folder / "t")
    (error,) = write_at_once(spark, location)
    assert isinstance(error, ConcurrentRunError)
    assert error.location == location and location in str(error)


@pytest.mark.embedded
def test_of_two_commits_of_delta_rs_the_second_says_so(folder):
    from deltalake import DeltaTable, write_deltalake

    location, rows = str(folder / "t"), pa.table({"id": [1]})
    write_deltalake(location, rows)
    first, second = DeltaTable(location), DeltaTable(location)
    write_deltalake(first, rows, mode="overwrite")
    with pytest.raises(ConcurrentRunError), engine_errors(location=location):
        write_deltalake(second, rows, mode="overwrite")


@pytest.mark.embedded
def test_versions_that_never_were_and_those_that_were_swept_away_are_told_apart_from_lost_files(
    spark, folder
):
    from deltalake import DeltaTable

    location = three_versions(spark, folder / "t")
    with pytest.raises(SnapshotExpiredError, match="has no version 9") as raised:
        delta.read(spark, location, 9)
    assert (raised.value.version, raised.value.location) == (9, location)
    with pytest.raises(SnapshotExpiredError, match="The newest is 2"), engine_errors():
        DeltaTable(location, version=9)
    DeltaTable(location).vacuum(0, enforce_retention_duration=False, dry_run=False)
    old = delta.read(spark, location, 0)
    with (
        pytest.raises(SnapshotExpiredError, match="without it since version 1") as raised,
        engine_errors(location=location, version=0),
    ):
        bounded(old, 100, "rows")
    assert raised.value.version == 0
    assert raised.value.path.startswith(location)
    assert bounded(delta.read(spark, location), 100, "rows").num_rows == 50


@pytest.mark.embedded
def test_columns_are_named_and_values_are_not(spark, folder):
    from deltalake import DeltaTable, Field, Schema
    from pyspark.sql import functions as F

    with pytest.raises(InputError, match="Column 'no such'") as raised:
        bounded(spark.range(3).select("`no such`"), 3, "rows")
    assert raised.value.column == "no such"
    rows = spark.createDataFrame(pa.table({"id": ["a", None]}))
    with pytest.raises(InputError, match="of type string is no Int32") as raised, engine_errors():
        rows.select(F.col("id").cast("int")).toArrow()
    assert "'a'" not in f"{raised.value} {raised.value.cause}"
    location = str(folder / "t")
    DeltaTable.create(location, Schema([Field("id", "string", nullable=False)]))
    with (
        pytest.raises(InputError, match=r"Column 'id' .* may not be null") as raised,
        engine_errors(location=location),
    ):
        rows.write.format("delta").mode("append").save(location)
    assert (raised.value.column, raised.value.location) == ("id", location)


# Root passes by permissions, unless its process lacks the right to.
WITHOUT_RIGHTS = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search",
                  "--inh-caps", "-dac_override,-dac_read_search"]  # fmt: skip
DENIED = """
import sys
from gio_spark.engine import bounded, session
from gio_spark.engine.engine_errors import engine_errors
from gio_spark.errors import InputError, WorkspaceError

spark, (closed, fixed) = session("embedded"), sys.argv[1:]
try:
    bounded(spark.read.parquet(closed), 2000, "rows")
except InputError as error:
    print(error.path, "permission is denied" in str(error))
try:
    with engine_errors(location=fixed):
        spark.range(3).write.format("delta").save(fixed + "/t")
except WorkspaceError as error:
    print(error.path, error.location)
"""


@pytest.mark.embedded
def test_what_may_not_be_read_or_written_is_named(folder):
    if os.getuid() == 0 and shutil.which("setpriv") is None:
        pytest.skip("permissions do not bind root here, and there is no setpriv")
    closed, fixed = folder / "data", folder / "fixed"
    two_files(closed)[1].chmod(0)
    fixed.mkdir(0o555)
    prefix = WITHOUT_RIGHTS if os.getuid() == 0 else []
    command = [*prefix, sys.executable, "-c", DENIED, str(closed), str(fixed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split("\n")[:2] == [f"{closed}/1.parquet True", f"{fixed}/t {fixed}"]


@pytest.fixture
def small_disk(folder):
    """A folder with room for 300 KB."""
    place = folder / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, check=False).returncode != 0:
        pytest.skip("a small disk cannot be mounted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.embedded
def test_a_full_disk_is_named_for_what_it_is(spark, small_disk):
    location = str(small_disk / "t")
    rows = spark.range(200_000).selectExpr("cast(id * 37 AS string) AS x")
    with (
        pytest.raises(WorkspaceError, match=f"No space is left at {location}") as raised,
        engine_errors(location=location),
    ):
        rows.write.format("delta").save(location)
    assert not isinstance(raised.value, ConcurrentRunError)
    assert raised.value.location == location


@pytest.mark.spark
def test_causes_on_spark(local_spark, small_disk, folder):
    spark = local_spark
    # A file that was cut short.
    _, broken = two_files(folder / "data")
    cut_short(broken)
    with pytest.raises(DataFileError, match="corrupt") as raised:
        bounded(spark.read.parquet(str(folder / "data")), 2000, "rows")
    assert raised.value.path == str(broken)
    assert raised.value.cause.startswith("FAILED_READ_FILE")
    # A version that never was, and one whose files are swept away.
    location = three_versions(spark, folder / "t")
    with pytest.raises(SnapshotExpiredError, match="Versions 0 to 2 can be read") as raised:
        delta.read(spark, location, 9)
    assert raised.value.version == 9
    assert raised.value.cause.endswith(("DELTA_VERSION_NOT_FOUND", "VersionNotFoundException"))
    spark.conf.set("spark.databricks.delta.retentionDurationCheck.enabled", "false")
    try:
        spark.sql(f"VACUUM delta.`{location}` RETAIN 0 HOURS")
    finally:
        spark.conf.unset("spark.databricks.delta.retentionDurationCheck.enabled")
    with pytest.raises(SnapshotExpiredError, match="without it since version 1"):
        bounded(delta.read(spark, location, 0), 100, "rows")
    # A conflict, and a failure that only talks of one.
    (error,) = write_at_once(spark, location)
    assert isinstance(error, ConcurrentRunError)
    assert "CONCURRENT" in error.cause or "Concurrent" in error.cause

    def fail(batches):
        for _ in batches:
            raise ValueError("java.util.concurrent.ConcurrentModificationException: no conflict")
        yield {"id": []}

    failing = map_arrow(spark.range(3), fail, "id bigint")
    with pytest.raises(Exception, match="no conflict") as raised, engine_errors(location=location):
        failing.write.format("delta").mode("overwrite").save(location)
    assert not isinstance(raised.value, ConcurrentRunError)
    # A file that the newest version has lost: no matter of versions.
    lost = newest_file(location)
    lost.unlink()
    with pytest.raises(DataFileError, match="does not exist") as raised:
        bounded(delta.read(spark, location), 100, "rows")
    assert raised.value.path == str(lost)
    # Columns.
    with pytest.raises(InputError, match="Column 'nosuch'"), engine_errors():
        spark.range(3).select("nosuch")
    place = str(folder / "fixed")
    spark.sql(f"CREATE TABLE delta.`{place}` (id STRING NOT NULL) USING delta")
    rows = spark.createDataFrame([("a",), (None,)], "id string")
    with (
        pytest.raises(InputError, match="may not be null") as raised,
        engine_errors(location=place),
    ):
        rows.write.format("delta").mode("append").save(place)
    assert raised.value.column == "id"
    # A full disk.
    full = str(small_disk / "t")
    rows = spark.range(200_000).selectExpr("cast(rand() AS string) AS x")
    with (
        pytest.raises(WorkspaceError, match="No space is left") as raised,
        engine_errors(location=full),
    ):
        rows.write.format("delta").save(full)
    assert raised.value.path == full


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        MemoryError("Unable to allocate 2.0 GiB for an array"),
        pa.ArrowMemoryError("malloc of size 1048576 failed"),
        RuntimeError("[PYTHON_EXCEPTION] Traceback ...\nMemoryError: no room\n"),
        RuntimeError("java.lang.OutOfMemoryError: Java heap space"),
        RuntimeError("Resources exhausted: Failed to allocate additional 1.2 GB for HashJoin"),
    ],
)
def test_used_up_memory_is_one_line_with_what_to_do(error):
    mapped = translated_error(error)
    assert isinstance(mapped, EngineError)
    assert str(mapped).startswith("Memory is used up.") and "\n" not in str(mapped)


@pytest.mark.parametrize(
    "error",
    [
        ConnectionRefusedError(111, "Connection refused"),
        RuntimeError(
            "org.apache.spark.SparkException: Python worker exited unexpectedly (crashed)"
        ),
        RuntimeError("Answer from Java side is empty"),
    ],
)
def test_a_dead_engine_or_worker_is_one_line_with_what_to_do(error):
    mapped = translated_error(error)
    assert isinstance(mapped, EngineError)
    assert "has ended or does not answer" in str(mapped) and "\n" not in str(mapped)
