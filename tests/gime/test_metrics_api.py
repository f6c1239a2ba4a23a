"""Metrics on an engine: any partitioning, stored states, refresh, deletes, clear errors."""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd
import pytest

from gio_spark import gime, register
from gio_spark.engine import encode_vectors
from gio_spark.errors import ConfigError, InputError
from gio_spark.settings.gime import GimeSettings

KEYS = ["group", "metric", "form"]
FEW = GimeSettings(partitions=4, directions=4, probes=16)


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    n = 600
    vectors = rng.standard_normal((n, 6)).astype(np.float32)
    event = pd.Timestamp("2024-01-01", tz="UTC") + pd.to_timedelta(
        rng.integers(0, 5 * 10**6, n), "s"
    )
    return pd.DataFrame(
        {
            "id": [f"r{i}" for i in range(n)],
            "vector": encode_vectors(vectors).to_pylist(),
            "tokens": rng.integers(1, 50, n),
            "source": rng.choice(list("abc"), n),
            "quality": rng.random(n),
            "event_time": event,
            "ingest_time": event + pd.to_timedelta(rng.integers(0, 10**5, n), "s"),
            "input_version": np.where(np.arange(n) < 400, "1", "2"),
        }
    )


CODEBOOK = np.random.default_rng(5).standard_normal((12, 6)).astype(np.float32)


def table(frame) -> pd.DataFrame:
    return frame.toPandas().sort_values(KEYS).reset_index(drop=True)


def test_results_are_the_same_to_the_last_bit_at_1_7_and_64_partitions(spark, rows):
    df = spark.createDataFrame(rows)
    target = df.where("source = 'b'")
    results = [
        table(gime.metrics(df.repartition(p), by="source", target=target, codebook=CODEBOOK))
        for p in (1, 7, 64)
    ]
    for other in results[1:]:
        pd.testing.assert_frame_equal(results[0], other, check_exact=True)
    assert set(results[0]["group"]) == {"a", "b", "c"}
    robust = results[0].query("form == 'robust' and group == 'a'").set_index("metric")
    assert robust["value"].notna().all()
    assert list(robust.index.sort_values()) == sorted(gime.METRICS)


def test_skinny_assignments_report_what_needs_vectors_as_null_with_a_reason(spark, rows):
    skinny = rows.drop(columns="vector").assign(cluster=np.arange(600) % 7, distance=0.5)
    df = spark.createDataFrame(skinny)
    results = table(gime.metrics(df, target=df, clusters=7)).set_index(["metric", "form"])
    assert np.isnan(results.loc[("coverage", "robust"), "value"])
    assert "vectors" in results.loc[("coverage", "robust"), "caveat"]
    assert results.loc[("mismatch", "robust"), "value"] == 0
    assert results.loc[("scope", "robust"), "value"] == 1


def test_stored_states_merge_to_what_one_pass_gives_and_deletes_recompute_one_partition(
    spark, rows
):
    df = spark.createDataFrame(rows)
    constants = gime.freeze(df, target=df, codebook=CODEBOOK, settings=FEW)
    known = gime.target_states(df, constants=constants)

    def direct(frame):
        computed = gime.metrics(
            frame,
            by="source",
            target=known,
            codebook=CODEBOOK,
            settings=FEW,
            probes=constants.values["probes"],
        )
        return table(computed)

    def stored(frame):  # through bytes, as from a table
        return spark.createDataFrame(frame.toPandas())

    def figures(states):
        return table(gime.values(states, target=known, constants=constants))

    how = {"by": "source", "batch": "input_version", "constants": constants, "settings": FEW}
    old = stored(gime.states(df.where("input_version = '1'"), **how))
    new = gime.states(df.where("input_version = '2'"), **how)
    both = stored(gime.merge_states(old.unionByName(new)))
    pd.testing.assert_frame_equal(figures(both), direct(df), check_exact=True)

    left = df.where("id NOT IN ('r0', 'r1')")
    touched = gime.partitions_of(
        df.where("id IN ('r0', 'r1')"), batch="input_version", settings=FEW
    )
    assert 1 <= len(touched) <= 2
    fresh = gime.states(left, only=touched, **how)
    after = gime.replace_partitions(both, fresh, touched)
    pd.testing.assert_frame_equal(figures(after), direct(left), check_exact=True)


