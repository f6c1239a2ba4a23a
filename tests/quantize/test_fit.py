"""Mini-batch K-means on the embedded engine."""

from __future__ import annotations

import dataclasses
import json
import logging

import numpy as np
import pyarrow as pa
import pytest
from sklearn.cluster import KMeans

from gio_spark.engine import encode_vectors
from gio_spark.errors import ConfigError, InputError
from gio_spark.kernels import largest_values, nearest
from gio_spark.quantize import KMeansState, MiniBatchKMeans, MiniBatchKMeansModel
from gio_spark.quantize.kmeans_init import smallest_hashes
from gio_spark.quantize.kmeans_pass import pass_of_arrays

pytestmark = pytest.mark.embedded


@pytest.fixture
def pass_by_pass(monkeypatch):
    """Make even small fits run each pass as a job of its own."""
    monkeypatch.setattr("gio_spark.quantize.kmeans_one_task.VALUES", 0)


def planted(clusters=12, each=150, dimension=8, spread=0.3, seed=0):
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((clusters, dimension)) * 4
    x = np.repeat(centres, each, axis=0) + spread * rng.standard_normal(
        (clusters * each, dimension)
    )
    return x.astype(np.float32), centres.astype(np.float32)


def frame(spark, x, *, lists=False):
    vector = pa.array(list(x), pa.list_(pa.float32())) if lists else encode_vectors(x)
    return spark.createDataFrame(
        pa.table({"id": [f"row-{i}" for i in range(len(x))], "vector": vector})
    )


def inertia(x, centroids):
    return float(nearest(x, centroids)[1].astype(np.float64).sum())


def test_finds_planted_clusters(spark):
    x, centres = planted()
    model = MiniBatchKMeans(k=12, seed=1, batch_rows=600).fit(frame(spark, x))
    found, gap = nearest(centres, model.centroids)
    assert sorted(found.tolist()) == list(range(12))
    assert gap.max() < 0.1


def test_inertia_is_within_one_percent_of_scikit_learn(spark):
    rng = np.random.default_rng(3)
    x = rng.standard_normal((3000, 6)).astype(np.float32)
    ours = MiniBatchKMeans(k=40, seed=1, max_iter=40, tol=1e-4).fit(frame(spark, x))
    theirs = KMeans(40, n_init=1, random_state=0).fit(x)
    assert inertia(x, ours.centroids) <= 1.01 * theirs.inertia_


def test_same_centroids_to_the_bit_at_any_partitioning(spark, pass_by_pass):
    x, _ = planted(seed=4, spread=1.5)
    df = frame(spark, x)
    fits = [
        MiniBatchKMeans(k=20, seed=5, batch_rows=500, max_iter=6).fit(df.repartition(n))
        for n in (1, 4, 64)
    ]
    for other in fits[1:]:
        np.testing.assert_array_equal(other.centroids, fits[0].centroids)
        assert other.summary == fits[0].summary
    lists = MiniBatchKMeans(k=20, seed=5, batch_rows=500, max_iter=6).fit(
        frame(spark, x, lists=True)
    )
    np.testing.assert_array_equal(lists.centroids, fits[0].centroids)


@pytest.mark.parametrize(
    "options",
    [{}, {"two_level": True}, {"spherical": True}, {"batch_rows": 700}, {"batch_rows": 150}],
    ids=["plain", "two levels", "unit", "windows over all rows", "windows over some rows"],
)
def test_one_task_does_the_passes_of_many_with_the_same_bits(spark, monkeypatch, options):
    x, _ = planted(seed=4, spread=1.5)
    x[5::331] *= 50  # outside the sample: the grid of the sums must grow on the way
    fit = MiniBatchKMeans(k=60, seed=5, init_rows=200, max_iter=6, **options)
    df = frame(spark, x).repartition(5)
    seen: list[int] = []
    together = fit.fit(
        df, on_pass=lambda state: seen.append(state.passes), on_sample=lambda x: x.tolist()
    )
    # Where the task reads all rows anyway, it chooses the first centres as well.
    every_row = options.get("batch_rows") != 150
    assert seen == [together.summary.passes] if every_row else [0, together.summary.passes]
    monkeypatch.setattr("gio_spark.quantize.kmeans_one_task.VALUES", 0)
    one_by_one = fit.fit(df, on_sample=lambda x: x.tolist())
    assert len(together.summary.of_sample) == 200
    np.testing.assert_array_equal(together.centroids, one_by_one.centroids)
    np.testing.assert_array_equal(together.state.weights, one_by_one.state.weights)
    assert together.summary == one_by_one.summary


