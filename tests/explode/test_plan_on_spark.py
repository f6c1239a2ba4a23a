"""The physical plan on Spark proper: the pool is never exchanged whole."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from gio_spark.explode import kept, materialise, with_thresholds
from gio_spark.settings.explode import ExplodeSettings

pytestmark = pytest.mark.spark


def physical(df, capsys) -> str:
    capsys.readouterr()
    df.explain("simple")
    return capsys.readouterr().out


def nodes_above(plan: str, column: str) -> list[str]:
    """Return the operators above the scan that reads `column`, from the scan upwards."""
    lines = [line for line in plan.splitlines() if line.strip()]
    depth = [re.match(r"[\s:+-]*", line).end() for line in lines]
    at = next(i for i, line in enumerate(lines) if "FileScan" in line and column in line)
    found, level = [], depth[at]
    for i in range(at - 1, -1, -1):
        if depth[i] < level:
            found.append(lines[i])
            level = depth[i]
    return found


@pytest.fixture(scope="module")
def parts(local_spark, tmp_path_factory):
    folder = tmp_path_factory.mktemp("explode")
    rng = np.random.default_rng(3)
    n, k = 2_000, 8
    table = pa.table(
        {
            "id": [f"r{i}" for i in range(n)],
            "pool_text": ["x" * 50] * n,
            "cluster": pa.array(rng.integers(0, k, n).astype(np.int32)),
        }
    )
    import pyarrow.parquet as pq

    pq.write_table(table.select(["id", "pool_text"]), folder / "pool.parquet")
    pq.write_table(table.select(["id", "cluster"]), folder / "assignments.parquet")
    pool = local_spark.read.parquet(str(folder / "pool.parquet"))
    assignments = local_spark.read.parquet(str(folder / "assignments.parquet"))
    rows = np.bincount(table["cluster"].to_numpy(), minlength=k)
    plan = pd.DataFrame({"cluster": np.arange(k), "rows": rows, "take": rows // 10})
    return pool, assignments, plan


def test_the_pool_is_never_exchanged_whole(parts, capsys, local_spark):
    pool, assignments, plan = parts
    chosen = ExplodeSettings(within_cluster="exact_count")
    full = with_thresholds(assignments, plan, settings=chosen)
    rows = kept(assignments, full, settings=chosen)
    total = int(plan["take"].sum())
    local_spark.conf.set("spark.sql.adaptive.enabled", "false")  # the plan as it will run
    local_spark.conf.set("spark.sql.autoBroadcastJoinThreshold", "-1")

    few = materialise(pool, rows, expected=total, settings=chosen)
    above = nodes_above(physical(few, capsys), "pool_text")
    assert any("BroadcastHashJoin" in node for node in above)
    assert not any("Exchange" in node for node in above)

    tight = chosen.model_copy(update={"broadcast_rows": 0})
    many = materialise(pool, rows, expected=total, settings=tight)
    above = nodes_above(physical(many, capsys), "pool_text")
    test_of_bloom = next(
        i for i, node in enumerate(above) if "Filter" in node and "pythonUDF" in node
    )
    exchange = next(i for i, node in enumerate(above) if "Exchange" in node)
    assert test_of_bloom < exchange, "only rows that pass the Bloom filter are exchanged"

    assert {r["id"] for r in few.collect()} == {r["id"] for r in many.collect()}
    assert few.count() == total

    assert not any("Exchange" in line for line in physical(rows, capsys).splitlines())
