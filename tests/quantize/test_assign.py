"""Assignment, figures per cluster and target mass on the embedded engine."""

from __future__ import annotations

import datetime

import numpy as np
import pyarrow as pa
import pytest

from gio_spark.engine import encode_vectors
from gio_spark.errors import InputError
from gio_spark.gio.target_mass import cluster_radii, reach_limit
from gio_spark.quantize import assign, cluster_stats, nearest, nearest_two, target_mass
from gio_spark.quantize import target_masses as module

pytestmark = pytest.mark.embedded


@pytest.fixture(scope="module")
def case():
    rng = np.random.default_rng(0)
    centroids = (rng.standard_normal((25, 7)) * 2).astype(np.float32)
    x = centroids[rng.integers(0, 24, 4000)] + rng.standard_normal((4000, 7))
    return x.astype(np.float32), centroids


def frame(spark, x, **more):
    ids = [f"row-{i:05d}" for i in range(len(x))]
    return spark.createDataFrame(pa.table({"id": ids, "vector": encode_vectors(x), **more}))


@pytest.mark.parametrize("partitions", [1, 5, 64])
def test_every_row_is_assigned_exactly_once(spark, case, partitions):
    x, centroids = case
    found = assign(frame(spark, x).repartition(partitions), centroids).toArrow().sort_by("id")
    assert found["id"].to_pylist() == [f"row-{i:05d}" for i in range(len(x))]
    cluster, distance = nearest(x, centroids)
    np.testing.assert_array_equal(found["cluster"].to_numpy(), cluster)
    np.testing.assert_array_equal(found["distance"].to_numpy(), distance)
    assert found.schema.field("cluster").type == pa.int32()
    assert found.schema.field("distance").type == pa.float32()


def test_second_cluster_and_carried_columns(spark, case):
    x, centroids = case
    when = [datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)] * len(x)
    tokens = pa.array([None if i % 3 else i for i in range(len(x))], pa.int64())
    df = frame(spark, x, tokens=tokens, event_time=when)
    found = assign(df, centroids, second=True, carry=["tokens", "event_time"])
    table = found.toArrow().sort_by("id")
    assert table.schema.names == [
        "id",
        "cluster",
        "distance",
        "second",
        "second_distance",
        "tokens",
        "event_time",
    ]
    _, _, second, beyond = nearest_two(x, centroids)
    np.testing.assert_array_equal(table["second"].to_numpy(), second)
    np.testing.assert_array_equal(table["second_distance"].to_numpy(), beyond)
    assert table["tokens"].to_pylist() == tokens.to_pylist()
    assert table["event_time"].to_pylist() == when


def test_rows_without_a_vector_give_no_row(spark, case):
    x, centroids = case
    df = frame(spark, x[:10]).selectExpr("id", "if(id = 'row-00003', null, vector) AS vector")
    found = assign(df, centroids).toArrow()
    assert found.num_rows == 9
    assert "row-00003" not in found["id"].to_pylist()


def test_missing_and_clashing_columns_are_refused(spark, case):
    x, centroids = case
    with pytest.raises(InputError, match="source"):
        assign(frame(spark, x[:3]), centroids, carry=["source"])
    with pytest.raises(InputError, match="cluster"):
        assign(frame(spark, x[:3], cluster=[1, 2, 3]), centroids, carry=["cluster"])


