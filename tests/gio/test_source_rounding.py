"""Whole rows per source and cluster: small exact cases."""

from __future__ import annotations

import numpy as np
import pytest

from gio_spark.gio.source_rounding import _reallocate_between_clusters, _split
from gio_spark.gio.source_tokens import _fit

SHARES = np.array([0.5, 0.05])


@pytest.mark.parametrize("seed", range(20))
def test_rows_of_a_cluster_are_split_over_its_sources_to_the_last_one(seed):
    rng = np.random.default_rng(seed)
    available = rng.integers(0, 6, (5, 3))
    per_cluster = rng.integers(0, available.sum(axis=1) + 1)
    amount = rng.random((5, 3)) * (rng.random((5, 3)) < 0.7)
    take = _split(per_cluster, amount, available)
    assert take.sum(axis=1).tolist() == per_cluster.tolist()
    assert ((take >= 0) & (take <= available)).all()


@pytest.mark.parametrize(
    ("rows", "total", "expected"),
    [
        # The last of ten rows at 0.5 costs 0.0500 nats, the only one at 0.05 costs 0.0549.
        ([10, 1], 10, [9, 1]),
        # A tenth row at 0.5 gains 0.0500, a first one at 0.05 gains 0.0549.
        ([9, 0], 10, [9, 1]),
    ],
)
def test_a_row_is_dropped_or_added_where_the_divergence_says(rows, total, expected):
    take = np.array(rows)[:, None]
    _reallocate_between_clusters(SHARES, take, np.full((2, 1), 20), np.array([total]))
    assert take[:, 0].tolist() == expected


def test_the_row_with_the_best_gain_per_token_is_added():
    # 0.5 log1p(4 / 2) / 4 = 0.137 in the empty cluster, 1.2 log1p(4 / 6) / 4 = 0.153 in the other.
    take, usable, cost = np.array([[0], [1]]), np.array([[5], [5]]), np.full((2, 1), 4.0)
    added = _fit(np.array([0.5, 1.2]), take, usable, cost, np.array([100.0]), 4.0)
    assert added is not None and added[:, 0].tolist() == [0, 1]
    added = _fit(np.array([0.5, 1.0]), take, usable, cost, np.array([100.0]), 4.0)
    assert added is not None and added[:, 0].tolist() == [1, 0]
    assert _fit(np.array([0.5, 1.0]), take, usable, cost, np.array([3.0]), 4.0) is None
