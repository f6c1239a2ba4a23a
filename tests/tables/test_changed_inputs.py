"""Inputs that are not what they were when they were pinned, on the embedded engine."""

from __future__ import annotations

import os
import shutil

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest

from gio_spark.errors import InputError, SnapshotExpiredError
from gio_spark.pipeline.stages.open_inputs import identity
from gio_spark.settings.columns import Columns
from gio_spark.settings.inputs import InputSettings
from gio_spark.settings.load import build
from gio_spark.tables import open_input, pin_input
from gio_spark.tables.delta import is_delta
from gio_spark.tables.file_list import _marks, check_unchanged, list_files

TEXT = Columns(id="id", text="text")
embedded = pytest.mark.embedded


def opened(spark, location, columns=TEXT, **settings):
    return open_input(spark, InputSettings(location=str(location), **settings), columns, "pool")


def write(path, *ids):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"id": list(ids), "text": [f"text {i}" for i in ids]}), path)


def rewrite_in_place(path, old, new):
    """Change a file's bytes, and give it its length and times again."""
    before = path.stat()
    content = path.read_bytes()
    assert old in content
    assert len(old) == len(new)
    path.write_bytes(content.replace(old, new))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize(("verify", "what"), [("listing", r"changed"), ("content", r"content")])
def test_a_file_rewritten_with_its_length_and_time_is_another_version(folder, verify, what):
    file = folder / "a.jsonl"
    file.write_text('{"id": 1, "text": "comet"}\n')
    before = list_files(str(folder), verify)
    check_unchanged(before)
    rewrite_in_place(file, b"comet", b"onion")
    assert list_files(str(folder), verify).version != before.version
    expected = rf"1 written again \[{file} \({what}\)\]"
    with pytest.raises(SnapshotExpiredError, match=expected) as raised:
        check_unchanged(before)
    assert (raised.value.location, raised.value.path) == (str(folder), str(file))


def test_by_content_equal_bytes_at_another_time_are_the_same_version(folder):
    for name in "abc":
        (folder / f"{name}.jsonl").write_text(name * 100_000)
    by_content, by_listing = list_files(str(folder), "content"), list_files(str(folder))
    for name in "abc":
        (folder / f"{name}.jsonl").unlink()
        (folder / f"{name}.jsonl").write_text(name * 100_000)
    os.utime(folder / "a.jsonl", ns=(1, 1))
    check_unchanged(by_content)
    assert list_files(str(folder), "content").version == by_content.version
    with pytest.raises(SnapshotExpiredError, match=r"a.jsonl \(modified, changed\)"):
        check_unchanged(by_listing)


def test_what_came_went_and_grew_is_named(folder):
    for name in "abcdefg":
        (folder / f"{name}.jsonl").write_text(name)
    before = list_files(str(folder))
    (folder / "a.jsonl").write_text("longer")
    (folder / "b.jsonl").unlink()
    for i in range(5):
        (folder / f"new{i}.jsonl").write_text("x")
    with pytest.raises(SnapshotExpiredError) as raised:
        check_unchanged(before)
    message = str(raised.value).replace(f"{folder}/", "")
    assert "1 written again [a.jsonl (length, modified, changed)]" in message
    assert "1 gone [b.jsonl]" in message
    assert "5 added [new0.jsonl, new1.jsonl, new2.jsonl, ...]" in message
    shutil.rmtree(folder)
    with pytest.raises(SnapshotExpiredError, match=r"cannot be listed any more.*Nothing found"):
        check_unchanged(before)


def test_files_of_a_store_without_checksums_are_told_apart_by_their_time(folder):
    (folder / "a.jsonl").write_text("a")
    store = pafs.SubTreeFileSystem(str(folder), pafs.LocalFileSystem())
    info = store.get_file_info("a.jsonl")
    assert _marks(store, [info]) == [(("modified", str(info.mtime_ns)),)]


def test_how_inputs_are_pinned_is_no_part_of_the_name_of_a_run():
    data = {"pool": "a", "target": ["b", {"location": "c", "verify": "listing"}]}
    plain, content = build(data), build({**data, "inputs": {"verify": "content"}})
    verify = [content.pool.verify, *(one.verify for one in content.target)]
    assert verify == ["content", "content", "listing"]
    assert plain.pool.verify == "listing"
    assert identity(plain) == identity(content)


@embedded
def test_an_input_pinned_by_content_is_checked_by_content(spark, folder):
    write(folder / "a.parquet", "a", "b")
    opened_input = opened(spark, folder, verify="content")
    os.utime(folder / "a.parquet", ns=(1, 1))
    opened_input.recheck()
    rewrite_in_place(folder / "a.parquet", b"text a", b"text z")
    with pytest.raises(SnapshotExpiredError, match=r"a.parquet \(content\)"):
        opened_input.recheck()


