"""Locations that Spark opens and this process cannot: another Hadoop file system than the local."""

from __future__ import annotations

import gzip

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gio_spark.errors import InputError, SnapshotExpiredError
from gio_spark.settings.columns import Columns
from gio_spark.settings.inputs import InputSettings
from gio_spark.tables import Workspace, open_input

# A minute and more: with the other slow ones.
pytestmark = [pytest.mark.spark, pytest.mark.faults, pytest.mark.timeout(900)]
COLUMNS = Columns(id="id", text="text")


@pytest.fixture(scope="module")
def far(local_spark, tmp_path_factory):
    """A folder and its location in Hadoop's view file system, which this process cannot open."""
    folder = tmp_path_factory.mktemp("far")
    local_spark.conf.set("fs.viewfs.mounttable.far.link./data", f"file://{folder}")
    return folder, "viewfs://far/data"


def opened(spark, location, **settings):
    place = InputSettings(location=location, **settings)
    return open_input(spark, place, COLUMNS, "pool")


def ids(opened_input):
    return sorted(opened_input.rows.toArrow()["id"].to_pylist())


def test_files_are_listed_read_and_watched_through_spark(local_spark, far):
    folder, location = far
    for language, more in (("en", {}), ("de", {"extra": [7]})):
        (folder / "parquet" / f"lang={language}").mkdir(parents=True)
        table = pa.table({"id": [language], "text": ["x"], **more})
        pq.write_table(table, folder / "parquet" / f"lang={language}" / "a.parquet")
    pool = opened(local_spark, f"{location}/parquet")
    assert (pool.format, ids(pool)) == ("parquet", ["de", "en"])
    assert set(pool.own_columns) == {"id", "text", "extra", "lang"}

    (folder / "text").mkdir()
    (folder / "text" / "a.jsonl").write_text('{"id": "1", "text": "a"}\n{"id": "2", "id": "3"}\n')
    (folder / "text" / "b.json").write_text('[{"id": "4", "text": "b"}]')
    (folder / "text" / "c.jsonl.gz").write_bytes(gzip.compress(b'{"id": "5", "text": "c"}'))
    (folder / "text" / "README").write_text("none of these")
    pool = opened(local_spark, f"{location}/text", format="jsonl")
    assert ids(pool) == ["1", "4", "5"]
    (bad,) = pool.bad.toArrow().to_pylist()
    assert bad["reason"] == "malformed line: a key twice in one object"
    (folder / "csv").mkdir()
    (folder / "csv" / "a.csv").write_text('id,text\n6,"two\nlines"\n')
    assert ids(opened(local_spark, f"{location}/csv", verify="content")) == ["6"]

    pool.recheck()
    (folder / "text" / "d.jsonl").write_text('{"id": "7", "text": "d"}')
    with pytest.raises(SnapshotExpiredError, match="1 added"):
        pool.recheck()
    with pytest.raises(InputError, match=r"pool: Nothing found at viewfs://far/data/none"):
        opened(local_spark, f"{location}/none")
    with pytest.raises(InputError, match=r"pool: Spark has no file system for nofs://bucket/pool"):
        opened(local_spark, "nofs://bucket/pool")


def test_files_that_were_added_are_read_alone_through_spark(local_spark, far):
    folder, location = far

    def add(name):
        for place in ("grown", "grown-text"):
            (folder / place).mkdir(exist_ok=True)
        table = pa.table({"id": [name], "text": ["x"]})
        pq.write_table(table, folder / "grown" / f"{name}.parquet")
        (folder / "grown-text" / f"{name}.jsonl").write_text(f'{{"id": "{name}", "text": "x"}}')

    add("a")
    before = [opened(local_spark, f"{location}/{place}") for place in ("grown", "grown-text")]
    add("b [x]*")
    for earlier in before:
        now = opened(local_spark, earlier.location)
        added = now.rows_in_files_since(earlier.file_rows.marks())
        assert added.toArrow()["id"].to_pylist() == ["b [x]*"]
        assert ids(now) == ["a", "b [x]*"]


def test_delta_tables_and_workspaces_are_opened_through_spark(local_spark, far):
    folder, location = far
    frame = local_spark.createDataFrame(pa.table({"id": ["a"], "text": ["x"]}))
    frame.write.format("delta").save(str(folder / "delta"))
    pool = opened(local_spark, f"{location}/delta")
    assert (pool.format, pool.version, ids(pool)) == ("delta", "0", ["a"])
    (folder / "ws").mkdir()
    workspace = Workspace(local_spark, f"{location}/ws")
    plan = pa.table({"cluster": [3]})
    workspace.write_arrow("plan", plan, fingerprint="f", run="r", stage="s")
    workspace.record(run="r", stage="s", fingerprint="f", table="plan", rows=1, seconds=1.0)
    again = Workspace(local_spark, f"{location}/ws")
    assert again.complete("s", "f") is not None
    assert (again.exists("nothing"), again.version("plan")) == (False, 0)
    assert again.store.names("pl") == ["plan"]
    assert [row["cluster"] for row in again.read("plan", "f").collect()] == [3]
    again.store.drop("plan")
    assert Workspace(local_spark, f"{location}/ws").store.read("plan").count() == 0
