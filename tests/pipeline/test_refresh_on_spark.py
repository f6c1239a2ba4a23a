"""Refreshes on Spark, over a Delta pool that is appended to, updated, deleted from and restored."""

from __future__ import annotations

import shutil

import pytest

from gio_spark.engine.progress import Progress
from gio_spark.pipeline import run
from gio_spark.pipeline.refresh import refresh
from gio_spark.pipeline.stages import embed
from gio_spark.tables import Workspace
from tests.pipeline import jobs
from tests.pipeline.test_refresh import stage_rows

pytestmark = [pytest.mark.spark, pytest.mark.timeout(900)]
SILENT = Progress("silent")


def refreshed_once(spark, folder):
    """Settings of a run whose pool was appended to and updated, and what its refresh did."""
    jobs.write(jobs.vector_target(), folder / "target.parquet")
    where = str(folder / "pool")
    feed = {"delta.enableChangeDataFeed": "true"}
    spark.createDataFrame(jobs.vector_pool()).write.format("delta").options(**feed).save(where)
    settings = jobs.settings(
        folder, engine="spark", pool=where, within_cluster="density_ratio",
        gime={"on_refresh": False}, quantize={"duplicates": "exact"},
    )  # fmt: skip
    run(settings, spark=spark, progress=SILENT)
    shutil.copytree(folder / "ws", folder / "whole")
    more = spark.createDataFrame(jobs.vector_pool(60, seed=7, name="n"))
    more.write.format("delta").mode("append").save(where)
    spark.sql(f"UPDATE delta.`{where}` SET words = words + 1 WHERE id < 'p00020'")
    return settings, refresh(settings, spark=spark, progress=SILENT)


def test_a_refresh_holds_the_budget_and_finds_nothing_to_do_a_second_time(local_spark, folder):
    settings, done = refreshed_once(local_spark, folder)
    assert (done.new_rows, done.changed_rows, done.gone_rows) == (60, 20, 0)
    assert done.after == done.plan.spent == 100 and done.drift.action == "keep"
    record = Workspace(local_spark, settings.workspace).records()
    assert [r for r in record if r.stage == "embed pool"][-1].detail["changes"]["by_feed"]
    assert not refresh(settings, spark=local_spark, progress=SILENT).did_work


@pytest.mark.faults  # some minutes: with the other slow ones
def test_refreshes_one_after_another_give_what_one_refresh_to_the_last_version_gives(
    local_spark, folder, monkeypatch
):
    spark = local_spark
    settings, _ = refreshed_once(spark, folder)
    pool = f"delta.`{folder / 'pool'}`"
    spark.sql(f"DELETE FROM {pool} WHERE id LIKE 'p0001%'")
    spark.sql(
        f"UPDATE {pool} SET vector = transform(vector, x -> CAST(x + 1 AS FLOAT)) "
        "WHERE id LIKE 'p0002%'"
    )
    done = refresh(settings, spark=spark, progress=SILENT)
    assert (done.new_rows, done.changed_rows, done.gone_rows) == (0, 10, 10)
    stepwise = stage_rows(spark, folder / "ws", refreshed=True)

    complete = settings.model_copy(update={"workspace": str(folder / "whole")})
    monkeypatch.setattr(embed, "earlier_embeddings", lambda *_: "")
    refresh(complete, spark=spark, progress=SILENT)
    at_once = stage_rows(spark, folder / "whole", refreshed=True)
    for table, rows in at_once.items():
        assert stepwise[table] == rows, table
