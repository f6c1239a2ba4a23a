from __future__ import annotations

import numpy as np
import pytest

from gio_spark.report import project


def test_projection_finds_the_two_directions_that_matter():
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(20, 20)))[0]
    spread = np.array([5.0, 3.0] + [0.1] * 18)
    pool = (rng.normal(size=(4000, 20)) * spread @ axes.T).astype(np.float32)
    cloud = project(pool[:500], pool, pool[:10])
    assert cloud.explained > 0.98
    assert cloud.pool.shape == (4000, 2)
    assert np.std(cloud.pool[:, 0]) == pytest.approx(5, rel=0.05)
    np.testing.assert_allclose(cloud.selection, cloud.pool[:10], atol=1e-5)


def test_projection_gives_a_small_target_the_same_weight_as_a_large_pool():
    rng = np.random.default_rng(1)
    pool = rng.normal(size=(5000, 8)).astype(np.float32)
    target = rng.normal(size=(50, 8)).astype(np.float32)
    target[:, 7] += 6
    cloud = project(target, pool, target[:0])
    assert abs(cloud.target[:, 0].mean() - cloud.pool[:, 0].mean()) > 5
    assert cloud.selection.shape == (0, 2)


@pytest.mark.parametrize("shape", [(0, 4), (5, 1), (3, 4)])
def test_projection_takes_few_and_flat_vectors(shape):
    matrix = np.ones(shape, dtype=np.float32)
    cloud = project(matrix, matrix, matrix)
    assert cloud.pool.shape == (shape[0], 2)
    assert np.isfinite(cloud.pool).all()
