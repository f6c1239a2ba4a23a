"""Session of the engine: the active one, a cluster, the embedded engine or local Spark."""

from __future__ import annotations

import importlib.util
import os
import sys
from typing import TYPE_CHECKING, Literal

from gio_spark.engine.capabilities import check_process, describe
from gio_spark.engine.embedded import close_lost_session, start_embedded
from gio_spark.engine.library_upload import ensure_package
from gio_spark.engine.local_spark import start_local
from gio_spark.errors import ConfigError, EngineError, MissingExtraError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

Engine = Literal["auto", "embedded", "spark", "cluster"]

# Environment variables of a process that was submitted to a cluster. At the start of a submitted
# job there is no active session yet, so nothing else indicates it.
_SUBMIT_VARIABLES = ("PYSPARK_GATEWAY_PORT", "DATABRICKS_RUNTIME_VERSION", "SPARK_REMOTE")


def session(engine: Engine = "auto", **conf: str) -> SparkSession:
    """Find or start a Spark session.

    Args:
        engine: `auto` uses the active session; else the cluster that the process was submitted to
            (spark-submit, Databricks, SPARK_REMOTE); else the embedded engine, if installed; else
            a local Spark with Delta. `embedded`, `spark` (local, in a JVM) and `cluster` request
            one of them by name.
        conf: Extra Spark settings for a session that is started here.

    Raises:
        EngineError: The active session runs on another engine than requested, or in the process
            that this one was forked from.
        MissingExtraError: The requested engine is not installed.
    """
    if engine not in ("auto", "embedded", "spark", "cluster"):
        raise ConfigError(
            f"Unknown engine {engine!r}: use 'auto', 'embedded', 'spark' or 'cluster'."
        )
    require_pyspark()
    active = _active()
    if active is not None and not close_lost_session(active):
        return _check_engine(active, engine)
    spark = _start(engine, conf)
    check_process(spark)
    return spark


def _start(engine: Engine, conf: dict[str, str]) -> SparkSession:
    if engine == "cluster" or (engine == "auto" and _is_submitted()):
        return _start_on_cluster()
    if engine == "embedded" or (engine == "auto" and _is_installed("pysail")):
        return start_embedded(conf)
    return start_local(conf)


def _start_on_cluster() -> SparkSession:
    from pyspark.sql import SparkSession
    from pyspark.util import is_remote_only

    if is_remote_only() and not os.environ.get("SPARK_REMOTE"):
        raise MissingExtraError(
            "pyspark",
            "spark",
            "A cluster without SPARK_REMOTE (this environment has only the Connect client)",
        )
    spark = SparkSession.builder.getOrCreate()
    ensure_package(spark)
    return spark


def _is_submitted() -> bool:
    return any(os.environ.get(name) for name in _SUBMIT_VARIABLES)


def _is_installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def require_pyspark() -> None:
    """Raise a MissingExtraError that names the extras where pyspark is not installed."""
    if not _is_installed("pyspark"):
        raise MissingExtraError("pyspark", "embedded] or gio-spark[spark", "Every engine")


def _active() -> SparkSession | None:
    from pyspark.sql import SparkSession
    from pyspark.util import is_remote_only

    if not is_remote_only():
        active = SparkSession.getActiveSession()
        if active is not None:
            return active
    # An unloaded client has no session; importing it here would take half a second.
    connect = sys.modules.get("pyspark.sql.connect.session")
    return None if connect is None else connect.SparkSession.getActiveSession()


def _check_engine(spark: SparkSession, engine: Engine) -> SparkSession:
    kind = describe(spark).kind
    if (engine == "embedded") != (kind == "embedded") and engine != "auto":
        raise EngineError(
            f"engine: {engine} was asked for, but the active session runs on {kind}. Stop that "
            "session first (spark.stop()), or say engine: auto to use it."
        )
    return spark
