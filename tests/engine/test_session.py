import importlib.util
import os
import subprocess
import sys

import pytest

from gio_spark.engine import capabilities, describe, embedded, session
from gio_spark.engine.session import _start
from gio_spark.errors import ConfigError, EngineError, MissingExtraError


@pytest.mark.embedded
def test_the_active_session_is_used_and_named(spark):
    assert session("auto") is spark
    info = describe(spark)
    assert info.kind == "embedded"
    assert "Sail" in info.line()
    assert not capabilities(spark).history


@pytest.mark.embedded
def test_another_engine_than_the_active_one_is_refused(spark):
    with pytest.raises(EngineError, match="active session runs on embedded"):
        session("spark")


def test_an_unknown_engine_is_named():
    with pytest.raises(ConfigError, match="Unknown engine 'flink'"):
        session("flink")


def test_a_submitted_job_never_lands_on_the_embedded_engine(tmp_path):
    # The gateway of spark-submit is announced but not there: the session must try it and fail.
    code = (
        "from gio_spark.engine import session\n"
        "try:\n    session('auto')\n"
        "except Exception as error:\n    print('tried the cluster', type(error).__name__)\n"
        "else:\n    print('embedded')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=120,
        env={
            "PYSPARK_GATEWAY_PORT": "9",
            "PYSPARK_GATEWAY_SECRET": "x",
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": ":".join(p for p in sys.path if p),
        },
    )
    assert "tried the cluster" in done.stdout


def test_looking_for_an_active_session_loads_no_client_that_nobody_uses():
    # Half a second of every start on Spark; in a process of its own, for this one has it loaded.
    code = (
        "import sys, importlib; "
        "engine = importlib.import_module('gio_spark.engine.session'); "
        "assert engine._active() is None; "
        "assert 'pyspark.sql.connect.session' not in sys.modules"
    )
    # An embedded session marks its process as a client.
    outside = {k: v for k, v in os.environ.items() if not k.startswith("SPARK_")}
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, env=outside)


def test_an_engine_that_is_not_installed_names_its_extra(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n == "pysail" else find(n))
    with pytest.raises(MissingExtraError, match=r"'pysail'.*pip install 'gio-spark\[embedded\]'"):
        embedded.start_embedded({})


@pytest.mark.parametrize("engine", ["spark", "cluster"])
def test_the_connect_client_alone_is_no_spark(monkeypatch, engine):
    monkeypatch.delenv("SPARK_REMOTE", raising=False)
    monkeypatch.setattr("pyspark.util.is_remote_only", lambda: True)
    with pytest.raises(MissingExtraError, match=r"only the Connect client.*gio-spark\[spark\]"):
        _start(engine, {})


def test_a_connect_client_without_its_packages_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyspark.sql.connect.session", None)
    with pytest.raises(EngineError, match=r"Connect client: .*pip install 'gio-spark\[embedded\]'"):
        embedded.start_embedded({})
