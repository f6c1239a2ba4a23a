"""A purge leaves no vector of a purged row in centroids or in the sample of a density ratio."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable

from gio_spark.pipeline.commands.purge_ids import PurgeRequest
from gio_spark.pipeline.commands.purge_rows import purge_rows
from gio_spark.pipeline.refresh import refresh
from tests.pipeline import jobs

pytestmark = pytest.mark.embedded

ALONE = [50.0, -40.0, 30.0, -20.0, 10.0, 60.0]
"""Vector of a row far from all others: the only row of its cluster."""


def stored_vectors(workspace: Path) -> dict[str, np.ndarray]:
    """Vectors of centroids by side, and float matrices of models by name."""
    table = DeltaTable(str(workspace / "centroids")).to_pyarrow_table()
    centroids = table.sort_by("cluster").to_pylist()
    vectors = {
        side: np.stack([np.frombuffer(r["vector"], "<f4") for r in centroids if r["side"] == side])
        for side in ("fit", "pool")
    }
    for row in DeltaTable(str(workspace / "models")).to_pyarrow_table().to_pylist():
        if row["name"] in ("pool", "target"):
            vectors["ratio " + row["name"]] = np.frombuffer(row["content"], "<f4").reshape(-1, 6)
    return vectors


def distance(vectors: np.ndarray, row: list[float]) -> float:
    """Distance of the nearest of some vectors."""
    return float(np.sqrt(np.square(vectors - np.array(row, np.float32)).sum(axis=1)).min())


def test_a_row_that_is_a_centroid_and_rows_of_a_sample_are_replaced(spark, tmp_path):
    pool = jobs.vector_pool(300)
    alone = jobs.vector_rows("alone", 1, 0)
    vector = pa.array([ALONE], pa.list_(pa.float32()))
    alone = alone.set_column(1, "vector", vector).cast(pool.schema)
    jobs.write(pa.concat_tables([pool, alone]), tmp_path / "pool.parquet")
    jobs.write(jobs.vector_target(), tmp_path / "target.parquet")
    settings = jobs.settings(
        tmp_path, within_cluster="density_ratio", explode={"estimator": "knn"}, budget=30
    )
    jobs.go(settings)
    before = stored_vectors(tmp_path / "ws")
    others = {name: len(rows) for name, rows in before.items()}
    assert max(distance(rows, ALONE) for n, rows in before.items() if n != "ratio target") < 1e-3
    sampled = [row["vector"] for row in pool.to_pylist()[:20]]
    ids = [*pool["id"].to_pylist()[:20], "alone00000"]
    jobs.write(pa.table({"id": ids}), tmp_path / "ids.parquet")
    request = PurgeRequest(ids=str(tmp_path / "ids.parquet"))
    assert purge_rows(settings, request, spark=spark).forecast.models >= 22
    purge_rows(settings, request, confirmed=True, spark=spark)
    after = stored_vectors(tmp_path / "ws")
    assert {name: len(rows) for name, rows in after.items()} == others
    for rows in after.values():
        assert min(distance(rows, row) for row in [ALONE, *sampled]) > 1e-3
    # Other centroids stay as they are, and no row is nearest to the new one.
    (changed,) = np.flatnonzero((before["fit"] != after["fit"]).any(axis=1))
    assert refresh(settings, spark=spark).after == 30
    clusters = DeltaTable(str(tmp_path / "ws" / "assignments")).to_pyarrow_table()["cluster"]
    assert changed not in clusters.to_pylist()
    assert purge_rows(settings, PurgeRequest(), spark=spark).forecast.rows == 0
