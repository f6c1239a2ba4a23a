"""The whole job on a real cluster, by spark-submit, with a worker killed on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from deltalake import DeltaTable

from tests.cluster.standalone import StandaloneCluster, environment, standalone_cluster, wait_for

ROOT = Path(__file__).parent.parent.parent
POOL_ROWS, TARGET_ROWS, BUDGET = 900, 120, 150

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]


def write_inputs(folder: Path) -> Path:
    """Write a pool of three blobs in several files, a target like one of them, and a config."""
    random = np.random.default_rng(5)
    centres = random.normal(0, 4, (3, 8))

    def rows(name: str, count: int, blob: np.ndarray) -> pa.Table:
        points = (centres[blob] + random.normal(0, 1, (count, 8))).astype(np.float32)
        ids = [f"{name}-{number:04d}" for number in range(count)]
        return pa.table({"id": ids, "vector": pa.array(list(points)), "blob": blob})

    (folder / "pool").mkdir()
    pool = rows("pool", POOL_ROWS, random.integers(0, 3, POOL_ROWS))
    for part in range(6):
        cut = pool.slice(part * POOL_ROWS // 6, POOL_ROWS // 6)
        pq.write_table(cut, folder / "pool" / f"{part}.parquet")
    pq.write_table(
        rows("target", TARGET_ROWS, np.zeros(TARGET_ROWS, dtype=np.int64)),
        folder / "target.parquet",
    )
    config = folder / "run.yml"
    config.write_text(
        yaml.safe_dump(
            {
                "pool": str(folder / "pool"),
                "target": str(folder / "target.parquet"),
                "budget": BUDGET,
                "workspace": str(folder / "workspace"),
                "columns": {"id": "id", "vector": "vector"},
                "quantize": {"clusters": 12, "target_clusters": 4, "max_passes": 3},
                "explode": {"within_cluster": "exact_count"},
            }
        )
    )
    return config


def submit(cluster: StandaloneCluster, config: Path, folder: Path) -> subprocess.Popen[str]:
    settings = {
        "spark.executor.memory": "700m",
        "spark.executor.cores": "1",
        "spark.driver.memory": "1g",
        "spark.driver.host": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.log.level": "ERROR",
        "spark.sql.shuffle.partitions": "2",
        "spark.databricks.delta.snapshotPartitions": "2",
        "spark.sql.sources.parallelPartitionDiscovery.parallelism": "4",
    }
    conf = [word for item in settings.items() for word in ("--conf", "=".join(item))]
    return subprocess.Popen(
        [
            *(str(ROOT / "deploy" / "spark-submit.sh"), "--master", cluster.url, *conf),
            *("--", str(ROOT / "jobs" / "run.py"), str(config)),
        ],
        env={**environment(), "PYTHON": environment()["PYSPARK_PYTHON"]},
        stdout=(folder / "job.out").open("w"),
        stderr=(folder / "job.err").open("w"),
        stdin=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )


def committed(table: Path) -> bool:
    return any((table / "_delta_log").glob("*.json"))


def test_a_submitted_run_outlives_a_worker_and_has_every_row_once(tmp_path: Path):
    config = write_inputs(tmp_path)
    workspace = tmp_path / "workspace"
    with standalone_cluster(tmp_path, workers=2) as cluster:
        running = submit(cluster, config, tmp_path)
        try:
            wait_for(
                "the first embeddings",
                lambda: committed(workspace / "embeddings") or running.poll() is not None,
                seconds=300,
            )
            assert running.poll() is None, (tmp_path / "job.err").read_text()[-4000:]
            cluster.kill("worker-0")
            code = running.wait(timeout=400)
        finally:
            if running.poll() is None:
                os.killpg(running.pid, signal.SIGKILL)
        state = cluster.state()
    assert code == 0, (tmp_path / "job.err").read_text()[-4000:]

    # It ran on this master, to its end, and lost a worker.
    assert state["aliveworkers"] == 1
    assert [app["state"] for app in state["completedapps"]] == ["FINISHED"]
    said = (tmp_path / "job.err").read_text() + (tmp_path / "job.out").read_text()
    (first,) = [line for line in said.splitlines() if line.startswith("engine: ")]
    assert first.startswith("engine: cluster ") and first.endswith(cluster.url)
    runs = DeltaTable(str(workspace / "runs")).to_pyarrow_table().to_pylist()
    (whole,) = [record for record in runs if record["stage"] == "run"]
    assert json.loads(whole["detail"])["engine"] == first

    # Every row is there once.
    embedded = DeltaTable(str(workspace / "embeddings")).to_pyarrow_table()["id"].to_pylist()
    assert len(embedded) == len(set(embedded)) == POOL_ROWS + TARGET_ROWS
    assigned = DeltaTable(str(workspace / "assignments")).to_pyarrow_table()["id"].to_pylist()
    assert len(assigned) == len(set(assigned)) == POOL_ROWS + TARGET_ROWS
    selected = DeltaTable(str(workspace / "selected")).to_pyarrow_table()
    ids = selected["id"].to_pylist()
    assert len(ids) == len(set(ids)) == BUDGET
    assert set(ids) <= {f"pool-{number:04d}" for number in range(POOL_ROWS)}
    assert np.mean(np.asarray(selected["blob"]) == 0) > 0.9
