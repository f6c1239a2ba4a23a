"""The same clusters on the embedded engine and on Spark."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from gio_spark.engine import encode_vectors, session
from gio_spark.quantize import MiniBatchKMeans, cluster_stats

pytestmark = pytest.mark.spark


def digest(spark) -> str:
    rng = np.random.default_rng(3)
    x = rng.standard_normal((900, 6)).astype(np.float32)
    table = pa.table({"id": [f"r{i}" for i in range(len(x))], "vector": encode_vectors(x)})
    df = spark.createDataFrame(table).repartition(3)
    model = MiniBatchKMeans(k=9, seed=1, batch_rows=300, max_iter=2).fit(df, rows=900)
    found = model.transform(df, second=True).toArrow().sort_by("id")
    stats = cluster_stats(spark.createDataFrame(found), 9)
    content = [model.centroids, stats.rows, stats.inertia, stats.far]
    content += [found[c].to_numpy() for c in ("cluster", "distance", "second", "second_distance")]
    return hashlib.sha256(b"".join(np.ascontiguousarray(c).tobytes() for c in content)).hexdigest()


def print_digest() -> None:
    sys.stdout.write(digest(session("embedded")) + "\n")
    sys.stdout.flush()
    os._exit(0)


def test_spark_gives_the_bits_of_the_embedded_engine(local_spark, monkeypatch):
    here = Path(__file__).parent
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(here.parent.parent), str(here)])}
    code = "from test_engines import print_digest; print_digest()"
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    embedded = done.stdout.strip().splitlines()[-1]
    assert embedded == digest(local_spark)
    monkeypatch.setattr("gio_spark.quantize.kmeans_one_task.VALUES", 0)
    assert embedded == digest(local_spark), "passes as jobs of their own"
