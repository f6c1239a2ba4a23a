"""The physical plan on Spark proper: the pool is never exchanged whole."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from gio_spark.explode import materialize, selected_ids, with_thresholds
from gio_spark.settings.explode import ExplodeSettings

pytestmark = pytest.mark.spark


def physical_plan(df, capsys) -> str:
    capsys.readouterr()
    df.explain("simple")
    return capsys.readouterr().out


def nodes_above(plan: str, column: str) -> list[str]:
    """Operators above the scan that reads `column`, from the scan upwards."""
    lines = [line for line in plan.splitlines() if line.strip()]
    depth = [re.match(r"[\s:+-]*", line).end() for line in lines]
    scan = next(i for i, line in enumerate(lines) if "FileScan" in line and column in line)
    nodes, level = [], depth[scan]
    for i in range(scan - 1, -1, -1):
        if depth[i] < level:
            nodes.append(lines[i])
            level = depth[i]
    return nodes


@pytest.fixture(scope="module")
def parts(local_spark, tmp_path_factory):
    folder = tmp_path_factory.mktemp("explode")
    rng = np.random.default_rng(3)
    row_count, cluster_count = 2_000, 8
    table = pa.table(
        {
            "id": [f"r{i}" for i in range(row_count)],
            "pool_text": ["x" * 50] * row_count,
            "cluster": pa.array(rng.integers(0, cluster_count, row_count).astype(np.int32)),
        }
    )
    import pyarrow.parquet as pq

    pq.write_table(table.select(["id", "pool_text"]), folder / "pool.parquet")
    pq.write_table(table.select(["id", "cluster"]), folder / "assignments.parquet")
    pool = local_spark.read.parquet(str(folder / "pool.parquet"))
    assignments = local_spark.read.parquet(str(folder / "assignments.parquet"))
    rows = np.bincount(table["cluster"].to_numpy(), minlength=cluster_count)
    plan = pd.DataFrame({"cluster": np.arange(cluster_count), "rows": rows, "take": rows // 10})
    return pool, assignments, plan


def test_the_pool_is_never_exchanged_whole(parts, capsys, local_spark):
    pool, assignments, plan = parts
    settings = ExplodeSettings(within_cluster="exact_count")
    thresholds = with_thresholds(assignments, plan, settings=settings)
    rows = selected_ids(assignments, thresholds, settings=settings)
    total = int(plan["take"].sum())
    local_spark.conf.set("spark.sql.adaptive.enabled", "false")  # the plan as it will run
    local_spark.conf.set("spark.sql.autoBroadcastJoinThreshold", "-1")

    by_broadcast = materialize(pool, rows, expected=total, settings=settings)
    nodes = nodes_above(physical_plan(by_broadcast, capsys), "pool_text")
    assert any("BroadcastHashJoin" in node for node in nodes)
    assert not any("Exchange" in node for node in nodes)

    no_broadcast = settings.model_copy(update={"broadcast_rows": 0})
    by_bloom_filter = materialize(pool, rows, expected=total, settings=no_broadcast)
    nodes = nodes_above(physical_plan(by_bloom_filter, capsys), "pool_text")
    filter_position = next(
        i for i, node in enumerate(nodes) if "Filter" in node and "pythonUDF" in node
    )
    exchange_position = next(i for i, node in enumerate(nodes) if "Exchange" in node)
    assert filter_position < exchange_position, "only rows that pass the Bloom filter are exchanged"

    assert {r["id"] for r in by_broadcast.collect()} == {r["id"] for r in by_bloom_filter.collect()}
    assert by_broadcast.count() == total

    assert not any("Exchange" in line for line in physical_plan(rows, capsys).splitlines())


def test_copies_add_up_on_spark(parts):
    _, assignments, plan = parts
    settings = ExplodeSettings(within_cluster="exact_count")
    copies = plan.assign(copies=2 * plan["take"] + 3)
    thresholds = with_thresholds(assignments, copies, settings=settings)
    rows = selected_ids(assignments, thresholds, settings=settings).toPandas()
    assert rows.groupby("cluster")["repeat"].sum().tolist() == copies["copies"].tolist()
    assert rows["id"].is_unique and len(rows) == plan["take"].sum()