def test_the_sample_is_the_rows_of_the_smallest_hashes_and_ids_among_equals():
    hashes, ids = np.array([5, 2, 9, 2, 5, 2]), pa.array(["a", "c", "d", "b", "e", "f"])
    assert smallest_hashes(hashes, ids, 2).tolist() == [3, 1]
    assert smallest_hashes(hashes, ids, 4).tolist() == [3, 1, 5, 0]
    assert smallest_hashes(hashes, ids, 6).tolist() == [3, 1, 5, 0, 4, 2]


def test_sums_sent_in_pieces_have_the_same_bits(spark, monkeypatch, pass_by_pass):
    x, _ = planted(seed=4, spread=1.5)
    fit = MiniBatchKMeans(k=20, seed=5, batch_rows=500, max_iter=4)
    dense = fit.fit(frame(spark, x))
    monkeypatch.setattr("gio_spark.quantize.pass_result.SENT_BYTES", 1)
    np.testing.assert_array_equal(fit.fit(frame(spark, x)).centroids, dense.centroids)


def test_a_fit_killed_between_passes_goes_on_to_the_same_centroids(spark, pass_by_pass):
    x, _ = planted(seed=6, spread=1.5)
    fit = MiniBatchKMeans(k=15, seed=2, batch_rows=400, max_iter=6)
    whole = fit.fit(frame(spark, x))
    committed: list[KMeansState] = []

    def die(state):
        if state.passes == 3:
            raise KeyboardInterrupt
        committed.append(state)

    with pytest.raises(KeyboardInterrupt):
        fit.fit(frame(spark, x), on_pass=die)
    assert [state.passes for state in committed] == [0, 1, 2]
    for last in (committed[0], committed[-1], whole.state):
        restored = KMeansState.from_table(last.to_table(), json.loads(json.dumps(last.info())))
        again = fit.fit(frame(spark, x).repartition(3), initial=restored)
        np.testing.assert_array_equal(again.centroids, whole.centroids)
        assert again.summary == whole.summary


def test_an_update_starts_from_the_last_model(spark):
    x, _ = planted(seed=7)
    fit = MiniBatchKMeans(k=12, seed=2, max_iter=5)
    first = fit.fit(frame(spark, x))
    moved = fit.fit(frame(spark, x + 0.05), initial=first.state, update=True)
    assert moved.state.updates == 1
    gap = moved.centroids - first.centroids
    assert 0.0 < np.abs(gap).max() < 0.2


def test_outliers_outside_the_sample_are_added_up_exactly(spark, pass_by_pass):
    x, _ = planted(seed=12)
    x[1::97] *= 1e5
    fit = MiniBatchKMeans(k=5, seed=0, init_rows=30, batch_rows=600, max_iter=4)
    fits = [fit.fit(frame(spark, x).repartition(n)) for n in (1, 9)]
    np.testing.assert_array_equal(fits[0].centroids, fits[1].centroids)
    assert fits[0].state.largest.max() > 1e5
    assert np.isfinite(fits[0].centroids).all()


def test_starved_centres_move_to_the_farthest_rows(spark, pass_by_pass):
    x, _ = planted(clusters=6, seed=8)
    far = np.full((12, x.shape[1]), 100, dtype=np.float32)
    start = far.copy()
    start[:6] = x[::150]
    start[6:] += np.arange(6, dtype=np.float32)[:, None]
    model = MiniBatchKMeans(k=12, seed=0, max_iter=8).fit(frame(spark, x), initial=start)
    assert model.summary.reseeded >= 6
    assert np.abs(model.centroids).max() < 50


def test_two_levels_agree_with_exact_assignment_and_are_the_same_at_any_partitioning(
    spark, pass_by_pass
):
    x, _ = planted(clusters=40, each=60, seed=11, spread=1.0)
    fit = MiniBatchKMeans(k=300, seed=1, max_iter=5, two_level=True)
    first, other = (fit.fit(frame(spark, x).repartition(n)) for n in (1, 7))
    np.testing.assert_array_equal(first.centroids, other.centroids)
    assert first.summary.agreement["agreement"] > 0.9
    assert first.summary.agreement["excess"] < 0.02
    found = first.transform(frame(spark, x), second=True).toArrow()
    assert sorted(found["id"].to_pylist()) == sorted(f"row-{i}" for i in range(len(x)))
    assert (found["cluster"].to_numpy() != found["second"].to_numpy()).all()
    few = dataclasses.replace(fit, probes=1).fit(frame(spark, x))
    assert few.summary.agreement["agreement"] < first.summary.agreement["agreement"]


