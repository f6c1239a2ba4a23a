"""Greedy energy distance: near the target, and away from what is selected already.

The published objective is linear in the selected law, so its optimum collapses onto one spot.
The energy distance 2 E|X-W| - E|X-X'| - E|W-W'| has the repulsion that it lacks, and is zero only
at equal laws (Szekely and Rizzo 2013).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gio_spark.errors import ConfigError, InputError
from gio_spark.gio.distances import blocks, centred, squared_distances, squared_norms
from gio_spark.gio.greedy import KEEP_PAIRS, GreedyPath


def energy_greedy(
    target: ArrayLike,
    pool: ArrayLike,
    picks: int | None = None,
    *,
    sizes: ArrayLike | None = None,
    weights: ArrayLike | None = None,
) -> GreedyPath:
    """Pick candidates one by one, each the one that leaves the least energy distance.

    Args:
        target: (n, d) target rows.
        pool: (m, d) candidates.
        picks: how many; all where None.
        sizes: (m,) weight of each candidate in the selected law (rows of its cluster); equal
            where None.
        weights: (n,) weights of target rows; equal where None.

    Returns:
        order: picks, ties to the lowest index. divergence: the energy distance (V-statistic)
        after each. Distances are tiled; memory is a few (m,) arrays and one tile.

    Raises:
        InputError: dimensions differ or sizes are not positive.
        ConfigError: picks out of range.
    """
    x, g = (np.atleast_2d(np.asarray(a)) for a in (target, pool))
    if x.shape[1] != g.shape[1]:
        raise InputError(f"The target has dimension {x.shape[1]} and the pool {g.shape[1]}.")
    many = len(g) if picks is None else picks
    if not 0 <= many <= len(g):
        raise ConfigError(f"picks is {many}; it must lie in 0 to {len(g)}.")
    mass = np.ones(len(g)) if sizes is None else np.asarray(sizes, dtype=np.float64)
    if mass.shape != (len(g),) or not np.all(mass > 0):
        raise InputError("sizes must be one positive number per candidate.")
    share = np.full(len(x), 1.0 / len(x))
    if weights is not None:
        share = np.asarray(weights, dtype=np.float64)
        share = share / share.sum()
    small = len(x) * len(g) <= KEEP_PAIRS
    x, g = centred(x, g, dtype=np.float64 if small else np.float32)
    pull = _mean_distances(g, x, share)
    own = float(share @ _mean_distances(x, x, share))
    return _pick(g, pull, own, mass, many)


def _mean_distances(rows: NDArray, points: NDArray, share: NDArray) -> NDArray:
    """Return sum_i share_i |row - point_i| for every row."""
    norms = squared_norms(points)
    out = np.empty(len(rows))
    for block in blocks(len(rows), len(points), rows.itemsize):
        tile = np.sqrt(squared_distances(rows[block], points, right_norms=norms))
        out[block] = tile @ share
    return out


def _pick(g: NDArray, pull: NDArray, own: float, mass: NDArray, many: int) -> GreedyPath:
    norms = squared_norms(g)
    push = np.zeros(len(g))  # sum over picks of their mass times the distance to them
    free = np.ones(len(g), dtype=bool)
    order = np.empty(many, dtype=np.int64)
    path = np.empty(many)
    held = near = apart = 0.0
    for step in range(many):
        total = held + mass
        value = 2.0 * (near + mass * pull) / total - (apart + 2.0 * mass * push) / total**2
        value[~free] = np.inf
        best = int(np.argmin(value))
        free[best] = False
        near += mass[best] * pull[best]
        apart += 2.0 * mass[best] * push[best]
        held += mass[best]
        squared = squared_distances(g[best : best + 1], g, right_norms=norms)[0]
        squared[best] = 0.0
        push += mass[best] * np.sqrt(squared)
        order[step] = best
        path[step] = value[best] - own
    return GreedyPath(order, path)
