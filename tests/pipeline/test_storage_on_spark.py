"""What storage promises, on Spark with Delta: other runs' rows, publishes, changes, retention."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from gio_spark import read_selection
from gio_spark.engine.progress import Progress
from gio_spark.errors import InputError
from gio_spark.pipeline import run
from gio_spark.pipeline.stages import publish_selection
from gio_spark.settings.run import RetentionSettings
from gio_spark.tables import PublishLog, Workspace, forget, maintain, prune
from tests.pipeline import jobs

# Some minutes: with the other slow ones.
pytestmark = [pytest.mark.spark, pytest.mark.faults, pytest.mark.timeout(900)]
SILENT = Progress("silent")


def settings(folder: Path, **changes):
    return jobs.settings(folder, engine="spark", **changes)


def go(spark, chosen):
    return run(chosen, spark=spark, progress=SILENT)


def test_runs_publishes_changes_and_retention_on_spark(local_spark, folder):
    spark = local_spark
    jobs.write(jobs.vector_target(), folder / "target.parquet")
    pool = f"delta.`{folder / 'pool'}`"
    spark.sql(
        f"CREATE TABLE {pool} (id STRING NOT NULL COMMENT 'the ''key''', vector ARRAY<FLOAT>, "
        "site STRING, words BIGINT NOT NULL, note STRUCT<text: STRING NOT NULL COMMENT 'n'>) "
        "USING DELTA"
    )
    rows = spark.createDataFrame(jobs.vector_pool()).selectExpr(
        "id", "vector", "site", "words", "named_struct('text', note) AS note"
    )
    rows.write.format("delta").mode("append").save(str(folder / "pool"))
    workspace = str(folder / "ws")
    (folder / "ws" / "embeddings" / "_delta_log").mkdir(parents=True)  # a first write cut short
    (folder / "ws" / "runs" / "_delta_log").mkdir(parents=True)
    first = go(spark, settings(folder, pool=str(folder / "pool"), name="one"))
    assert first.publication.number == 1
    before = first.selected.toArrow().sort_by("gio_id")
    pool_fields = first.selected.schema.fields[:5]
    assert [f.nullable for f in pool_fields] == [False, True, True, False, True]
    assert pool_fields[0].metadata["comment"] == "the 'key'"
    inner = pool_fields[4].dataType.fields[0]
    assert (inner.nullable, inner.metadata["comment"]) == (False, "n")

    # Another pool, with other columns and without a copy of them.
    jobs.write(jobs.vector_pool(300, name="b").drop_columns(["note"]), folder / "b.parquet")
    other = settings(
        folder, pool=str(folder / "b.parquet"), name="two", budget=30, explode={"output": "ids"}
    )
    assert go(spark, other).publication.number == 1
    assert read_selection("one", workspace=workspace, spark=spark).count() == 100
    assert first.selected.toArrow().sort_by("gio_id").equals(before)

    # New rows of the pool alone are embedded.
    more = spark.createDataFrame(jobs.vector_pool(40, seed=7, name="n")).selectExpr(
        "id", "vector", "site", "words", "named_struct('text', note) AS note"
    )
    more.write.format("delta").mode("append").save(str(folder / "pool"))
    chosen = settings(folder, pool=str(folder / "pool"), name="one")
    second = go(spark, chosen)
    assert second.publication.number == 2 and second.selected.count() == 100
    tables = Workspace(spark, workspace)
    record = [r for r in tables.records(second.run_id) if r.stage == "embed pool"][-1]
    assert (record.rows, tables.own_rows("embeddings", record.fingerprint).count()) == (640, 40)

    log = PublishLog(tables)
    assert publish_selection.roll_back(tables, "one").source_number == 1
    back = read_selection("one", workspace=workspace, spark=spark)
    assert back.toArrow().sort_by("gio_id").equals(before)

    # Retention takes replaced selections, and rows that only they were made from.
    log.publish(
        "one", run=second.run_id, table=Path(second.tables["selected"]).name, rows=100,
        input_version="", why="",
    )  # fmt: skip
    check = "spark.databricks.delta.retentionDurationCheck.enabled"
    set_before = spark.conf.get(check, None)
    gone = prune(tables, RetentionSettings(runs=1, publishes=1, hours=0))
    assert len(gone.tables) == 1 and spark.conf.get(check, None) == set_before
    with pytest.raises(InputError, match="no longer there"):
        read_selection("one", workspace=workspace, publish=1, spark=spark)
    assert read_selection("one", workspace=workspace, spark=spark).count() == 100
    assert not go(spark, chosen).did_work
    log.publish(
        "two", run=second.run_id, table=Path(second.tables["selected"]).name, rows=100,
        input_version="", why="",
    )  # fmt: skip
    two = next(e.run for e in log.publishes("two") if e.number == 1)
    forgotten = forget(tables, two, RetentionSettings(hours=0))
    assert {"embeddings", "assignments"} <= set(forgotten.attempts)
    left = {
        i
        for f in (folder / "ws" / "embeddings").glob("fingerprint=*/*/*.parquet")
        for i in pq.read_table(f, columns=["id"])["id"].to_pylist()
    }
    assert not any(i.startswith("b") for i in left) and any(i.startswith("n") for i in left)
    assert not go(spark, chosen).did_work

    # Maintenance leaves the rows as they are, and one file of all records.
    done = maintain(tables, RetentionSettings(hours=0))
    assert {"embeddings", "runs", "publishes"} <= {t.table for t in done.tables if t.after}
    assert len(list((folder / "ws" / "runs").glob("*.parquet"))) == 1
    assert read_selection("one", workspace=workspace, spark=spark).count() == 100
    assert not go(spark, chosen).did_work
