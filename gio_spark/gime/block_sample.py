"""Samples of blocks instead of rows: a station's day, a document's chunks, a user's session.

The rows of a block are selected together or not at all. Draws and quotas count blocks; metrics and
models read the rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from gio_spark.errors import InputError
from gio_spark.gime.accumulators import CLUSTER_COUNTS
from gio_spark.gime.proxy_training import Task
from gio_spark.gime.row_batch import Column, Rows
from gio_spark.gime.tilted_subsets import Sample

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MEAN = ("real", "time")


@dataclass(frozen=True, eq=False)
class BlockSample(Sample):
    """A sample whose rows are blocks.

    Attributes:
        base: The sample of rows, whose metrics are those of the blocks.
        members: Rows of each block.
    """

    base: Sample = field(kw_only=True)
    members: tuple[NDArray[np.intp], ...] = field(kw_only=True)

    def metrics(self, index: NDArray[np.intp] | None = None) -> dict[str, float]:
        """Robust metrics of the rows of some blocks (None: of all blocks)."""
        if index is None:
            return self.base.metrics()
        return self.base.metrics(expanded(index, self.members))

    def directions(self) -> dict[str, int]:
        """Directions of the metrics of the rows."""
        return self.base.directions()


def expanded(index: NDArray[np.intp], members: tuple[NDArray[np.intp], ...]) -> NDArray[np.intp]:
    """Rows of some blocks, sorted."""
    return np.sort(np.concatenate([members[i] for i in index]))


def in_blocks(
    sample: Sample,
    task: Task,
    blocks: NDArray[np.int64],
    clusters: NDArray[np.int64],
    target_clusters: NDArray[np.int64] | None = None,
) -> tuple[BlockSample, Task]:
    """Convert a sample and a task of rows to a sample and a task of blocks.

    Args:
        sample: Rows.
        task: Task on these rows.
        blocks: Block of each row, 0 to the number of blocks - 1, all of them in use.
        clusters: Cluster of each block, for quotas.
        target_clusters: Cluster of each of the target's blocks.

    Raises:
        InputError: Lengths do not match, or a block has no row.
    """
    count = int(blocks.max()) + 1 if blocks.size else 0
    if len(blocks) != sample.rows.count or len(clusters) != count:
        raise InputError(
            f"{len(blocks)} block numbers for {sample.rows.count} rows and {len(clusters)} "
            f"clusters for {count} blocks: give a block per row and a cluster per block."
        )
    order = np.argsort(blocks, kind="stable")
    sizes = np.bincount(blocks, minlength=count)
    if count == 0 or sizes.min() == 0:
        raise InputError("Every block needs a row.")
    members = tuple(np.split(order, np.cumsum(sizes)[:-1]))
    columns = {}
    for role, column in sample.rows.columns.items():
        is_metric_role = role == "cluster" or role in sample.profile.roles or ":" in role
        if not is_metric_role or np.ndim(column.values) != 1:
            continue
        if role == "cluster" or sample.profile.kind(role) not in _MEAN:
            continue
        valid_rows = np.bincount(blocks, column.valid.astype(float), count)
        summed = np.bincount(blocks, np.where(column.valid, column.values, 0).astype(float), count)
        columns[role] = Column(summed / np.maximum(valid_rows, 1), valid_rows > 0)
    all_valid = np.ones(count, bool)
    columns["cluster"] = Column(np.asarray(clusters, np.int64), all_valid)
    target = None
    if target_clusters is not None:
        target_cluster = np.asarray(target_clusters, np.int64)
        target_rows = Rows(
            len(target_cluster),
            {"cluster": Column(target_cluster, np.ones(len(target_cluster), bool))},
        )
        target = {"cells": CLUSTER_COUNTS.state(target_rows, sample.constants, "in-memory")}
    block_sample = BlockSample(
        Rows(count, columns), sample.profile, sample.constants, target, base=sample, members=members
    )
    return block_sample, replace(task, members=members)
