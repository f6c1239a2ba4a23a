import pyarrow as pa
import pytest

from gio_spark.errors import ConfigError, EngineError, WorkspaceError
from gio_spark.tables import Workspace, delta, prune, values_in

pytestmark = pytest.mark.embedded
KEYS = {"run": "r1", "stage": "embed"}


@pytest.fixture
def workspace(spark, folder):
    return Workspace(spark, str(folder / "ws"))


def rows(n, start=0):
    return pa.table({"id": [str(i) for i in range(start, start + n)]})


def test_a_fingerprint_is_written_again_without_doubling_and_without_touching_others(workspace):
    assert workspace.write_arrow("plan", rows(10), fingerprint="aa", **KEYS) == 10
    assert workspace.write_arrow("plan", rows(4), fingerprint="bb", **KEYS) == 4
    assert workspace.write_arrow("plan", rows(3), fingerprint="aa", **KEYS) == 3
    assert workspace.read("plan", "aa").count() == 3
    assert workspace.read("plan", "bb").count() == 4


def test_a_stage_is_complete_only_while_its_rows_are_there(workspace):
    assert workspace.complete("embed", "aa") is None
    written = workspace.write_arrow("plan", rows(10), fingerprint="aa", **KEYS)
    workspace.record(
        fingerprint="aa", table="plan", rows=written, seconds=1.0, detail={"k": 3}, **KEYS
    )
    found = workspace.complete("embed", "aa")
    assert (found.rows, found.detail, found.version) == (10, {"k": 3}, 0)
    workspace.write_arrow("plan", rows(2), fingerprint="aa", **KEYS)
    assert workspace.complete("embed", "aa") is None


def test_a_wrong_number_of_rows_is_noticed(workspace):
    df = workspace.frame(rows(5))
    with pytest.raises(WorkspaceError, match="holds 5 rows of embed after the write, but 6"):
        workspace.write("plan", df, fingerprint="aa", expected=6, **KEYS)


def test_old_fingerprints_are_pruned_and_the_last_ones_kept(workspace):
    for name in ("a1", "a2", "a3", "a4", "a5"):
        n = workspace.write_arrow("plan", rows(1), fingerprint=name, **KEYS)
        workspace.record(fingerprint=name, table="plan", rows=n, seconds=0.0, **KEYS)
    assert prune(workspace, "plan", ["a1"]) == 1
    left = {r["fingerprint"] for r in workspace.read_all("plan").toArrow().to_pylist()}
    assert left == {"a1", "a3", "a4", "a5"}


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
    for name, n in (("aa", 10), ("bb", 4), ("aa", 3)):
        workspace.write_arrow("plan", rows(n), fingerprint=name, **KEYS)
    assert delta.committed_rows(place, {"fingerprint": "aa"}) == 3
    assert delta.committed_rows(place, {"fingerprint": "bb"}) == 4
    assert delta.committed_rows(place, {"fingerprint": "cc"}) is None
    assert workspace.may_hold("plan", "aa") and not workspace.may_hold("plan", "cc")


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
    stored = Workspace(spark, workspace.location).read_arrow("plan", "aa", 10, "rows")
    assert stored.sort_by("id").to_pylist() == written.to_pylist()
    assert workspace.read_arrow("plan", "aa", 10, "rows").schema.names == stored.schema.names
    workspace.write_arrow("plan", rows(1), fingerprint="aa", **KEYS)
    assert workspace.read_arrow("plan", "aa", 10, "rows").num_rows == 1


def test_rows_of_several_fingerprints_are_one_commit_and_counted_apart(workspace):
    def put(a, b):
        frames = {"aa": workspace.frame(rows(a)), "bb": workspace.frame(rows(b))}
        return workspace.write_together(
            "embeddings", frames, run="r1", stage="embed", expected={"aa": a, "bb": None}
        )

    workspace.write("embeddings", workspace.frame(rows(5)), fingerprint="cc", **KEYS)
    before = workspace.version("embeddings")
    assert put(10, 4) == {"aa": 10, "bb": 4}
    assert workspace.version("embeddings") == before + 1
    assert put(3, 0) == {"aa": 3, "bb": 0}
    assert [workspace.read("embeddings", f).count() for f in ("aa", "bb", "cc")] == [3, 0, 5]


def test_a_wrong_number_of_rows_in_a_common_commit_is_noticed(workspace):
    frames = {"aa": workspace.frame(rows(2)), "bb": workspace.frame(rows(3))}
    with pytest.raises(WorkspaceError, match="holds 3 rows of embed"):
        workspace.write_together(
            "embeddings", frames, run="r1", stage="embed", expected={"aa": 2, "bb": 4}
        )


def test_the_log_tells_in_how_many_rows_a_column_has_a_value(workspace):
    table = pa.table({"id": ["a", "b", "c"], "reason": pa.array([None, "bad", None], pa.string())})
    workspace.write("embeddings", workspace.frame(table), fingerprint="aa", **KEYS)
    found = values_in(workspace, "embeddings", "aa", "reason")
    assert found in (1, None)  # a writer may leave the statistics out
    assert values_in(workspace, "embeddings", "bb", "reason") is None
    assert values_in(workspace, "scores", "aa", "reason") is None
