"""Files that a second attempt of each task has written, as speculation does: every row once."""

from __future__ import annotations

import shutil

import pytest

from gio_spark.settings.load import load
from tests.faults.processes import check_recorded_rows, job
from tests.pipeline import jobs


@pytest.mark.faults
def test_files_of_tasks_that_both_attempts_have_written_are_read_once(spark, tmp_path):
    small = job(tmp_path)
    settings = load(small.config, [])
    undisturbed = load(small.config, [f"workspace={tmp_path / 'undisturbed'}"])
    expected = jobs.picked(undisturbed, jobs.select(undisturbed)).drop_columns(["gio_run"])
    for part in ("embed", "quantize", "select", "explode"):
        jobs.go(settings, until=part)
        # Beside each file of the commit, that of the attempt whose commit the driver refused.
        for number, file in enumerate(sorted(small.workspace.rglob("part-*.parquet"))):
            if "attempt-2" not in file.name:
                shutil.copy2(file, file.with_name(f"{file.stem}-attempt-2-{number}.parquet"))
    curation = jobs.go(settings)
    assert jobs.picked(settings, curation).drop_columns(["gio_run"]).equals(expected)
    check_recorded_rows(small.workspace)
