"""Runs whose models and plan are a version of a registered model in MLflow, which scores tables."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from typer.testing import CliRunner

from gio_spark.cli.main import app
from gio_spark.engine.progress import Progress
from gio_spark.errors import InputError
from gio_spark.kernels.xxhash64 import hash53_of_texts
from gio_spark.pipeline.commands.score_table import score_table
from gio_spark.pipeline.constraints.score_bias import Order, bias_values
from gio_spark.pipeline.refresh import newest_run, refresh
from gio_spark.pipeline.run_records import RunSummary, ScoreBias
from gio_spark.pipeline.stages.freeze_plan import read_frozen_plan
from gio_spark.pipeline.stages.frozen_plan import FrozenPlan, _bias_columns
from gio_spark.pipeline.stages.open_inputs import open_context
from gio_spark.pipeline.stages.register_plan import registered_versions
from gio_spark.settings.inputs import InputSettings
from gio_spark.tables import Workspace
from gio_spark.tracking.mlflow_client import mlflow_defaults
from gio_spark.tracking.tracking_store import resolve
from tests.pipeline import jobs

pytestmark = pytest.mark.embedded
SILENT = Progress("silent")
NAME = "selection-models"


def tracking(place):
    return {
        "enabled": True, "uri": f"sqlite:///{place}/mlflow.db", "registered_model": NAME,
        "tags": {"api_token": "hush"},
    }  # fmt: skip


def versions(place):
    store = resolve(f"sqlite:///{place}/mlflow.db", None, place)
    with mlflow_defaults(store):
        from gio_spark.tracking.mlflow_client import connect

        listed = connect(store).search_model_versions(f"name='{NAME}'")
    return sorted(listed, key=lambda version: int(version.version))


def scores(location):
    return DeltaTable(str(location)).to_pyarrow_table().sort_by("gio_id").to_pandas()


def predicted(place, frame, version):
    import mlflow.pyfunc

    store = resolve(f"sqlite:///{place}/mlflow.db", None, place)
    with mlflow_defaults(store):
        listed = {int(v.version): v for v in versions(place)}
        model = mlflow.pyfunc.load_model(listed[version].source)
        return model.predict(frame).sort_values("gio_id", ignore_index=True)


CASES = {
    "caps": {"select": {"source_caps": {"site-0": 0.6}, "replay": 0.3}},
    "vectors": {"within_cluster": "density_ratio"},
}


def test_a_run_and_a_refresh_with_another_plan_are_a_version_each_which_score_alone(
    spark, place, monkeypatch
):
    settings = jobs.settings(place, tracking=tracking(place), **CASES["vectors"])
    jobs.go(settings)
    jobs.go(settings)  # complete, and registered
    refresh(settings, progress=SILENT)
    assert len(versions(place)) == 1
    pool = pq.read_table(place / "pool.parquet")
    jobs.write(
        pa.concat_tables([pool, jobs.vector_pool(90, seed=8, name="n")]), place / "pool.parquet"
    )
    for _ in range(2):
        refresh(settings, progress=SILENT)
    assert [v.tags["gio.refresh"] for v in versions(place)] == ["0", "1"]

    others = jobs.write(jobs.vector_pool(200, seed=5, name="o"), place / "others.parquet")
    own = score_table(settings, InputSettings(location=others), str(place / "own"), progress=SILENT)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{place}/mlflow.db")
    registered = registered_versions(Workspace(spark, settings.workspace))
    assert registered == (f"{NAME} version 1", f"{NAME} version 2")
    (place / "ws").rename(place / "gone")
    words = ["score", f"models:/{NAME}/2", others, "--output", str(place / "by-model")]
    done = CliRunner().invoke(app, [*words, "--engine", "embedded", "--json", "--quiet"])
    facts = json.loads(done.stdout)
    assert (facts["exit_code"], facts["refresh"], facts["passing"]) == (0, 1, own.passing)
    expected = scores(place / "own")
    pd.testing.assert_frame_equal(scores(place / "by-model"), expected)
    result = predicted(place, pq.read_table(others).to_pandas(), version=2)
    pd.testing.assert_frame_equal(result, expected, check_exact=True)
    files = [f for f in place.rglob("*") if f.is_file() and "model" in f.parts]
    assert len(files) > 5 and not [f for f in files if "pickle" in f.name or f.suffix == ".pkl"]
    assert not [f for f in files if b"hush" in f.read_bytes()]


@pytest.mark.parametrize("case", ["caps", "text"])
def test_the_model_gives_each_row_the_values_of_score(place, case):
    if case == "text":
        jobs.write(jobs.text_rows("p", 300, 0, 90, 1), place / "pool.parquet")
        jobs.write(jobs.text_rows("t", 60, 0, 30, 2), place / "target.parquet")
        others = jobs.text_rows("o", 100, 0, 90, 5)
        odd = pa.table({"id": ["empty"], "text": pa.array([None], pa.string())})
        others = pa.concat_tables([others, odd])
        columns = {"id": "id", "text": "text", "vector": None, "source": None, "tokens": None}
        changes = {
            "columns": columns, "embedder": {"name": "ngrams", "dimension": 16}, "clusters": 8,
            "budget": 60, "within_cluster": "density_ratio",
        }  # fmt: skip
    else:
        others, changes = jobs.vector_pool(200, seed=5, name="o"), CASES[case]
    settings = jobs.settings(place, **changes)
    jobs.go(settings)
    ctx = open_context(settings, progress=SILENT)
    read_frozen_plan(ctx, RunSummary.of(newest_run(ctx.workspace, settings))).save(place / "plan")
    plan = FrozenPlan.load(place / "plan")
    location = jobs.write(others, place / "others.parquet")
    score_table(settings, InputSettings(location=location), str(place / "own"), progress=SILENT)
    result = plan.score_frame(others.to_pandas()).sort_values("gio_id", ignore_index=True)
    pd.testing.assert_frame_equal(result, scores(place / "own"), check_exact=True)
    assert result["gio_keep"].any() and not result["gio_keep"].all()
    with pytest.raises(InputError, match="'id'"):
        plan.score_frame(others.drop_columns(["id"]).to_pandas())
    with pytest.raises(InputError, match="no model of a run"):
        FrozenPlan.load(place)


def test_hashes_of_ids_are_those_of_the_engine(spark):
    from gio_spark.engine import hash53

    texts = ["", "a", "ü€", *("x" * n + str(n) for n in range(70))]
    frame = spark.createDataFrame(pa.table({"id": texts}))
    columns = frame.select("id", hash53("id", "salt").alias("h")).toArrow()
    own = hash53_of_texts(columns["id"].to_pylist(), ["salt"])
    assert np.array_equal(own[0], columns["h"].to_numpy())


def test_score_biases_of_a_frame_are_those_of_the_engine(spark):
    rng = np.random.default_rng(4)
    rows = 200
    micros = rng.integers(1_700_000_000_000_000, 1_800_000_000_000_000, (2, rows))
    missing = rng.random((4, rows)) < 0.2
    kind = pa.timestamp("us", tz="UTC")
    table = pa.table(
        {
            "tokens": pa.array(rng.integers(1, 500, rows), mask=missing[0]),
            "quality": pa.array(rng.random(rows), mask=missing[1]),
            "event_time": pa.array(micros[0], pa.int64(), mask=missing[2]).cast(kind),
            "ingest_time": pa.array(micros[1], pa.int64(), mask=missing[3]).cast(kind),
            "source": pa.array([("a", "b", None)[i % 3] for i in range(rows)]),
            "distance": pa.array(rng.random(rows), pa.float32()),
        }
    )
    biases = [
        ScoreBias(metric=metric, sign=sign, mean=0.7, scale=1.3, weight=0.6)
        for metric, sign in (
            ("volume", 1), ("a/delay", -1), ("granularity", 1), ("b/distortion", -1)
        )
    ]  # fmt: skip
    (column,) = Order(score_biases=tuple(biases)).columns
    by_engine = spark.createDataFrame(table).select("*", column).toArrow()
    columns = _bias_columns(by_engine, by_engine["distance"].to_numpy())
    assert np.array_equal(bias_values(biases, columns), by_engine["pull"].to_numpy())


def test_a_required_row_is_taken_whatever_its_score(place):
    settings = jobs.settings(place)
    jobs.go(settings)
    ctx = open_context(settings, progress=SILENT)
    plan = read_frozen_plan(ctx, RunSummary.of(newest_run(ctx.workspace, settings)))
    pool = pq.read_table(place / "pool.parquet").to_pandas()
    decided = plan.score_frame(pool)
    (left_out, *_) = decided.loc[
        ~decided["gio_keep"] & (decided["gio_threshold"].notna()), "gio_id"
    ]
    required = hash53_of_texts([left_out], plan.salts[:2])
    again = replace(plan, arrays={**plan.arrays, "required": required}).score_frame(pool)
    changed = decided["gio_keep"] != again["gio_keep"]
    assert decided.loc[changed, "gio_id"].tolist() == [left_out]
