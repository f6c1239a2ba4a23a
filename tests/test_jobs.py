"""The files in jobs/: thin, each with its stage, and with exit codes that a scheduler can read."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from deltalake import DeltaTable

from gio_spark.cli.job import job
from gio_spark.cli.options import BAD_INPUT
from gio_spark.pipeline import STAGES

JOBS = sorted((Path(__file__).parent.parent / "jobs").glob("*.py"))


@pytest.mark.parametrize("file", JOBS, ids=lambda file: file.stem)
def test_a_job_is_thin_and_says_how_to_start_it(file: Path):
    text = file.read_text()
    assert len(text.splitlines()) < 60
    assert f"spark-submit jobs/{file.name}" in (ast.get_docstring(ast.parse(text)) or "")


def test_there_is_a_job_for_the_whole_and_for_each_stage():
    names = {file.stem for file in JOBS}
    # The report comes at the end of the whole: no other stage waits for it.
    stages = set(STAGES) - {"report"}
    others = {"run", "run_refresh", "run_maintain", "run_purge", "run_score"}
    others |= {"run_evaluate", "run_sensitivity", "run_gate"}
    assert names == others | {f"run_{stage}" for stage in stages}


def test_no_job_hides_a_module_of_the_standard_library():
    # The script's folder comes first on Python's path: a jobs/select.py would be `import select`.
    assert not {file.stem for file in JOBS} & set(sys.stdlib_module_names)


@pytest.mark.parametrize("file", JOBS, ids=lambda file: file.stem)
def test_the_command_of_a_job_exists(file: Path):
    (command,) = re.findall(r'job\("(\w+)"\)', file.read_text())
    done = subprocess.run(
        [sys.executable, str(file), "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert command in done.stdout and "No such command" not in done.stderr


def test_a_bad_configuration_ends_the_job_with_the_exit_code_of_the_command(tmp_path, capsys):
    with pytest.raises(SystemExit) as missing:
        job("run", [str(tmp_path / "none.yml")])
    assert missing.value.code == BAD_INPUT
    assert "none.yml" in capsys.readouterr().err


def test_jobs_of_single_stages_follow_one_another(tmp_path, capsys):
    points = np.random.default_rng(3).normal(size=(260, 4)).astype(np.float32)
    rows = pa.table({"id": [str(n) for n in range(260)], "vector": pa.array(list(points))})
    pq.write_table(rows.slice(0, 220), tmp_path / "pool.parquet")
    pq.write_table(rows.slice(220), tmp_path / "target.parquet")
    config = tmp_path / "run.yml"
    settings = {
        "pool": str(tmp_path / "pool.parquet"),
        "target": str(tmp_path / "target.parquet"),
        "budget": 30,
        "workspace": str(tmp_path / "workspace"),
        "engine": "embedded",
        "columns": {"id": "id", "vector": "vector"},
        "quantize": {"clusters": 6, "target_clusters": 3, "max_passes": 2},
        "explode": {"within_cluster": "exact_count"},
        "tracking": {"enabled": False},
    }
    config.write_text(yaml.safe_dump(settings))
    job("embed", [str(config)])
    assert "embed is done" in capsys.readouterr().out
    job("explode", [str(config)])
    job("run", [str(config), "report.title=Again"])
    assert "30 of 220 rows" in capsys.readouterr().out
    records = DeltaTable(str(tmp_path / "workspace" / "runs")).to_pyarrow_table()
    assert records["stage"].to_pylist().count("embed pool") == 1
