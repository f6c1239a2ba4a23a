"""Checks on the user's own data, and signs that a selection has failed.

The first three checks are proposed by Everaert and Potts, arXiv 2306.11670, section 4. Each gives a
verdict with the numbers behind it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gio_spark.gio.auto_budget import heldout_curve
from gio_spark.gio.divergence_estimators import energy_distance, jsd_histogram
from gio_spark.gio.selection_problem import Notice, SelectionResult
from gio_spark.gio.target_mass import kernel_mass, nearest_clusters, relative_reach

#: Target rows per used cluster below which shares per cluster say little.
FEW_ROWS = 50
#: Fewer clusters than this cannot tell one kind of row from another.
FEW_CLUSTERS = 20


#: Pool rows per cluster below which any codebook is close to its rows.
LEAST_ROWS_PER_CLUSTER = 10


@dataclass(frozen=True, eq=False)
class DataCheck:
    """Verdict of one check.

    Attributes:
        name: Name of the check.
        passed: Whether the check passed.
        text: The result in a sentence.
        remedy: What to do where the check failed.
        figures: The numbers behind the verdict, by name.
        series: Arrays for a plot, by name.
    """

    name: str
    passed: bool
    text: str
    remedy: str
    figures: Mapping[str, float] = field(default_factory=dict)
    series: Mapping[str, NDArray] = field(default_factory=dict)


def self_consistency(
    first_mass: ArrayLike, second_counts: ArrayLike, sizes: ArrayLike, *, least: float = 0.85
) -> DataCheck:
    """Check that a target drawn from the pool itself makes nearly all of the pool worth taking.

    Args:
        first_mass: (K,) mass of one half of a sample of the pool, used as the target.
        second_counts: (K,) rows per cluster of the other half, held out.
        sizes: (K,) pool rows per cluster.
        least: Share of the pool that must be worth taking.
    """
    available = np.asarray(sizes, dtype=np.float64)
    curve = heldout_curve(first_mass, second_counts, available)
    share = curve.chosen / float(available.sum())
    return DataCheck(
        "self_consistency",
        share >= least,
        f"With a sample of the pool as its own target, {share:.1%} of the pool is worth taking "
        f"(at least {least:.0%} expected).",
        "Use fewer clusters, or a larger sample: shares per cluster are too noisy.",
        {"share": share, "budget": curve.chosen, "least": least},
        {
            "share": curve.budgets / float(available.sum()),
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
) -> DataCheck:
    """Check that a target translated far away from the pool is out of the pool's reach.

    The target is translated by 100 times the pool's spread, along its first coordinate axis.

    Args:
        pool_centroids: (K, d).
        radii: (K,) from `cluster_radii`.
        limit: From `reach_limit`.
        target: (n, d) rows.
        least: Share of it that must be out of reach, so that nothing would be selected.
    """
    points = np.asarray(pool_centroids, dtype=np.float64)
    spread = float(np.sqrt(np.sum(points.var(axis=0)))) + float(np.median(np.asarray(radii)))
    moved_target = np.asarray(target, dtype=np.float64).copy()
    moved_target[:, 0] += 100.0 * max(spread, 1e-6)
    unreachable = kernel_mass(moved_target, points, 0.0, radii=radii, limit=limit).unreachable
    reach = {
        name: relative_reach(squared[:, 0], nearest[:, 0], radii)
        for name, (nearest, squared) in (
            ("target", nearest_clusters(np.asarray(target), points, 1)),
            ("moved", nearest_clusters(moved_target, points, 1)),
        )
    }
    return DataCheck(
        "negative_consistency",
        unreachable > least,
        f"Of a target moved far away, {unreachable:.1%} is found to be out of the pool's reach "
        f"(above {least:.0%}, so that nothing is selected).",
        "Use more clusters: the cells are so wide that anything falls into one.",
        {"unreachable": unreachable, "limit": float(limit)},
        reach,
    )


def quantization_consistency(
    rows: ArrayLike,
    centroids: ArrayLike,
    *,
    pool_rows: int | None = None,
    seed: int = 0,
    tolerance: float = 0.1,
) -> DataCheck:
    """Check that the codebook represents its rows.

    It does where the energy distance of rows to their centroids (weighted by rows) is a small part
    of that to a single point, their mean. Vectors of many dimensions never get there with few
    clusters; for them the rows must be no farther from their centroids (mean squared distance) than
    from a tenth as many rows drawn at random. k-means with so many clusters does better than that,
    so the advice of more clusters works.

    Args:
        rows: (n, d) sample of the rows, at most a few thousand.
        centroids: (K, d).
        pool_rows: Rows that the centroids stand for; None: not known. With fewer than ten rows per
            cluster the check fails, since with so few any codebook is close to its rows.
        seed: Seed of the rows drawn and of the halves whose distance is the noise of the measure.
        tolerance: Largest share that may be unexplained, over the noise.
    """
    sample = np.asarray(rows, dtype=np.float64)
    points = np.asarray(centroids, dtype=np.float64)
    if pool_rows is not None and pool_rows < LEAST_ROWS_PER_CLUSTER * len(points):
        return DataCheck(
            "quantisation_consistency",
            False,
            f"The pool's {pool_rows:,} rows lie in {len(points):,} clusters, "
            f"{pool_rows / len(points):.1f} rows each: with so few, any codebook is close to them.",
            f"Use at most {max(1, pool_rows // LEAST_ROWS_PER_CLUSTER):,} clusters, or auto.",
            {"clusters": float(len(points))},
        )
    permutation = np.random.default_rng(seed).permutation(len(sample))
    drawn, others = np.split(sample[permutation], [max(1, len(sample) // 10)])
    nearest, squared = nearest_clusters(others, points, 1)
    _, to_drawn = nearest_clusters(others, drawn, 1)
    used_clusters, counts = np.unique(nearest[:, 0], return_counts=True)
    total_spread = energy_distance(others, others.mean(axis=0, keepdims=True))
    unexplained = energy_distance(others, points[used_clusters], y_weights=counts)
    half = len(others) // 2
    noise = energy_distance(others[:half], others[half:])
    unexplained_share = unexplained / total_spread if total_spread > 0 else 0.0
    noise_share = noise / total_spread if total_spread > 0 else 0.0
    distance, distance_to_drawn = float(squared.mean()), float(to_drawn.mean())
    ratio = distance / distance_to_drawn if distance_to_drawn > 0 else float(distance > 0)
    return DataCheck(
        "quantisation_consistency",
        unexplained_share <= tolerance + noise_share or ratio <= 1.0,
        f"The codebook of {len(points):,} clusters leaves {unexplained_share:.1%} of the rows' "
        f"spread unexplained (energy distance), and rows are {ratio:.2f} times as far from their "
        f"centroids (squared) as from {len(drawn):,} rows drawn at random (up to {tolerance:.0%}, "
        "or up to 1, is fine).",
        f"Use more clusters, at least {len(drawn):,}; if there are as many, fit them again on this "
        "pool with more passes (quantize.max_passes).",
        {
            "unexplained": unexplained_share,
            "noise": noise_share,
            "distance_ratio": ratio,
            "clusters": float(len(points)),
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
) -> DataCheck:
    """Check that every mode of the target is covered by the selection.

    The target's own clusters are its modes. A mode of at least `smallest` of the target is covered
    when the selection's share nearest to it is at least `least` of the target's share. More modes
    than rows selected can fill would all seem missed: join them first.

    Args:
        own_centroids: (M, d) centroids of the target's own clustering.
        own_counts: (M,) target rows in each.
        selection: (m, d) selected rows, or centroids of the selected clusters.
        radii: (M,) radius of each mode (`cluster_radii`); rows farther than three are of no mode.
        selection_weights: (m,) rows that each point represents; 1 where None.
        least: Least part of a mode's share that the selection must have.
        smallest: Least share of the target that a mode must have to count.
    """
    counts = np.asarray(own_counts, dtype=np.float64)
    target = counts / counts.sum()
    points = np.atleast_2d(np.asarray(selection, dtype=np.float64))
    weight = (
        np.ones(len(points))
        if selection_weights is None
        else np.asarray(selection_weights, dtype=np.float64)
    )
    nearest, squared = nearest_clusters(points, np.asarray(own_centroids), 1)
    in_reach = np.sqrt(squared[:, 0]) <= 3.0 * np.asarray(radii, dtype=np.float64)[nearest[:, 0]]
    selected_weight = np.bincount(nearest[in_reach, 0], weight[in_reach], minlength=len(counts))
    share = selected_weight / max(float(weight.sum()), 1e-300)
    is_mode = target >= smallest
    is_missed = is_mode & (share < least * target)
    missed_mass = float(target[is_missed].sum())
    return DataCheck(
        "mode_coverage",
        not is_missed.any(),
        f"{int(is_mode.sum() - is_missed.sum())} of {int(is_mode.sum())} modes of the target are "
        f"covered; those missed hold {missed_mass:.1%} of it.",
        "Use the objective 'budgeted_kl', a larger budget, or more clusters; or add pool data of "
        "the missing kind.",
        {
            "modes": float(is_mode.sum()),
            "missed": float(is_missed.sum()),
            "missed_mass": missed_mass,
            "least": least,
        },
        {"target": target[is_mode], "selection": share[is_mode]},
    )


def failure_signs(
    result: SelectionResult,
    sizes: ArrayLike,
    pool_centroids: ArrayLike,
    *,
    target_rows: int,
    seed: int = 0,
) -> tuple[Notice, ...]:
    """Notices about signs that a selection has failed.

    The selection is compared with a random draw of the same size from the pool, by the shares
    per cluster (Jensen-Shannon) and by the energy distance of the two distributions on the
    codebook.

    Args:
        result: Result of any objective.
        sizes: (K,) pool rows per cluster.
        pool_centroids: (K, d).
        target_rows: Rows of the target.
        seed: Seed of the random draw.

    Returns:
        A notice for each of: divergence_rises, selection_unlike_target, target_too_small,
        too_few_clusters.
    """
    available = np.asarray(sizes, dtype=np.int64)
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
    used_clusters = int((result.target_mass > 0).sum())
    if target_rows < max(FEW_ROWS, used_clusters / 10):
        signs.append(
            Notice(
                "target_too_small",
                f"The target has {target_rows} rows for {used_clusters} clusters; shares per "
                f"cluster are mostly noise.",
                "Give more target rows.",
            )
        )
    if int((available > 0).sum()) < FEW_CLUSTERS:
        signs.append(
            Notice(
                "too_few_clusters",
                f"The pool has {int((available > 0).sum())} clusters with rows; quotas cannot tell "
                f"kinds of rows apart.",
                f"Use at least {FEW_CLUSTERS} clusters, better a thousand.",
            )
        )
    signs.extend(_unlike(result, available, np.asarray(pool_centroids), seed))
    return tuple(signs)


def _rise(path: NDArray) -> float:
    if len(path) < 2:
        return 0.0
    rise = float(path[-1] - path.min())
    return rise if rise > 1e-9 * max(1.0, float(np.abs(path).max())) else 0.0


def _unlike(
    result: SelectionResult, available: NDArray, points: NDArray, seed: int
) -> tuple[Notice, ...]:
    total = int(result.take.sum())
    distribution = result.target_mass
    if total == 0 or not distribution.any():
        return ()
    rng = np.random.default_rng(seed)
    random = rng.multinomial(total, available / available.sum()).astype(np.float64)
    shares = {
        "selection": jsd_histogram(distribution, result.trained_rows),
        "random": jsd_histogram(distribution, random),
    }
    sampled = (
        np.sort(rng.permutation(len(available))[:4000])
        if len(available) > 4000
        else np.arange(len(available))
    )
    energy = {
        name: energy_distance(
            points[sampled], points[sampled], x_weights=distribution[sampled], y_weights=w[sampled]
        )
        for name, w in (("selection", result.trained_rows), ("random", random))
        if distribution[sampled].sum() > 0 and w[sampled].sum() > 0
    }
    worse = shares["selection"] >= shares["random"] or (
        len(energy) == 2 and energy["selection"] >= energy["random"]
    )
    # Where the pool has the target's distribution already, random rows are as good: no failure.
    noise = 0.5 * int((distribution > 0).sum()) / total
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
