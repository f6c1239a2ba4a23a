"""The embedded engine: Sail, which speaks Spark Connect inside this process, without a JVM."""

from __future__ import annotations

import atexit
import importlib.util
import os
from typing import TYPE_CHECKING, Any

from threadpoolctl import threadpool_limits

from gio_spark.engine.info import mark_embedded
from gio_spark.errors import MissingExtraError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_server: Any = None


def start_embedded(conf: dict[str, str]) -> SparkSession:
    """Start the server, once per process, and return a session on it."""
    global _server
    if importlib.util.find_spec("pysail") is None:
        raise MissingExtraError("pysail", "embedded", "The embedded engine")
    os.environ.setdefault("RUST_LOG", "error")
    from pysail.spark import SparkConnectServer
    from pyspark.sql import SparkSession

    if _server is None:
        server = SparkConnectServer(ip="127.0.0.1", port=0)
        server.start(background=True)
        _server = server
        atexit.register(_stop)
        # Map functions run as threads of this process, one per core: with a BLAS that starts
        # threads of its own in each of them the cores would be oversubscribed.
        threadpool_limits(1, user_api="blas")
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
