"""What deploy/ names is there: files, entry points, settings, tasks, variables."""

from __future__ import annotations

import re
import subprocess
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import yaml

from gio_spark.settings.load import load

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
RESOURCES = sorted((DEPLOY / "resources").glob("*.yml"))
BUNDLE = yaml.safe_load((DEPLOY / "databricks.yml").read_text())


def jobs() -> list[tuple[Path, str, dict[str, Any]]]:
    return [
        (file, name, job)
        for file in RESOURCES
        for name, job in yaml.safe_load(file.read_text())["resources"]["jobs"].items()
    ]


def tasks() -> list[Any]:
    return [
        pytest.param(file, job, task, id=f"{name}-{task['task_key']}")
        for file, name, job in jobs()
        for task in job["tasks"]
    ]


def test_the_bundle_includes_every_resource_file():
    included = {file for pattern in BUNDLE["include"] for file in DEPLOY.glob(pattern)}
    assert included == set(RESOURCES) != set()
    assert BUNDLE["targets"]["dev"]["mode"] == "development"
    assert BUNDLE["targets"]["prod"]["mode"] == "production"
    assert "run_as" in BUNDLE["targets"]["prod"]


def test_every_folder_of_the_bundle_is_there():
    assert all((DEPLOY / path).is_dir() for path in BUNDLE["sync"]["paths"])
    assert (DEPLOY / BUNDLE["artifacts"]["gio_spark"]["path"] / "pyproject.toml").exists()


@pytest.mark.parametrize(("file", "job", "task"), tasks())
def test_every_task_names_something_that_exists(file: Path, job: dict, task: dict):
    if "spark_python_task" in task:
        script = file.parent / task["spark_python_task"]["python_file"]
        assert script.resolve().parent == ROOT / "jobs"
        assert script.exists()
        parameters = task["spark_python_task"]["parameters"]
    else:
        wheel = task["python_wheel_task"]
        names = {entry.name for entry in entry_points(group="console_scripts")}
        text = (ROOT / "pyproject.toml").read_text()
        assert wheel["entry_point"] in names or f"\n{wheel['entry_point']} = " in text
        parameters = wheel["parameters"]
    assert all(isinstance(parameter, str) for parameter in parameters)
    keys = {environment["environment_key"] for environment in job["environments"]}
    assert task["environment_key"] in keys
    others = {other["task_key"] for other in job["tasks"]} - {task["task_key"]}
    assert {needed["task_key"] for needed in task.get("depends_on", ())} <= others


@pytest.mark.parametrize("file", RESOURCES, ids=lambda file: file.stem)
def test_every_variable_and_synced_file_is_known(file: Path):
    text = file.read_text()
    used = set(re.findall(r"\$\{var\.(\w+)\}", text))
    assert used <= set(BUNDLE["variables"])
    for path in re.findall(r"\$\{workspace\.file_path\}/(\S+)", text):
        assert (ROOT / path).exists()


def test_the_whole_selection_runs_on_a_schedule_and_once_at_a_time():
    (curate,) = (job for _, name, job in jobs() if name == "curate")
    assert len(curate["schedule"]["quartz_cron_expression"].split()) == 1  # a variable
    assert len(BUNDLE["variables"]["schedule"]["default"].split()) == 6
    assert all(job["max_concurrent_runs"] == 1 for _, _, job in jobs())


def test_the_deployed_settings_are_valid():
    settings = load(DEPLOY / "config" / "curate.yml")
    assert settings.engine == "cluster"


def test_the_submit_script_is_sound_and_explains_itself():
    script = str(DEPLOY / "spark-submit.sh")
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0
    shown = subprocess.run([script], capture_output=True, text=True, check=False)
    assert shown.returncode == 2 and "jobs/run.py" in shown.stderr
