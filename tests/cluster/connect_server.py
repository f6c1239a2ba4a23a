"""A Spark Connect server with Delta in a process of its own, as one on another machine would be."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

from gio_spark.engine.local_spark import local_conf
from tests.cluster.standalone import HOST, SPARK_HOME, free_port, kill, start, wait_for

# 4.2 ships the server's jar with the pip package; Delta's comes as for any local session.
SERVER = "org.apache.spark.sql.connect.service.SparkConnectServer"


@contextlib.contextmanager
def connect_server(folder: Path, **conf: str) -> Iterator[str]:
    """Start a server, give its URL (`sc://...`), and leave no process of it behind.

    A client belongs in a process of its own: Spark's two APIs cannot be told apart within one.
    """
    port = free_port()
    settings = {
        **local_conf(),
        "spark.sql.shuffle.partitions": "2",
        "spark.sql.warehouse.dir": str(folder / "warehouse"),
        "spark.connect.grpc.binding.address": HOST,
        "spark.connect.grpc.binding.port": str(port),
        **conf,
    }
    words = [word for item in settings.items() for word in ("--conf", "=".join(item))]
    log = folder / "connect-server.log"
    server = start(
        [str(SPARK_HOME / "bin" / "spark-submit"), "--class", SERVER, *words, "spark-internal"], log
    )

    def ready() -> bool:
        if server.poll() is not None:
            raise RuntimeError(f"the Connect server ended:\n{log.read_text()[-3000:]}")
        with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=2):
            return True
        return False

    try:
        wait_for("the Connect server", ready, seconds=240)
        yield f"sc://{HOST}:{port}"
    finally:
        kill(server)
