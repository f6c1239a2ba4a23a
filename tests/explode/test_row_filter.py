"""Rules on the embedded engine: counts, partition invariance, frozen plans, both joins."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from gio_spark.errors import InputError
from gio_spark.explode import (
    RatioModel,
    fit_ratio,
    materialize,
    row_keys,
    score,
    selected_ids,
    with_thresholds,
)
from gio_spark.explode.exact_thresholds import find_thresholds
from gio_spark.settings.explode import ExplodeSettings

pytestmark = pytest.mark.embedded

ROWS, CLUSTERS = 4_000, 20


@pytest.fixture(scope="module")
def table() -> pa.Table:
    rng = np.random.default_rng(7)
    return pa.table(
        {
            "id": [f"row-{i}" for i in range(ROWS)],
            "cluster": pa.array(rng.integers(0, CLUSTERS, ROWS).astype(np.int32)),
            # Whole numbers: heavy ties among the ratios.
            "log_ratio": pa.array(rng.integers(-1, 2, ROWS).astype(np.float32)),
            "text": [f"text {i}" for i in range(ROWS)],
        }
    )


@pytest.fixture(scope="module")
def plan(table: pa.Table) -> pd.DataFrame:
    rows = np.bincount(table["cluster"].to_numpy(), minlength=CLUSTERS)
    take = (rows * np.linspace(0, 1, CLUSTERS)).astype(int)
    return pd.DataFrame({"cluster": np.arange(CLUSTERS), "rows": rows, "take": take})


def settings(rule: str, **changes: object) -> ExplodeSettings:
    return ExplodeSettings(within_cluster=rule, **changes)


def ids_of(df) -> set[str]:
    return set(df.select("id").toArrow()["id"].to_pylist())


@pytest.mark.parametrize(
    ("rule", "temperature"),
    [("exact_count", 0.25), ("density_ratio", 0.0), ("density_ratio", 0.25)],
)
def test_exact_rules_keep_exactly_the_planned_rows(spark, table, plan, rule, temperature):
    explode_settings = settings(rule, temperature=temperature)
    assignments = spark.createDataFrame(table)
    thresholds = with_thresholds(assignments, plan, settings=explode_settings)
    rows = selected_ids(assignments, thresholds, settings=explode_settings).toArrow()
    counts = np.bincount(rows["cluster"].to_numpy(), minlength=CLUSTERS)
    np.testing.assert_array_equal(counts, plan["take"])
    if temperature == 0.0:
        selected = set(rows["id"].to_pylist())
        ratio = table["log_ratio"].to_numpy()
        is_selected = np.array([i in selected for i in table["id"].to_pylist()])
        for c in range(CLUSTERS):
            in_cluster = table["cluster"].to_numpy() == c
            if is_selected[in_cluster].any() and not is_selected[in_cluster].all():
                assert (
                    ratio[in_cluster & is_selected].min() >= ratio[in_cluster & ~is_selected].max()
                )


def test_hash_share_meets_the_budget_within_four_standard_deviations(spark, table, plan):
    explode_settings = settings("hash_share")
    assignments = spark.createDataFrame(table)
    thresholds = with_thresholds(assignments, plan, settings=explode_settings)
    total = selected_ids(assignments, thresholds, settings=explode_settings).count()
    assert abs(total - plan["take"].sum()) <= 4 * np.sqrt(plan["take"].sum())


@pytest.mark.parametrize("rule", ["hash_share", "exact_count", "density_ratio"])
def test_rows_are_the_same_at_any_partitioning(spark, table, plan, rule):
    explode_settings = settings(rule)
    results = []
    for partitions in (1, 7, 64):
        assignments = spark.createDataFrame(table).repartition(partitions)
        thresholds = with_thresholds(assignments, plan, settings=explode_settings, seed=3)
        results.append(
            (
                thresholds["threshold"].tolist(),
                ids_of(selected_ids(assignments, thresholds, settings=explode_settings, seed=3)),
            )
        )
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("candidates", [0, 2_000])
def test_thresholds_found_pass_by_pass_are_those_of_rows_fetched_at_once(
    spark, table, plan, monkeypatch, candidates
):
    explode_settings = settings("density_ratio")
    assignments = spark.createDataFrame(table)
    at_once = with_thresholds(assignments, plan, settings=explode_settings, seed=3)

    def in_passes(take, count, fetch, *, rows):
        result = find_thresholds(take, count, fetch, candidates=candidates)
        assert result.passes > 1
        return result

    monkeypatch.setattr("gio_spark.explode.row_filter.find_thresholds", in_passes)
    pd.testing.assert_frame_equal(
        with_thresholds(assignments, plan, settings=explode_settings, seed=3), at_once
    )


@pytest.mark.parametrize("rule", ["hash_share", "exact_count", "density_ratio"])
def test_pulled_rows_are_exact_in_number_and_the_same_at_any_partitioning(spark, table, plan, rule):
    explode_settings = settings(rule)
    value = np.random.default_rng(3).normal(size=ROWS)
    value_of_id = dict(zip(table["id"].to_pylist(), value, strict=True))
    biased_table = table.append_column("pull", pa.array(2 * value))
    results = []
    for partitions in (1, 7, 64):
        assignments = spark.createDataFrame(biased_table).repartition(partitions)
        thresholds = with_thresholds(assignments, plan, settings=explode_settings, seed=3)
        rows = selected_ids(assignments, thresholds, settings=explode_settings, seed=3).toArrow()
        counts = np.bincount(rows["cluster"].to_numpy(), minlength=CLUSTERS)
        np.testing.assert_array_equal(counts, plan["take"])
        results.append((thresholds["threshold"].tolist(), set(rows["id"].to_pylist())))
    assert results[0] == results[1] == results[2]
    plain = spark.createDataFrame(table)
    thresholds = with_thresholds(plain, plan, settings=explode_settings, seed=3)
    unbiased = ids_of(selected_ids(plain, thresholds, settings=explode_settings, seed=3))
    assert (
        np.mean([value_of_id[i] for i in results[0][1]])
        > np.mean([value_of_id[i] for i in unbiased]) + 0.2
    )


def test_a_stored_plan_decides_new_rows_and_leaves_old_ones_alone(spark, table, plan):
    explode_settings = settings("density_ratio")
    old = spark.createDataFrame(table.slice(0, 3_000))
    all_rows = spark.createDataFrame(table)
    thresholds = with_thresholds(
        old, plan.assign(take=np.minimum(plan["take"], 40)), settings=explode_settings
    )
    before = ids_of(selected_ids(old, thresholds, settings=explode_settings))
    after = ids_of(selected_ids(all_rows, thresholds, settings=explode_settings))
    assert before < after
    first = set(table["id"].slice(0, 3_000).to_pylist())
    assert after & first == before


def test_both_joins_fetch_the_same_rows(spark, table, plan):
    explode_settings = settings("density_ratio")
    assignments = spark.createDataFrame(table.select(["id", "cluster", "log_ratio"]))
    pool = spark.createDataFrame(table.select(["id", "text"]))
    thresholds = with_thresholds(assignments, plan, settings=explode_settings)
    rows = selected_ids(assignments, thresholds, settings=explode_settings)
    total = int(plan["take"].sum())
    results = []
    for bound in (10 * total, 0):
        selection = materialize(
            pool,
            rows,
            expected=total,
            settings=settings("density_ratio", broadcast_rows=bound),
            columns={"gio_run": "r1"},
        ).toArrow()
        assert selection.schema.names == [
            "id", "text", "gio_id", "gio_cluster", "gio_reason", "gio_log_ratio", "gio_run",
        ]  # fmt: skip
        results.append(
            sorted(
                zip(*(selection[c].to_pylist() for c in ("id", "text", "gio_cluster")), strict=True)
            )
        )
    assert results[0] == results[1]
    assert len(results[0]) == total


def test_ids_are_returned_without_reading_the_pool(spark, table, plan):
    explode_settings = settings("exact_count", output="ids")
    assignments = spark.createDataFrame(table.select(["id", "cluster"]))
    thresholds = with_thresholds(assignments, plan, settings=explode_settings)
    selection = materialize(
        spark.createDataFrame(table.select(["id", "text"])),
        selected_ids(assignments, thresholds, settings=explode_settings),
        expected=10,
        settings=explode_settings,
    )
    assert "text" not in selection.columns
    assert selection.count() == plan["take"].sum()


def test_columns_with_dots_and_backticks_survive(spark, table, plan):
    explode_settings = settings("exact_count")
    thresholds = with_thresholds(spark.createDataFrame(table), plan, settings=explode_settings)
    rows = selected_ids(spark.createDataFrame(table), thresholds, settings=explode_settings)
    pool = spark.createDataFrame(
        pa.table({"id": table["id"], "a.b": table["text"], "c`d": table["text"]})
    )
    selection = materialize(pool, rows, expected=10, settings=explode_settings)
    assert selection.columns[:3] == ["id", "a.b", "c`d"]
    assert selection.count() == plan["take"].sum()


def test_rows_without_a_cluster_are_no_candidates(spark, table, plan):
    explode_settings = settings("exact_count")
    missing = pa.table(
        {"id": [f"none-{i}" for i in range(50)], "cluster": pa.nulls(50, pa.int32())}
    )
    with_missing = pa.concat_tables([table.select(["id", "cluster"]), missing])
    assignments = spark.createDataFrame(with_missing)
    thresholds = with_thresholds(assignments, plan, settings=explode_settings)
    ids = ids_of(selected_ids(assignments, thresholds, settings=explode_settings))
    assert len(ids) == plan["take"].sum()
    assert not any(i.startswith("none") for i in ids)


def test_a_pool_with_the_selections_own_names_is_refused(spark, table, plan):
    pool = spark.createDataFrame(table.select(["id"]).append_column("gio_reason", table["text"]))
    with pytest.raises(InputError, match="gio_reason"):
        materialize(pool, pool, expected=1, settings=settings("exact_count"))


def test_a_ratio_rule_without_ratios_is_refused(spark, table, plan):
    assignments = spark.createDataFrame(table.select(["id", "cluster"]))
    with pytest.raises(InputError, match="log_ratio"):
        with_thresholds(assignments, plan, settings=settings("density_ratio"))


def test_a_plan_must_be_one_row_a_cluster_with_its_columns(spark, table, plan):
    assignments = spark.createDataFrame(table)
    explode_settings = settings("exact_count")
    with pytest.raises(InputError, match="take"):
        with_thresholds(assignments, plan.drop(columns="take"), settings=explode_settings)
    with pytest.raises(InputError, match="twice"):
        with_thresholds(assignments, pd.concat([plan, plan]), settings=explode_settings)
    with pytest.raises(InputError, match="thresholds"):
        selected_ids(assignments, plan, settings=explode_settings)


def test_a_stored_ratio_scores_new_rows_as_it_would_have_at_first(spark):
    rng = np.random.default_rng(2)
    words = np.array(["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta"])

    def texts(n: int, low: int, high: int, name: str) -> pa.Table:
        bodies = [" ".join(words[rng.integers(low, high, 8)]) for _ in range(n)]
        ids_of = [f"{name}{i}" for i in range(n)]
        return pa.table({"id": ids_of, "body": bodies, "cluster": np.zeros(n, dtype=np.int32)})

    target, pool = texts(400, 0, 5, "t"), texts(900, 2, 8, "p")
    fits = [
        fit_ratio(
            spark.createDataFrame(target).repartition(n),
            spark.createDataFrame(pool).repartition(n),
            content="body",
            kind="text",
            settings=settings("density_ratio", fit_rows=300),
            target_rows=400,
            pool_rows=900,
            seed=5,
        )
        for n in (1, 7)
    ]
    assert fits[0].target_rows == fits[0].pool_rows == 300
    first, second = (f.model.to_arrays() for f in fits)
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name])

    def scored(model: RatioModel, rows: pa.Table, partitions: int) -> dict[str, float]:
        df = spark.createDataFrame(rows).repartition(partitions)
        out = score(df, model, content="body").toArrow()
        assert out.schema.names == ["id", "cluster", "log_ratio"]
        return dict(zip(out["id"].to_pylist(), out["log_ratio"].to_pylist(), strict=True))

    scores = scored(fits[0].model, pool, 1)
    assert scored(fits[0].model, pool, 64) == scores
    stored = RatioModel.from_arrays(first)
    later_scores = scored(stored, pool.slice(600), 7)
    assert later_scores == {i: scores[i] for i in later_scores}


@pytest.mark.parametrize("rule", ["exact_count", "density_ratio"])
def test_copies_add_up_and_the_largest_keys_have_one_more(spark, table, plan, rule):
    explode_settings = settings(rule)
    copies = plan["take"] * np.arange(CLUSTERS).clip(1, 4) + (plan["take"] // 3)
    with_copies = plan.assign(copies=copies, fractional=copies + 0.25)
    results = []
    for partitions in (1, 7):
        assignments = spark.createDataFrame(table).repartition(partitions)
        thresholds = with_thresholds(assignments, with_copies, settings=explode_settings, seed=3)
        selected = selected_ids(assignments, thresholds, settings=explode_settings, seed=3)
        results.append(selected.toArrow().sort_by("id"))
    assert results[0].equals(results[1])
    rows = results[0].to_pandas()
    by_cluster = rows.groupby("cluster")["repeat"]
    expected = with_copies[with_copies["take"] > 0].set_index("cluster")
    np.testing.assert_array_equal(by_cluster.sum(), expected["copies"])
    np.testing.assert_array_equal(by_cluster.count(), expected["take"])
    assert (by_cluster.max() - by_cluster.min() <= 1).all()
    weights = rows.groupby("cluster")["weight"].sum()
    np.testing.assert_allclose(weights, expected["fractional"])
    keys = row_keys(assignments, settings=explode_settings, seed=3).toArrow().to_pandas()
    keyed = rows.merge(keys[["id", "rank_key", "tie"]], on="id")
    for _, one in keyed.groupby("cluster"):
        ordered = one.sort_values(["rank_key", "tie"], ascending=False)["repeat"].to_numpy()
        assert (np.diff(ordered) <= 0).all()
    # The rows are those of the plan without copies, with the same reasons but for the copies.
    plain = with_thresholds(assignments, plan, settings=explode_settings, seed=3)
    once = selected_ids(assignments, plain, settings=explode_settings, seed=3).toArrow()
    assert once.sort_by("id")["id"].equals(results[0]["id"])
    assert "repeat" not in once.schema.names
    assert rows["reason"].str.contains("copies, each row").any()


def test_hash_share_meets_copies_on_average(spark, table, plan):
    explode_settings = settings("hash_share")
    copies = plan["take"] * 2 + plan["take"] // 2
    assignments = spark.createDataFrame(table)
    thresholds = with_thresholds(assignments, plan.assign(copies=copies), settings=explode_settings)
    rows = selected_ids(assignments, thresholds, settings=explode_settings).toArrow().to_pandas()
    assert set(rows["repeat"]) == {2, 3}
    assert abs(rows["repeat"].sum() - copies.sum()) <= 8 * np.sqrt(copies.sum())


def test_a_plan_with_fewer_copies_than_rows_is_refused(spark, table, plan):
    with pytest.raises(InputError, match="fewer copies than rows"):
        with_thresholds(
            spark.createDataFrame(table),
            plan.assign(copies=plan["take"] - 1),
            settings=settings("exact_count"),
        )
