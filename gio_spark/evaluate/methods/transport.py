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

    from gio_spark.evaluate.dataset import EvaluationDataset

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
    """Optimal mass of each pool row.

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
    s = _level(filled[:, :-1], cost, (1.0 - alpha) * m * scale / alpha if alpha else np.inf)
    held = np.minimum(filled, s)
    held[:, -1] = s  # what the list cannot hold stays with its last row
    part = np.diff(held, axis=1, prepend=0.0) / (s * m)
    mass = np.bincount(rows.ravel(), part.ravel(), minlength=pool_rows)
    return Spread(mass.astype(np.float64), float(np.count_nonzero(part) / m))


def _level(filled: NDArray[np.float64], cost: NDArray[np.float64], enough: float) -> float:
    """Least s at which the costs of all neighbours filled by s come to `enough`.

    Args:
        filled: (m, L) s at which a row's first k + 1 neighbours are full, ascending in each row.
        cost: (m, L) cost of a row from there on, ascending in each row.
        enough: Sum of costs at which s stops; the largest of `filled` where it is never reached.
    """

    def spent(s: float) -> float:
        full = np.count_nonzero(filled <= s, axis=1)
        return float(np.where(full > 0, cost[np.arange(len(cost)), full - 1], 0.0).sum())

    low, high = float(filled.min()), float(filled.max())
    if spent(low) >= enough:
        return low
    # Halve to the last float between them, then take the event that `high` has come down to.
    while low < (middle := 0.5 * (low + high)) < high:
        low, high = (low, middle) if spent(middle) >= enough else (middle, high)
    return float(filled[filled <= high].max())


def near_copies(dataset: EvaluationDataset, width: float) -> NDArray[np.float64]:
    """Density of near copies around pool rows, (n,): sum of max(0, 1 - d^2 / width^2).

    A row itself counts. Only rows of one cluster are compared: near copies lie in one cluster, but
    for a few at its border.
    """
    pool = centred(dataset)[1]
    order = np.argsort(dataset.cluster, kind="stable")
    ends = np.cumsum(dataset.sizes)
    out = np.ones(dataset.rows)
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


def _spread(dataset: EvaluationDataset, *, copies: bool) -> Spread:
    def make() -> Spread:
        lists = neighbours(dataset, min(MOST, max(32, dataset.rows // 10)))
        lists = Neighbours(lists.rows[:, :MOST], lists.distance[:, :MOST])
        # The scale of distances: what a target row pays for an average neighbour on its list.
        scale = max(float(lists.distance.mean()), 1e-12)
        weight = None
        if copies:
            weight = near_copies(dataset, NEAR_COPY * scale)
        return transport_mass(lists.distance, lists.rows, dataset.rows, weight, scale=scale)

    return shared(dataset, ("transport", copies), make)


def _draw(dataset: EvaluationDataset, budget: int, seed: int, name: str, *, copies: bool) -> Chosen:
    spread = _spread(dataset, copies=copies)
    reached = np.flatnonzero(spread.mass > 0)
    note = f"A target row's mass reaches {spread.reached:.0f} rows."
    score = np.full(dataset.rows, -np.inf)
    noise = gumbel(dataset, seed, name)
    score[reached] = np.log(spread.mass[reached]) + noise[reached]
    if len(reached) < budget:
        note += f" {budget - len(reached)} rows have no mass: taken by distance to the target."
    order = np.lexsort((target_distance(dataset), -score))
    return Chosen(np.sort(order[:budget]).astype(np.int64), note)


@method("tsds", needs=("target_vectors",))
def tsds(dataset: EvaluationDataset, budget: int, seed: int) -> Chosen:
    """Draw rows by optimal transport with even shares (TSDS, KNN-Uniform)."""
    return _draw(dataset, budget, seed, "tsds", copies=False)


@method("tsds_kde", needs=("target_vectors",))
def tsds_kde(dataset: EvaluationDataset, budget: int, seed: int) -> Chosen:
    """Draw rows by optimal transport, near copies sharing one row's mass (TSDS, KNN-KDE)."""
    return _draw(dataset, budget, seed, "tsds_kde", copies=True)
