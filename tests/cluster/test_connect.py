"""The whole job against a Spark Connect server, from a process that has only its address."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.connect_server import connect_server
from tests.cluster.small_run import ROOT, assert_every_row_once, embedded_rows, write_inputs

pytestmark = [pytest.mark.connect, pytest.mark.timeout(900)]


def test_a_run_on_a_connect_server_selects_the_rows_of_the_embedded_engine(tmp_path: Path):
    config = write_inputs(tmp_path)
    with connect_server(tmp_path) as url:
        done = subprocess.run(
            [sys.executable, str(ROOT / "jobs" / "run.py"), str(config)],
            env={**os.environ, "SPARK_REMOTE": url, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
    assert done.returncode == 0, done.stderr[-4000:]
    (first,) = [line for line in done.stderr.splitlines() if line.startswith("engine: ")]
    assert first.startswith("engine: connect ")
    assert assert_every_row_once(tmp_path / "workspace") == embedded_rows(config, tmp_path)
