"""A score that is killed leaves no half table, and both engines give each row the same values."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from tests.faults.processes import Job, beside, rows, wait_until

pytestmark = pytest.mark.faults


def _scores(job: Job, output: Path, *words: str) -> pa.Table:
    job.finish("score", str(job.folder / "pool.parquet"), "--output", str(output), *words)
    table = rows(output)
    assert table is not None
    return table.sort_by("gio_id")


def test_a_score_that_is_killed_leaves_no_half_table(undisturbed, tmp_path):
    expected = _scores(undisturbed, tmp_path / "undisturbed")
    output = tmp_path / "scores"
    pool = str(undisturbed.folder / "pool.parquet")
    process = undisturbed.start("score", pool, "--output", str(output))
    wait_until(lambda: output.exists(), process)
    process.kill()
    table = rows(output)
    assert table is None or table.num_rows == expected.num_rows
    if table is None:
        table = _scores(undisturbed, output)
    assert table.sort_by("gio_id").equals(expected)


@pytest.mark.spark
def test_local_spark_scores_rows_as_the_embedded_engine_does(undisturbed, tmp_path):
    expected = _scores(undisturbed, tmp_path / "embedded")
    spark = beside(undisturbed, "on-spark", workspace=str(undisturbed.workspace), engine="spark")
    assert _scores(spark, tmp_path / "spark").select(expected.column_names).equals(expected)
