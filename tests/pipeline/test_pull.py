"""Rows pulled inside clusters towards metrics of rows that the plan would miss."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest

from gio_spark import explode
from gio_spark.engine.progress import Progress
from gio_spark.explode import rank_keys, thresholds_of_arrays
from gio_spark.explode.rank_keys import HASH_RANGE, passes_threshold
from gio_spark.gime import Constants, Threshold
from gio_spark.gime.tilted_subsets import Sample
from gio_spark.pipeline.constraints.required_rows import room_for
from gio_spark.pipeline.constraints.score_bias import pulled
from gio_spark.pipeline.refresh import refresh
from gio_spark.pipeline.run_records import RequiredRow
from gio_spark.settings.refresh import RefreshSettings
from tests.pipeline import jobs

pytestmark = pytest.mark.embedded

CLUSTERS, ROWS, TAKEN = 6, 3_000, 100


class World:
    """Rows in arrays, of which a plan keeps 100 of each cluster by the keys of `exact_count`."""

    def __init__(self, profile: str = "text", seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.tokens = rng.integers(5, 50, ROWS)
        self.quality = rng.random(ROWS)
        self.cluster = rng.integers(0, CLUSTERS, ROWS)
        self.hashes, self.ties = rng.integers(0, HASH_RANGE, (2, ROWS))
        columns = {"cluster": self.cluster, "tokens": self.tokens, "quality": self.quality}
        if profile == "tabular":
            columns["numeric:age"] = rng.normal(40, 9, ROWS)
        self.sample = Sample.from_arrow(
            pa.table(columns), profile, Constants({"clusters": CLUSTERS})
        )
        self.measured = 0

    def figures(self, score_biases=()):
        """Measure the rows that the plan keeps."""
        self.measured += 1
        values = {"volume": self.tokens, "distortion": 1 - self.quality}
        pull = sum(
            (p.sign * p.weight * (values[p.metric] - p.mean) / p.scale for p in score_biases),
            np.zeros(ROWS),
        )
        keys = rank_keys(
            "exact_count",
            self.hashes,
            None,
            temperature=0.25,
            score_bias=pull if score_biases else None,
        )
        thresholds = thresholds_of_arrays(self.cluster, keys, self.ties, np.full(CLUSTERS, TAKEN))
        cluster = self.cluster
        inside = passes_threshold(
            keys, self.ties, thresholds.threshold[cluster], thresholds.tie[cluster]
        )
        assert np.bincount(cluster[inside]).tolist() == [TAKEN] * CLUSTERS
        return {"selected": self.sample.metrics(np.flatnonzero(inside))}

    def pull_towards(self, *bounds, **more):
        first = self.figures()
        self.measured = 0
        return first["selected"], *pulled(bounds, first, {None: self.sample}, self.figures, **more)


def volume(bound: float) -> Threshold:
    return Threshold("volume", bound, "more", "by hand", 0.9, 12_000.0, 26_000.0)


def distortion(bound: float, upper: float | None = None) -> Threshold:
    return Threshold("distortion", bound, "less", "by hand", 0.9, 0.8, 0.1, upper)


def test_two_metrics_that_a_plan_misses_are_met_by_the_order_inside_clusters():
    world = World()
    before, score_biases, figures = world.pull_towards(volume(18_500), distortion(0.42))
    assert before["volume"] < 18_500 and before["distortion"] > 0.42
    after = figures["selected"]
    assert after["volume"] >= 18_500 and after["distortion"] <= 0.42
    assert {p.metric: p.sign for p in score_biases} == {"volume": 1, "distortion": -1}
    # No more than is needed: the first weights are enough here.
    assert all(p.weight <= 1 for p in score_biases)
    assert world.measured <= 3


def test_nothing_is_measured_where_no_metric_of_rows_is_missed():
    world = World()
    scope = Threshold("scope", 2.0, "more", "by hand", 1.0, 0.0, 1.0)
    before, score_biases, figures = world.pull_towards(volume(10_000), distortion(0.9), scope)
    assert score_biases == () and figures["selected"] == before and world.measured == 0


def test_what_cannot_be_met_is_brought_as_far_as_it_can_in_a_few_steps():
    world = World()
    _, score_biases, figures = world.pull_towards(volume(10**6))
    best = sum(np.sort(world.tokens[world.cluster == c])[-TAKEN:].sum() for c in range(CLUSTERS))
    assert world.measured == 6 and score_biases[0].weight == 16.0
    assert 0.99 * best <= figures["selected"]["volume"] <= best


def test_a_band_is_not_passed_by():
    world = World()
    before, score_biases, figures = world.pull_towards(distortion(0.40, upper=0.42))
    assert before["distortion"] > 0.42
    assert 0.40 <= figures["selected"]["distortion"] <= 0.42
    assert 0 < score_biases[0].weight < 0.5


def test_metrics_that_are_fixed_or_no_sum_of_their_column_are_left_alone():
    world = World()
    assert world.pull_towards(volume(10**6), fixed={"volume"})[1] == ()
    # A table's volume is in bits of its fields, its distortion in missing cells.
    table = World("tabular")
    assert table.pull_towards(volume(10**6), distortion(-1.0))[1] == () and table.measured == 0


def test_required_rows_get_room_from_the_fullest_clusters_of_their_source_within_the_budget():
    one = np.ones((3, 1))
    required_rows = [
        RequiredRow(id="a", cluster=1, source=""),
        RequiredRow(id="b", cluster=1, source=""),
    ]
    assert room_for(required_rows, np.array([5, 0, 3]), one, ()).tolist() == [3, 2, 3]
    assert room_for(required_rows, np.array([5, 2, 3]), one, ()).tolist() == [5, 2, 3]
    assert room_for(required_rows, np.array([1, 0, 0]), one, ()).tolist() == [1, 0, 0]
    take, flat = np.array([[4, 3], [0, 0]]), np.ones((2, 2))
    mine = [RequiredRow(id="a", cluster=1, source="y")]
    assert room_for(mine, take, flat, ("x", "y")).tolist() == [[4, 2], [0, 1]]
    # In tokens as many rows go as the pinned one costs.
    dear = np.array([[1.0, 2.0], [1.0, 3.0]])
    assert room_for(mine, take, dear, ("x", "y")).tolist() == [[4, 1], [0, 1]]


# ---- whole runs --------------------------------------------------------------------------------

GIME_SETTINGS = {"thresholds": {"volume": 0.6, "distortion": 0.8}, "screen": 20, "sample": 600}


def with_quality(table: pa.Table, seed: int) -> pa.Table:
    quality = np.random.default_rng(seed).random(table.num_rows)
    return table.append_column("score", pa.array(quality))


def settings_in(folder, files=1, **changes):
    pool = folder / ("pool" if files > 1 else "pool.parquet")
    if not pool.exists():
        jobs.write(with_quality(jobs.vector_pool(), 5), pool, files)
    jobs.write(with_quality(jobs.vector_target(), 6), folder / "target.parquet")
    values = {
        "pool": str(pool), "budget": 60, "gime": GIME_SETTINGS, "within_cluster": "density_ratio",
        "columns": {"quality": "score"}, **changes,
    }  # fmt: skip
    return jobs.settings(folder, **values)


def gate_of(folder):
    """The gate's facts of the newest plan in a folder's workspace."""
    records = jobs.table(folder / "ws", "runs").to_pylist()
    plans = sorted((r for r in records if r["stage"] == "plan"), key=lambda r: r["finished"])
    return json.loads(plans[-1]["detail"])["gate"]


@pytest.fixture(scope="module")
def runs(spark, tmp_path_factory):
    """A run that may not correct its plan, and one that may."""
    folder = tmp_path_factory.mktemp("pull")
    free, config = settings_in(folder, gime={**GIME_SETTINGS, "moves": 0}), settings_in(folder)
    first = jobs.go(free)
    judged = gate_of(folder)
    run = jobs.go(config)
    return folder, (free, first, judged), (config, run, gate_of(folder))


def test_a_run_meets_by_order_inside_clusters_what_its_plan_misses(runs):
    _, (free, first, judged), (config, run, gate) = runs
    failed = {c["metric"] for c in first.summary["gate"]["checks"] if not c["passed"]}
    assert failed == {"volume", "distortion"}
    assert run.summary["gate"]["passed"], run.summary["gate"]["why"]
    # No quota moved, and none is moved without corrections.
    assert run.plan["take"].tolist() == first.plan["take"].tolist()
    assert judged["moved"] == gate["moved"] == 0 and judged["score_biases"] == []
    assert [p["metric"] for p in gate["score_biases"]] == ["volume", "distortion"]
    rows = jobs.picked(config, run)
    assert rows.num_rows == 60
    assert rows["gio_id"].to_pylist() != jobs.picked(free, first)["gio_id"].to_pylist()
    assert "pulled towards the metrics" in rows["gio_reason"][0].as_py()
    assert any("towards volume" in text for text in run.summary["binding"])


def test_pulled_rows_are_the_same_from_seven_files(runs, tmp_path):
    _, _, (config, run, gate) = runs
    ids = jobs.picked(config, run)["gio_id"].to_pylist()
    assert jobs.picked_ids(settings_in(tmp_path, files=7)) == ids
    assert gate_of(tmp_path)["score_biases"] == gate["score_biases"]


def test_new_rows_are_pulled_by_the_means_and_weights_of_the_plan(runs, spark):
    folder, _, (config, run, gate) = runs
    new = with_quality(jobs.vector_pool(300, seed=11, name="n"), 7)
    jobs.write(
        pa.concat_tables([with_quality(jobs.vector_pool(), 5), new]), folder / "pool.parquet"
    )
    floating = config.model_copy(update={"refresh": RefreshSettings(budget="float")})
    done = refresh(floating, progress=Progress("silent"))
    rows = jobs.picked(config, run)["gio_id"].to_pylist()
    added = sorted(i for i in rows if i.startswith("n"))
    assert done.new_rows == 300 and len(added) == done.added > 0
    # The same by hand, from what stands in the tables.
    scores = jobs.table(folder / "ws", "scores").to_pandas()
    mine = scores[scores["id"].str.startswith("n")][["id", "cluster", "log_ratio"]]
    mine = mine.merge(new.select(["id", "words", "score"]).to_pandas(), on="id")
    values = {"volume": mine["words"], "distortion": 1 - mine["score"]}
    mine["pull"] = sum(
        p["sign"] * p["weight"] * (values[p["metric"]] - p["mean"]) / p["scale"]
        for p in gate["score_biases"]
    )
    frame = spark.createDataFrame(
        pa.Table.from_pandas(mine[["id", "cluster", "log_ratio", "pull"]], preserve_index=False)
    )
    expected = explode.selected_ids(frame, run.plan, settings=config.explode, seed=config.seed)
    assert sorted(expected.toArrow()["id"].to_pylist()) == added
    bare = explode.selected_ids(
        frame.drop("pull"), run.plan, settings=config.explode, seed=config.seed
    )
    assert sorted(bare.toArrow()["id"].to_pylist()) != added
    # With the budget held, the same order decides, and fewer rows of each cluster are taken.
    held = refresh(config, progress=Progress("silent"))
    first_rows = set(jobs.picked(config, run)["gio_id"].to_pylist())
    assert held.after == len(first_rows) == 60 and first_rows <= set(rows)


def test_rows_that_hold_the_extremes_of_a_held_duration_are_always_kept(spark, tmp_path):
    pool = jobs.vector_pool(300)
    hours = np.random.default_rng(3).integers(0, 24 * 300, 300)
    at = np.datetime64("2024-01-01", "us") + hours.astype("timedelta64[h]")
    # The target is of blob 0 alone; these are of blobs 3, 1 and 2.
    at[[7, 9]] = np.datetime64("2020-01-01", "us")
    at[6] = np.datetime64("2026-01-01", "us")
    jobs.write(pool.append_column("at", pa.array(at)), tmp_path / "pool.parquet")
    target = jobs.vector_target()
    jobs.write(
        target.append_column("at", pa.array(at[: target.num_rows])), tmp_path / "target.parquet"
    )
    gime_settings = {"thresholds": {"duration": 0.0}, "screen": 20, "sample": 300}
    config = jobs.settings(tmp_path, budget=60, columns={"event_time": "at"}, gime=gime_settings)
    run = jobs.go(config)
    rows = jobs.picked(config, run).to_pandas().set_index("gio_id")
    assert len(rows) == 60 == run.plan["take"].sum()
    required = rows[rows["gio_reason"].str.contains("an extreme of the pool's times")]
    # Of two rows with the first time, that of the smaller id.
    assert sorted(required.index) == ["p00006", "p00007"]
    figures = jobs.table(tmp_path / "ws", "metrics").to_pandas()
    literal = figures[(figures["metric"] == "duration") & (figures["form"] == "literal")]
    values = literal.set_index(literal["group"].str.removeprefix("group="))["value"]
    assert values["selected"] == values["pool"]
    free = config.model_copy(update={"gime": config.gime.model_copy(update={"moves": 0})})
    assert not {"p00006", "p00007"} & set(jobs.picked_ids(free))
