"""Greedy energy distance: picks near the target and away from the rows picked before.

The published objective is linear in the distribution of the selection, so its optimum collapses
onto one point. The energy distance 2 E|X-W| - E|X-X'| - E|W-W'| has the repulsion that it lacks,
and is zero only at equal distributions (Szekely and Rizzo 2013).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gio_spark.errors import ConfigError, InputError
from gio_spark.gio.distances import blocks, centered, squared_distances, squared_norms
from gio_spark.gio.greedy_knn import KEEP_PAIRS, GreedyPath


def energy_greedy(
    target: ArrayLike,
    pool: ArrayLike,
    picks: int | None = None,
    *,
    sizes: ArrayLike | None = None,
    weights: ArrayLike | None = None,
) -> GreedyPath:
    """Order of candidates by greedy steps, each to the least energy distance from the target.

    Args:
        target: (n, d) target rows.
        pool: (m, d) candidates.
        picks: Number of picks; all candidates where None.
        sizes: (m,) weight of each candidate in the selection (rows of its cluster); equal where
            None.
        weights: (n,) weights of target rows; equal where None.

    Returns:
        order: picks, ties to the lowest index. divergence: the energy distance (V-statistic)
        after each. Distances are tiled; memory is a few (m,) arrays and one tile.

    Raises:
        InputError: Dimensions differ or sizes are not positive.
        ConfigError: `picks` is out of range.

    Example:
        >>> energy_greedy([[0.0], [4.0]], [[9.0], [0.0], [4.0]], 2).order
        array([1, 2])
    """
    x, g = (np.atleast_2d(np.asarray(a)) for a in (target, pool))
    if x.shape[1] != g.shape[1]:
        raise InputError(f"The target has dimension {x.shape[1]} and the pool {g.shape[1]}.")
    pick_count = len(g) if picks is None else picks
    if not 0 <= pick_count <= len(g):
        raise ConfigError(f"picks is {pick_count}; it must lie in 0 to {len(g)}.")
    mass = np.ones(len(g)) if sizes is None else np.asarray(sizes, dtype=np.float64)
    if mass.shape != (len(g),) or not np.all(mass > 0):
        raise InputError("sizes must be one positive number per candidate.")
    share = np.full(len(x), 1.0 / len(x))
    if weights is not None:
        share = np.asarray(weights, dtype=np.float64)
        share = share / share.sum()
    small = len(x) * len(g) <= KEEP_PAIRS
    x, g = centered(x, g, dtype=np.float64 if small else np.float32)
    to_target = _mean_distances(g, x, share)
    within_target = float(share @ _mean_distances(x, x, share))
    return _pick(g, to_target, within_target, mass, pick_count)


def _mean_distances(rows: NDArray, points: NDArray, share: NDArray) -> NDArray:
    """Weighted mean distance sum_i share_i |row - point_i| of every row."""
    norms = squared_norms(points)
    out = np.empty(len(rows))
    for block in blocks(len(rows), len(points), rows.itemsize):
        tile = np.sqrt(squared_distances(rows[block], points, right_norms=norms))
        out[block] = tile @ share
    return out


def _pick(
    g: NDArray, to_target: NDArray, within_target: float, mass: NDArray, pick_count: int
) -> GreedyPath:
    norms = squared_norms(g)
    to_selected = np.zeros(len(g))  # sum over picks of their mass times the distance to them
    is_free = np.ones(len(g), dtype=bool)
    order = np.empty(pick_count, dtype=np.int64)
    path = np.empty(pick_count)
    selected_mass = weighted_to_target = weighted_pairs = 0.0
    for step in range(pick_count):
        total = selected_mass + mass
        energy = (
            2.0 * (weighted_to_target + mass * to_target) / total
            - (weighted_pairs + 2.0 * mass * to_selected) / total**2
        )
        energy[~is_free] = np.inf
        best = int(np.argmin(energy))
        is_free[best] = False
        weighted_to_target += mass[best] * to_target[best]
        weighted_pairs += 2.0 * mass[best] * to_selected[best]
        selected_mass += mass[best]
        squared = squared_distances(g[best : best + 1], g, right_norms=norms)[0]
        squared[best] = 0.0
        to_selected += mass[best] * np.sqrt(squared)
        order[step] = best
        path[step] = energy[best] - within_target
    return GreedyPath(order, path)
