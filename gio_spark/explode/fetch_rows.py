"""Join of the selected ids with the pool, without exchanging the pool.

Few ids are joined by broadcast. Above `broadcast_rows` ids the pool is first filtered, where it is
read, by a Bloom filter of the ids, and only rows that pass (the selected rows and a fraction of a
percent of the others) are exchanged for the join.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa

from gio_spark.engine import BroadcastArrays, bounded, broadcast_arrays, group_arrow, hash53
from gio_spark.errors import InputError
from gio_spark.explode.bloom_filter import (
    BLOCK_BYTES,
    BloomPlan,
    build_block,
    contains,
    plan_bloom,
)
from gio_spark.settings.explode import ExplodeSettings
from gio_spark.tables.identifiers import quoted_column

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

log = logging.getLogger(__name__)

BLOOM_SALT = "gio.explode.bloom"


def materialize(
    rows: DataFrame,
    selected: DataFrame,
    *,
    expected: int,
    settings: ExplodeSettings,
    columns: Mapping[str, str] | None = None,
) -> DataFrame:
    """Selected rows with the columns of the pool.

    Args:
        rows: Pool: `id STRING` and the user's own columns.
        selected: id, cluster, reason, log_ratio and, where rows repeat, repeat and weight, as
            returned by `selected_ids`.
        expected: About how many rows are selected (the sum of the plan); decides how to join.
        settings: Settings of the explode stage; `output: ids` returns the ids without reading the
            pool.
        columns: Constant text columns to add, for example run and input version.

    Returns:
        The pool's own columns (unless `output` is ids), then gio_id, gio_cluster, gio_reason,
        gio_log_ratio, gio_repeat and gio_weight where rows repeat, and the constant columns.

    Raises:
        InputError: If the pool has a column whose name is one of those that are added.
    """
    from pyspark.sql import functions as F

    constants = dict(columns or {})
    names = ["id", "cluster", "reason", "log_ratio"]
    names += [name for name in ("repeat", "weight") if name in selected.columns]
    added = [*(f"gio_{name}" for name in names), *constants]
    conflicts = sorted(set(added) & set(rows.columns))
    if conflicts:
        raise InputError(
            f"The pool already has columns named {', '.join(conflicts)}: rename them, these names "
            "are used for the selection."
        )
    selection_columns = selected.select(
        *(F.col(name).alias(f"gio_{name}") for name in names),
        *(F.lit(value).alias(name) for name, value in constants.items()),
    )
    if settings.output == "ids":
        return selection_columns
    pool_rows, selection = rows, selection_columns
    if expected <= settings.broadcast_rows:
        log.info("explode join=broadcast ids=%d", expected)
        selection = F.broadcast(selection_columns)
    else:
        pool_rows = rows.where(may_be_selected(selected, expected=expected, settings=settings))
    # The ids are the left table: the embedded engine ignores hints and keeps the left table in
    # memory (1,000,000 rows of 1 KB: peak 0.7 GB this way, 2.9 GB the other way round).
    joined = selection.join(pool_rows, pool_rows["id"] == selection_columns["gio_id"], "inner")
    return joined.select(*(joined[quoted_column(c)] for c in (*rows.columns, *added)))


def may_be_selected(selected: DataFrame, *, expected: int, settings: ExplodeSettings) -> Column:
    """Predicate on `id` that is true for all selected ids and for few others.

    The Bloom filter is built by one action over `selected` and broadcast. Its size is at most
    `settings.bloom_megabytes` on the driver and in each worker process.
    """
    from pyspark.sql import functions as F

    plan = plan_bloom(expected, megabytes=settings.bloom_megabytes)
    bloom_filter = build_filter(selected, plan)
    log.info(
        "explode join=bloom ids=%d bytes=%d expected_false_positives=%.4f",
        expected, plan.size_bytes, plan.rate,
    )  # fmt: skip
    test = _contains_test(
        broadcast_arrays(selected.sparkSession, {"bloom": bloom_filter}), plan.bits_per_id
    )
    return F.pandas_udf(test, "boolean")(hash53("id", BLOOM_SALT))  # type: ignore[attr-defined]


def build_filter(selected: DataFrame, plan: BloomPlan) -> np.ndarray:
    """Bloom filter of the ids in `selected`, uint8 (blocks, 65536), built per block on workers."""
    from pyspark.sql import functions as F

    hashes = selected.select(hash53("id", BLOOM_SALT).alias("hash"))
    hashes_by_block = hashes.withColumn("block", F.col("hash") % F.lit(plan.blocks))

    def block(table: pa.Table) -> dict[str, pa.Array]:
        return {
            "block": pa.array([table["block"][0].as_py()], pa.int64()),
            "bits": pa.array([build_block(table["hash"].to_numpy(), plan)], pa.binary()),
        }

    blocks = bounded(
        group_arrow(hashes_by_block, "block", block, "block bigint, bits binary"),
        plan.blocks,
        "the blocks of the Bloom filter",
    )
    bloom_filter = np.zeros((plan.blocks, BLOCK_BYTES), dtype=np.uint8)
    for number, bits in zip(blocks["block"].to_pylist(), blocks["bits"], strict=True):
        bloom_filter[number] = np.frombuffer(memoryview(bits.as_buffer()), dtype=np.uint8)
    return bloom_filter


def _contains_test(handle: BroadcastArrays, bits_per_id: int):  # type: ignore[no-untyped-def]  # noqa: ANN202
    # pandas_udf reads the annotations, so they must be types and not strings.
    def test(hashes: pd.Series) -> pd.Series:
        return pd.Series(contains(handle.load()["bloom"], hashes.to_numpy(), bits_per_id))

    test.__annotations__ = {"hashes": pd.Series, "return": pd.Series}
    return test
