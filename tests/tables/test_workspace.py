from pathlib import Path

import pyarrow as pa
import pytest

from gio_spark.errors import ConfigError, EngineError, WorkspaceError
from gio_spark.tables import Workspace, count_values, delta

pytestmark = pytest.mark.embedded
KEYS = {"run": "r1", "stage": "embed"}


@pytest.fixture
def workspace(spark, folder):
    return Workspace(spark, str(folder / "ws"))


def rows(n, start=0):
    return pa.table({"id": [str(i) for i in range(start, start + n)]})


def test_rows_of_a_key_are_those_of_the_last_attempt_and_others_stay(workspace):
    assert workspace.write_arrow("plan", rows(10), fingerprint="aa", **KEYS) == 10
    assert workspace.write_arrow("plan", rows(4), fingerprint="bb", **KEYS) == 4
    assert workspace.write_arrow("plan", rows(3), fingerprint="aa", **KEYS) == 3
    assert workspace.read("plan", "aa").count() == 3
    assert workspace.read("plan", "bb").count() == 4
    # Nothing was taken away: whoever reads by an earlier record finds its rows.
    assert workspace.read_table("plan").count() == 17


def test_rows_count_for_others_once_a_record_names_them(workspace, spark):
    written = workspace.write_arrow("plan", rows(10), fingerprint="aa", **KEYS)
    assert Workspace(spark, workspace.location).read("plan", "aa").count() == 0
    workspace.record(fingerprint="aa", table="plan", rows=written, seconds=1.0, **KEYS)
    assert Workspace(spark, workspace.location).read("plan", "aa").count() == 10
    # A second writer of the same key, which dies before its record.
    Workspace(spark, workspace.location).write_arrow("plan", rows(10), fingerprint="aa", **KEYS)
    assert Workspace(spark, workspace.location).read("plan", "aa").count() == 10


def test_two_writers_of_one_key_are_both_whole_and_read_once(workspace, spark):
    one, other = (Workspace(spark, workspace.location) for _ in range(2))
    for writer in (one, other):
        writer.write_arrow("plan", rows(10), fingerprint="aa", **KEYS)
    for writer in (one, other):
        writer.record(fingerprint="aa", table="plan", rows=10, seconds=1.0, **KEYS)
    for reader in (one, other, Workspace(spark, workspace.location)):
        assert reader.complete("embed", "aa").rows == 10
        assert reader.read("plan", "aa").count() == 10


def test_what_a_failed_stage_wrote_is_named_by_no_later_record(workspace, spark):
    workspace.write_arrow("plan", rows(10), fingerprint="aa", **KEYS)
    workspace.abandon()
    workspace.write_arrow("plan", rows(2), fingerprint="bb", **KEYS)
    workspace.record(fingerprint="bb", table="plan", rows=2, seconds=1.0, **KEYS)
    other = Workspace(spark, workspace.location)
    assert other.read("plan", "aa").count() == 0 and other.read("plan", "bb").count() == 2


def test_a_table_is_widened_for_rows_with_more_columns_and_keeps_all_that_it_has(workspace):
    workspace.write_arrow("plan", rows(2), fingerprint="aa", **KEYS)
    wider = rows(3).append_column("x", pa.array([1.0, 2.0, 3.0]))
    workspace.write_arrow("plan", wider, fingerprint="bb", **KEYS)
    workspace.write_arrow("plan", rows(4), fingerprint="cc", **KEYS)
    counts = [workspace.read("plan", key).where("x IS NOT NULL").count() for key in ("aa", "bb")]
    assert counts == [0, 3]
    assert [workspace.read("plan", key).count() for key in ("aa", "bb", "cc")] == [2, 3, 4]
    other = rows(1).append_column("x", pa.array(["text"]))
    with pytest.raises(WorkspaceError, match="column 'x' as double"):
        workspace.write_arrow("plan", other, fingerprint="dd", **KEYS)


def test_a_stage_is_complete_only_while_its_rows_are_there(workspace, spark):
    assert workspace.complete("embed", "aa") is None
    written = workspace.write_arrow("plan", rows(10), fingerprint="aa", **KEYS)
    workspace.record(
        fingerprint="aa", table="plan", rows=written, seconds=1.0, detail={"k": 3}, **KEYS
    )
    record = workspace.complete("embed", "aa")
    assert (record.rows, record.detail, record.version) == (10, {"k": 3}, 0)
    spark.sql(f"DELETE FROM delta.`{workspace.place('plan')}` WHERE id = '3'")
    assert workspace.complete("embed", "aa") is None


@pytest.mark.parametrize("half", ["empty log", "file without a log", "empty commit"])
def test_a_first_write_that_was_cut_short_is_no_table_and_in_nobodys_way(workspace, half):
    place = Path(workspace.place("plan"))
    (place / "_delta_log").mkdir(parents=True)
    if half == "file without a log":
        (place / "part-00000.parquet").write_bytes(b"PAR1")
    if half == "empty commit":
        (place / "_delta_log" / f"{0:020}.json").touch()
    assert not workspace.exists("plan")
    assert workspace.write_arrow("plan", rows(3), fingerprint="aa", **KEYS) == 3
    assert workspace.read("plan", "aa").count() == 3


