"""The start of a local JVM: which Java, which settings, and what it leaves in this process."""

import os
import sys
from pathlib import Path

import pytest

from gio_spark.engine import java_home, local_spark
from gio_spark.errors import EngineError


def fake_java(home, monkeypatch, release=None, says=""):
    """A Java whose binary prints `says` as the real one prints its version."""
    binary = home / "bin" / "java"
    binary.parent.mkdir(parents=True)
    binary.write_text(f"#!{sys.executable}\nimport sys\nsys.stderr.write({says!r})\n")
    binary.chmod(0o755)
    if release is not None:
        (home / "release").write_text(release)
    monkeypatch.setenv("JAVA_HOME", str(home))
    return binary


def test_the_release_file_tells_the_version_without_starting_java(tmp_path, monkeypatch):
    release = 'IMPLEMENTOR="x"\nJAVA_RUNTIME_VERSION="9"\nJAVA_VERSION="21.0.1"\n'
    binary = fake_java(tmp_path / "java", monkeypatch, release, says='openjdk version "11.0.2"')
    assert java_home.major(java_home.version_text(binary)) == 21
    java_home.check_java()


def test_the_release_file_is_the_one_beside_the_java_that_a_link_leads_to(tmp_path, monkeypatch):
    binary = fake_java(tmp_path / "java", monkeypatch, 'JAVA_VERSION="17"\n')
    (tmp_path / "elsewhere" / "bin").mkdir(parents=True)
    (tmp_path / "elsewhere" / "bin" / "java").symlink_to(binary)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "elsewhere"))
    java_home.check_java()


@pytest.mark.parametrize("release", [None, "", "IMPLEMENTOR=x\n"])
def test_without_a_release_file_that_tells_it_java_is_asked(tmp_path, monkeypatch, release):
    fake_java(tmp_path / "java", monkeypatch, release, says='openjdk version "11.0.2" 2020\n')
    with pytest.raises(EngineError, match="Java 17 or newer, found 11"):
        java_home.check_java()


@pytest.mark.parametrize("release", ['JAVA_VERSION="1.8.0_392"\n', None])
def test_a_java_too_old_or_without_a_version_is_refused(tmp_path, monkeypatch, release):
    fake_java(tmp_path / "java", monkeypatch, release)
    with pytest.raises(EngineError, match="Local Spark needs Java 17 or newer, found"):
        java_home.check_java()


def test_no_java_is_an_error_that_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(EngineError, match="and none was found"):
        java_home.check_java()


def test_nothing_is_fetched_where_the_jar_is_in_the_folder_of_spark(tmp_path, monkeypatch):
    pytest.importorskip("delta", reason="delta-spark is not installed")
    monkeypatch.setenv("SPARK_HOME", str(tmp_path))
    (tmp_path / "jars").mkdir()
    assert local_spark.local_conf()["spark.jars.packages"].startswith("io.delta:delta-spark_")
    (tmp_path / "jars" / "delta-spark_4.2_2.13-4.4.0.jar").write_bytes(b"jar")
    assert not {key for key in local_spark.local_conf() if key.startswith("spark.jars")}


@pytest.mark.spark
def test_delta_is_there_from_the_package_or_from_the_folder_of_spark(local_spark, tmp_path):
    conf = local_spark.sparkContext.getConf()
    jars = conf.get("spark.jars", "")
    assert "delta-spark" in jars or local_spark.delta_package() is None
    assert "hadoop-client" not in jars
    path = str(tmp_path / "table")
    local_spark.range(3).write.format("delta").save(path)
    latest = local_spark.sql(f"DESCRIBE HISTORY delta.`{path}`").first()
    assert (latest.version, latest.operation) == (0, "WRITE")
    assert local_spark.read.format("delta").load(path).count() == 3
    assert Path(path, "_delta_log").is_dir()


@pytest.mark.spark
def test_workers_are_this_interpreter_and_the_environment_is_as_it_was(local_spark):
    assert local_spark.sparkContext.pythonExec == os.environ.get("PYSPARK_PYTHON", sys.executable)
    assert "PYSPARK_DRIVER_PYTHON" not in os.environ
