"""A Spark worker that is killed for its memory ends a run in one line, and nobody waits for it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.faults.processes import ROOT, Process, job

# Killed as the kernel does it where memory is used up: without a word.
EMBEDDER = """
import os, signal, sys
import numpy as np
from gio_spark import register
from gio_spark.embed import Embedder, text_column

@register("embedder", "greedy")
class Greedy(Embedder):
    revision, dimension = "1", 4

    @property
    def reads(self):
        return (self.columns.text,)

    def embed(self, rows):
        if "pyspark.worker" in sys.modules:
            os.kill(os.getpid(), signal.SIGKILL)
        texts, reasons = text_column(rows, self.columns.text)
        return np.ones((len(texts), 4), np.float32), reasons
"""


@pytest.mark.faults
def test_a_run_whose_worker_is_killed_ends_in_one_line(tmp_path: Path):
    (tmp_path / "greedy_embedder.py").write_text(EMBEDDER)
    columns = {"id": "id", "text": "note"}
    run = job(
        tmp_path, engine="spark", modules=["greedy_embedder"], embedder="greedy", columns=columns
    )
    paths = os.pathsep.join((str(ROOT), str(tmp_path)))
    environment = {
        "PYTHONPATH": paths,
        "GIO_SPARK_DRIVER_MEMORY": "1g",
        # As it is inherited from a process with a session on the embedded engine.
        "SPARK_CONNECT_MODE_ENABLED": "1",
    }
    process: Process = run.start(env=environment)
    line = process.outcome().check_one_line()
    assert "one of its workers has ended" in line and "killed for its memory" in line
    assert "what is complete is not computed twice" in line
