"""Executors, or Python workers, of Spark that are killed in every stage: every row once."""

from __future__ import annotations

import json
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

# Killed as the kernel does it where memory is used up: without a word, while the stage runs.
KILLER = """
import json, sys, threading, time
from pathlib import Path
import psutil
from gio_spark.engine import session
from gio_spark.engine.progress import Progress
from gio_spark.pipeline import run
from gio_spark.settings.load import load

pattern = sys.argv[2]
killed = []

class KillingProgress(Progress):
    def stage(self, name, *words, **more):
        threading.Thread(target=kill, args=[name], daemon=True).start()
        return super().stage(name, *words, **more)

def kill(stage):
    # Python workers are there only while a map goes on.
    while stage not in killed and not any(s.name == stage and s.finished for s in progress.stages):
        time.sleep(0.2)
        for process in psutil.Process().children(recursive=True):
            try:
                if stage not in killed and pattern in " ".join(process.cmdline()):
                    process.kill()
                    killed.append(stage)
            except psutil.Error:
                pass

spark = session("spark", **{
    "spark.master": "local-cluster[2,1,700]",
    "spark.executor.memory": "700m",
    "spark.sql.files.minPartitionNum": "4",
})
progress = KillingProgress("silent")
run(load(Path(sys.argv[1]), []), spark=spark, progress=progress)
print(json.dumps(killed))
"""


@pytest.mark.faults
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("victims", "least"), [("CoarseGrainedExecutorBackend", 10), ("pyspark.daemon", 5)]
)
def test_processes_killed_in_every_stage_change_no_rows(tmp_path: Path, victims: str, least: int):
    pytest.importorskip("psutil")
    (tmp_path / "killing_run.py").write_text(KILLER)
    pool = jobs.write(jobs.vector_pool(300), tmp_path / "files", files=4)
    undisturbed = job(tmp_path, pool=pool)
    undisturbed.finish()

    disturbed = beside(undisturbed, "cluster", engine="spark")
    variables = {
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(tmp_path))),
        "GIO_SPARK_DRIVER_MEMORY": "1g",
    }
    words = ["killing_run", str(disturbed.config), victims]
    outcome = Process(words, tmp_path, env=variables).outcome(1700)
    outcome.check_done()
    assert len(json.loads(outcome.out.splitlines()[-1])) >= least
    check_same_rows(disturbed.workspace, undisturbed.workspace)
    check_recorded_rows(disturbed.workspace)
