"""The budget `auto` from vectors: kappa from cross-fitted ratios of planted pools."""

from __future__ import annotations

import numpy as np
import pytest

from gio_spark.engine import encode_vectors
from gio_spark.explode import RatioSample, fit
from gio_spark.gio import mixture_share
from gio_spark.settings.explode import ExplodeSettings

D, POOL, TARGET = 64, 9_000, 3_000


def clean(rng: np.random.Generator, rows: int) -> np.ndarray:
    """Rows like embeddings: thirty groups in ten directions of sixty-four, and noise in all."""
    fixed_rng = np.random.default_rng(7)
    centers = 2 * fixed_rng.standard_normal((30, 10))
    directions = fixed_rng.standard_normal((10, D)) / np.sqrt(10)
    latent = centers[rng.integers(30, size=rows)] + rng.standard_normal((rows, 10))
    return latent @ directions + 0.3 * rng.standard_normal((rows, D))


def corrupt(rng: np.random.Generator, rows: int) -> np.ndarray:
    return clean(rng, rows) + 0.5 + 0.6 * rng.standard_normal((rows, D))


def kappa(target: np.ndarray, pool: np.ndarray, seed: int) -> float:
    hashes = np.random.default_rng(seed)
    samples = [
        RatioSample(encode_vectors(x.astype(np.float32)), hashes.integers(0, 1 << 53, len(x)))
        for x in (target, pool)
    ]
    model = fit(*samples, kind="vector", settings=ExplodeSettings()).model
    target_ratio, pool_ratio = (
        model.log_ratio(sample.content, sample.hashes) for sample in samples
    )
    return mixture_share(pool_ratio, target_ratio).kappa


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("share", [1 / 6, 1 / 3, 2 / 3])
def test_planted_clean_shares_are_estimated(share, seed):
    rng = np.random.default_rng(seed)
    good = round(share * POOL)
    pool = np.concatenate([clean(rng, good), corrupt(rng, POOL - good)])
    assert kappa(clean(rng, TARGET), pool, seed) == pytest.approx(share, rel=0.15)


@pytest.mark.parametrize("seed", range(3))
def test_the_same_distribution_gives_nearly_the_entire_pool(seed):
    rng = np.random.default_rng(seed)
    assert kappa(clean(rng, TARGET), clean(rng, POOL), seed) >= 0.85


def test_a_far_pool_gives_nothing():
    rng = np.random.default_rng(0)
    assert kappa(clean(rng, TARGET), clean(rng, POOL) + 40, 0) == 0.0
