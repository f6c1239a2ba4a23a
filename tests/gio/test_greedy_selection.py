"""k-NN KL by greedy gains, and the greedy energy distance."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gio_spark.errors import ConfigError, InputError
from gio_spark.gio import (
    SelectionProblem,
    energy_distance,
    energy_greedy,
    exact_path,
    knn_greedy,
    select,
)
from gio_spark.gio import greedy_knn as greedy_module
from tests.gio.references import knn_divergence


def data(seed=0, n=60, m=40, d=3):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)), 0.2 + 1.3 * rng.standard_normal((m, d))


def logs(x, g):
    return np.log(np.linalg.norm(x[:, None] - g[None], axis=2))


def plain_greedy(x, g, picks, k):
    far, table = logs(x, g).max(), logs(x, g)
    chosen = []
    for _ in range(picks):
        best, value = -1, np.inf
        for j in range(len(g)):
            if j in chosen:
                continue
            distances = np.concatenate([table[:, [*chosen, j]], np.full((len(x), k), far)], axis=1)
            score = np.sort(distances, axis=1)[:, :k].mean()
            if score < value - 1e-12:
                best, value = j, score
        chosen.append(best)
    return chosen


@pytest.mark.parametrize("k", [1, 3])
def test_updated_gains_equal_plain_greedy(k):
    x, g = data()
    np.testing.assert_array_equal(knn_greedy(x, g, 15, k=k).order, plain_greedy(x, g, 15, k))


def test_path_is_the_knn_divergence_for_one_neighbour():
    x, g = data()
    path = knn_greedy(x, g, 12)
    for count in (1, 5, 12):
        expected = knn_divergence(x, g[path.order[:count]], 1)
        assert path.divergence[count - 1] == pytest.approx(expected, rel=1e-9)


def test_greedy_gain_is_at_least_its_guarantee():
    x, g = data(n=25, m=9)
    table, far = logs(x, g), logs(x, g).max()
    chosen = knn_greedy(x, g, 3).order
    gain = (far - table[:, chosen].min(axis=1)).mean()
    best = max(
        (far - table[:, list(some)].min(axis=1)).mean()
        for some in itertools.combinations(range(9), 3)
    )
    assert gain >= (1 - 1 / np.e) * best


def test_distances_computed_when_needed_give_the_same_picks(monkeypatch):
    x, g = data(n=150, m=120, d=6)
    stored = knn_greedy(x, g, 40, k=2)
    energy = energy_greedy(x, g, 40)
    monkeypatch.setattr(greedy_module, "KEEP_PAIRS", 0)
    monkeypatch.setattr("gio_spark.gio.greedy_energy.KEEP_PAIRS", 0)
    tiled = knn_greedy(x, g, 40, k=2)
    np.testing.assert_array_equal(stored.order, tiled.order)
    np.testing.assert_allclose(stored.divergence, tiled.divergence, rtol=1e-4)
    np.testing.assert_array_equal(energy.order, energy_greedy(x, g, 40).order)


def test_energy_path_is_the_energy_distance_and_each_pick_the_best():
    x, g = data()
    sizes = np.random.default_rng(1).integers(1, 9, len(g))
    path = energy_greedy(x, g, 8, sizes=sizes)
    for count in range(1, 9):
        chosen = path.order[:count]
        value = energy_distance(x, g[chosen], y_weights=sizes[chosen])
        assert path.divergence[count - 1] == pytest.approx(value, rel=1e-9)
        before = list(chosen[:-1])
        others = [
            energy_distance(x, g[[*before, j]], y_weights=sizes[[*before, j]])
            for j in range(len(g))
            if j not in before
        ]
        assert value == pytest.approx(min(others), rel=1e-9)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31))
def test_target_order_changes_nothing(seed):
    x, g = data(seed)
    shuffled = np.random.default_rng(seed).permutation(x)
    for solve in (knn_greedy, energy_greedy):
        one, two = solve(x, g, 10), solve(shuffled, g, 10)
        np.testing.assert_array_equal(one.order, two.order)
        np.testing.assert_allclose(one.divergence, two.divergence, rtol=1e-12, atol=5e-14)


def test_ties_go_to_the_lowest_index():
    x = np.random.default_rng(0).standard_normal((20, 2))
    g = np.repeat(np.random.default_rng(1).standard_normal((5, 2)), 3, axis=0)
    assert knn_greedy(x, g, 1).order[0] % 3 == 0
    assert energy_greedy(x, g, 1).order[0] % 3 == 0


def test_all_candidates_can_be_taken():
    x, g = data()
    for solve in (knn_greedy, energy_greedy):
        assert sorted(solve(x, g).order) == list(range(len(g)))


def test_a_target_with_three_modes_is_covered_unlike_by_the_published_optimum():
    rng = np.random.default_rng(0)
    middles = np.array([[0.0, 0.0], [6.0, 0.0], [0.0, 6.0]])
    mode = rng.choice(3, 600, p=[0.6, 0.3, 0.1])
    x = middles[mode] + 0.5 * rng.standard_normal((600, 2))
    where = rng.choice(3, 900)
    g = middles[where] + 0.6 * rng.standard_normal((900, 2))

    def shares(order):
        return np.bincount(where[order], minlength=3) / len(order)

    assert shares(exact_path(x, g).order[:150]).max() > 0.99
    energy = shares(energy_greedy(x, g, 150).order)
    np.testing.assert_allclose(energy, [0.6, 0.3, 0.1], atol=0.06)
    assert shares(knn_greedy(x, g, 150).order).min() > 0.05


@pytest.mark.parametrize("name", ["knn_kl", "energy_distance"])
def test_as_objectives_they_meet_the_budget(name):
    x, g = data()
    sizes = np.random.default_rng(2).integers(0, 50, len(g))
    case = SelectionProblem(
        g.astype(np.float32), sizes, np.ones(len(g)), 300, target_centroids=x.astype(np.float32)
    )
    result = select(name, case)
    assert result.take.sum() == 300 and (result.take <= sizes).all()
    assert len(result.order) == len(result.divergence_path)
    far = SelectionProblem(
        g.astype(np.float32), sizes, np.ones(len(g)), 300, target_centroids=x, unreachable=1.0
    )
    assert select(name, far).take.sum() == 0
    for case in ({"replay": 0.5}, {"quality": np.ones(len(g))}):
        with pytest.raises(ConfigError, match=f"{next(iter(case))}.*budgeted_kl"):
            select(name, SelectionProblem(g, sizes, np.ones(len(g)), 300,
                                          target_centroids=x, **case))  # fmt: skip


@pytest.mark.parametrize("k", [1, 2, 4])
def test_the_objective_covers_the_target_as_often_as_its_option_says(k):
    x, g = data()
    problem = SelectionProblem(
        g, np.full(len(g), 10), np.ones(len(g)), 120, target_centroids=x, options={"k": k}
    )
    np.testing.assert_array_equal(select("knn_kl", problem).order, plain_greedy(x, g, 12, k))


def test_senseless_arguments_are_refused():
    x, g = data()
    with pytest.raises(InputError, match="more than"):
        knn_greedy(x[:2], g, k=2)
    with pytest.raises(ConfigError):
        knn_greedy(x, g, 41)
    with pytest.raises(InputError, match="positive"):
        energy_greedy(x, g, sizes=np.zeros(len(g)))
    with pytest.raises(InputError, match="dimension"):
        energy_greedy(x, g[:, :2])
