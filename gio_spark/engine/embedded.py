"""Start of the embedded engine: a Sail server for Spark Connect in this process, without a JVM."""

from __future__ import annotations

import atexit
import importlib.util
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from gio_spark.engine.capabilities import is_marked_embedded, mark_embedded
from gio_spark.errors import EngineError, MissingExtraError
from gio_spark.process import environment

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_server: Any = None
_server_process = 0  # process that the server's threads are in: a fork has none of them

_SESSION_SECONDS = str(365 * 24 * 3600)
# The client's default waits more than ten minutes for a server that does not answer. This one is
# in the same process: it answers at once, or it is gone.
_RETRIES: dict[str, Any] = {"max_retries": 4, "max_backoff": 1000}


@contextmanager
def _imported_by_a_program() -> Iterator[None]:
    """Keep pyspark's client from taking `python -c` for its own doctests.

    It would import its test tools, which end a process without Spark's JVM part.
    """
    main = sys.modules["__main__"]
    if hasattr(main, "__file__") or main.__spec__ is not None or hasattr(sys, "ps1"):
        yield
        return
    sys.ps1 = ""
    try:
        yield
    finally:
        del sys.ps1


def start_embedded(conf: dict[str, str]) -> SparkSession:
    """Start the server, once per process, and open a session on it."""
    if importlib.util.find_spec("pysail") is None:
        raise MissingExtraError("pysail", "embedded", "The embedded engine")
    from pyspark.errors import PySparkImportError

    try:
        with _imported_by_a_program():
            from pyspark.sql.connect.client import DefaultChannelBuilder
            from pyspark.sql.connect.session import SparkSession as ConnectSession
    except (
        ModuleNotFoundError,
        PySparkImportError,
    ) as error:  # pyspark without the packages that its Connect client needs
        first_line = str(error).strip().splitlines()[0]
        raise EngineError(
            f"The embedded engine needs pyspark's Connect client: {first_line} "
            "Install it with: pip install 'gio-spark[embedded]'"
        ) from error

    # Without the option the client would send what is meant for this machine to the proxy that
    # http_proxy and similar variables name.
    channel = DefaultChannelBuilder(
        f"sc://{_server_address()}", channelOptions=[("grpc.enable_http_proxy", 0)]
    )
    # As SparkSession.builder.remote does, which takes no channel options: pyspark's functions look
    # here for which API is meant.
    os.environ["SPARK_CONNECT_MODE_ENABLED"] = "1"
    spark: Any = ConnectSession.builder.channelBuilder(channel).getOrCreate()
    spark.client.set_retry_policies([retry_policy()])
    for key, value in {"spark.sql.session.timeZone": "UTC", **conf}.items():
        spark.conf.set(key, value)
    _return_ctrl_c()
    mark_embedded(spark)
    return spark


def retry_policy() -> Any:
    """Policy of pyspark's Connect client for calls to the embedded engine.

    It is pyspark's own with a short wait. A response that cannot be parsed is asked for again, too:
    seen once in some million calls on a busy machine, where the same call gave the right response
    next time.
    """
    from pyspark.sql.connect.client.retries import DefaultPolicy

    class RetryPolicy(DefaultPolicy):
        def can_retry(self, e: BaseException) -> bool:
            details = getattr(e, "details", None)  # a method of errors of gRPC
            unreadable = callable(details) and "Exception deserializing response" in str(details())
            return unreadable or super().can_retry(e)

    return RetryPolicy(**_RETRIES)


def close_lost_session(spark: Any) -> bool:
    """Close a session of a server that has ended since, and tell whether it is one."""
    lost = (
        is_marked_embedded(spark)
        and _server_process == os.getpid()
        and (_server is None or not _server.running)
    )
    if lost:
        spark.release_session_on_close = False  # nobody is there to release it
        spark.stop()
    return lost


def _server_address() -> str:
    global _server, _server_process
    if _server is None or not _server.running:
        # Read once, when the server starts. A session would end after twenty minutes without a
        # query, under a notebook or a process that waits.
        with environment(RUST_LOG="error", SAIL_SPARK__SESSION_TIMEOUT_SECS=_SESSION_SECONDS):
            from pysail.spark import SparkConnectServer

            server = SparkConnectServer(ip="127.0.0.1", port=0)
            server.start(background=True)
        _server, _server_process = server, os.getpid()
        atexit.register(_stop)
    ip, port = _server.listening_address
    return f"{ip}:{port}"


def _return_ctrl_c() -> None:
    """Set the process's own handler of SIGINT again.

    The server has replaced it by one that stops the server on Ctrl-C: the interrupted query would
    then try to reach it, and so would all later ones. Only the main thread may set handlers.
    """
    handler = signal.getsignal(signal.SIGINT)
    if handler is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, handler)


def _stop() -> None:
    global _server
    if _server is not None and _server_process == os.getpid() and _server.running:
        _server.stop()
    _server = None
