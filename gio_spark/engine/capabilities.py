"""Engine of a session and its capabilities."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from gio_spark.errors import EngineError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

Kind = Literal["embedded", "local", "cluster", "connect", "databricks"]


@dataclass(frozen=True)
class EngineInfo:
    """Engine of a session.

    Attributes:
        kind: embedded (Sail in this process), local (JVM on this machine), cluster (classic session
            on a cluster), connect (a remote Connect server) or databricks.
        spark_version: Version of Spark that the engine reports.
        detail: Master or remote address, and versions, for display.
    """

    kind: Kind
    spark_version: str
    detail: str

    def line(self) -> str:
        """First line of the output of every command."""
        return f"engine: {self.kind} · Spark {self.spark_version} · {self.detail}"


@dataclass(frozen=True)
class Capabilities:
    """Optional features of an engine, which `tables` checks.

    Attributes:
        history: Whether DESCRIBE HISTORY works.
        persistent_catalog: Whether saved tables keep their names after the session.
        change_feed: Whether Delta's change data feed can be read.
    """

    history: bool
    persistent_catalog: bool
    change_feed: bool


_SPARK = Capabilities(history=True, persistent_catalog=True, change_feed=True)
_SAIL = Capabilities(history=False, persistent_catalog=False, change_feed=False)

_embedded_sessions: set[str] = set()
_infos: dict[int, EngineInfo] = {}
_processes: dict[str, int] = {}  # session -> process that used it first


def mark_embedded(spark: SparkSession) -> None:
    """Register a session as started on the embedded engine."""
    _embedded_sessions.add(_session_id(spark))


def is_marked_embedded(spark: SparkSession) -> bool:
    """Whether a session was registered as started on the embedded engine."""
    return _session_id(spark) in _embedded_sessions


def _session_id(spark: SparkSession) -> str:
    return str(getattr(spark, "session_id", None) or id(spark))


def is_connect(spark: SparkSession) -> bool:
    """Whether the session is a Spark Connect session (which isinstance cannot decide)."""
    return type(spark).__module__.startswith("pyspark.sql.connect")


def check_process(spark: SparkSession) -> None:
    """Refuse a session that came into this process by a fork: it would wait for ever.

    Raises:
        EngineError: Another process has used the session first.
    """
    if _processes.setdefault(_session_id(spark), os.getpid()) != os.getpid():
        raise EngineError(
            "This process was forked from one that has a session, whose engine cannot be reached "
            "from here. Start it by spawn (multiprocessing.get_context('spawn')), or fork before "
            "the first session."
        )


def describe(spark: SparkSession) -> EngineInfo:
    """Engine of a session, cached per session."""
    check_process(spark)
    key = id(spark)
    if key not in _infos:
        _infos[key] = _describe(spark)
    return _infos[key]


def _describe(spark: SparkSession) -> EngineInfo:
    version = str(spark.version)
    if is_marked_embedded(spark) or _is_sail(spark):
        return EngineInfo("embedded", version, f"Sail {_sail_version()}, in this process")
    if os.environ.get("DATABRICKS_RUNTIME_VERSION"):
        runtime = os.environ["DATABRICKS_RUNTIME_VERSION"]
        return EngineInfo("databricks", version, f"Databricks Runtime {runtime}")
    if is_connect(spark):
        host = getattr(getattr(spark, "client", None), "host", "") or "Connect server"
        return EngineInfo("connect", version, str(host))
    master = spark.conf.get("spark.master") or ""
    return EngineInfo("local" if master.startswith("local[") else "cluster", version, str(master))


def slots(spark: SparkSession) -> int:
    """Number of tasks that run at once on this machine; 1 unless the engine is local Spark.

    Spark Connect does not report the cores of a cluster, and a task there may use only one core.
    """
    info = describe(spark)
    if info.kind != "local":
        return 1
    count = info.detail.removeprefix("local[").split(",")[0].rstrip("]")
    return int(count) if count.isdigit() else os.cpu_count() or 1


def _is_sail(spark: SparkSession) -> bool:
    """Whether the session runs on a user's Sail server: version() returns a version of Sail."""
    if not is_connect(spark):
        return False
    server_version = str(spark.sql("SELECT version() AS v").first()["v"])  # type: ignore[index]
    return not server_version.startswith(str(spark.version))


def _sail_version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("pysail")
    except PackageNotFoundError:
        return "(version unknown)"


def capabilities(spark: SparkSession) -> Capabilities:
    """Capabilities of the session's engine, from a fixed table."""
    return _SAIL if describe(spark).kind == "embedded" else _SPARK
