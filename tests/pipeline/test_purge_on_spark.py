"""A purge on Spark: a folder is decoded file by file, a catalog version by version."""

from __future__ import annotations

from pathlib import Path

import pytest

from gio_spark import read_selection
from gio_spark.engine.progress import Progress
from gio_spark.pipeline import run
from gio_spark.pipeline.commands.purge_ids import PurgeRequest
from gio_spark.pipeline.commands.purge_rows import purge_rows
from tests.cli.test_purge import places_of
from tests.pipeline import jobs

pytestmark = [pytest.mark.spark, pytest.mark.timeout(900)]
SILENT = Progress("silent")


def lose_rows(spark, folder, **changes):
    """Settings of a run whose pool has lost three selected rows since, and their ids."""
    jobs.write(jobs.vector_target(), folder / "target.parquet")
    where = str(folder / "pool")
    spark.createDataFrame(jobs.vector_pool(300)).write.format("delta").save(where)
    settings = jobs.settings(
        folder, engine="spark", pool=where, gime={"on_refresh": False}, name="kept", **changes
    )
    done = run(settings, spark=spark, progress=SILENT)
    lost = jobs.ids(done.selected)[:3]
    listed = ", ".join(f"'{i}'" for i in lost)
    spark.sql(f"DELETE FROM delta.`{where}` WHERE id IN ({listed})")
    return settings, lost


def test_a_purge_of_a_folder_leaves_no_row_in_any_file(local_spark, folder):
    settings, lost = lose_rows(local_spark, folder)
    request = PurgeRequest(deleted_upstream=True)
    done = purge_rows(settings, request, confirmed=True, spark=local_spark)
    assert sum(p.files for p in done.proof) and not any(p.purged for p in done.proof)
    assert places_of(folder / "ws", set(lost)) == set()
    workspace = settings.workspace
    assert read_selection("kept", workspace=workspace, spark=local_spark).count() == 97
    (selection,) = (folder / "ws").glob("selection_*")
    assert len(list((selection / "_delta_log").glob("0*.json"))) == 1


@pytest.mark.faults  # some minutes: with the other slow ones
def test_a_purge_of_a_catalog_with_deletion_vectors_reads_every_version(
    local_spark, folder, monkeypatch
):
    monkeypatch.chdir(folder)  # reports of a catalog's workspace lie where the process runs
    spark = local_spark
    key = "spark.databricks.delta.properties.defaults.enableDeletionVectors"
    spark.conf.set(key, "true")
    try:
        spark.sql("CREATE SCHEMA IF NOT EXISTS purging")
        settings, lost = lose_rows(spark, folder, workspace="spark_catalog.purging")
        request = PurgeRequest(deleted_upstream=True)
        done = purge_rows(settings, request, confirmed=True, spark=spark)
        assert sum(p.versions for p in done.proof) and not any(p.purged for p in done.proof)
        place = spark.sql("DESCRIBE SCHEMA purging").where("info_name = 'Location'").first()[1]
        assert places_of(Path(place.removeprefix("file:")), set(lost)) == set()
    finally:
        spark.conf.unset(key)
        spark.sql("DROP SCHEMA IF EXISTS purging CASCADE")
