"""A fit that loses an executor in the middle of a pass."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gio_spark.engine import session
from tests.cluster.fit_job import FIT, ROOT, ROWS, digest
from tests.cluster.standalone import environment

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]


def test_a_fit_that_loses_an_executor_in_a_pass_has_the_same_centroids(tmp_path: Path):
    # A process of its own: Spark's two APIs cannot share one.
    command = [sys.executable, "-m", "tests.cluster.fit_job", str(tmp_path)]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        command,
        env={**environment(), "PYTHONPATH": path},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=380,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    killed = int((tmp_path / "fired").read_text())
    assert not Path(f"/proc/{killed}").exists()
    result = json.loads((tmp_path / "result.json").read_text())
    # Undisturbed, on the other engine: its bits are Spark's.
    rows = session("embedded").read.parquet(str(tmp_path / "rows"))
    state = FIT.fit(rows, rows=ROWS).state
    assert result == {"passes": 2, "digest": digest(state)}
