"""Selection by blocks instead of rows: a station's day, a document's chunks, a user's session.

Rows that belong together are taken or left together. A block stands for its rows in draws and
quotas; metrics and models see the rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from gio_spark.errors import InputError
from gio_spark.gime.accumulators import CELLS
from gio_spark.gime.rows import Column, Rows
from gio_spark.gime.subsets import Sample
from gio_spark.gime.train import Task

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
        """Robust metrics of the rows of some blocks (None: of all)."""
        if index is None:
            return self.base.metrics()
        return self.base.metrics(expanded(index, self.members))

    def directions(self) -> dict[str, int]:
        """Those of the rows' metrics."""
        return self.base.directions()


def expanded(index: NDArray[np.intp], members: tuple[NDArray[np.intp], ...]) -> NDArray[np.intp]:
    """Rows of some blocks, sorted."""
    return np.sort(np.concatenate([members[i] for i in index]))


def in_blocks(
    sample: Sample,
    task: Task,
    blocks: NDArray[np.int64],
    cells: NDArray[np.int64],
    target_cells: NDArray[np.int64] | None = None,
) -> tuple[BlockSample, Task]:
    """Turn a sample and a task of rows into those of blocks.

    Args:
        sample: Rows.
        task: What is learnt from them.
        blocks: Block of each row, 0 to the number of blocks - 1, all of them in use.
        cells: Cell of each block, for quotas.
        target_cells: Cell of each of the target's blocks.

    Raises:
        InputError: Lengths do not match, or a block has no row.
    """
    count = int(blocks.max()) + 1 if blocks.size else 0
    if len(blocks) != sample.rows.count or len(cells) != count:
        raise InputError(
            f"{len(blocks)} block numbers for {sample.rows.count} rows and {len(cells)} cells for "
            f"{count} blocks: give a block per row and a cell per block."
        )
    order = np.argsort(blocks, kind="stable")
    sizes = np.bincount(blocks, minlength=count)
    if count == 0 or sizes.min() == 0:
        raise InputError("Every block needs a row.")
    members = tuple(np.split(order, np.cumsum(sizes)[:-1]))
    columns = {}
    for role, column in sample.rows.columns.items():
        known = role == "cluster" or role in sample.profile.roles or ":" in role
        if not known or np.ndim(column.values) != 1:
            continue
        if role == "cluster" or sample.profile.kind(role) not in _MEAN:
            continue
        held = np.bincount(blocks, column.valid.astype(float), count)
        summed = np.bincount(blocks, np.where(column.valid, column.values, 0).astype(float), count)
        columns[role] = Column(summed / np.maximum(held, 1), held > 0)
    every = np.ones(count, bool)
    columns["cluster"] = Column(np.asarray(cells, np.int64), every)
    target = None
    if target_cells is not None:
        seen = np.asarray(target_cells, np.int64)
        theirs = Rows(len(seen), {"cluster": Column(seen, np.ones(len(seen), bool))})
        target = {"cells": CELLS.state(theirs, sample.constants, "in-memory")}
    made = BlockSample(
        Rows(count, columns), sample.profile, sample.constants, target, base=sample, members=members
    )
    return made, replace(task, members=members)
