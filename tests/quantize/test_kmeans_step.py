"""What a pass does to a fit's state, and the sizes of its batches, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from gio_spark.quantize.centroid_update import reseed_starved, unit_or_previous, weighted_means
from gio_spark.quantize.kmeans_parameters import KMeansParameters
from gio_spark.quantize.kmeans_state import KMeansState
from gio_spark.quantize.pass_result import PassResult


def pass_result(sums, counts, inertia=6.0, far=(), distances=()):
    sums = np.array(sums, dtype=np.float64)
    return PassResult(
        sums, np.array(counts), inertia, np.float32(far).reshape(-1, sums.shape[1]),
        np.float32(distances), np.full(sums.shape[1], 9.0),
    )  # fmt: skip


def state(**changes):
    values = {
        "centroids": np.float32([[0.0], [10.0]]), "weights": np.array([4.0, 6.0]),
        "largest": np.array([8.0]), "rows": 100, "passes": 10, "smoothed": 4.0, "best": 3.5,
    }  # fmt: skip
    return KMeansState(**(values | changes))


def test_a_pass_moves_centres_by_decayed_weights_and_smooths_the_inertia():
    after = KMeansParameters(k=2).step(state(), pass_result([[6.0], [0.0]], [3, 0]))
    # Half of the passes are done: 0.9 * 10 / 20 of the weights lives on.
    np.testing.assert_allclose(after.weights, [0.45 * 4 + 3, 0.45 * 6])
    np.testing.assert_allclose(after.centroids, [[6 / 4.8], [10.0]], rtol=1e-6)
    assert after.smoothed == after.best == 3.0  # (6 / 3 + 4) / 2
    assert (after.passes, after.stale, after.finished) == (11, 0, False)
    assert after.largest.tolist() == [9.0]
    record = {"pass": 11, "rows": 3, "inertia": 2.0, "smoothed": 3.0, "reseeded": 0}
    assert after.history == (record,)


def test_a_pass_over_all_rows_forgets_the_weights():
    after = KMeansParameters(k=2).step(state(rows=3), pass_result([[6.0], [0.0]], [3, 0]))
    np.testing.assert_array_equal(after.weights, [3, 0])
    np.testing.assert_array_equal(after.centroids, [[2.0], [10.0]])


def test_the_first_pass_sets_the_smoothed_inertia():
    first = state(passes=0, smoothed=None, best=None)
    after = KMeansParameters(k=2).step(first, pass_result([[6.0], [20.0]], [3, 2], 10.0))
    assert after.smoothed == after.best == 2.0
    np.testing.assert_array_equal(after.weights, [3, 2])


@pytest.mark.parametrize(("best", "stale"), [(3.0, 1), (3.002, 1), (3.004, 0)])
def test_an_improvement_below_the_tolerance_is_none(best, stale):
    after = KMeansParameters(k=2).step(state(best=best), pass_result([[6.0], [0.0]], [3, 0]))
    assert after.stale == stale
    assert after.best == (best if stale else 3.0)


def test_a_fit_ends_with_its_last_pass_or_its_patience():
    fit, batch = KMeansParameters(k=2), pass_result([[6.0], [0.0]], [3, 0])
    assert fit.step(state(best=1.0, stale=2), batch).finished
    assert not fit.step(state(best=1.0, stale=1), batch).finished
    assert fit.step(state(passes=19), batch).finished
    assert not fit.step(state(passes=18), batch).finished


def test_starved_centres_are_placed_anew_in_early_passes_only():
    batch = pass_result([[60.0], [0.0]], [300, 0], far=[[7.0]], distances=[49.0])
    fit = KMeansParameters(k=2)
    early = fit.step(state(passes=13, weights=np.array([4.0, 1.0]), best=0.001), batch)
    late = fit.step(state(passes=14, weights=np.array([4.0, 1.0]), best=0.001), batch)
    np.testing.assert_array_equal(early.centroids[1], [7.0])
    assert (early.weights[1], early.history[-1]["reseeded"], early.stale) == (0.0, 1, 0)
    np.testing.assert_array_equal(late.centroids[1], [10.0])
    assert (late.history[-1]["reseeded"], late.stale) == (0, 1)
    short = KMeansParameters(k=2, max_iter=1)
    only = short.step(state(passes=0, weights=np.array([4.0, 1.0])), batch)
    assert only.history[-1]["reseeded"] == 0


def test_centres_move_to_weighted_means_and_stay_where_no_row_came():
    moved = weighted_means(
        np.float32([[1.0, 1.0], [5.0, 5.0], [2.0, 0.0]]), np.array([2.0, 3.0, 0.0]),
        pass_result([[6.0, 0.0], [0.0, 0.0], [9.0, 3.0]], [2, 0, 3]),
    )  # fmt: skip
    np.testing.assert_array_equal(moved, [[2.0, 0.5], [5.0, 5.0], [3.0, 1.0]])


def test_the_most_starved_goes_to_the_farthest_row_and_no_two_to_one_spot():
    centres, weights = np.zeros((5, 1), np.float32), np.array([100.0, 0.5, 0.0, 60.0, 0.2])
    far, distances = [[9.0], [8.0], [-3.0], [5.0]], [40.0, 30.0, 9.0, 8.0]
    batch = pass_result(np.zeros((5, 1)), np.zeros(5), far=far, distances=distances)
    moved, left, placed = reseed_starved(centres, weights, batch, starved_share=0.02)
    # Below 0.02 of the mean 32.14: those of 0, 0.2 and 0.5. The row at 8 is too near to that at 9.
    np.testing.assert_array_equal(moved[:, 0], [0.0, 5.0, 9.0, 0.0, -3.0])
    np.testing.assert_array_equal(left, [100.0, 0.0, 0.0, 60.0, 0.0])
    assert placed == 3
    np.testing.assert_array_equal(weights, [100.0, 0.5, 0.0, 60.0, 0.2])


def test_rows_on_their_centre_are_no_place_for_a_starved_one():
    batch = pass_result(np.zeros((2, 1)), [5, 0], far=[[3.0]], distances=[0.0])
    centres, _, placed = reseed_starved(
        np.zeros((2, 1), np.float32), np.array([5.0, 0.0]), batch, starved_share=0.1
    )
    assert placed == 0 and not centres.any()


def test_a_row_half_as_far_from_a_placed_centre_may_be_one_too():
    batch = pass_result(np.zeros((3, 1)), [9, 0, 0], far=[[4.0], [6.0]], distances=[16.0, 8.0])
    centres, _, placed = reseed_starved(
        np.zeros((3, 1), np.float32), np.array([9.0, 0.0, 0.0]), batch, starved_share=0.1
    )
    np.testing.assert_array_equal(centres[:, 0], [0, 4, 6])
    assert placed == 2


def test_directions_whose_rows_cancel_out_stay():
    scaled = unit_or_previous(
        np.float32([[3.0, 4.0], [0.0, 0.0]]), np.float32([[1.0, 0.0], [0.0, 1.0]])
    )
    np.testing.assert_allclose(scaled, [[0.6, 0.8], [0.0, 1.0]], rtol=1e-6)


def test_a_batch_is_64_rows_a_cluster_and_the_table_where_nearly_all():
    fit = KMeansParameters(k=5)
    assert fit.rows_per_pass(10**9, 100) == 16_384
    assert fit.rows_per_pass(10**9, 256) == 16_384
    assert fit.rows_per_pass(10**9, 257) == 64 * 257
    # 16,384 rows are three quarters of 21,845.3.
    assert fit.rows_per_pass(21_845, 5) == 21_845
    assert fit.rows_per_pass(21_846, 5) == 16_384
    assert KMeansParameters(k=5, batch_rows=75).rows_per_pass(100, 5) == 100
    assert KMeansParameters(k=5, batch_rows=74).share_per_pass(100, 5) == 0.74


def test_a_pass_brings_a_far_row_for_eight_clusters_between_16_and_256():
    fit = KMeansParameters(k=5)
    sizes = [fit.farthest_rows(clusters) for clusters in (1, 135, 136, 2047, 2048, 10**6)]
    assert sizes == [16, 16, 17, 255, 256, 256]


def test_two_levels_begin_above_8192_clusters_unless_told_otherwise():
    assert not KMeansParameters(k=1).searches_two_levels(8192)
    assert KMeansParameters(k=1).searches_two_levels(8193)
    assert KMeansParameters(k=1, two_level=True).searches_two_levels(2)
    assert not KMeansParameters(k=1, two_level=False).searches_two_levels(10**5)