def test_a_wrong_number_of_rows_is_noticed(workspace):
    df = workspace.frame(rows(5))
    with pytest.raises(WorkspaceError, match="holds 5 rows of embed after the write, but 6"):
        workspace.write("plan", df, fingerprint="aa", expected=6, **KEYS)


def test_an_empty_stage_table_keeps_its_columns(workspace):
    empty = pa.table({"id": pa.array([], pa.string()), "n": pa.array([], pa.int64())})
    assert workspace.write_arrow("quarantine", empty, fingerprint="aa", **KEYS) == 0
    assert workspace.read("quarantine", "aa").columns == ["id", "n", "fingerprint"]


def test_workspaces_that_cannot_be_written_are_one_clear_error(spark, folder):
    (folder / "file").write_text("x")
    with pytest.raises(WorkspaceError, match="Cannot write to the workspace"):
        Workspace(spark, str(folder / "file" / "ws"))
    with pytest.raises(EngineError, match="is a schema"):
        Workspace(spark, "main.selection")
    with pytest.raises(ConfigError, match="neither an existing path nor"):
        Workspace(spark, "bad.sche`ma")


def test_the_log_tells_the_rows_of_the_last_commit_of_a_fingerprint(workspace):
    place = workspace.place("plan")
    for name, n in (("one", 10), ("two", 4), ("one", 3)):
        workspace.write_arrow("plan", rows(n), fingerprint=name, **KEYS)
    (token,) = workspace.attempts("plan", "one")
    assert delta.committed_rows(place, {"fingerprint": "one", "attempt": token}) == 3
    assert delta.committed_rows(place, {"fingerprint": "two"}) == 4
    assert delta.committed_rows(place, {"fingerprint": "none"}) is None


def test_gathered_records_are_written_in_one_commit_and_seen_before_it(workspace, spark):
    n = workspace.write_arrow("plan", rows(2), fingerprint="aa", **KEYS)
    for stage in ("fit", "assign"):
        workspace.record(
            run="r1", stage=stage, fingerprint="aa", table="plan", rows=n, seconds=0.5, later=True
        )
    assert workspace.complete("assign", "aa") is not None
    assert not workspace.exists("runs")
    workspace.flush()
    other = Workspace(spark, workspace.location)
    assert [r.stage for r in other.records("r1")] == ["fit", "assign"]
    assert other.version("runs") == 0
    workspace.flush()
    assert other.version("runs") == 0


def test_records_of_long_stages_are_written_at_once(workspace, spark):
    n = workspace.write_arrow("plan", rows(2), fingerprint="aa", **KEYS)
    workspace.record(
        run="r1", stage="fit", fingerprint="aa", table="plan", rows=n, seconds=21.0, later=True
    )
    assert Workspace(spark, workspace.location).complete("fit", "aa") is not None


def test_small_tables_read_the_same_from_memory_and_from_the_table(workspace, spark):
    written = pa.table({"id": ["a", "b"], "x": pa.array([1.5, None], pa.float64())})
    workspace.write_arrow("plan", written, fingerprint="aa", **KEYS)
    workspace.record(fingerprint="aa", table="plan", rows=2, seconds=0.0, **KEYS)
    stored = Workspace(spark, workspace.location).read_arrow("plan", "aa", 10, "rows")
    assert stored.sort_by("id").to_pylist() == written.to_pylist()
    assert workspace.read_arrow("plan", "aa", 10, "rows").schema.names == stored.schema.names
    workspace.write_arrow("plan", rows(1), fingerprint="aa", **KEYS)
    assert workspace.read_arrow("plan", "aa", 10, "rows").num_rows == 1


def test_the_log_tells_in_how_many_rows_a_column_has_a_value(workspace):
    table = pa.table({"id": ["a", "b", "c"], "reason": pa.array([None, "bad", None], pa.string())})
    workspace.write("embeddings", workspace.frame(table), fingerprint="aa", **KEYS)
    count = count_values(workspace, "embeddings", "aa", "reason")
    assert count in (1, None)  # a writer may leave the statistics out
    assert count_values(workspace, "embeddings", "bb", "reason") is None
    assert count_values(workspace, "scores", "aa", "reason") is None


def test_a_workspace_of_an_earlier_layout_is_refused_in_one_line(workspace, spark):
    old = pa.table({"run": ["run-1"], "stage": ["run"], "fingerprint": ["run-1"], "rows": [1]})
    frame = workspace.frame(old)
    frame.write.format("delta").save(workspace.place("runs"))
    with pytest.raises(WorkspaceError, match="was written by an earlier version") as error:
        Workspace(spark, workspace.location).records()
    assert "\n" not in str(error.value)
