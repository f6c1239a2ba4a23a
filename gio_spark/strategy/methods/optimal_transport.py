"""Selection by optimal transport (TSDS: Liu, Karbasi, Rekatsinas, NeurIPS 2024).

Each target row distributes its mass over its nearest pool rows. Their number balances the cost of
transport, with weight alpha / C, and the evenness of shares, with weight 1 - alpha. Both optima are
closed sums over sorted lists (KNN-Uniform and KNN-KDE in the paper), so nothing is iterated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gio_spark.gio.distances import squared_distances, squared_norms
from gio_spark.strategy.methods.hash_draws import gumbel
from gio_spark.strategy.methods.method_registry import MethodResult, method
from gio_spark.strategy.methods.neighbor_lists import (
    NeighborLists,
    centered,
    nearest_rows,
    target_distance,
)
from gio_spark.strategy.methods.shared_work import compute_once

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gio_spark.strategy.evaluation_dataset import EvaluationDataset

#: Weight of transport against evenness, as in the paper.
ALPHA = 0.5
#: Most neighbors that the mass of a target row reaches (5,000 as published).
MAX_NEIGHBORS = 5_000
#: Rows closer than this share of the mean distance count as near copies of one another.
NEAR_COPY = 0.5
_BLOCK = 1_024


class TransportMass(NamedTuple):
    """Mass of each pool row, (n,), sum 1, and the mean number of rows a target row reaches."""

    mass: NDArray[np.float64]
    reached_rows: float


def transport_mass(
    distance: NDArray[np.floating],
    rows: NDArray[np.integer],
    pool_rows: int,
    weight: NDArray[np.floating] | None = None,
    *,
    alpha: float = ALPHA,
    scale: float = 1.0,
) -> TransportMass:
    """Optimal transport mass of each pool row.

    A neighbor takes at most a share 1 / (s density) of the mass of its target row, nearest first.
    Raising s past the first k neighbors of row j moves mass to the next neighbor and raises the
    transport cost by the sum over i <= k of (d_(k+1) - d_i) / density_i. The optimal s is where
    alpha / C times the sum of these costs over j reaches (1 - alpha) m.

    Args:
        distance: (m, L) distances of the nearest pool rows, ascending.
        rows: (m, L) the nearest pool rows.
        pool_rows: Number of pool rows n.
        weight: (n,) density of near copies around each pool row; None: 1 (KNN-Uniform).
        alpha: Weight of the transport, 0 to 1.
        scale: Scale of distances C.

    Example:
        >>> distance = np.array([[0.1, 0.5, 0.9], [0.2, 0.3, 0.4]])
        >>> rows = np.array([[0, 1, 2], [2, 1, 0]])
        >>> transport_mass(distance, rows, 3, alpha=1.0).mass.tolist()
        [0.5, 0.0, 0.5]
    """
    target_rows, length = distance.shape
    distances = distance.astype(np.float64)
    share = np.ones((target_rows, length)) if weight is None else 1.0 / weight[rows]
    filled = np.cumsum(share, axis=1)
    # Cost of row j when its first k + 1 neighbors are full and mass moves to the next one.
    cost = distances[:, 1:] * filled[:, :-1] - np.cumsum(distances * share, axis=1)[:, :-1]
    cost = np.maximum.accumulate(np.maximum(cost, 0.0), axis=1)
    level = _level(
        filled[:, :-1], cost, (1.0 - alpha) * target_rows * scale / alpha if alpha else np.inf
    )
    filled_below = np.minimum(filled, level)
    filled_below[:, -1] = level  # mass beyond the list stays with its last row
    mass_of_neighbor = np.diff(filled_below, axis=1, prepend=0.0) / (level * target_rows)
    mass = np.bincount(rows.ravel(), mass_of_neighbor.ravel(), minlength=pool_rows)
    return TransportMass(
        mass.astype(np.float64), float(np.count_nonzero(mass_of_neighbor) / target_rows)
    )


def _level(filled: NDArray[np.float64], cost: NDArray[np.float64], limit: float) -> float:
    """Smallest s at which the costs of all neighbors filled by s reach `limit`.

    Args:
        filled: (m, L) s at which the first k + 1 neighbors of a row are full, ascending per row.
        cost: (m, L) cost of a row from that s on, ascending per row.
        limit: Sum of costs; if it is never reached, s is the largest value of `filled`.
    """

    def total_cost(level: float) -> float:
        full = np.count_nonzero(filled <= level, axis=1)
        return float(np.where(full > 0, cost[np.arange(len(cost)), full - 1], 0.0).sum())

    low, high = float(filled.min()), float(filled.max())
    if total_cost(low) >= limit:
        return low
    # Bisect until `low` and `high` are adjacent floats, then take the last event up to `high`.
    while low < (midpoint := 0.5 * (low + high)) < high:
        low, high = (low, midpoint) if total_cost(midpoint) >= limit else (midpoint, high)
    return float(filled[filled <= high].max())


def near_copies(dataset: EvaluationDataset, width: float) -> NDArray[np.float64]:
    """Density of near copies around pool rows, (n,): sum of max(0, 1 - d^2 / width^2).

    A row counts itself. Only rows of the same cluster are compared, since nearly all near copies
    are in the same cluster.
    """
    pool = centered(dataset)[1]
    order = np.argsort(dataset.cluster, kind="stable")
    ends = np.cumsum(dataset.sizes)
    density_of_row = np.ones(dataset.rows)
    for members in np.split(order, ends[:-1]):
        vectors = pool[members]
        norms = squared_norms(vectors)
        for start in range(0, len(members), _BLOCK):
            tile = squared_distances(vectors[start : start + _BLOCK], vectors, right_norms=norms)
            tile *= np.float32(-1.0 / max(width * width, 1e-30))
            tile += 1.0
            np.maximum(tile, 0.0, out=tile)
            density = np.maximum(1.0, tile.sum(axis=1, dtype=np.float64))
            density_of_row[members[start : start + _BLOCK]] = density
    return density_of_row


def _transport_mass(dataset: EvaluationDataset, *, share_copies: bool) -> TransportMass:
    def compute() -> TransportMass:
        lists = nearest_rows(dataset, min(MAX_NEIGHBORS, max(32, dataset.rows // 10)))
        lists = NeighborLists(lists.rows[:, :MAX_NEIGHBORS], lists.distance[:, :MAX_NEIGHBORS])
        # Scale of distances: the mean distance of a target row to the neighbors on its list.
        scale = max(float(lists.distance.mean()), 1e-12)
        weight = None
        if share_copies:
            weight = near_copies(dataset, NEAR_COPY * scale)
        return transport_mass(lists.distance, lists.rows, dataset.rows, weight, scale=scale)

    return compute_once(dataset, ("transport", share_copies), compute)


def _draw_rows(
    dataset: EvaluationDataset, budget: int, seed: int, name: str, *, share_copies: bool
) -> MethodResult:
    transport = _transport_mass(dataset, share_copies=share_copies)
    reached_rows = np.flatnonzero(transport.mass > 0)
    note = f"A target row's mass reaches {transport.reached_rows:.0f} rows."
    score = np.full(dataset.rows, -np.inf)
    noise = gumbel(dataset, seed, name)
    score[reached_rows] = np.log(transport.mass[reached_rows]) + noise[reached_rows]
    if len(reached_rows) < budget:
        note += f" {budget - len(reached_rows)} rows have no mass: taken by distance to the target."
    order = np.lexsort((target_distance(dataset), -score))
    return MethodResult(np.sort(order[:budget]).astype(np.int64), note)


@method("tsds", needs=("target_vectors",))
def tsds(dataset: EvaluationDataset, budget: int, seed: int) -> MethodResult:
    """Draw rows by optimal transport with even shares (TSDS, KNN-Uniform)."""
    return _draw_rows(dataset, budget, seed, "tsds", share_copies=False)


@method("tsds_kde", needs=("target_vectors",))
def tsds_kde(dataset: EvaluationDataset, budget: int, seed: int) -> MethodResult:
    """Draw rows by optimal transport, near copies sharing one row's mass (TSDS, KNN-KDE)."""
    return _draw_rows(dataset, budget, seed, "tsds_kde", share_copies=True)
