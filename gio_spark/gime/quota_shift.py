"""Quota moved between cells within what a plan must keep: its budget, and shares of sources.

A stratum is a source of a cell; where sources are not bounded, there is one per cell. Amounts are
in the budget's unit: rows, or tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# A row fits where its cost is within this of the room that is left.
_SLACK = 1e-9
_ROUNDS = 16


@dataclass(frozen=True, eq=False)
class Limits:
    """What every moved plan keeps.

    Attributes:
        sizes: Rows that there are, (K, S); S is 1 without bounds on sources.
        cost: Amount of a row of each stratum, (K, S): 1, or its mean tokens. A stratum whose rows
            cost nothing is not used.
        budget: Amount that is never passed.
        floor: Least amount of each source, (S,); kept to within one row.
        cap: Most of each source, (S,); never passed.
    """

    sizes: NDArray[np.int64]
    cost: NDArray[np.float64]
    budget: float
    floor: NDArray[np.float64]
    cap: NDArray[np.float64]

    @classmethod
    def of_rows(cls, sizes: NDArray[np.int64], budget: int) -> Limits:
        """Those of a budget in rows without bounds on sources; sizes is (K,)."""
        wide = np.asarray(sizes, np.int64)[:, None]
        return cls(wide, np.ones(wide.shape), budget, np.zeros(1), np.array([float(budget)]))

    @property
    def usable(self) -> NDArray[np.int64]:
        """Rows of each stratum that can be taken, (K, S)."""
        return np.where((self.cost > 0) & (self.cap > 0)[None, :], self.sizes, 0)

    def spent(self, take: NDArray[np.int64]) -> NDArray[np.float64]:
        """What rows per stratum (K, S) come to per source, (S,)."""
        return np.asarray((take * self.cost).sum(axis=0), np.float64)


def shift(
    take: NDArray[np.int64],
    need: NDArray[np.float64],
    amount: float,
    limits: Limits,
    *,
    most: NDArray[np.int64] | None = None,
    keep_one: bool = False,
) -> NDArray[np.int64]:
    """Move an amount from the cells of least need to those of most.

    Rows are given up in order of need, lowest first; sources below their floor are filled up
    again, then the cells of most need are, within caps and budget, and what finds no place goes
    back to where it came from.

    Args:
        take: Rows per stratum, (K, S).
        need: How much a further row of a cell would help, (K,).
        amount: What to move, in the budget's unit.
        limits: What must be kept.
        most: Rows that a cell gains at most, (K,); None: as many as it holds.
        keep_one: Whether a stratum keeps its last row.

    Returns:
        Rows per stratum; as they were, where less could be placed again than was given up.
    """
    cells, sources = take.shape
    need = np.repeat(np.asarray(need, np.float64), sources)
    source = np.tile(np.arange(sources), cells)
    cost, usable = limits.cost.ravel(), limits.usable.ravel()
    had = take.ravel()
    # Rows of the same need are taken from the source that has most above its floor, and put into
    # the one that has most below its cap.
    held = limits.spent(take)
    down = np.lexsort((-(held - limits.floor)[source], need))
    up = np.lexsort((-(limits.cap - held)[source], -need))
    free = np.full(sources, np.inf)
    gone = _filled(down, np.maximum(had - keep_one, 0), cost, source, free, amount)
    moved = had - gone

    def left() -> tuple[NDArray[np.float64], float]:
        spent = np.bincount(source, moved * cost, sources).astype(np.float64)
        return spent, limits.budget - float(spent.sum())

    spent, room = left()
    # A source is above its floor by less than a row.
    step = np.where((limits.cost == 1).all(axis=0), 0.0, limits.cost.max(axis=0))
    short = np.where(spent < limits.floor - _SLACK, limits.floor + step - spent, 0.0)
    short = np.minimum(short, np.maximum(limits.cap - spent, 0))
    moved = moved + _filled(up, usable - moved, cost, source, short, room)
    gain = usable - moved
    if most is not None:
        gain = np.minimum(gain, np.maximum(np.repeat(most, sources) - (moved - had), 0))
    for rows in (gain, np.maximum(had - moved, 0), usable - moved):
        for _ in range(_ROUNDS):
            spent, room = left()
            rows = np.minimum(rows, usable - moved)
            added = _filled(up, rows, cost, source, limits.cap - spent, room)
            if not added.any():
                break
            moved, rows = moved + added, rows - added
    lost = float((had * cost).sum() - (moved * cost).sum())
    row = 0.0 if (limits.cost == 1).all() else float(cost.max())
    return take if lost > row + _SLACK else moved.reshape(take.shape)


def _filled(
    order: NDArray[np.intp],
    rows: NDArray[np.int64],
    cost: NDArray[np.float64],
    source: NDArray[np.intp],
    room: NDArray[np.float64],
    total: float,
) -> NDArray[np.int64]:
    """Rows per stratum: as many as fit, in order, within the room of each source and all."""
    price = np.where(cost > 0, cost, 1.0)[order]
    wanted = np.where(cost > 0, rows, 0)[order] * price
    mine = source[order]
    by_source = np.argsort(mine, kind="stable")
    sizes = np.bincount(mine, minlength=room.size)
    running = np.cumsum(wanted[by_source]) - wanted[by_source]
    starts = np.r_[0.0, np.cumsum(np.bincount(mine, wanted, room.size))[:-1]]
    before = np.empty_like(wanted)
    before[by_source] = running - np.repeat(starts, sizes)
    fits = np.clip(room[mine] - before, 0, wanted)
    fits = np.floor(fits / price + _SLACK) * price
    fits = np.clip(total - (np.cumsum(fits) - fits), 0, fits)
    found = np.zeros(rows.size, np.int64)
    found[order] = np.floor(fits / price + _SLACK).astype(np.int64)
    return found
