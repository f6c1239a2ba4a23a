"""The whole job on a real cluster, by spark-submit, with a worker killed on the way."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.cluster.small_run import ROOT, assert_every_row_once, embedded_rows, read, write_inputs
from tests.cluster.standalone import StandaloneCluster, environment, standalone_cluster, wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1200)]


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
        # A process under pytest shows nothing of its own accord.
        env={
            **environment(),
            "PYTHON": environment()["PYSPARK_PYTHON"],
            "GIO_SPARK_PROGRESS": "lines",
        },
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
                seconds=420,
            )
            assert running.poll() is None, (tmp_path / "job.err").read_text()[-4000:]
            cluster.kill("worker-0")
            code = running.wait(timeout=500)
        finally:
            if running.poll() is None:
                os.killpg(running.pid, signal.SIGKILL)
        wait_for("the end of the application", lambda: bool(cluster.state().get("completedapps")))
        state = cluster.state()
    assert code == 0, (tmp_path / "job.err").read_text()[-4000:]

    # It ran on this master, to its end, and lost a worker.
    assert state["aliveworkers"] == 1
    assert [app["state"] for app in state["completedapps"]] == ["FINISHED"]
    said = (tmp_path / "job.err").read_text() + (tmp_path / "job.out").read_text()
    # Not at the start of a line: Spark's own last word has no end of line.
    (first,) = re.findall(r"engine: .*", said)
    assert first.startswith("engine: cluster ") and first.endswith(cluster.url)
    (whole,) = [row for row in read(workspace, "runs").to_pylist() if row["stage"] == "run"]
    assert json.loads(whole["detail"])["engine"] == first

    assert assert_every_row_once(workspace) == embedded_rows(config, tmp_path)
