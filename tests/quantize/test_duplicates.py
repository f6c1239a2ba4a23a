"""Duplicates on the embedded engine."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from gio_spark.engine import encode_vectors
from gio_spark.errors import ConfigError, InputError
from gio_spark.quantize import exact_duplicates, semantic_duplicates

pytestmark = pytest.mark.embedded


def rows_of(df):
    return sorted(df.toArrow().to_pylist(), key=lambda r: r["id"])


def test_exact_duplicates_keep_the_best_quality_then_the_lowest_id(spark):
    df = spark.createDataFrame(
        pa.table(
            {
                "id": ["a", "b", "c", "d", "e", "f", "g"],
                "content_hash": ["x", "x", "x", "y", "y", "z", None],
                "quality": [0.1, 0.9, None, 0.5, 0.5, 0.2, 0.3],
            }
        )
    )
    found = {r["id"]: r["keeper"] for r in rows_of(exact_duplicates(df))}
    assert found == {"a": "b", "c": "b", "e": "d"}
    without = {r["id"]: r["keeper"] for r in rows_of(exact_duplicates(df.drop("quality")))}
    assert without == {"b": "a", "c": "a", "e": "d"}


@pytest.fixture(scope="module")
def pool():
    rng = np.random.default_rng(0)
    places = rng.standard_normal((300, 12))
    owner = np.concatenate([np.arange(300), rng.integers(0, 300, 300)])
    x = places[owner] * rng.uniform(0.5, 2, (600, 1)) + 0.01 * rng.standard_normal((600, 12))
    quality = rng.uniform(0, 1, 600).round(1)
    return x.astype(np.float32), owner, quality


def frame(spark, pool, clusters=3):
    x, owner, quality = pool
    return spark.createDataFrame(
        pa.table(
            {
                "id": [f"row-{i:03d}" for i in range(len(x))],
                "vector": encode_vectors(x),
                "cluster": pa.array(owner % clusters, pa.int32()),
                "quality": quality,
            }
        )
    )


def expected(pool):
    _, owner, quality = pool
    out = {}
    for place in np.unique(owner):
        rows = sorted(np.flatnonzero(owner == place), key=lambda i: (-quality[i], i))
        out |= {f"row-{i:03d}": f"row-{rows[0]:03d}" for i in rows[1:]}
    return out


def test_semantic_duplicates_keep_the_best_of_each_direction(spark, pool):
    sizes = np.bincount(pool[1] % 3)
    found = rows_of(semantic_duplicates(frame(spark, pool), sizes, threshold=0.99))
    assert {r["id"]: r["keeper"] for r in found} == expected(pool)
    assert all(r["reason"] == "semantic_duplicate" and r["cosine"] >= 0.99 for r in found)


def test_large_clusters_are_split_and_nearly_nothing_is_missed(spark, pool):
    df, sizes = frame(spark, pool, clusters=1), np.array([600])
    many = [
        rows_of(semantic_duplicates(df.repartition(n), sizes, threshold=0.99, most_rows=100))
        for n in (1, 6)
    ]
    assert many[0] == many[1]
    found = {r["id"]: r["keeper"] for r in many[0]}
    wanted = expected(pool)
    assert set(found.items()) <= set(wanted.items())
    assert len(found) > 0.95 * len(wanted)


def test_bad_threshold_and_missing_columns_are_refused(spark, pool):
    df = frame(spark, pool)
    with pytest.raises(ConfigError, match="cosine"):
        semantic_duplicates(df, [1], threshold=1.5)
    with pytest.raises(InputError, match="cluster"):
        semantic_duplicates(df.drop("cluster"), [1])
