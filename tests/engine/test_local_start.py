import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gio_spark.engine import archive, java, local, start_cache
from gio_spark.errors import EngineError

PACKAGE = "io.delta:delta-spark_4.2_2.13:4.4.0"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache folder of the test's own, and no settings of whoever runs it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("SPARK_CONF_DIR", str(tmp_path / "no-conf"))
    for name in ("PYSPARK_SUBMIT_ARGS", "HADOOP_CONF_DIR", "YARN_CONF_DIR", start_cache.SWITCH):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "cache" / "gio-spark"


@pytest.fixture
def jars(tmp_path):
    """Two files that Spark has resolved Delta to, one with a space in its path."""
    paths = [tmp_path / "io.delta_delta-spark_4.2_2.13-4.4.0.jar", tmp_path / "a b" / "other.jar"]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"jar")
    return paths


@pytest.fixture
def delta_is_fetched(monkeypatch, tmp_path):
    """An installation without Delta's jar in Spark's folder, and a Java of version 17."""
    (tmp_path / "spark" / "jars").mkdir(parents=True)
    for name in ("spark-core_2.13-4.2.0.jar", "hadoop-client-runtime-3.5.0.jar"):
        (tmp_path / "spark" / "jars" / name).write_bytes(b"jar")
    monkeypatch.setenv("SPARK_HOME", str(tmp_path / "spark"))
    monkeypatch.setattr(local, "delta_package", lambda: PACKAGE)
    monkeypatch.setattr(archive, "delta_package", lambda: PACKAGE)
    fake_java(tmp_path / "java", monkeypatch, 'JAVA_VERSION="17.0.1"\n')


def remember(jars):
    start_cache.remember_jars(PACKAGE, ",".join(jar.as_uri() for jar in jars))


def put_archive(jars, options=local.JVM_OPTIONS):
    """An archive of three bytes for a start with these jars and options."""
    stem = start_cache.archive_stem([str(jar) for jar in jars], options)
    path = start_cache.finished_name(stem, 3)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"jsa")
    return path


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
    assert java.major(java.version_text(binary)) == 21
    java.check_java()


def test_the_release_file_is_the_one_beside_the_java_that_a_link_leads_to(tmp_path, monkeypatch):
    binary = fake_java(tmp_path / "java", monkeypatch, 'JAVA_VERSION="17"\n')
    (tmp_path / "elsewhere" / "bin").mkdir(parents=True)
    (tmp_path / "elsewhere" / "bin" / "java").symlink_to(binary)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "elsewhere"))
    java.check_java()


@pytest.mark.parametrize("release", [None, "", "IMPLEMENTOR=x\n"])
def test_without_a_release_file_that_tells_it_java_is_asked(tmp_path, monkeypatch, release):
    fake_java(tmp_path / "java", monkeypatch, release, says='openjdk version "11.0.2" 2020\n')
    with pytest.raises(EngineError, match="Java 17 or newer, found 11"):
        java.check_java()


@pytest.mark.parametrize("release", ['JAVA_VERSION="1.8.0_392"\n', None])
def test_a_java_too_old_or_without_a_version_is_refused(tmp_path, monkeypatch, release):
    fake_java(tmp_path / "java", monkeypatch, release)
    with pytest.raises(EngineError, match="Local Spark needs Java 17 or newer, found"):
        java.check_java()


def test_no_java_is_an_error_that_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(EngineError, match="and none was found"):
        java.check_java()


def test_what_spark_has_is_not_fetched_and_what_it_lacks_is():
    names = ["RoaringBitmap-1.6.10.jar", "jackson-core-2.21.2.jar", "zstd-jni-1.5.7-7.jar"]
    assert start_cache.excludes(names) == [
        "com.fasterxml.jackson.core:jackson-core",
        "com.github.luben:zstd-jni",
        "org.roaringbitmap:RoaringBitmap",
        "org.roaringbitmap:shims",
    ]
    assert start_cache.excludes([]) == []


def test_the_first_start_fetches_and_later_ones_take_the_files_it_got(delta_is_fetched, jars):
    first = local.start_settings({})
    assert first["spark.jars.packages"] == PACKAGE
    assert first["spark.jars.excludes"] == "org.apache.hadoop:hadoop-client-runtime"
    remember(jars)
    later = local.start_settings({})
    assert later["spark.driver.extraClassPath"] == os.pathsep.join(map(str, jars))
    assert not any(key.startswith("spark.jars") for key in later)


def test_a_remembered_file_that_is_gone_is_fetched_again(delta_is_fetched, jars):
    remember(jars)
    jars[1].unlink()
    assert local.start_settings({})["spark.jars.packages"] == PACKAGE


