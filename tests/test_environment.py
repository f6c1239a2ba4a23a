"""The set-up: it picks a Python and a Java that will do, and says what to type where none will."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from gio_spark.version import __version__

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import environment  # noqa: E402
import java  # noqa: E402
import platform_packages  # noqa: E402


def executable(path: Path, script: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def fake_java(home: Path, version: str) -> Path:
    executable(home / "bin" / "java", f"echo 'openjdk version \"{version}\"' >&2")
    return home


def test_the_interpreter_that_starts_is_taken_if_it_will_do(monkeypatch):
    assert environment.choose_python() == sys.executable
    monkeypatch.setattr(environment, "OLDEST", (3, 90))
    monkeypatch.setattr(environment, "NEWEST", (3, 91))
    with pytest.raises(SystemExit, match=r"Python 3\.90 to 3\.91 is needed.*PYTHON="):
        environment.choose_python()


def test_a_named_python_has_environments_of_its_own(tmp_path, monkeypatch):
    twelve = executable(tmp_path / "some-python", "echo 3 12")
    assert environment.folder_of("dev", None).name == ".venv"
    assert environment.folder_of("dev", str(twelve)).name == ".venv-3.12"
    assert environment.folder_of("oldest", str(twelve)).name == ".venv-oldest-3.12"


def test_a_python_whose_shim_does_not_run_is_found_in_pyenv(tmp_path, monkeypatch):
    executable(tmp_path / "bin" / "python3.12", "exit 127")
    real = executable(tmp_path / "pyenv/versions/3.12.1/bin/python3.12", "echo 3 12")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    assert environment.choose_python("python3.12") == str(real)
    with pytest.raises(SystemExit, match=r"no Python named python3\.13 runs here"):
        environment.choose_python("python3.13")


def test_a_named_python_of_a_version_that_is_not_supported_is_refused(tmp_path):
    old = executable(tmp_path / "python3.9", "echo 3 9")
    with pytest.raises(SystemExit, match=r"is Python 3\.9, and 3\.10 to 3\.13 is needed"):
        environment.choose_python(str(old))


def test_pins_of_an_environment_replace_those_of_the_lock():
    lines = environment.constraints("spark40", sys.executable).splitlines()
    assert [line for line in lines if re.match(r"(pyspark|delta-spark)\b(?!-)", line)] == [
        "pyspark==4.0.1",
        "delta-spark==4.0.1",
    ]
    locked = (ROOT / environment.LOCK).read_text().splitlines()
    assert set(locked) - set(lines) == {"pyspark==4.2.0", "delta-spark==4.4.0"}
    assert environment.constraints("dev", sys.executable).splitlines() == locked


def test_a_name_on_the_path_that_starts_nothing_is_passed_over(tmp_path, monkeypatch):
    executable(tmp_path / "python3.91", "exit 127")
    good = executable(tmp_path / "python3.90", "echo 3 90")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(environment, "OLDEST", (3, 90))
    monkeypatch.setattr(environment, "NEWEST", (3, 91))
    assert environment.choose_python() == str(good)


def test_the_stamp_changes_with_the_lock(tmp_path, monkeypatch):
    for name in (environment.LOCK, "pyproject.toml"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    before = environment.digest("demo", sys.executable)
    assert before == environment.digest("demo", sys.executable)
    assert before != environment.digest("dev", sys.executable)
    (tmp_path / environment.LOCK).write_text("numpy==2.0.0\n")
    assert before != environment.digest("demo", sys.executable)


def test_the_two_kinds_of_pyspark_are_never_in_one_environment():
    for name, made in environment.ENVIRONMENTS.items():
        extras = re.findall(r"[a-z]+", "".join(re.findall(r"\[.*?\]", " ".join(made.packages))))
        assert not {"embedded", "spark"} <= set(extras), name
        assert "pyspark-client" not in made.packages


def test_the_lock_names_no_host():
    text = (ROOT / environment.LOCK).read_text()
    assert "://" not in text and "--" not in text
    for pin in ("pyspark==4.2.0", "delta-spark==4.4.0", "mlflow-skinny==3.17.2", "pandas==2.3.3"):
        assert f"\n{pin}\n" in text


@pytest.mark.parametrize(
    ("version", "major"), [("17.0.15", 17), ("21.0.2", 21), ("1.8.0_292", 1), ("25", 25)]
)
def test_the_version_of_java_is_read(tmp_path, version, major):
    assert java.major(fake_java(tmp_path, version)) == major
    assert java.major(tmp_path / "nothing") is None


def test_a_java_of_another_version_is_passed_over(tmp_path, monkeypatch):
    old = fake_java(tmp_path / "old", "11.0.2")
    new = fake_java(tmp_path / "new", "21.0.2")
    monkeypatch.setattr(java, "homes", lambda: iter([tmp_path / "none", old, new]))
    assert java.find() == (new, {11})


def test_where_nothing_may_be_installed_the_one_command_is_said(tmp_path, monkeypatch):
    executable(tmp_path / "apt-get", "exit 1")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(platform_packages.os, "geteuid", lambda: 1000)
    assert not platform_packages.install("Java", java.PACKAGES)
    said = platform_packages.advice(java.PACKAGES, "")
    assert "sudo apt-get install" in said and "openjdk-17-jre-headless" in said


def test_a_second_package_is_tried_where_the_first_cannot_be_had(tmp_path, monkeypatch):
    log = tmp_path / "log"
    executable(tmp_path / "apt-get", f'echo "$@" >> {log}; case "$@" in *17*) exit 100;; esac')
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(platform_packages.os, "geteuid", lambda: 0)
    assert platform_packages.install("Java", java.PACKAGES)
    assert log.read_text().splitlines()[-1].endswith("openjdk-21-jre-headless")


def test_the_version_is_the_same_everywhere():
    (in_project,) = re.findall(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.M)
    assert in_project == __version__


def test_make_help_lists_every_target():
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    for target in ("demo", "test", "test-oldest", "coverage", "lint", "docs", "bench-%", "lock"):
        assert f"  {target} " in shown.stdout
