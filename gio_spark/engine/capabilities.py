"""Which engine a session runs on, and what that engine can and cannot do."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

Kind = Literal["embedded", "local", "cluster", "connect", "databricks"]


@dataclass(frozen=True)
class EngineInfo:
    """What a session runs on.

    Attributes:
        kind: embedded (Sail in this process), local (JVM on this machine), cluster (classic session
            on a cluster), connect (a remote Connect server) or databricks.
        spark_version: Version of Spark that the engine says it speaks.
        detail: Master or remote address, and versions, for people.
    """

    kind: Kind
    spark_version: str
    detail: str

    def line(self) -> str:
        """Return the one line that every command prints first."""
        return f"engine: {self.kind} · Spark {self.spark_version} · {self.detail}"


@dataclass(frozen=True)
class Capabilities:
    """What `tables` may ask of the engine; the rest is done another way or refused by name.

    Attributes:
        history: DESCRIBE HISTORY works.
        persistent_catalog: Saved tables keep their names after the session.
        any_column_names: Tables may have columns named with blanks, commas, brackets or '='.
    """

    history: bool
    persistent_catalog: bool
    any_column_names: bool


_SPARK = Capabilities(history=True, persistent_catalog=True, any_column_names=False)
_SAIL = Capabilities(history=False, persistent_catalog=False, any_column_names=True)

_embedded_sessions: set[str] = set()
_infos: dict[int, EngineInfo] = {}


def mark_embedded(spark: SparkSession) -> None:
    """Remember that this session was started on the embedded engine."""
    _embedded_sessions.add(_session_id(spark))


def _session_id(spark: SparkSession) -> str:
    return str(getattr(spark, "session_id", None) or id(spark))


def is_connect(spark: SparkSession) -> bool:
    """Tell whether the session speaks Spark Connect (isinstance would not tell)."""
    return type(spark).__module__.startswith("pyspark.sql.connect")


def describe(spark: SparkSession) -> EngineInfo:
    """Tell which engine a session runs on."""
    key = id(spark)
    if key not in _infos:
        _infos[key] = _describe(spark)
    return _infos[key]


def _describe(spark: SparkSession) -> EngineInfo:
    version = str(spark.version)
    if _session_id(spark) in _embedded_sessions or _speaks_sail(spark):
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
    """Return how many tasks run at once on this machine; 1 where others run the tasks.

    A cluster does not say it through what Spark Connect offers, and a task there has the right to
    one core only.
    """
    info = describe(spark)
    if info.kind != "local":
        return 1
    count = info.detail.removeprefix("local[").split(",")[0].rstrip("]")
    return int(count) if count.isdigit() else os.cpu_count() or 1


def _speaks_sail(spark: SparkSession) -> bool:
    """Recognise a Sail server that the user started: it answers version() with its own number."""
    if not is_connect(spark):
        return False
    answer = str(spark.sql("SELECT version() AS v").first()["v"])  # type: ignore[index]
    return not answer.startswith(str(spark.version))


def _sail_version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("pysail")
    except PackageNotFoundError:
        return "(version unknown)"


def capabilities(spark: SparkSession) -> Capabilities:
    """Return what the session's engine can do (tried, per engine; not asked at run time)."""
    return _SAIL if describe(spark).kind == "embedded" else _SPARK