def test_other_versions_remember_other_files(jars, cache):
    remember(jars)
    newer = [jar.with_name(jar.name.replace("4.4.0", "4.5.0")) for jar in jars[:1]]
    newer[0].write_bytes(b"jar")
    start_cache.remember_jars(PACKAGE.replace("4.4.0", "4.5.0"), newer[0].as_uri())
    assert start_cache.remembered_jars(PACKAGE) == [str(jar) for jar in jars]
    assert [path.name for path in cache.iterdir()] == ["delta-jars.json"]


def test_a_session_without_the_jar_asked_for_is_not_remembered(jars, cache):
    start_cache.remember_jars(PACKAGE, jars[1].as_uri())
    start_cache.remember_jars(PACKAGE, "")
    assert not cache.exists()


@pytest.mark.parametrize("text", ["", "[]", "{", '"x"', "null"])
def test_a_cache_file_that_is_damaged_is_written_anew(jars, cache, text):
    cache.mkdir(parents=True)
    (cache / "delta-jars.json").write_text(text)
    assert start_cache.remembered_jars(PACKAGE) == []
    remember(jars)
    assert start_cache.remembered_jars(PACKAGE) == [str(jar) for jar in jars]


@pytest.mark.parametrize("files", [None, 3, [3], {"a": 1}, []])
def test_an_entry_that_is_no_list_of_files_counts_for_nothing(jars, cache, files):
    remember(jars)
    entries = json.loads((cache / "delta-jars.json").read_text())
    (cache / "delta-jars.json").write_text(json.dumps(dict.fromkeys(entries, files)))
    assert start_cache.remembered_jars(PACKAGE) == []


def test_a_cache_folder_that_cannot_be_made_is_no_error(delta_is_fetched, jars, cache):
    cache.parent.write_text("a file in its place")
    remember(jars)
    assert local.start_settings({})["spark.jars.packages"] == PACKAGE


@pytest.mark.parametrize(
    "conf",
    [
        {"spark.jars.packages": "a:b:1"},
        {"spark.jars": "/own.jar"},
        {"spark.driver.extraClassPath": "/own.jar"},
        {"spark.master": "spark://elsewhere:7077"},
        {"spark.master": "local-cluster[2,1,700]"},
    ],
)
def test_settings_of_the_callers_own_leave_a_start_as_it_was(delta_is_fetched, jars, conf):
    remember(jars)
    put_archive(jars)
    plain = {k: v for k, v in local.local_conf().items() if k != "spark.jars.excludes"}
    assert local.start_settings(conf) == {**plain, **conf}


@pytest.mark.parametrize(
    "words",
    [
        "--packages a:b:1 pyspark-shell",
        "--packages=a:b:1 pyspark-shell",
        "--conf spark.jars=/own.jar pyspark-shell",
        "--conf=spark.driver.extraClassPath=/own.jar pyspark-shell",
        "--master spark://elsewhere:7077 pyspark-shell",
        "'not closed",
    ],
)
def test_words_for_spark_submit_leave_a_start_as_it_was(delta_is_fetched, jars, words, monkeypatch):
    remember(jars)
    monkeypatch.setenv("PYSPARK_SUBMIT_ARGS", words)
    assert local.start_settings({})["spark.jars.packages"] == PACKAGE
    monkeypatch.setenv("PYSPARK_SUBMIT_ARGS", "--conf spark.ui.port=1 pyspark-shell")
    assert "spark.jars.packages" not in local.start_settings({"spark.master": "local[1]"})


@pytest.mark.parametrize("line", ["spark.jars /a.jar", " spark.driver.extraClassPath=/a.jar"])
def test_the_defaults_file_of_spark_is_heard(delta_is_fetched, jars, line, monkeypatch, tmp_path):
    remember(jars)
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "spark-defaults.conf").write_text(f"# jars\n{line}\n")
    monkeypatch.setenv("SPARK_CONF_DIR", str(tmp_path / "conf"))
    assert local.start_settings({})["spark.jars.packages"] == PACKAGE


def test_an_archive_is_taken_with_the_options_there_were(delta_is_fetched, jars):
    remember(jars)
    path = put_archive(jars)
    options = local.start_settings({})["spark.driver.extraJavaOptions"]
    assert options.startswith(f'{local.JVM_OPTIONS} -XX:SharedArchiveFile="{path}" -Xshare:auto')


def test_no_archive_is_taken_for_other_jars_another_java_or_collector(
    delta_is_fetched, jars, monkeypatch, tmp_path
):
    remember(jars)
    put_archive(jars)
    name = "spark.driver.extraJavaOptions"
    throughput, serial = "-Dx=1 -XX:+UseParallelGC", "-Dx=1 -XX:+UseSerialGC"
    assert "SharedArchiveFile" in local.start_settings({name: throughput})[name]
    assert local.start_settings({name: serial})[name] == serial
    own = f"{throughput} -XX:SharedArchiveFile=/own.jsa"
    assert local.start_settings({name: own})[name] == own
    jars[1].write_bytes(b"newer jar")
    assert local.start_settings({})[name] == local.JVM_OPTIONS
    put_archive(jars)
    assert local.start_settings({})[name] != local.JVM_OPTIONS
    fake_java(tmp_path / "java-21", monkeypatch, 'JAVA_VERSION="21.0.1"\n')
    assert local.start_settings({})[name] == local.JVM_OPTIONS