def test_stats_are_exact_at_any_partitioning(spark, case):
    x, centroids = case
    df = frame(spark, x, tokens=pa.array(np.arange(len(x))))
    found = assign(df, centroids, carry=["tokens"])
    first, other = (cluster_stats(found.repartition(n), 25) for n in (1, 16))
    cluster, distance = nearest(x, centroids)
    np.testing.assert_array_equal(first.rows, np.bincount(cluster, minlength=25))
    np.testing.assert_array_equal(
        first.tokens, np.bincount(cluster, weights=np.arange(len(x)), minlength=25)
    )
    np.testing.assert_allclose(
        first.inertia, np.bincount(cluster, weights=distance, minlength=25), rtol=1e-12
    )
    for name in ("rows", "tokens", "inertia", "radius", "far"):
        np.testing.assert_array_equal(getattr(first, name), getattr(other, name))
    assert first.limit == other.limit
    expected = reach_limit(distance, cluster, cluster_radii(first.inertia, first.rows))
    assert expected <= first.limit <= 1.02 * expected
    for c in np.unique(cluster):
        far = np.sqrt(np.quantile(distance[cluster == c], 0.995, method="higher"))
        assert far <= first.far[c] <= 1.02 * far
    skew = first.skew()
    assert skew["empty"] == (first.rows == 0).sum()
    assert 0 < skew["effective"] <= 1


def test_stats_without_tokens_and_with_wrong_clusters(spark, case):
    x, centroids = case
    found = assign(frame(spark, x), centroids)
    assert cluster_stats(found, 25).tokens.sum() == 0
    with pytest.raises(InputError, match="do not belong together"):
        cluster_stats(found, 3)


def test_target_mass_is_the_same_at_any_partitioning(spark, case):
    x, centroids = case
    stats = cluster_stats(assign(frame(spark, x), centroids), 25)
    target = frame(spark, x[:700], tokens=pa.array(np.arange(700)))
    found = [
        target_mass(
            target.repartition(n),
            centroids,
            radius=stats.radius,
            limit=stats.limit,
            weight="tokens",
        )
        for n in (1, 8)
    ]
    np.testing.assert_array_equal(found[0].fixed, found[1].fixed)
    assert found[0].rows == 700
    weight = found[0].mass.sum() / (1 - found[0].unreachable)
    np.testing.assert_allclose(weight, np.arange(700).sum(), rtol=1e-6)


@pytest.mark.parametrize("spherical", [False, True])
def test_a_small_target_is_spread_from_its_sample_as_a_scan_would(
    spark, case, monkeypatch, spherical
):
    x, centroids = case
    target = frame(spark, x[:700], tokens=pa.array(np.arange(700)))
    options = {"weight": "tokens", "spherical": spherical, "seed": 3}
    at_once = target_mass(target, centroids, **options)
    taken = module._sample
    monkeypatch.setattr(module, "_sample", lambda *a: (taken(*a)[0], False))
    scanned = target_mass(target, centroids, **options)
    np.testing.assert_array_equal(at_once.fixed, scanned.fixed)
    assert (at_once.rows, at_once.out_of_reach) == (scanned.rows, scanned.out_of_reach) == (700, 0)


def test_the_width_of_two_clusters_is_the_median_gap_of_both_distances():
    sample, centroids = np.array([[0.0], [1.0], [4.0]]), np.array([[0.0], [10.0]])
    # Gaps of the squared distances: 100, 80 and 20.
    width = module._width(sample.astype(np.float32), centroids.astype(np.float32), 8)
    assert width == pytest.approx(80 * 0.5)
    assert module._width(sample, centroids[:1], 8) == 0.0


def test_a_target_of_more_rows_than_were_said_is_scanned_to_its_end(spark, case):
    x, centroids = case
    found = target_mass(frame(spark, x[:700]), centroids, rows=600)
    assert found.rows == 700


def test_a_far_target_is_out_of_reach_and_a_like_one_is_not(spark, case):
    x, centroids = case
    stats = cluster_stats(assign(frame(spark, x), centroids), 25)
    half = x[:600].copy()
    half[::2] += 60
    for target, low, high in ((x[:600], 0, 0.025), (x[:600] + 60, 0.99, 1), (half, 0.49, 0.52)):
        found = target_mass(frame(spark, target), centroids, radius=stats.radius, limit=stats.limit)
        assert low <= found.unreachable <= high


def test_an_empty_target_is_an_error(spark, case):
    x, centroids = case
    with pytest.raises(InputError, match="target"):
        target_mass(frame(spark, x[:3]).where("id = 'none'"), centroids)
