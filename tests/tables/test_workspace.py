import pyarrow as pa
import pytest

from gio_spark.errors import ConfigError, EngineError, WorkspaceError
from gio_spark.tables import Workspace

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
    workspace.record(fingerprint="aa", table="plan", rows=written, seconds=1.0,
                     detail={"k": 3}, **KEYS)
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
    assert workspace.prune("plan", ["a1"]) == 1
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
