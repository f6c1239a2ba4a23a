"""A fit that is killed in the middle of a pass."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gio_spark.engine import encode_vectors, session
from gio_spark.quantize import KMeansState, MiniBatchKMeans, kmeans_one_task

pytestmark = pytest.mark.embedded

FIT = MiniBatchKMeans(k=15, seed=2, batch_rows=2000, max_iter=6)


def rows(folder: Path) -> str:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((8000, 10)).astype(np.float32)
    table = pa.table({"id": [f"r{i}" for i in range(len(x))], "vector": encode_vectors(x)})
    pq.write_table(table, folder / "rows.parquet")
    return str(folder / "rows.parquet")


def fit_and_hang(folder: str) -> None:
    """Commit three passes, then do the next one until killed."""

    def commit(state: KMeansState) -> None:
        pq.write_table(state.to_table(), f"{folder}/state.parquet")
        Path(f"{folder}/pass-{state.passes}.json").write_text(json.dumps(state.info()))
        if state.passes == 3:
            Path(f"{folder}/ready").touch()

    kmeans_one_task.VALUES = 0  # each pass a job of its own, however few the rows
    spark = session("embedded")
    df = spark.read.parquet(f"{folder}/rows.parquet")
    # Passes 4 to 6 run again and again: the kill comes in the middle of one.
    state = FIT.fit(df, on_pass=lambda s: commit(s) if s.passes <= 3 else None).state
    while state is not None:
        FIT.fit(df)


def test_a_fit_killed_in_the_middle_of_a_pass_ends_with_the_same_centroids(spark, tmp_path):
    path = rows(tmp_path)
    here = Path(__file__).parent
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(here.parent.parent), str(here)])}
    code = f"from test_resume import fit_and_hang; fit_and_hang({str(tmp_path)!r})"
    child = subprocess.Popen([sys.executable, "-c", code], env=env)
    try:
        for _ in range(600):
            if (tmp_path / "ready").exists() or child.poll() is not None:
                break
            time.sleep(0.1)
    finally:
        child.kill()
        child.wait()
    assert (tmp_path / "ready").exists()
    info = json.loads((tmp_path / "pass-3.json").read_text())
    state = KMeansState.from_table(pq.read_table(tmp_path / "state.parquet"), info)
    assert state.passes == 3
    df = spark.read.parquet(path)
    resumed = FIT.fit(df, initial=state)
    whole = FIT.fit(df)
    np.testing.assert_array_equal(resumed.centroids, whole.centroids)
    assert resumed.summary == whole.summary
