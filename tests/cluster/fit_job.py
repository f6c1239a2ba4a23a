"""A fit on executors of their own, one of which is killed by its own task in the middle of a pass.

    python -m tests.cluster.fit_job FOLDER

Writes FOLDER/result.json: passes and digest of the disturbed fit.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import DataFrame, SparkSession

from gio_spark.engine import encode_vectors, map_arrow
from gio_spark.engine.local_spark import local_conf
from gio_spark.quantize import KMeansState, MiniBatchKMeans, kmeans_one_task

ROOT = Path(__file__).parent.parent.parent
ROWS, FILES, DIMENSION = 6000, 4, 8
FIT = MiniBatchKMeans(k=30, seed=3, batch_rows=3000, max_iter=2)


def write_rows(folder: Path) -> str:
    rng = np.random.default_rng(4)
    x = rng.standard_normal((ROWS, DIMENSION)).astype(np.float32)
    (folder / "rows").mkdir()
    for part in range(FILES):
        own = slice(part * ROWS // FILES, (part + 1) * ROWS // FILES)
        ids = [f"r{i}" for i in range(own.start, own.stop)]
        table = pa.table({"id": ids, "vector": encode_vectors(x[own])})
        pq.write_table(table, folder / "rows" / f"{part}.parquet")
    return str(folder / "rows")


def executor_of(process: int) -> int:
    """Return the JVM that a Python worker belongs to."""
    while True:
        words = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
        if any(b"CoarseGrainedExecutorBackend" in word for word in words):
            return process
        # The name in brackets may hold spaces; the parent stands two words after it.
        stat = Path(f"/proc/{process}/stat").read_text()
        process = int(stat.rsplit(")", 1)[1].split()[1])


def deadly(df: DataFrame, folder: Path) -> DataFrame:
    """Return the rows; the first task to be half through once `armed` exists kills its executor."""
    armed, fired = folder / "armed", folder / "fired"

    def work(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for number, batch in enumerate(batches):
            yield batch
            if number == 1:
                try:
                    armed.rename(fired)  # one task alone succeeds
                except OSError:
                    continue
                executor = executor_of(os.getpid())
                fired.write_text(str(executor))
                os.kill(executor, signal.SIGKILL)

    return map_arrow(df, work, "id string, vector binary", batch_rows=200)


def digest(state: KMeansState) -> str:
    content = [state.centroids, state.weights, np.array([h["inertia"] for h in state.history])]
    return hashlib.sha256(b"".join(np.ascontiguousarray(c).tobytes() for c in content)).hexdigest()


def main(folder: Path) -> None:
    kmeans_one_task.VALUES = 0  # a job for each pass, however few the rows
    # Without Delta, which executors would fetch and nothing here uses.
    plain = {
        k: v for k, v in local_conf().items() if not re.search("jars|extensions|delta|catalog", k)
    }
    settings = {
        **plain,
        "spark.master": "local-cluster[2,1,700]",
        "spark.executor.memory": "512m",
        "spark.driver.memory": "700m",
        "spark.executorEnv.PYTHONPATH": str(ROOT),
        "spark.sql.shuffle.partitions": "2",
        "spark.sql.execution.arrow.maxRecordsPerBatch": "200",
        "spark.sql.files.openCostInBytes": str(128 << 20),  # a task per file
    }
    builder = SparkSession.builder
    for key, value in settings.items():
        builder = builder.config(key, value)
    spark = builder.getOrCreate()
    rows = deadly(spark.read.parquet(write_rows(folder)), folder)

    def arm(state: KMeansState) -> None:
        if state.passes == FIT.max_iter - 1:
            (folder / "armed").touch()

    state = FIT.fit(rows, rows=ROWS, on_pass=arm).state
    result = {"passes": state.passes, "digest": digest(state)}
    (folder / "result.json").write_text(json.dumps(result))
    spark.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
