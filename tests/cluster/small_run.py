"""A small selection as a job of its own, and its rows on the embedded engine to compare with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from deltalake import DeltaTable

from gio_spark.pipeline import run
from gio_spark.settings.load import load
from tests.pipeline import jobs

ROOT = Path(__file__).parent.parent.parent
POOL_ROWS, TARGET_ROWS, BUDGET = 900, 120, 150


def write_inputs(folder: Path) -> Path:
    """Write a pool of three blobs in six files, a target like one of them, and a config."""
    random = np.random.default_rng(5)
    centres = random.normal(0, 4, (3, 8))

    def rows(name: str, count: int, blob: np.ndarray) -> pa.Table:
        points = (centres[blob] + random.normal(0, 1, (count, 8))).astype(np.float32)
        ids = [f"{name}-{number:04d}" for number in range(count)]
        return pa.table({"id": ids, "vector": pa.array(list(points)), "blob": blob})

    (folder / "pool").mkdir()
    pool = rows("pool", POOL_ROWS, random.integers(0, 3, POOL_ROWS))
    for part in range(6):
        cut = pool.slice(part * POOL_ROWS // 6, POOL_ROWS // 6)
        pq.write_table(cut, folder / "pool" / f"{part}.parquet")
    target = rows("target", TARGET_ROWS, np.zeros(TARGET_ROWS, dtype=np.int64))
    pq.write_table(target, folder / "target.parquet")
    settings = {
        "pool": str(folder / "pool"),
        "target": str(folder / "target.parquet"),
        "budget": BUDGET,
        "workspace": str(folder / "workspace"),
        "columns": {"id": "id", "vector": "vector"},
        "quantize": {"clusters": 12, "target_clusters": 4, "max_passes": 3},
        "explode": {"within_cluster": "exact_count"},
    }
    config = folder / "run.yml"
    config.write_text(yaml.safe_dump(settings))
    return config


def read(workspace: Path, table: str) -> pa.Table:
    """Read a stage table past the engine that wrote it."""
    return DeltaTable(str(workspace / table)).to_pyarrow_table()


def embedded_rows(config: Path, folder: Path) -> set[str]:
    """Return the ids that the same settings select on the embedded engine, in this process."""
    place = folder / "embedded"
    run(load(config, ["engine=embedded", f"workspace={place}", "tracking.enabled=false"]))
    return set(jobs.selected(place)["id"].to_pylist())


def assert_every_row_once(workspace: Path) -> set[str]:
    """Check the stage tables of a finished run; return the ids selected."""
    for table in ("embeddings", "assignments"):
        ids = read(workspace, table)["id"].to_pylist()
        assert len(ids) == len(set(ids)) == POOL_ROWS + TARGET_ROWS, table
    selected = jobs.selected(workspace)
    ids = selected["id"].to_pylist()
    assert len(ids) == len(set(ids)) == BUDGET
    assert set(ids) <= {f"pool-{number:04d}" for number in range(POOL_ROWS)}
    assert np.mean(np.asarray(selected["blob"]) == 0) > 0.9
    return set(ids)
