"""Start of the embedded engine: a Sail server for Spark Connect in this process, without a JVM."""

from __future__ import annotations

import atexit
import importlib.util
from typing import TYPE_CHECKING, Any

from gio_spark.engine.capabilities import mark_embedded
from gio_spark.errors import MissingExtraError
from gio_spark.process import environment

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_server: Any = None


def start_embedded(conf: dict[str, str]) -> SparkSession:
    """Start the server, once per process, and open a session on it."""
    global _server
    if importlib.util.find_spec("pysail") is None:
        raise MissingExtraError("pysail", "embedded", "The embedded engine")
    from pyspark.sql import SparkSession

    if _server is None:
        with environment(RUST_LOG="error"):  # read once, when the server starts
            from pysail.spark import SparkConnectServer

            server = SparkConnectServer(ip="127.0.0.1", port=0)
            server.start(background=True)
        _server = server
        atexit.register(_stop)
    _, port = _server.listening_address
    spark = SparkSession.builder.remote(f"sc://127.0.0.1:{port}").getOrCreate()
    for key, value in {"spark.sql.session.timeZone": "UTC", **conf}.items():
        spark.conf.set(key, value)
    mark_embedded(spark)
    return spark


def _stop() -> None:
    global _server
    if _server is not None:
        _server.stop()
        _server = None