def test_states_of_another_codebook_are_refused(spark, rows):
    df = spark.createDataFrame(rows.head(20))
    computed = [
        gime.states(df, constants=gime.freeze(df, codebook=c, settings=FEW), settings=FEW)
        for c in (CODEBOOK, CODEBOOK + 1)
    ]
    with pytest.raises(Exception, match="cannot merge"):
        gime.merge_states(computed[0].unionByName(computed[1])).toPandas()


def test_months_come_from_the_event_time(spark, rows):
    results = table(gime.metrics(spark.createDataFrame(rows).drop("vector"), by="month"))
    assert set(results["group"]) == {"2024-01", "2024-02"}


def test_a_user_metric_is_registered_by_name_and_computed(spark, rows):
    def update(part, constants):
        return {"longest": np.array([part["tokens"].valid_values().max()])}

    def value(states, target, constants):
        return [gime.Value("robust", states["longest"].number("longest"), "tokens", "more")]

    longest = gime.Accumulator("longest", 1, update, {"longest": "max"}, needs=("tokens",))
    metric = gime.Metric("longest", ("longest",), value)
    profile = gime.TEXT.extended("with-longest", [metric], [longest])
    register("profile", "with-longest")(lambda: profile)
    df = spark.createDataFrame(rows).drop("vector")
    results = table(gime.metrics(df, "with-longest", by="source"))
    expected = rows.groupby("source")["tokens"].max()
    assert dict(results.query("metric == 'longest'")[["group", "value"]].to_numpy()) == dict(
        expected
    )
    assert len(results.query("form == 'robust' and group == 'a'")) == 12


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"profile": "nope"}, ConfigError, "No metric profile"),
        ({"by": "nope"}, InputError, "Cannot group by"),
        ({"columns": {"tokens": "nope"}}, InputError, "nope"),
        ({"codebook": CODEBOOK, "clusters": 5}, InputError, "clusters=5"),
        ({"probes": np.zeros((3, 9), np.float32)}, InputError, "do not fit"),
    ],
)
def test_wrong_arguments_are_refused_before_any_work(spark, rows, arguments, error, message):
    df = spark.createDataFrame(rows.head(5))
    with pytest.raises(error, match=message):
        gime.metrics(df, **arguments)


def test_an_empty_target_is_an_error(spark, rows):
    df = spark.createDataFrame(rows.head(5)).drop("vector")
    with pytest.raises(InputError, match="target has no rows"):
        gime.metrics(df, target=df.where("id = 'none'"))


# Figures of 200 rows on any engine: a hash of all of them, rounded to 9 digits.
FIGURES = "6603bd19c356cece"


def digest(results: pd.DataFrame) -> str:
    text = [
        f"{g} {m} {f} {v:.9g}"
        for g, m, f, v in results[["group", "metric", "form", "value"]].itertuples(index=False)
    ]
    return hashlib.sha256("\n".join(text).encode()).hexdigest()[:16]


@pytest.mark.spark
def test_local_spark_gives_the_same_bits_at_1_and_7_partitions(local_spark, rows):
    df = local_spark.createDataFrame(rows.head(200))
    results = [
        table(gime.metrics(df.repartition(p), by="source", target=df, codebook=CODEBOOK))
        for p in (1, 7)
    ]
    pd.testing.assert_frame_equal(results[0], results[1], check_exact=True)
    assert digest(results[0]) == FIGURES


def test_the_embedded_engine_gives_the_figures_that_local_spark_gives(spark, rows):
    df = spark.createDataFrame(rows.head(200))
    results = table(gime.metrics(df, by="source", target=df, codebook=CODEBOOK))
    assert digest(results) == FIGURES
