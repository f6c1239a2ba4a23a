"""Selection by optimal transport (TSDS: Liu, Karbasi, Rekatsinas, NeurIPS 2024).

Each target row spreads its mass over its nearest pool rows. How many is a trade: the cost of
transport, weighed by alpha / C, against even shares, weighed by 1 - alpha. Both optima are closed
sums over sorted lists (the paper's KNN-Uniform and KNN-KDE), so nothing is iterated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gio_spark.evaluate.methods.base import Chosen, method
from gio_spark.evaluate.methods.draws import gumbel
from gio_spark.evaluate.methods.neighbours import Neighbours, centred, neighbours, target_distance
from gio_spark.evaluate.methods.shared import shared
from gio_spark.gio.distances import squared_distances, squared_norms

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gio_spark.evaluate.arena import Arena

#: The paper's trade between transport and evenness.
ALPHA = 0.5
#: Neighbours that a target row's mass reaches at most (5,000 as published).
MOST = 5_000
#: Rows within this part of the typical distance count as near copies of one another.
NEAR_COPY = 0.5
_BLOCK = 1_024


class Spread(NamedTuple):
    """Mass per pool row, (n,), sums to 1; and neighbours that a target row reaches, on average."""

    mass: NDArray[np.float64]
    reached: float


def transport_mass(
    distance: NDArray[np.floating],
    rows: NDArray[np.integer],
    pool_rows: int,
    weight: NDArray[np.floating] | None = None,
    *,
    alpha: float = ALPHA,
    scale: float = 1.0,
) -> Spread:
    """Return the optimal mass of each pool row.

    A neighbour holds at most a share 1 / (s density) of its target row's mass, nearest first. The
    price of raising s is what must move on: with s raised past the first k neighbours of row j, its
    transport costs sum over i <= k of (d_(k+1) - d_i) / density_i more. s stops where alpha / C
    times the sum of these over j reaches (1 - alpha) m.

    Args:
        distance: (m, L) distances of the nearest pool rows, ascending.
        rows: (m, L) these rows.
        pool_rows: n.
        weight: (n,) density of near copies around each pool row; 1 where None (KNN-Uniform).
        alpha: Weight of the transport, 0 to 1.
        scale: C, the scale of distances.
    """
    m, length = distance.shape
    d = distance.astype(np.float64)
    share = np.ones((m, length)) if weight is None else 1.0 / weight[rows]
    filled = np.cumsum(share, axis=1)
    # Cost of row j when its first k + 1 neighbours are full and mass goes on to the next one.
    cost = d[:, 1:] * filled[:, :-1] - np.cumsum(d * share, axis=1)[:, :-1]
    cost = np.maximum.accumulate(np.maximum(cost, 0.0), axis=1)
    # Events in order of s: row j's k-th neighbour is full when s reaches filled[j, k].
    event = np.argsort(filled[:, :-1], axis=None, kind="stable")
    steps = np.diff(cost, axis=1, prepend=0.0).ravel()[event]
    beyond = np.flatnonzero(alpha / scale * np.cumsum(steps) >= (1.0 - alpha) * m)
    last = int(beyond[0]) if len(beyond) else len(event) - 1
    s = float(filled[:, :-1].ravel()[event[last]])
    held = np.minimum(filled, s)
    held[:, -1] = s  # what the list cannot hold stays with its last row
    part = np.diff(held, axis=1, prepend=0.0) / (s * m)
    mass = np.bincount(rows.ravel(), part.ravel(), minlength=pool_rows)
    return Spread(mass.astype(np.float64), float(np.count_nonzero(part) / m))


def near_copies(arena: Arena, width: float) -> NDArray[np.float64]:
    """Return the density of near copies around pool rows, (n,): sum of max(0, 1 - d^2 / width^2).

    A row itself counts. Only rows of one cluster are compared: near copies lie in one cluster, but
    for a few at its border.
    """
    pool = centred(arena)[1]
    order = np.argsort(arena.cluster, kind="stable")
    ends = np.cumsum(arena.sizes)
    out = np.ones(arena.rows)
    for members in np.split(order, ends[:-1]):
        inside = pool[members]
        norms = squared_norms(inside)
        for start in range(0, len(members), _BLOCK):
            tile = squared_distances(inside[start : start + _BLOCK], inside, right_norms=norms)
            tile *= np.float32(-1.0 / max(width * width, 1e-30))
            tile += 1.0
            np.maximum(tile, 0.0, out=tile)
            density = np.maximum(1.0, tile.sum(axis=1, dtype=np.float64))
            out[members[start : start + _BLOCK]] = density
    return out


def _spread(arena: Arena, *, copies: bool) -> Spread:
    def make() -> Spread:
        lists = neighbours(arena, min(MOST, max(32, arena.rows // 10)))
        lists = Neighbours(lists.rows[:, :MOST], lists.distance[:, :MOST])
        # The scale of distances: what a target row pays for an average neighbour on its list.
        scale = max(float(lists.distance.mean()), 1e-12)
        weight = None
        if copies:
            weight = near_copies(arena, NEAR_COPY * scale)
        return transport_mass(lists.distance, lists.rows, arena.rows, weight, scale=scale)

    return shared(arena, ("transport", copies), make)


def _draw(arena: Arena, budget: int, seed: int, name: str, *, copies: bool) -> Chosen:
    spread = _spread(arena, copies=copies)
    reached = np.flatnonzero(spread.mass > 0)
    note = f"A target row's mass reaches {spread.reached:.0f} rows."
    score = np.full(arena.rows, -np.inf)
    noise = gumbel(arena, seed, name)
    score[reached] = np.log(spread.mass[reached]) + noise[reached]
    if len(reached) < budget:
        note += f" {budget - len(reached)} rows have no mass: taken by distance to the target."
    order = np.lexsort((target_distance(arena), -score))
    return Chosen(np.sort(order[:budget]).astype(np.int64), note)


@method("tsds", needs=("target_vectors",))
def tsds(arena: Arena, budget: int, seed: int) -> Chosen:
    """Draw rows by optimal transport with even shares (TSDS, KNN-Uniform)."""
    return _draw(arena, budget, seed, "tsds", copies=False)


@method("tsds_kde", needs=("target_vectors",))
def tsds_kde(arena: Arena, budget: int, seed: int) -> Chosen:
    """Draw rows by optimal transport, near copies sharing one row's mass (TSDS, KNN-KDE)."""
    return _draw(arena, budget, seed, "tsds_kde", copies=True)
