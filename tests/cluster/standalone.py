"""A real standalone Spark cluster of this machine: a master and workers from the pip package."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pyspark

SPARK_HOME = Path(pyspark.__file__).parent
HOST = "127.0.0.1"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def wait_for(what: str, ready: Callable[[], bool], seconds: float = 90) -> None:
    """Poll until `ready`, and say what did not come."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if ready():
            return
        time.sleep(0.2)
    raise TimeoutError(f"{what} did not come within {seconds:.0f} s")


def environment() -> dict[str, str]:
    """Return the environment of every process of the cluster: this interpreter, this host."""
    # An embedded session marks this process as a Connect client, which a submitted job is not.
    inherited = {k: v for k, v in os.environ.items() if "CONNECT" not in k and "REMOTE" not in k}
    return {
        **inherited,
        "SPARK_HOME": str(SPARK_HOME),
        "SPARK_LOCAL_IP": HOST,
        "PYSPARK_PYTHON": sys.executable,
        "PYSPARK_DRIVER_PYTHON": sys.executable,
    }


def start(command: list[str], log: Path, **more: str) -> subprocess.Popen[bytes]:
    """Start a process as the head of a group that ends with it, and with this test run.

    A shell stands between: it holds the other end of a pipe, and kills the group as soon as the
    process ends or this one is gone, even where nobody was left to clean up.
    """
    guard = '("$@" </dev/null; kill -KILL 0) & read _; kill -KILL 0'
    return subprocess.Popen(
        ["/bin/sh", "-c", guard, "sh", *command],
        stdout=log.open("wb"),
        stderr=subprocess.STDOUT,
        stdin=subprocess.PIPE,
        cwd=log.parent,
        env={**environment(), **more},
        start_new_session=True,
    )


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and all of its group without warning."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=30)


class StandaloneCluster:
    """A master and workers, each a process group of its own, logs in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port, self.web_port = free_port(), free_port()
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def url(self) -> str:
        return f"spark://{HOST}:{self.port}"

    def start(self, workers: int = 2, memory: str = "1200m") -> None:
        where = ["--host", HOST, "--port", str(self.port), "--webui-port", str(self.web_port)]
        self._spawn("master", "org.apache.spark.deploy.master.Master", *where)
        for number in range(workers):
            self._spawn(
                f"worker-{number}",
                "org.apache.spark.deploy.worker.Worker",
                *["--host", HOST, "--cores", "1", "--memory", memory, "--webui-port", "0"],
                *["--work-dir", str(self.folder / f"work-{number}"), self.url],
            )
        wait_for(f"{workers} workers", lambda: self.state().get("aliveworkers") == workers)

    def _spawn(self, name: str, main: str, *arguments: str) -> None:
        self.processes[name] = start(
            [str(SPARK_HOME / "bin" / "spark-class"), main, *arguments],
            self.folder / f"{name}.log",
            SPARK_DAEMON_MEMORY="256m",
        )

    def state(self) -> dict[str, object]:
        """Return what the master says of workers and applications; empty before it is up."""
        try:
            with urllib.request.urlopen(f"http://{HOST}:{self.web_port}/json/", timeout=5) as page:
                return json.load(page)
        except (OSError, ValueError):
            return {}

    def kill(self, name: str) -> None:
        """Kill a process and all that it started, its executors among them, without warning."""
        kill(self.processes[name])

    def stop(self) -> None:
        for name in reversed(list(self.processes)):
            self.kill(name)


@contextlib.contextmanager
def standalone_cluster(folder: Path, workers: int = 2) -> Iterator[StandaloneCluster]:
    """Start a cluster, and leave no process of it behind."""
    cluster = StandaloneCluster(folder)
    try:
        cluster.start(workers)
        yield cluster
    finally:
        cluster.stop()
