"""Tasks of Spark that fail twice and then pass: every row once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.faults.processes import (
    ROOT,
    Process,
    beside,
    check_recorded_rows,
    check_same_rows,
    job,
)
from tests.pipeline import jobs

# Calls are counted by files that only one of them can make, across tasks and executors.
EMBEDDER = """
import os
from pathlib import Path
import numpy as np
from gio_spark import register
from gio_spark.embed import Embedder
from gio_spark.embed.embedder import no_reasons

def first(name):
    try:
        (Path(os.environ["SHAKY"]) / name).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True

@register("embedder", "shaky")
class Shaky(Embedder):
    revision, dimension = "1", 6

    @property
    def reads(self):
        return (self.columns.vector,)

    def embed(self, rows):
        if "SHAKY" in os.environ:
            if first("failed-1") or first("failed-2"):
                raise ConnectionError("the model's server does not answer")
        vectors = np.array(rows[self.columns.vector].to_pylist(), np.float32)
        return vectors, no_reasons(len(vectors))
"""

CLUSTER = """
import sys
from gio_spark.engine import session
session("spark", **{
    "spark.master": "local-cluster[2,1,700]",
    "spark.executor.memory": "700m",
    "spark.sql.files.minPartitionNum": "4",
})
from gio_spark.cli import main
sys.argv = ["gio-spark", "run", sys.argv[1]]
main()
"""


@pytest.mark.faults
@pytest.mark.timeout(900)
def test_tasks_that_fail_twice_change_no_rows(tmp_path: Path):
    (tmp_path / "shaky_embedder.py").write_text(EMBEDDER)
    (tmp_path / "cluster_run.py").write_text(CLUSTER)
    paths = {"PYTHONPATH": os.pathsep.join((str(ROOT), str(tmp_path)))}
    pool = jobs.write(jobs.vector_pool(300), tmp_path / "files", files=4)
    undisturbed = job(tmp_path, pool=pool, modules=["shaky_embedder"], embedder="shaky")
    undisturbed.finish(env=paths)

    disturbed = beside(undisturbed, "cluster", engine="spark")
    calls = tmp_path / "calls"
    calls.mkdir()
    words = ["cluster_run", str(disturbed.config)]
    variables = {**paths, "SHAKY": str(calls), "GIO_SPARK_DRIVER_MEMORY": "1g"}
    outcome = Process(words, tmp_path, env=variables).outcome(800)
    outcome.check_done()
    assert {path.name for path in calls.iterdir()} == {"failed-1", "failed-2"}
    check_same_rows(disturbed.workspace, undisturbed.workspace)
    check_recorded_rows(disturbed.workspace)
