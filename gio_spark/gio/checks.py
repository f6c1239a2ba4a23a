"""Checks on the user's own data, and the signs that a selection has failed.

The first three are proposed by the paper (Everaert and Potts, arXiv 2306.11670, section 4). Each
gives a plain verdict with the numbers behind it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gio_spark.errors import InputError
from gio_spark.gio.auto import heldout_curve
from gio_spark.gio.estimators import energy_distance, jsd_histogram
from gio_spark.gio.mass import kernel_mass, nearest_clusters, relative_reach
from gio_spark.gio.problem import Notice, SelectionResult

#: Target rows per used cluster below which shares per cluster say little.
FEW_ROWS = 50
#: Fewer clusters than this cannot tell one kind of row from another.
FEW_CLUSTERS = 20


@dataclass(frozen=True, eq=False)
class Check:
    """A verdict.

    Attributes:
        name: of the check.
        passed: whether it held.
        text: what was found, in plain words.
        remedy: what to do where it failed.
        figures: the numbers behind it.
        series: arrays to draw it from, by name.
    """

    name: str
    passed: bool
    text: str
    remedy: str
    figures: Mapping[str, float] = field(default_factory=dict)
    series: Mapping[str, NDArray] = field(default_factory=dict)


def self_consistency(
    first_mass: ArrayLike, second_counts: ArrayLike, sizes: ArrayLike, *, least: float = 0.85
) -> Check:
    """Check that a target drawn from the pool itself makes nearly all of the pool worth taking.

    Args:
        first_mass: (K,) mass of one half of a sample of the pool, used as the target.
        second_counts: (K,) rows per cluster of the other half, held out.
        sizes: (K,) pool rows per cluster.
        least: share of the pool that must be worth taking.
    """
    held = np.asarray(sizes, dtype=np.float64)
    curve = heldout_curve(first_mass, second_counts, held)
    share = curve.chosen / float(held.sum())
    return Check(
        "self_consistency",
        share >= least,
        f"With a sample of the pool as its own target, {share:.1%} of the pool is worth taking "
        f"(at least {least:.0%} expected).",
        "Use fewer clusters, or a larger sample: shares per cluster are too noisy.",
        {"share": share, "budget": curve.chosen, "least": least},
        {
            "share": curve.budgets / float(held.sum()),
            "cross_entropy": curve.cross_entropy,
            "standard_error": curve.standard_error,
        },
    )


def negative_consistency(
    pool_centroids: ArrayLike,
    radii: ArrayLike,
    limit: float,
    target: ArrayLike,
    *,
    least: float = 0.95,
) -> Check:
    """Check that a target moved far away from the pool is found to be out of its reach.

    The target is moved by 100 times the pool's spread, along its first coordinate axis.

    Args:
        pool_centroids: (K, d).
        radii: (K,) from `cell_radii`.
        limit: from `reach_limit`.
        target: (n, d) rows.
        least: share of it that must be out of reach, so that nothing would be selected.
    """
    points = np.asarray(pool_centroids, dtype=np.float64)
    spread = float(np.sqrt(np.sum(points.var(axis=0)))) + float(np.median(np.asarray(radii)))
    moved = np.asarray(target, dtype=np.float64).copy()
    moved[:, 0] += 100.0 * max(spread, 1e-6)
    away = kernel_mass(moved, points, 0.0, radii=radii, limit=limit).unreachable
    reach = {
        name: relative_reach(squared[:, 0], found[:, 0], radii)
        for name, (found, squared) in (
            ("target", nearest_clusters(np.asarray(target), points, 1)),
            ("moved", nearest_clusters(moved, points, 1)),
        )
    }
    return Check(
        "negative_consistency",
        away > least,
        f"Of a target moved far away, {away:.1%} is found to be out of the pool's reach "
        f"(above {least:.0%}, so that nothing is selected).",
        "Use more clusters: the cells are so wide that anything falls into one.",
        {"unreachable": away, "limit": float(limit)},
        reach,
    )


def quantisation_consistency(
    rows: ArrayLike, centroids: ArrayLike, *, seed: int = 0, tolerance: float = 0.1
) -> Check:
    """Check that the codebook stands for its rows.

    The energy distance of rows to their centroids (weighted by rows) is compared with that of
    the rows to a single point, their mean: the part that the codebook leaves unexplained. With K
    near the row count the check would prove nothing, so it is refused above a tenth.

    Args:
        rows: (n, d) sample of the rows, at most a few thousand.
        centroids: (K, d), K at most n / 10.
        seed: seed of the split into two halves, whose distance is the noise of the measure.
        tolerance: largest part that may be unexplained, over the noise.

    Raises:
        InputError: more than one cluster per ten rows.
    """
    sample = np.asarray(rows, dtype=np.float64)
    points = np.asarray(centroids, dtype=np.float64)
    found, _ = nearest_clusters(sample, points, 1)
    used, counts = np.unique(found[:, 0], return_counts=True)
    if len(used) > len(sample) / 10:
        raise InputError(
            f"{len(used)} clusters for {len(sample)} rows: with so many the check holds whatever "
            f"the codebook. Use at least {10 * len(used)} rows or fewer clusters."
        )
    whole = energy_distance(sample, sample.mean(axis=0, keepdims=True))
    left = energy_distance(sample, points[used], y_weights=counts)
    half = np.random.default_rng(seed).permutation(len(sample))
    middle = len(sample) // 2
    noise = energy_distance(sample[half[:middle]], sample[half[middle:]])
    part = left / whole if whole > 0 else 0.0
    return Check(
        "quantisation_consistency",
        part <= tolerance + (noise / whole if whole > 0 else 0.0),
        f"The codebook of {len(used)} clusters leaves {part:.1%} of the rows' spread unexplained "
        f"(energy distance; up to {tolerance:.0%} is fine).",
        "Use more clusters, or vectors of fewer dimensions.",
        {
            "unexplained": part,
            "noise": noise / whole if whole > 0 else 0.0,
            "clusters": float(len(used)),
        },
    )


def mode_coverage(
    own_centroids: ArrayLike,
    own_counts: ArrayLike,
    selection: ArrayLike,
    radii: ArrayLike,
    *,
    selection_weights: ArrayLike | None = None,
    least: float = 0.25,
    smallest: float = 0.01,
) -> Check:
    """Check that every mode of the target is covered by the selection.

    The target's own clusters are its modes. A mode of at least `smallest` of the target is covered
    when the selection's share nearest to it is at least `least` of the target's share. More modes
    than rows selected can fill would all seem missed: join them first.

    Args:
        own_centroids: (M, d) centroids of the target's own clustering.
        own_counts: (M,) target rows in each.
        selection: (m, d) selected rows, or centroids of the clusters taken.
        radii: (M,) radius of each mode (`cell_radii`); rows farther than three are of no mode.
        selection_weights: (m,) rows that each stands for; 1 where None.
        least: see above.
        smallest: see above.
    """
    counts = np.asarray(own_counts, dtype=np.float64)
    target = counts / counts.sum()
    points = np.atleast_2d(np.asarray(selection, dtype=np.float64))
    weight = (
        np.ones(len(points))
        if selection_weights is None
        else np.asarray(selection_weights, dtype=np.float64)
    )
    found, squared = nearest_clusters(points, np.asarray(own_centroids), 1)
    near = np.sqrt(squared[:, 0]) <= 3.0 * np.asarray(radii, dtype=np.float64)[found[:, 0]]
    taken = np.bincount(found[near, 0], weight[near], minlength=len(counts))
    share = taken / max(float(weight.sum()), 1e-300)
    modes = target >= smallest
    missed = modes & (share < least * target)
    lost = float(target[missed].sum())
    return Check(
        "mode_coverage",
        not missed.any(),
        f"{int(modes.sum() - missed.sum())} of {int(modes.sum())} modes of the target are "
        f"covered; those missed hold {lost:.1%} of it.",
        "Use the objective 'budgeted_kl', a larger budget, or more clusters; or add pool data of "
        "the missing kind.",
        {
            "modes": float(modes.sum()),
            "missed": float(missed.sum()),
            "missed_mass": lost,
            "least": least,
        },
        {"target": target[modes], "selection": share[modes]},
    )


def failure_signs(
    result: SelectionResult,
    sizes: ArrayLike,
    pool_centroids: ArrayLike,
    *,
    target_rows: int,
    seed: int = 0,
) -> tuple[Notice, ...]:
    """Look for signs that a selection went wrong.

    The selection is compared with a random draw of the same size from the pool, by the shares
    per cluster (Jensen-Shannon) and by the energy distance of the two laws on the codebook.

    Args:
        result: of any objective.
        sizes: (K,) pool rows per cluster.
        pool_centroids: (K, d).
        target_rows: rows of the target.
        seed: of the random draw.

    Returns:
        A notice for each of: divergence_rises, selection_unlike_target, target_too_small,
        too_few_clusters.
    """
    held = np.asarray(sizes, dtype=np.int64)
    signs = []
    rise = _rise(result.divergence_path)
    if rise > 0:
        signs.append(
            Notice(
                "divergence_rises",
                f"The divergence rises by {rise:.3g} nats from its least value to the end of the "
                f"selection.",
                "Take a smaller budget, or budget 'auto'.",
            )
        )
    used = int((result.target_mass > 0).sum())
    if target_rows < max(FEW_ROWS, used / 10):
        signs.append(
            Notice(
                "target_too_small",
                f"The target has {target_rows} rows for {used} clusters; shares per cluster are "
                f"mostly noise.",
                "Give more target rows, or use fewer clusters.",
            )
        )
    if int((held > 0).sum()) < FEW_CLUSTERS:
        signs.append(
            Notice(
                "too_few_clusters",
                f"The pool has {int((held > 0).sum())} clusters with rows; quotas cannot tell "
                f"kinds of rows apart.",
                f"Use at least {FEW_CLUSTERS} clusters, better a thousand.",
            )
        )
    signs.extend(_unlike(result, held, np.asarray(pool_centroids), seed))
    return tuple(signs)


def _rise(path: NDArray) -> float:
    if len(path) < 2:
        return 0.0
    rise = float(path[-1] - path.min())
    return rise if rise > 1e-9 * max(1.0, float(np.abs(path).max())) else 0.0


def _unlike(
    result: SelectionResult, held: NDArray, points: NDArray, seed: int
) -> tuple[Notice, ...]:
    total = int(result.take.sum())
    law = result.target_mass
    if total == 0 or not law.any():
        return ()
    rng = np.random.default_rng(seed)
    random = rng.multinomial(total, held / held.sum()).astype(np.float64)
    shares = {
        "selection": jsd_histogram(law, result.take),
        "random": jsd_histogram(law, random),
    }
    keep = np.sort(rng.permutation(len(held))[:4000]) if len(held) > 4000 else np.arange(len(held))
    energy = {
        name: energy_distance(points[keep], points[keep], x_weights=law[keep], y_weights=w[keep])
        for name, w in (("selection", result.take), ("random", random))
        if law[keep].sum() > 0 and w[keep].sum() > 0
    }
    worse = shares["selection"] >= shares["random"] or (
        len(energy) == 2 and energy["selection"] >= energy["random"]
    )
    # Where the pool has the target's law already, random rows are as good, and that is no fault.
    noise = 0.5 * int((law > 0).sum()) / total
    if not worse or shares["selection"] <= noise:
        return ()
    return (
        Notice(
            "selection_unlike_target",
            f"The selection is no more like the target than random rows of the same number: "
            f"Jensen-Shannon divergence of the shares per cluster {shares['selection']:.4f} "
            f"against {shares['random']:.4f} nats.",
            "Take a smaller budget or no replay share; loosen caps and floors; or use the "
            "objective 'budgeted_kl'.",
        ),
    )
