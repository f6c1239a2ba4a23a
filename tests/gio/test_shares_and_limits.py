"""Target distributions, lost shares, notices and roundings at their limits, against plain loops."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from gio_spark.gio import (
    SelectionProblem,
    TargetMass,
    cluster_radii,
    kernel_width,
    mix_targets,
    reach_limit,
    relative_reach,
    select,
)
from gio_spark.gio.auto_budget import heldout_curve, mixture_share
from gio_spark.gio.budgeted_kl import budgeted_kl
from gio_spark.gio.budgeted_kl_objective import lost_mass_notices, target_distribution
from gio_spark.gio.selection_checks import failure_signs, mode_coverage, self_consistency
from gio_spark.gio.source_rounding import whole_totals
from gio_spark.gio.source_tokens import token_rows


def problem(**changes):
    values = {
        "pool_centroids": np.eye(4), "sizes": np.array([10, 20, 0, 10]),
        "target_mass": np.array([3.0, 1.0, 1.0, 0.0]), "budget": 10,
    }  # fmt: skip
    return SelectionProblem(**(values | changes))


def test_radii_are_shrunk_by_one_row_of_the_pools_mean():
    # The pool's mean is 12 / 6: (0 + 2) / 2, (4 + 2) / 2 and (8 + 2) / 5.
    np.testing.assert_allclose(cluster_radii([0, 4, 8], [1, 1, 4]), np.sqrt([1.0, 3.0, 2.0]))
    np.testing.assert_array_equal(cluster_radii([0.0], [0]), [0.0])


def test_reach_is_distance_over_radius_and_its_limit_a_quantile_that_is_there():
    radii = np.array([2.0, 0.5])
    squared, cluster = np.array([4.0, 16.0, 1.0, 9.0, 0.0]), np.array([0, 0, 1, 1, 0])
    np.testing.assert_array_equal(relative_reach(squared, cluster, radii), [1, 2, 2, 6, 0])
    assert reach_limit(squared, cluster, radii, quantile=0.5) == 2
    assert reach_limit(squared, cluster, radii, quantile=0.76) == 6
    many = np.arange(1, 1001) ** 2.0
    # 0.995 of 999 steps is 994.005: the next value of the sample.
    assert reach_limit(many, np.zeros(1000, int), np.ones(1)) == 996


def test_the_kernels_width_is_the_median_gap_shrunk_by_the_root_of_rows_per_cluster():
    near = np.array([[1.0, 2.0, 50.0], [3.0, 7.0, 50.0], [0.0, 9.0, 50.0]])
    assert kernel_width(near, 9, 9) == kernel_width(near, 9, 0) == 4.0
    assert kernel_width(near, 9, 36) == 2.0
    assert kernel_width(near[:0], 9, 36) == 0.0


def test_mixed_targets_lose_what_each_loses_by_its_share():
    one = TargetMass(np.array([6, 2]), 2, 10, 2)
    other = TargetMass(np.array([0, 5]), 15, 20, 15)
    mass, lost = mix_targets([one, other], [3, 1])
    np.testing.assert_allclose(mass, [0.75 * 0.6, 0.75 * 0.2 + 0.25 * 0.25])
    assert lost == pytest.approx(0.75 * 0.2 + 0.25 * 0.75)
    both = one.merge(other)
    assert (both.out_of_reach, both.rows, both.rows_out_of_reach) == (17, 30, 17)
    assert both.unreachable == 17 / 30


def test_the_target_distribution_is_conditional_weighted_and_mixed():
    distribution, lost = target_distribution(problem())
    assert (distribution.tolist(), lost) == ([0.75, 0.25, 0.0, 0.0], pytest.approx(0.2))
    distribution, lost = target_distribution(
        problem(unreachable=0.5, quality=np.array([1.0, 9.0, 1.0, 1.0]))
    )
    assert (distribution.tolist(), lost) == ([0.25, 0.75, 0.0, 0.0], pytest.approx(0.6))
    distribution, _ = target_distribution(problem(replay=0.2))
    np.testing.assert_allclose(distribution, [0.8 * 0.75 + 0.05, 0.8 * 0.25 + 0.1, 0.0, 0.05])


@pytest.mark.parametrize(
    ("lost", "notice"),
    [
        (0.05, None),
        (0.051, "target_partly_out_of_reach"),
        (0.95, "target_partly_out_of_reach"),
        (0.951, "target_out_of_reach"),
    ],
)
def test_lost_mass_has_a_notice_from_five_percent_and_is_refused_above_ninety_five(lost, notice):
    names = [one.name for one in lost_mass_notices(problem(), lost)]
    assert names == ([notice] if notice else [])


def test_signs_of_failure_begin_at_their_limits():
    def names(clusters=20, rows=50, path=(1.0,), mass=None):
        case = problem(
            pool_centroids=np.arange(clusters, dtype=float)[:, None],
            sizes=np.full(clusters, 9), target_mass=np.arange(clusters) + 1.0, budget=40,
        )  # fmt: skip
        result = replace(select("budgeted_kl", case), divergence_path=np.array(path))
        if mass is not None:
            result = replace(result, target_mass=mass)
        signs = failure_signs(result, case.sizes, case.pool_centroids, target_rows=rows)
        return {sign.name for sign in signs} - {"selection_unlike_target"}

    assert names() == set()
    assert names(clusters=19) == {"too_few_clusters"}
    assert names(rows=49) == {"target_too_small"}
    assert names(clusters=600, rows=60) == set()
    assert names(clusters=600, rows=59) == {"target_too_small"}
    assert names(path=(3.0, 1.0, 1.0 + 4e-9)) == {"divergence_rises"}
    assert names(path=(3.0, 1.0, 1.0 + 2e-9)) == set()
    assert names(path=()) == set()


def test_a_mode_is_covered_from_a_quarter_of_its_share_within_three_radii():
    modes, radii = np.array([[0.0], [100.0], [200.0]]), np.array([1.0, 2.0, 1.0])
    counts = [80, 19, 1]
    points, weights = [[0.0], [106.0], [200.0]], [94.0, 5.0, 1.0]
    check = mode_coverage(modes, counts, points, radii, selection_weights=weights)
    assert check.passed and check.figures["modes"] == 3
    # 0.0475 of the selection is a quarter of 0.19; below, or beyond 3 radii, the mode is missed.
    for point, weight, passed in ((106.0, 4.75, True), (106.0, 4.74, False), (106.1, 5.0, False)):
        check = mode_coverage(
            modes, counts, [[0.0], [point], [200.0]], radii,
            selection_weights=[99 - weight, weight, 1.0],
        )  # fmt: skip
        assert check.passed == passed
        assert check.figures["missed_mass"] == (0.0 if passed else 0.19)
    # A mode of less than a hundredth of the target is none.
    assert mode_coverage(modes, [80, 20, 0.9], points[:2], radii).figures["modes"] == 2


def plain_mixture(pool, target, z):
    best = (1.0, -np.inf, 1.0, 1.0)
    for level in sorted(set(target)):
        p, q = np.mean(target >= level), np.mean(pool >= level)
        low = p - z * math.sqrt(p * (1 - p) / len(target))
        high = q + z * math.sqrt(q * (1 - q) / len(pool))
        if low > 0 and (p * len(target) >= 20 or p >= 1) and high / low < best[0]:
            best = (high / low, level, q, p)
    return best


@pytest.mark.parametrize("seed", range(6))
def test_the_mixture_share_is_the_least_ratio_over_all_level_sets(seed):
    rng = np.random.default_rng(seed)
    pool, target = rng.normal(0, 1, 300).round(1), rng.normal(0.4 * seed, 1, 100).round(1)
    for z in (0.0, 1.64):
        share = mixture_share(pool, target, z=z)
        kappa, level, q, p = plain_mixture(pool, target, z)
        assert share[1:] == (level, pytest.approx(q), pytest.approx(p))
        assert share.kappa == pytest.approx(kappa if q * 300 > z * z else 0.0)
    assert mixture_share(pool, target) == mixture_share(pool, target, z=1.64)


def test_the_heldout_curve_is_the_cross_entropy_of_smoothed_plans():
    mass, sizes = np.array([5.0, 3.0, 2.0, 0.0]), np.array([40, 40, 5, 30])
    counts = np.array([6, 3, 2, 1])
    curve = heldout_curve(mass, counts, sizes, [0.5, 10, 40, 85, 86])
    assert curve.budgets.tolist() == [10, 40, 85]
    logs = []
    for budget in (10, 40, 85):
        smooth = budgeted_kl(mass, sizes.astype(float), budget).rows + 0.5
        logs.append(np.log(smooth / smooth.sum()))
    rows = np.repeat(np.array(logs), counts, axis=1)
    entropy = -rows.mean(axis=1)
    np.testing.assert_allclose(curve.cross_entropy, entropy)
    gaps = rows - rows[entropy.argmin()]
    error = gaps.std(axis=1, ddof=1) / np.sqrt(12)
    np.testing.assert_allclose(curve.standard_error, error, atol=1e-9)
    within = entropy <= entropy.min() + error
    assert curve.chosen == curve.budgets[within].max()
    curve = heldout_curve(mass, counts, sizes * 10)
    assert (curve.budgets[0], curve.budgets[-1], len(curve.budgets)) == (8, 850, 40)
    assert len(heldout_curve(mass, [1, 0, 0, 0], sizes).budgets) == 0
    assert len(heldout_curve(mass, [1, 1, 0, 0], sizes).budgets) > 0


def test_self_consistency_asks_for_eighty_five_percent():
    counts = np.array([30, 30, 30, 30])
    check = self_consistency(counts, counts, counts * 10)
    assert check.passed and check.figures == {"share": 1.0, "budget": 1200.0, "least": 0.85}
    assert check.series["share"][-1] == 1.0


def test_totals_are_rounded_by_largest_remainder_within_bounds():
    low, high = np.zeros(3, np.int64), np.full(3, 9)
    fractional = np.array([2.5, 3.3, 4.2])
    assert whole_totals(fractional, low, high, 10).tolist() == [3, 3, 4]
    assert whole_totals(fractional, low, high, 11).tolist() == [3, 4, 4]
    assert whole_totals(fractional, low, np.array([2, 9, 9]), 10).tolist() == [2, 4, 4]
    assert whole_totals(fractional, np.array([0, 0, 6]), high, 10).tolist() == [2, 2, 6]
    assert whole_totals(np.array([2.0, 3.0, 5.0]), low, high, 10).tolist() == [2, 3, 5]


def test_token_plans_are_rounded_down_then_floors_and_the_rest_are_filled_up():
    distribution = np.array([0.5, 0.5])
    rows, cost = np.full((2, 2), 5), np.array([[10.0, 4.0], [10.0, 4.0]])
    amount = np.array([[25.0, 7.0], [12.0, 6.0]])
    free = {"floor": np.zeros(2), "cap": np.full(2, 99.0)}
    # Down to 2, 1, 1 and 1 rows, 38 tokens. Of the 12 left, a cheap row of the second cluster
    # gains most per token, then one of either.
    taken = token_rows(distribution, amount, rows, cost, budget=50.0, **free)
    assert taken.tolist() == [[2, 2], [1, 3]]
    capped = token_rows(distribution, amount, rows, cost, budget=50.0, floor=np.zeros(2),
                        cap=np.array([99.0, 8.0]))  # fmt: skip
    assert capped.tolist() == [[2, 1], [2, 1]]
    floored = token_rows(distribution, amount, rows, cost, budget=50.0, floor=np.array([35.0, 0.0]),
                         cap=np.full(2, 99.0))  # fmt: skip
    assert (floored * cost).sum(axis=0)[0] == 40