def test_spherical_centres_have_length_one(spark):
    x, _ = planted(seed=9)
    scale = np.random.default_rng(0).uniform(0.1, 10, (len(x), 1)).astype(np.float32)
    fit = MiniBatchKMeans(k=12, seed=0, spherical=True, max_iter=5)
    model = fit.fit(frame(spark, x * scale))
    np.testing.assert_allclose(np.linalg.norm(model.centroids, axis=1), 1, atol=1e-6)


def test_a_saved_model_is_the_same_model(spark, tmp_path):
    x, _ = planted(seed=10)
    model = MiniBatchKMeans(k=5, seed=0, max_iter=3).fit(frame(spark, x))
    for _ in range(2):  # a model that is there is replaced
        model.save(tmp_path / "new" / "folders" / "model")
    loaded = MiniBatchKMeansModel.load(tmp_path / "new" / "folders" / "model")
    np.testing.assert_array_equal(loaded.centroids, model.centroids)
    assert loaded.summary == model.summary
    assert len(loaded.clusterCenters()) == 5
    rows = model.transform(frame(spark, x[:20])).toArrow().to_pylist()
    found = {row["id"]: row["cluster"] for row in rows}
    assert [loaded.predict(row) for row in x[:20]] == [found[f"row-{i}"] for i in range(20)]
    assert loaded.summary.numIter == model.summary.passes == 3
    assert model.summary.trainingCost == model.summary.inertia * len(x)
    with pytest.raises(InputError, match="no saved model"):
        MiniBatchKMeansModel.load(tmp_path / "elsewhere")


def test_more_clusters_than_distinct_rows_gives_fewer_with_a_warning(spark, caplog):
    x = np.repeat(np.eye(4, dtype=np.float32), 5, axis=0)
    with caplog.at_level(logging.WARNING, logger="gio_spark"):
        model = MiniBatchKMeans(k=10, seed=0).fit(frame(spark, x))
        assert len(model.centroids) == 4
        assert "4 clusters instead of 10" in caplog.text
        caplog.clear()
        MiniBatchKMeans(k=4, seed=0).fit(frame(spark, x))
        assert not caplog.text


def test_nan_is_refused_with_the_row(spark):
    x, _ = planted()
    x[17, 2] = np.nan
    with pytest.raises(InputError, match=r"row-17.*quarantine"):
        MiniBatchKMeans(k=3).fit(frame(spark, x))


def test_ragged_vectors_are_refused(spark):
    df = spark.createDataFrame(
        pa.table(
            {"id": ["a", "b"], "vector": pa.array([[1.0, 2.0], [1.0]], pa.list_(pa.float32()))}
        )
    )
    with pytest.raises(InputError, match="1 to 2 numbers"):
        MiniBatchKMeans(k=1).fit(df)


def test_no_rows_is_an_error(spark):
    x, _ = planted()
    with pytest.raises(InputError, match="rows to cluster: no row has a vector"):
        MiniBatchKMeans(k=3).fit(frame(spark, x).where("id = 'none'"))


def test_start_of_another_dimension_is_refused(spark):
    x, _ = planted()
    with pytest.raises(InputError, match="another embedder"):
        MiniBatchKMeans(k=3).fit(frame(spark, x), initial=np.ones((3, 5), np.float32))


@pytest.mark.parametrize(
    "bad", [{"k": 0}, {"k": 2, "decay": 1.5}, {"k": 2, "max_iter": 0}, {"k": 2, "probes": 0}]
)
def test_bad_parameters_are_refused(bad):
    with pytest.raises(ConfigError):
        MiniBatchKMeans(**bad)


@pytest.mark.parametrize("two_level", [False, True])
def test_threads_that_share_a_pass_change_no_bit(two_level):
    rng = np.random.default_rng(5)
    rows = rng.standard_normal((40_000, 6)).astype(np.float32)
    rows[::5] = rows[0]  # ties among the farthest as well
    ids = pa.array([f"r{i}" for i in range(len(rows))])
    centres = rows[1:65].copy()
    alone, shared = (
        pass_of_arrays(
            ids, rows, centres, largest=largest_values(rows), batch_rows=len(rows), far=20,
            two_level=two_level, threads=threads,
        )
        for threads in (1, 3)
    )  # fmt: skip
    assert alone.sums.tobytes() == shared.sums.tobytes()
    assert alone.counts.tolist() == shared.counts.tolist()
    assert alone.inertia == shared.inertia
    assert alone.far_vectors.tobytes() == shared.far_vectors.tobytes()
    assert alone.far_distances.tobytes() == shared.far_distances.tobytes()