@embedded
def test_a_delta_table_made_again_under_its_name_is_noticed(spark, folder):
    path = str(folder / "t")
    df = spark.createDataFrame(pa.table({"id": ["a"], "text": ["x"]}))
    df.write.format("delta").save(path)
    opened_input = opened(spark, path)
    df.write.format("delta").mode("append").save(path)
    opened_input.recheck()
    shutil.rmtree(path)
    with pytest.raises(SnapshotExpiredError, match="is gone since version 0 of it was pinned"):
        opened_input.recheck()
    df.write.format("delta").save(path)
    again = opened(spark, path)
    assert (again.version, again.table_id == opened_input.table_id) == (opened_input.version, False)
    with pytest.raises(
        SnapshotExpiredError, match=f"{opened_input.table_id} and is {again.table_id}"
    ) as e:
        opened_input.recheck()
    assert e.value.location == path


@embedded
def test_a_delta_table_put_back_below_its_pinned_version_is_noticed(spark, folder):
    path = str(folder / "t")
    df = spark.createDataFrame(pa.table({"id": ["a"], "text": ["x"]}))
    df.write.format("delta").save(path)
    shutil.copytree(path, folder / "backup")
    df.write.format("delta").mode("append").save(path)
    pinned = pin_input(spark, InputSettings(location=path), "pool")
    pinned.recheck()
    shutil.rmtree(path)
    shutil.copytree(folder / "backup", path)
    with pytest.raises(SnapshotExpiredError, match="version 1 was pinned, and the newest is 0"):
        pinned.recheck()


@embedded
def test_rows_and_quarantined_rows_are_counted_before_they_are_computed(spark, folder):
    ids = pa.array(["a", None, "b", "a", "a", None, "c"], pa.string())
    pq.write_table(pa.table({"id": ids, "text": list("tuvwxyz")}), folder / "a.parquet")
    opened_input = opened(spark, folder)
    assert (opened_input.count, opened_input.ids, opened_input.quarantined) == (7, 3, 4)
    assert opened_input.rows.toArrow().num_rows == opened_input.ids
    assert opened_input.bad.toArrow().num_rows == opened_input.quarantined
    (folder / "a.parquet").unlink()
    (folder / "a.jsonl").write_text('{"id": 1, "text": "x"}\n{"id": \n{"id": 1, "text": "y"}\n')
    lines = opened(spark, folder)
    assert (lines.count, lines.ids, lines.quarantined) == (2, 1, 1)
    assert lines.bad.toArrow().num_rows == lines.quarantined + 1
    copies = opened(spark, folder, Columns(text="text"))
    assert (copies.count, copies.ids, copies.quarantined) == (2, 2, 0)


@embedded
def test_files_in_partitions_named_with_an_underscore_are_pinned(spark, folder):
    for part in "12":
        write(folder / f"_part={part}" / "a.parquet", part)
    write(folder / "_hidden" / "a.parquet", "no")
    opened_input = opened(spark, folder)
    assert (opened_input.count, len(list_files(str(folder)).files)) == (2, 2)
    write(folder / "_part=2" / "a.parquet", "3")
    with pytest.raises(SnapshotExpiredError, match=r"_part=2/a\.parquet"):
        opened_input.recheck()


@embedded
@pytest.mark.parametrize("leftover", [None, "00000000000000000000.json", "_commit_x.json.tmp"])
def test_a_log_without_a_commit_is_no_table_and_no_input(spark, folder, leftover):
    log = folder / "t" / "_delta_log"
    log.mkdir(parents=True)
    if leftover:
        (log / leftover).write_bytes(b"")
    write(folder / "t" / "part-0.parquet", "a")
    assert not is_delta(spark, str(folder / "t"))
    with pytest.raises(InputError, match=r"pool: .*/t holds the log of a Delta table without a"):
        opened(spark, folder / "t")
    assert opened(spark, folder / "t", format="parquet").count == 1


@embedded
def test_a_log_is_known_by_any_commit_or_checkpoint(spark, folder):
    path = folder / "t"
    df = spark.createDataFrame(pa.table({"id": ["a"], "text": ["x"]}))
    df.write.format("delta").save(str(path))
    assert is_delta(spark, str(path))
    first = path / "_delta_log" / f"{0:020d}.json"
    first.rename(first.with_name(f"{7:020d}.json"))
    assert is_delta(spark, str(path))
    first.with_name(f"{7:020d}.json").rename(first.with_name(f"{7:020d}.checkpoint.parquet"))
    assert is_delta(spark, str(path))
    assert not is_delta(spark, str(folder))
