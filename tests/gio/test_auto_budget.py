"""The budget "auto": kappa and the held-out curve."""

from __future__ import annotations

import numpy as np
import pytest

from gio_spark.errors import InputError
from gio_spark.gio import budgeted_kl, heldout_curve, mixture_share

POOL, TARGET = 20_000, 4_000


def scores(share, shift, seed, noise=0.0):
    """Log ratios of a pool with a clean share N(0, 1) among N(shift, 1), and a clean target."""
    rng = np.random.default_rng(seed)
    clean = rng.random(POOL) < share
    pool = rng.standard_normal(POOL) + np.where(clean, 0.0, shift)
    target = rng.standard_normal(TARGET)

    def ratio(x):
        return -np.log(share + (1 - share) * np.exp(shift * x - shift**2 / 2))

    return tuple(ratio(x) + noise * rng.standard_normal(len(x)) for x in (pool, target))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("share", [1 / 6, 1 / 3, 2 / 3])
@pytest.mark.parametrize("shift", [4.0, 8.0])
def test_planted_clean_shares_are_estimated(share, shift, seed):
    estimate = mixture_share(*scores(share, shift, seed))
    assert estimate.kappa == pytest.approx(share, rel=0.15)


@pytest.mark.parametrize("seed", range(20))
def test_the_same_distribution_gives_nearly_the_entire_pool(seed):
    rng = np.random.default_rng(seed)
    estimate = mixture_share(rng.standard_normal(POOL), rng.standard_normal(TARGET))
    assert estimate.kappa >= 0.85


def test_a_small_target_of_the_same_distribution_gives_nearly_the_entire_pool():
    rng = np.random.default_rng(1)
    assert mixture_share(rng.standard_normal(2000), rng.standard_normal(200)).kappa >= 0.85


def test_a_far_pool_gives_nothing():
    rng = np.random.default_rng(0)
    assert mixture_share(rng.normal(-30, 1, POOL), rng.normal(30, 1, TARGET)).kappa == 0.0


def test_noisy_ratios_err_towards_more_never_wildly():
    estimate = mixture_share(*scores(1 / 3, 6.0, 0, noise=0.5))
    assert 0.28 < estimate.kappa < 0.45


def test_a_histogram_gives_the_same_as_its_rows():
    pool, target = (np.round(values, 1) for values in scores(1 / 3, 4.0, 0))
    bins, counts = np.unique(pool, return_counts=True)
    one = mixture_share(pool, target)
    two = mixture_share(bins, target, pool_counts=counts)
    assert two == pytest.approx(one)


def test_no_ratios_and_nan_are_refused():
    with pytest.raises(InputError):
        mixture_share([], [1.0])
    with pytest.raises(InputError, match="NaN"):
        mixture_share([np.nan], [1.0])


def clusters(seed=0, count=200):
    rng = np.random.default_rng(seed)
    return rng, rng.dirichlet(np.full(count, 3.0))


def test_the_heldout_curve_selects_the_entire_pool_for_the_same_distribution():
    rng, distribution = clusters()
    sizes, fit, heldout = (rng.multinomial(n, distribution) for n in (50_000, 5_000, 5_000))
    curve = heldout_curve(fit, heldout, sizes)
    assert curve.chosen >= 0.85 * sizes.sum()


def test_the_heldout_curve_finds_a_planted_share():
    rng, distribution = clusters()
    other = np.random.default_rng(9).permutation(distribution) * (np.arange(len(distribution)) % 2)
    sizes = rng.multinomial(20_000, distribution) + rng.multinomial(30_000, other / other.sum())
    curve = heldout_curve(
        rng.multinomial(20_000, distribution), rng.multinomial(20_000, distribution), sizes
    )
    assert 10_000 < curve.chosen < 30_000
    assert (np.diff(curve.budgets) > 0).all() and (curve.standard_error >= 0).all()
    best = budgeted_kl(distribution, sizes, curve.chosen)
    assert best.divergence < 0.02


def test_a_target_without_heldout_rows_gives_an_empty_curve():
    assert heldout_curve([1.0, 0.0], [0, 0], [5, 5]).chosen == 0.0
