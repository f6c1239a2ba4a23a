"""The files in jobs/: thin, each with its stage, and with exit codes that a scheduler can read."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from gio_spark.cli.job import BAD_CONFIGURATION, FAILED, job
from gio_spark.pipeline import STAGES

JOBS = sorted((Path(__file__).parent.parent / "jobs").glob("*.py"))


@pytest.mark.parametrize("file", JOBS, ids=lambda file: file.stem)
def test_a_job_is_thin_and_says_how_to_start_it(file: Path):
    text = file.read_text()
    assert len(text.splitlines()) < 60
    assert f"spark-submit jobs/{file.name}" in (ast.get_docstring(ast.parse(text)) or "")


def test_there_is_a_job_for_the_whole_and_for_each_stage():
    names = {file.stem for file in JOBS}
    # The report comes at the end of the whole: it is no stage that another waits for.
    assert {"run", *(f"run_{stage}" for stage in STAGES if stage != "report")} <= names


def test_no_job_hides_a_module_of_the_standard_library():
    # The script's folder comes first on Python's path: a jobs/select.py would be `import select`.
    assert not {file.stem for file in JOBS} & set(sys.stdlib_module_names)


def test_help_answers_without_spark():
    command = [sys.executable, "-c", "from gio_spark.cli.job import job; job('embed', ['--help'])"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "--config" in done.stdout


def test_a_bad_configuration_and_a_failed_run_have_exit_codes_of_their_own(tmp_path, capsys):
    with pytest.raises(SystemExit) as missing:
        job(None, ["--config", str(tmp_path / "none.yml")])
    assert missing.value.code == BAD_CONFIGURATION
    assert "none.yml" in capsys.readouterr().err
    config = tmp_path / "run.yml"
    config.write_text("pool: no/such/pool\ntarget: no/such/target\nengine: embedded\n")
    with pytest.raises(SystemExit) as failed:
        job(None, ["--config", str(config), "--workspace", str(tmp_path / "workspace")])
    assert failed.value.code == FAILED
    assert "no/such/pool" in capsys.readouterr().err
