"""What workers bring back from a pass, against sums and sorts of all rows."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from gio_spark.kernels.exact_sums import Grid
from gio_spark.quantize import pass_result
from gio_spark.quantize.pass_result import (
    Farthest,
    PartialSums,
    collect_result,
    combine_sums,
    extent_to_table,
    merge_extents,
    merge_farthest,
)


def rows(n=300, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.integers(-50, 50, (n, 3)).astype(np.float32)
    cluster = rng.choice([0, 2, 3, 6], n).astype(np.int32)
    return x, cluster, rng.integers(0, 20, n).astype(np.float32)


GRIDS = Grid.covering(np.full(3, 50.0), 300), Grid.covering([20.0], 300)


@pytest.mark.parametrize("sent", [8 * 3, 16 << 20])
def test_sums_of_two_workers_are_those_of_all_rows(monkeypatch, sent):
    monkeypatch.setattr(pass_result, "SUM_BLOCK_ROWS", 64)
    monkeypatch.setattr(pass_result, "SENT_BYTES", sent)
    x, cluster, distance = rows()
    tables = []
    for part in (slice(0, 120), slice(120, 300)):
        worker = PartialSums(8, 3, 3)
        worker.add(x[part], distance[part], cluster[part], GRIDS)
        pieces = list(worker.tables())
        assert len(pieces) == (4 if sent == 24 else 1)
        tables += pieces
    far = Farthest(2, 3)
    far.add(pa.array([f"r{i:03d}" for i in range(300)]), distance, x)
    whole = pa.concat_tables(tables)
    np.testing.assert_array_equal(whole["bucket"].to_numpy(), whole["cluster"].to_numpy() % 3)
    combined = [
        combine_sums(whole.filter(pa.array(whole["bucket"].to_numpy() == bucket)), 3, 3)
        for bucket in range(3)
    ]
    extent = extent_to_table(np.abs(x).max(axis=0).astype(np.float64))
    result = collect_result(
        pa.concat_tables([*combined, far.table(), extent]), 8, 3, largest=np.full(3, 50.0)
    )
    for c in range(8):
        np.testing.assert_array_equal(result.sums[c], x[cluster == c].sum(axis=0))
        assert result.counts[c] == (cluster == c).sum()
    assert (result.rows, result.inertia) == (300, distance.sum())
    order = np.lexsort((np.arange(300), -distance))[:2]
    np.testing.assert_array_equal(result.far_vectors, x[order])
    np.testing.assert_array_equal(result.far_distances, distance[order])
    np.testing.assert_array_equal(
        merge_extents(pa.concat_tables([extent, extent]), 3), np.abs(x).max(axis=0)
    )


def test_workers_merge_to_the_sums_of_all_rows():
    x, cluster, distance = rows()
    first, second = PartialSums(8, 3, 1), PartialSums(8, 3, 1)
    first.add(x[:10], distance[:10], cluster[:10], GRIDS)
    second.add(x[10:], distance[10:], cluster[10:], GRIDS)
    first.merge(second)
    assert first.counts.sum() == 300
    np.testing.assert_array_equal(first.sums.sum(axis=0), x.sum(axis=0))
    assert first.inertia.sum() == distance.sum()


@pytest.mark.parametrize("most", [0, 1, 7, 40, 500])
@pytest.mark.parametrize("size", [1, 23, 300])
def test_the_farthest_rows_are_those_of_a_full_sort_in_any_batches(most, size):
    x, _, distance = rows()
    ids = pa.array([f"r{i:03d}" for i in np.random.default_rng(3).permutation(300)])
    workers = [Farthest(most, 3), Farthest(most, 3)]
    for number, start in enumerate(range(0, 300, size)):
        part = slice(start, start + size)
        workers[number % 2].add(ids[part], distance[part], x[part])
    names = np.array(ids.to_pylist())
    order = np.lexsort((names, -distance))[:most]
    sent = merge_farthest(pa.concat_tables([w.table() for w in workers]), most)
    assert sent["id"].to_pylist() == names[order].tolist()
    workers[0].merge(workers[1])
    assert workers[0].ids == names[order].tolist()
    np.testing.assert_array_equal(workers[0].distances, distance[order])
    np.testing.assert_array_equal(workers[0].vectors, x[order])


def test_the_extents_of_small_values_are_small():
    small = [
        extent_to_table(np.array([0.25, 0.5, 0.0])),
        extent_to_table(np.array([0.3, 0.1, 0.0])),
    ]
    assert merge_extents(pa.concat_tables(small), 3).tolist() == [0.3, 0.5, 0.0]
