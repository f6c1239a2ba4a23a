"""k-NN KL by lazy greedy: cover the target, k-fold, in log distance.

Wang, Kulkarni, Verdu's estimate falls with the log distance of each target row to its k-th
neighbour in the selection. For k > 1 the k-th neighbour's gain is not submodular, so the mean log
distance over the k nearest stands in for it: the sum of the k smallest of a set is, and then an
old gain bounds a new one and most candidates are never looked at again.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gio_spark.errors import ConfigError, InputError
from gio_spark.gio.distances import (
    blocks,
    centred,
    neighbour_distances,
    squared_distances,
    squared_norms,
)
from gio_spark.gio.exact import SQUARED_RANGE

#: Pairs up to which log distances are kept (float64); beyond, they are computed when needed.
KEEP_PAIRS = 5 * 10**7
#: Candidates brought up to date at once.
BATCH = 48


class GreedyPath(NamedTuple):
    """Picks in order, and the divergence after each."""

    order: NDArray
    divergence: NDArray


class _LogDistances:
    """Log distances candidates x target, kept where they fit and computed where not."""

    def __init__(self, pool: NDArray, target: NDArray) -> None:
        small = len(pool) * len(target) <= KEEP_PAIRS
        kind = np.float64 if small else np.float32
        self.target, self.pool = centred(target, pool, dtype=kind)
        self.norms = squared_norms(self.target)
        self.itemsize = np.dtype(kind).itemsize
        self.kept: NDArray | None = None
        if small:
            self.kept = np.empty((len(pool), len(target)))
            for block in self.blocks():
                self.kept[block] = self._compute(self.pool[block])

    def _compute(self, rows: NDArray) -> NDArray:
        tile = squared_distances(rows, self.target, right_norms=self.norms)
        np.clip(tile, *SQUARED_RANGE, out=tile)
        np.log(tile, out=tile)
        tile *= 0.5
        return tile

    def rows(self, which: NDArray | slice) -> NDArray:
        """Return log distances of some candidates, (b, n)."""
        return self.kept[which] if self.kept is not None else self._compute(self.pool[which])

    def blocks(self) -> list[slice]:
        return list(blocks(len(self.pool), len(self.target), self.itemsize))


def knn_greedy(
    target: ArrayLike,
    pool: ArrayLike,
    picks: int | None = None,
    *,
    k: int = 1,
    weights: ArrayLike | None = None,
) -> GreedyPath:
    """Pick candidates that lower the mean log distance over the k nearest the most.

    For k = 1 this is a facility location problem: the greedy set has at least 1 - 1/e of the
    best possible gain over a fixed background distance (not of the divergence itself).

    Args:
        target: (n, d) target rows.
        pool: (m, d) candidates.
        picks: how many; all where None.
        k: neighbours.
        weights: (n,) weights of target rows; equal where None.

    Returns:
        order: picks, ties to the lowest index. divergence: (d/n) sum_i (mean log distance to the
        k nearest picks - the same inside the target) + log(m/(n-1)), after each pick (over as
        many neighbours as there are picks, while these are fewer than k).

    Raises:
        InputError: dimensions differ, or the target has at most k rows.
        ConfigError: k or picks out of range.
    """
    x, g = (np.atleast_2d(np.asarray(a)) for a in (target, pool))
    if x.shape[1] != g.shape[1]:
        raise InputError(f"The target has dimension {x.shape[1]} and the pool {g.shape[1]}.")
    if len(x) <= k:
        raise InputError(f"The target has {len(x)} rows; k={k} needs more than {k}.")
    many = len(g) if picks is None else picks
    if k < 1 or not 0 <= many <= len(g):
        raise ConfigError(f"k is {k} and picks {many}; k >= 1 and picks in 0 to {len(g)}.")
    share = np.full(len(x), 1.0 / len(x))
    if weights is not None:
        share = np.asarray(weights, dtype=np.float64)
        share = share / share.sum()
    logs = _LogDistances(g, x)
    inner = neighbour_distances(x, x, k, skip_self=True)
    rho = 0.5 * np.log(np.clip(inner, *SQUARED_RANGE))
    return _pick(logs, share, many, k, np.cumsum(share @ rho), x.shape)


def _pick(
    logs: _LogDistances,
    share: NDArray,
    many: int,
    k: int,
    rho: NDArray,
    shape: tuple[int, ...],
) -> GreedyPath:
    n, d = shape
    count = len(logs.pool)
    bound = np.empty(count)
    far = -np.inf
    for block in logs.blocks():
        tile = logs.rows(block)
        bound[block] = -(tile @ share)
        far = max(far, float(tile.max()))
    bound += far
    nearest = np.full((n, k), far)  # ascending: the k nearest picks of every target row
    order = np.empty(many, dtype=np.int64)
    path = np.empty(many)
    for step in range(many):
        best = _best(logs, share, bound, nearest[:, -1])
        bound[best] = -np.inf
        order[step] = best
        row = logs.rows(np.array([best]))[0]
        # Insert into the ascending k nearest; the farthest of them drops out.
        for slot in range(k - 1, 0, -1):
            nearest[:, slot] = np.minimum(nearest[:, slot], np.maximum(row, nearest[:, slot - 1]))
        nearest[:, 0] = np.minimum(nearest[:, 0], row)
        used = min(k, step + 1)
        mean = float(share @ nearest[:, :used].sum(axis=1)) / used
        path[step] = d * (mean - float(rho[used - 1]) / used) + np.log((step + 1) / (n - 1))
    return GreedyPath(order, path)


def _best(logs: _LogDistances, share: NDArray, bound: NDArray, last: NDArray) -> int:
    """Return the candidate of the largest gain, bringing bounds up to date where needed."""
    fresh = np.zeros(len(bound), dtype=bool)
    batch = BATCH
    while True:
        stale = np.where(fresh, -np.inf, bound)
        top = float(bound[fresh].max()) if fresh.any() else -np.inf
        able = np.flatnonzero((stale > -np.inf) & (stale >= top))
        if len(able) == 0:
            break
        if len(able) > batch:
            able = able[np.argpartition(-stale[able], batch - 1)[:batch]]
        gain = np.maximum(last[None, :] - logs.rows(able), 0.0) @ share
        # Rounding may lift a gain above its old bound by a last bit; keep bounds falling.
        bound[able] = np.minimum(bound[able], gain)
        fresh[able] = True
    left = np.flatnonzero(fresh)
    if len(left) == 0:
        return int(np.flatnonzero(bound > -np.inf)[0])
    return int(left[np.argmax(bound[left])])
