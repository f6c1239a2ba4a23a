"""Small tables written behind the run on Spark: read only once there, recorded only after that."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gio_spark.tables import Workspace, values_in

pytestmark = pytest.mark.spark
KEYS = {"run": "r1", "stage": "fit"}


def rows(n: int) -> pa.Table:
    return pa.table({"id": [str(i) for i in range(n)]})


def first_commit(workspace: Workspace, table: str) -> list[dict]:
    log = Path(workspace.place(table)) / "_delta_log" / f"{0:020d}.json"
    return [json.loads(line) for line in log.read_text().splitlines()]


def test_rows_written_later_are_there_for_whoever_reads_and_recorded_at_their_version(
    local_spark, folder
):
    workspace = Workspace(local_spark, str(folder / "ws"))
    for name, n in (("aa", 3), ("bb", 5)):
        written = workspace.write_arrow("plan", rows(n), fingerprint=name, later=True, **KEYS)
        workspace.record(
            fingerprint=name, table="plan", rows=written, seconds=1.0, later=True, **KEYS
        )
    assert workspace.exists("plan")
    assert workspace.read_arrow("plan", "bb", 10, "rows").num_rows == 5
    assert workspace.read("plan", "bb").count() == 5
    assert workspace.version("plan") == 1
    assert workspace.complete("fit", "aa") is not None
    workspace.flush()
    assert [r.version for r in workspace.records()] == [1, 1]
    other = Workspace(local_spark, workspace.location)
    assert [(r.fingerprint, r.version, r.rows) for r in other.records()] == [
        ("aa", 1, 3),
        ("bb", 1, 5),
    ]


def test_a_write_behind_that_fails_is_told_at_the_flush_and_leaves_no_record(local_spark, folder):
    workspace = Workspace(local_spark, str(folder / "ws"))
    # A file stands where the table's folder would be.
    Path(workspace.place("plan")).write_text("in the way")
    workspace.write_arrow("plan", rows(3), fingerprint="aa", later=True, **KEYS)
    workspace.record(fingerprint="aa", table="plan", rows=3, seconds=1.0, later=True, **KEYS)
    with pytest.raises(Exception, match="plan"):
        workspace.flush()
    assert Workspace(local_spark, workspace.location).records() == []


def test_stage_tables_gather_the_statistics_that_are_asked_for_and_press_what_can_be_pressed(
    local_spark, folder
):
    workspace = Workspace(local_spark, str(folder / "ws"))
    bad = pa.table({"id": ["a", "b"], "reason": pa.array([None, "empty"], pa.string())})
    for table in ("embeddings", "quarantine", "scores"):
        workspace.write(table, workspace.frame(bad), fingerprint="aa", **KEYS)
    assert values_in(workspace, "embeddings", "aa", "reason") == 1

    def statistics(table):
        adds = [json.loads(a["add"]["stats"]) for a in first_commit(workspace, table) if "add" in a]
        assert sum(s["numRecords"] for s in adds) == 2
        return {name for s in adds for name in s.get("minValues", {})}

    def codecs(table):
        files = Path(workspace.place(table)).rglob("*.parquet")
        columns = [pq.ParquetFile(f).metadata.row_group(0).column(0) for f in files]
        return {column.compression for column in columns}

    assert codecs("embeddings") == {"UNCOMPRESSED"}
    assert codecs("scores") == {"SNAPPY"}
    # People look for ids in the rows that were put aside, nobody in the scores.
    assert statistics("quarantine") == {"id", "reason"}
    assert statistics("scores") == set()
    assert "id" not in statistics("embeddings")
