"""The process that imports the package and curates in it is afterwards as it was before."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from tests.pipeline import jobs

ROOT = Path(__file__).parent.parent

# Variables that stay, and why.
STAY = {
    # pyspark's own: while a Connect session lives, its functions look here for which API is meant.
    "SPARK_CONNECT_MODE_ENABLED",
}


@pytest.fixture(scope="module")
def states(tmp_path_factory):
    pytest.importorskip("data_selection", reason="a method that the comparison has")
    folder = tmp_path_factory.mktemp("guest")
    for name, rows, words in (("pool", 400, 400), ("target", 100, 200)):
        table = jobs.text_rows(name[0], rows, 0, words, seed=words)
        label = pa.array([f"label {i % 2}" for i in range(rows)])
        jobs.write(table.append_column("answer", label), folder / f"{name}.parquet")
    shared = {
        "pool": str(folder / "pool.parquet"),
        "target": str(folder / "target.parquet"),
        "columns": {"id": "id", "text": "text", "label": "answer"},
        "workspace": str(folder / "ws"),
        "engine": "embedded",
        "clusters": 8,
        "quantize": {"max_passes": 3, "target_clusters": 4},
        "report": {"sample": 50, "examples": 1},
    }
    judged = {"methods": ["dsir", "kl_ratio_t025"], "budgets": [0.2], "seeds": 2}
    judged |= {"measures": ["energy", "proxy_linear"]}
    job = {
        "curate": {**shared, "budget": 60},
        "evaluate": {**shared, "budget": 60, "evaluate": judged},
    }
    (folder / "job.json").write_text(json.dumps(job))
    # Engines that other tests have started in this process leave their marks in its environment.
    outside = {k: v for k, v in os.environ.items() if not k.startswith(("SPARK_", "MLFLOW_"))}
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    subprocess.run(
        [sys.executable, str(ROOT / "tests" / "guest_process.py")],
        check=True,
        timeout=400,
        cwd=folder,
        env={**outside, "PYTHONPATH": path},
    )
    return json.loads((folder / "states.json").read_text())


@pytest.mark.embedded
@pytest.mark.parametrize("after", ["import", "curate", "evaluate"])
@pytest.mark.parametrize(
    "what", ["threads", "gc", "filters", "signals", "functions", "streams", "hooks", "folder"]
)  # fmt: skip
def test_the_process_is_as_it_was(states, after, what):
    assert states[after][what] == states["at first"][what]


@pytest.mark.embedded
@pytest.mark.parametrize("after", ["import", "curate", "evaluate"])
def test_the_environment_is_as_it_was(states, after):
    before, now = states["at first"]["environment"], states[after]["environment"]
    changed = {name for name in {*before, *now} if before.get(name) != now.get(name)}
    assert changed <= STAY
