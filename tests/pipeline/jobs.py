"""Small inputs and settings of whole jobs, made the same way wherever they are used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable

from gio_spark.engine.progress import Progress
from gio_spark.pipeline import run as run_pipeline
from gio_spark.settings.load import build
from gio_spark.settings.run import RunSettings

BLOBS, DIMENSION = 4, 6


def vector_rows(name: str, rows: int, blobs: np.ndarray | int, *, seed: int = 0) -> pa.Table:
    """Rows around blob centres: id, vector, site, words and an own column that goes along."""
    centres = np.random.default_rng(99).normal(0, 4, (BLOBS, DIMENSION))
    random = np.random.default_rng(seed)
    which = np.broadcast_to(np.asarray(blobs), (rows,))
    points = (centres[which] + random.normal(0, 1, (rows, DIMENSION))).astype(np.float32)
    return pa.table(
        {
            "id": [f"{name}{i:05d}" for i in range(rows)],
            "vector": pa.array(list(points), pa.list_(pa.float32())),
            "site": [f"site-{b}" for b in which],
            "words": pa.array(random.integers(5, 50, rows), pa.int64()),
            "note": [f"note {i}" for i in range(rows)],
        }
    )


def vector_pool(rows: int = 600, seed: int = 1, name: str = "p") -> pa.Table:
    """A pool in which every blob has an equal share."""
    return vector_rows(name, rows, np.arange(rows) % BLOBS, seed=seed)


def vector_target(rows: int = 80, blob: int = 0, seed: int = 2, name: str = "t") -> pa.Table:
    """A target of one blob."""
    return vector_rows(name, rows, blob, seed=seed)


def text_rows(name: str, rows: int, low: int, high: int, seed: int) -> pa.Table:
    """Rows of twelve words out of a range of a vocabulary."""
    random = np.random.default_rng(seed)
    words = np.array([f"wort{i}" for i in range(low, high)])
    texts = [" ".join(random.choice(words, 12)) for _ in range(rows)]
    return pa.table({"id": [f"{name}{i:05d}" for i in range(rows)], "text": texts})


def write(table: pa.Table, place: Path, files: int = 1) -> str:
    """Write a table as one Parquet file, or rows in turn over several."""
    if files == 1:
        pq.write_table(table, place)
        return str(place)
    place.mkdir()
    for i in range(files):
        pq.write_table(table.take(list(range(i, table.num_rows, files))), place / f"{i}.parquet")
    return str(place)


def settings(folder: Path, **changes: Any) -> RunSettings:
    """Settings of a small job on vectors in a folder; nested blocks are merged."""
    values: dict[str, Any] = {
        "pool": str(folder / "pool.parquet"),
        "target": str(folder / "target.parquet"),
        "columns": {"id": "id", "vector": "vector", "source": "site", "tokens": "words"},
        "budget": 100,
        "workspace": str(folder / "ws"),
        "engine": "embedded",
        "clusters": 12,
        "quantize": {"max_passes": 3, "target_clusters": 4},
        "within_cluster": "exact_count",
        "tracking": {"enabled": False},
        "report": {"sample": 50, "examples": 1, "plots": False},
    }
    for key, value in changes.items():
        old = values.get(key)
        both = isinstance(value, dict) and isinstance(old, dict)
        values[key] = {**old, **value} if both else value
    return build(values)


def go(settings: RunSettings, **more: Any) -> Any:
    """Run without progress on the terminal."""
    return run_pipeline(settings, progress=Progress("silent"), **more)


def ids(frame: Any) -> list[str]:
    """Sorted ids of a selection."""
    return sorted(frame.select("gio_id").toArrow()["gio_id"].to_pylist())


def stages_done(curation: Any) -> dict[str, bool]:
    """Stage -> whether it was skipped."""
    return {name: skipped for name, _, _, skipped in curation.summary["stages"]}


def table(workspace: Path, name: str) -> pa.Table:
    """Read a stage table with another reader than the engine under test.

    `selected` is the selection that was written last.
    """
    return selected(workspace) if name == "selected" else _read(workspace, name)


def _read(workspace: Path, name: str) -> pa.Table:
    return DeltaTable(str(workspace / name)).to_pyarrow_table()


def selected(workspace: Path, run: str | None = None) -> pa.Table:
    """The newest selection of a run, or of all runs, published or not."""
    rows = [r for r in _read(workspace, "runs").to_pylist() if r["table"].startswith("selection_")]
    records = [r for r in rows if run in (None, r["run"])]
    newest = max(records, key=lambda r: (json.loads(r["detail"]).get("number", 0), r["finished"]))
    if run is None:
        newest = max(records, key=lambda r: r["finished"])
    return _read(workspace, newest["table"])


def select(settings: RunSettings, **more: Any) -> Any:
    """Run up to the selected rows, which leaves out metrics and report."""
    return go(settings, until="explode", **more)


def picked(settings: RunSettings, curation: Any) -> pa.Table:
    """The selected rows of a run, read from its table."""
    return selected(Path(settings.workspace), curation.run_id).sort_by("gio_id")


def picked_ids(settings: RunSettings, **more: Any) -> list[str]:
    """Run up to the selected rows and return their ids."""
    return picked(settings, select(settings, **more))["gio_id"].to_pylist()


def done(curation: Any) -> set[str]:
    """The stages that did work."""
    return {name for name, skipped in stages_done(curation).items() if not skipped}
