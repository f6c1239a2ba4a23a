import pyarrow as pa
import pytest

from gio_spark.pipeline.stages import input_snapshots
from gio_spark.settings.load import build
from gio_spark.tables import Workspace, open_input, pin_input

pytestmark = pytest.mark.spark


def test_a_view_is_read_once_and_a_named_table_at_its_version(local_spark, folder):
    spark = local_spark
    spark.sql("CREATE TABLE rows_by_name (id BIGINT, text STRING) USING delta")
    spark.sql("INSERT INTO rows_by_name VALUES (1, 'one'), (2, 'two'), (3, 'three')")
    spark.sql(
        "CREATE TEMPORARY VIEW odd_rows AS "
        "SELECT *, NULL AS note FROM rows_by_name WHERE id % 2 = 1"
    )
    workspace = Workspace(spark, str(folder / "workspace"))
    settings = build(
        {"pool": "odd_rows", "target": "rows_by_name", "columns": {"id": "id", "text": "text"}}
    )

    def pinned(*, dry=False):
        place = Workspace(spark, workspace.location, writable=False) if dry else workspace
        inputs = settings.datasets().values()
        return [input_snapshots.pin_view(spark, place, one, "pool") for one in inputs]

    # A forecast writes nothing: it reads the view itself, as long as no snapshot has its rows.
    assert pinned(dry=True)[0] == settings.pool
    view = open_input(spark, settings.pool, settings.columns, "pool")
    assert (view.count, view.format) == (2, "view") and "note" in view.schema.fieldNames()
    assert not workspace.store.names("snapshot_")
    pool_now, target_now = pinned()
    assert pinned(dry=True) == [pool_now, target_now]
    assert target_now == settings.target[0]
    assert pool_now.location.startswith(str(folder / "workspace" / "snapshot_"))
    pool, target = (
        open_input(spark, one, settings.columns, "pool", pin_input(spark, one, "pool"))
        for one in (pool_now, target_now)
    )
    assert sorted(r["id"] for r in pool.rows.collect()) == ["1", "3"]
    assert (target.count, target.format, target.version) == (3, "delta", "1")
    # The view moves on; the same content gives the same snapshot, new content a new one.
    assert pinned() == [pool_now, target_now]
    spark.sql("INSERT INTO rows_by_name VALUES (5, 'five')")
    assert pinned()[0] != pool_now


def test_names_in_back_quotes_are_pools_and_workspaces(local_spark):
    spark = local_spark
    spark.sql("CREATE SCHEMA `2024`")
    spark.sql("CREATE TABLE `2024`.`order` USING delta AS SELECT 'a' AS id, 'x' AS text")
    settings = build(
        {
            "pool": "spark_catalog.`2024`.`order`",
            "target": "`2024`.order",
            "workspace": "`2024`",
            "columns": {"id": "id", "text": "text"},
        }
    )
    for one in settings.datasets().values():
        opened = open_input(spark, one, settings.columns, "pool")
        assert (opened.count, opened.format, opened.version) == (1, "delta", "0")
    workspace = Workspace(spark, settings.workspace)
    assert workspace.in_catalog and workspace.place("plan") == "`2024`.plan"
    table = pa.table({"cluster": [3]})
    workspace.write_arrow("plan", table, fingerprint="f", run="r", stage="s")
    assert workspace.store.names("pl") == ["plan"] and workspace.exists("plan")
    assert [row["cluster"] for row in workspace.read("plan", "f").collect()] == [3]