def test_an_environment_reached_by_a_link_is_the_same_environment(monkeypatch, tmp_path):
    monkeypatch.delenv("SPARK_HOME", raising=False)
    home = start_cache.spark_home()
    (tmp_path / "link").symlink_to(home)
    monkeypatch.setattr("pyspark.__file__", str(tmp_path / "link" / "__init__.py"))
    assert start_cache.spark_home() == home


def test_an_archive_that_is_not_whole_is_not_taken(delta_is_fetched, jars):
    remember(jars)
    put_archive(jars).write_bytes(b"js")
    assert local.start_settings({})["spark.driver.extraJavaOptions"] == local.JVM_OPTIONS


def test_archives_can_be_turned_off(delta_is_fetched, jars, monkeypatch, capsys):
    remember(jars)
    path = put_archive(jars)
    monkeypatch.setenv("GIO_SPARK_CLASS_ARCHIVE", "off")
    assert local.start_settings({})["spark.driver.extraJavaOptions"] == local.JVM_OPTIONS
    path.unlink()
    archive.make()
    assert capsys.readouterr().out == ""


def test_an_archive_that_is_there_is_not_made_again(delta_is_fetched, jars, capsys):
    remember(jars)
    path = put_archive(jars)
    archive.make()
    assert path.read_bytes() == b"jsa"
    assert capsys.readouterr().out == ""


def test_a_new_archive_leaves_the_newest_of_others_and_nothing_else(delta_is_fetched, jars, cache):
    path = put_archive(jars)
    others = [cache / f"classes-{name}-3.jsa" for name in ("oldest", "older", "newer")]
    for age, other in enumerate(others):
        other.write_bytes(b"jsa")
        os.utime(other, (age, age))
    (cache / "mlflow-3.db").write_text("of others")
    old, young = cache / "classes-1-2.part", cache / "classes-3-4.part"
    for part in (old, young):
        part.write_text("x")
    os.utime(old, (0, 0))
    archive.remove_others(path)
    kept = {path.name, others[1].name, others[2].name, young.name, "mlflow-3.db"}
    assert {file.name for file in cache.iterdir()} == kept


def test_what_cannot_be_made_is_one_warning_and_no_failure(delta_is_fetched, jars, tmp_path):
    remember(jars)
    done = subprocess.run(
        [sys.executable, "-m", "gio_spark.engine.archive"],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "JAVA_HOME": str(tmp_path / "nowhere")},
    )
    assert done.returncode == 0
    assert done.stderr.startswith("warning: no class archive for local Spark: Local Spark needs")
    assert done.stderr.count("\n") == 1


def test_with_a_folder_on_the_class_path_no_archive_is_tried(
    delta_is_fetched, jars, monkeypatch, tmp_path, capsys
):
    remember(jars)
    (tmp_path / "hadoop").mkdir()
    (tmp_path / "hadoop" / "core-site.xml").write_text("<configuration/>")
    monkeypatch.setenv("HADOOP_CONF_DIR", str(tmp_path / "hadoop"))
    archive.make()
    assert "hadoop is on Java's class path" in capsys.readouterr().out


@pytest.mark.spark
def test_delta_is_there_from_the_class_path_or_from_the_package(local_spark, tmp_path):
    conf = local_spark.sparkContext.getConf()
    classes = conf.get("spark.driver.extraClassPath", "") + conf.get("spark.jars", "")
    assert "delta-spark" in classes or local.delta_package() is None
    assert "hadoop-client" not in classes
    path = str(tmp_path / "table")
    local_spark.range(3).write.format("delta").save(path)
    latest = local_spark.sql(f"DESCRIBE HISTORY delta.`{path}`").first()
    assert (latest.version, latest.operation) == (0, "WRITE")
    assert local_spark.read.format("delta").load(path).count() == 3
    assert Path(path, "_delta_log").is_dir()


def test_a_cache_folder_that_others_may_write_to_is_not_used(delta_is_fetched, jars, cache):
    remember(jars)
    assert start_cache.remembered_jars(PACKAGE)
    cache.chmod(0o777)
    assert start_cache.remembered_jars(PACKAGE) == []
    assert start_cache.archive_stem([], local.JVM_OPTIONS) is None
    cache.chmod(0o755)
    assert start_cache.remembered_jars(PACKAGE)
