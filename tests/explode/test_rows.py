"""Rules on the embedded engine: counts, partition invariance, frozen plans, both joins."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from gio_spark.errors import InputError
from gio_spark.explode import RatioModel, fit_ratio, kept, materialise, score, with_thresholds
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


def settings(rule: str, **more: object) -> ExplodeSettings:
    return ExplodeSettings(within_cluster=rule, **more)


def ids(df) -> set[str]:
    return set(df.select("id").toArrow()["id"].to_pylist())


@pytest.mark.parametrize(
    ("rule", "temperature"),
    [("exact_count", 0.25), ("density_ratio", 0.0), ("density_ratio", 0.25)],
)
def test_exact_rules_keep_exactly_the_planned_rows(spark, table, plan, rule, temperature):
    chosen = settings(rule, temperature=temperature)
    assignments = spark.createDataFrame(table)
    full = with_thresholds(assignments, plan, settings=chosen)
    rows = kept(assignments, full, settings=chosen).toArrow()
    found = np.bincount(rows["cluster"].to_numpy(), minlength=CLUSTERS)
    np.testing.assert_array_equal(found, plan["take"])
    if temperature == 0.0:
        kept_ids = set(rows["id"].to_pylist())
        ratio = table["log_ratio"].to_numpy()
        inside = np.array([i in kept_ids for i in table["id"].to_pylist()])
        for c in range(CLUSTERS):
            own = table["cluster"].to_numpy() == c
            if inside[own].any() and not inside[own].all():
                assert ratio[own & inside].min() >= ratio[own & ~inside].max()


def test_hash_share_meets_the_budget_within_four_standard_deviations(spark, table, plan):
    chosen = settings("hash_share")
    assignments = spark.createDataFrame(table)
    full = with_thresholds(assignments, plan, settings=chosen)
    total = kept(assignments, full, settings=chosen).count()
    assert abs(total - plan["take"].sum()) <= 4 * np.sqrt(plan["take"].sum())


@pytest.mark.parametrize("rule", ["hash_share", "exact_count", "density_ratio"])
def test_rows_are_the_same_at_any_partitioning(spark, table, plan, rule):
    chosen = settings(rule)
    found = []
    for partitions in (1, 7, 64):
        assignments = spark.createDataFrame(table).repartition(partitions)
        full = with_thresholds(assignments, plan, settings=chosen, seed=3)
        found.append(
            (full["threshold"].tolist(), ids(kept(assignments, full, settings=chosen, seed=3)))
        )
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("candidates", [0, 2_000])
def test_thresholds_found_pass_by_pass_are_those_of_rows_fetched_at_once(
    spark, table, plan, monkeypatch, candidates
):
    chosen = settings("density_ratio")
    assignments = spark.createDataFrame(table)
    at_once = with_thresholds(assignments, plan, settings=chosen, seed=3)

    def in_passes(take, count, fetch, *, rows):
        found = find_thresholds(take, count, fetch, candidates=candidates)
        assert found.passes > 1
        return found

    monkeypatch.setattr("gio_spark.explode.row_filter.find_thresholds", in_passes)
    pd.testing.assert_frame_equal(
        with_thresholds(assignments, plan, settings=chosen, seed=3), at_once
    )


@pytest.mark.parametrize("rule", ["hash_share", "exact_count", "density_ratio"])
def test_pulled_rows_are_exact_in_number_and_the_same_at_any_partitioning(spark, table, plan, rule):
    chosen = settings(rule)
    value = np.random.default_rng(3).normal(size=ROWS)
    worth = dict(zip(table["id"].to_pylist(), value, strict=True))
    whole = table.append_column("pull", pa.array(2 * value))
    found = []
    for partitions in (1, 7, 64):
        assignments = spark.createDataFrame(whole).repartition(partitions)
        full = with_thresholds(assignments, plan, settings=chosen, seed=3)
        rows = kept(assignments, full, settings=chosen, seed=3).toArrow()
        counts = np.bincount(rows["cluster"].to_numpy(), minlength=CLUSTERS)
        np.testing.assert_array_equal(counts, plan["take"])
        found.append((full["threshold"].tolist(), set(rows["id"].to_pylist())))
    assert found[0] == found[1] == found[2]
    plain = spark.createDataFrame(table)
    full = with_thresholds(plain, plan, settings=chosen, seed=3)
    before = ids(kept(plain, full, settings=chosen, seed=3))
    assert np.mean([worth[i] for i in found[0][1]]) > np.mean([worth[i] for i in before]) + 0.2


def test_a_stored_plan_decides_new_rows_and_leaves_old_ones_alone(spark, table, plan):
    chosen = settings("density_ratio")
    old = spark.createDataFrame(table.slice(0, 3_000))
    every = spark.createDataFrame(table)
    full = with_thresholds(old, plan.assign(take=np.minimum(plan["take"], 40)), settings=chosen)
    before = ids(kept(old, full, settings=chosen))
    after = ids(kept(every, full, settings=chosen))
    assert before < after
    first = set(table["id"].slice(0, 3_000).to_pylist())
    assert after & first == before


def test_both_joins_fetch_the_same_rows(spark, table, plan):
    chosen = settings("density_ratio")
    assignments = spark.createDataFrame(table.select(["id", "cluster", "log_ratio"]))
    pool = spark.createDataFrame(table.select(["id", "text"]))
    full = with_thresholds(assignments, plan, settings=chosen)
    rows = kept(assignments, full, settings=chosen)
    total = int(plan["take"].sum())
    found = []
    for bound in (10 * total, 0):
        out = materialise(
            pool,
            rows,
            expected=total,
            settings=settings("density_ratio", broadcast_rows=bound),
            columns={"gio_run": "r1"},
        ).toArrow()
        assert out.schema.names == [
            "id", "text", "gio_id", "gio_cluster", "gio_reason", "gio_log_ratio", "gio_run",
        ]  # fmt: skip
        found.append(
            sorted(zip(*(out[c].to_pylist() for c in ("id", "text", "gio_cluster")), strict=True))
        )
    assert found[0] == found[1]
    assert len(found[0]) == total


def test_ids_are_returned_without_reading_the_pool(spark, table, plan):
    chosen = settings("exact_count", output="ids")
    assignments = spark.createDataFrame(table.select(["id", "cluster"]))
    full = with_thresholds(assignments, plan, settings=chosen)
    out = materialise(
        spark.createDataFrame(table.select(["id", "text"])),
        kept(assignments, full, settings=chosen),
        expected=10,
        settings=chosen,
    )
    assert "text" not in out.columns
    assert out.count() == plan["take"].sum()


def test_columns_with_dots_and_backticks_survive(spark, table, plan):
    chosen = settings("exact_count")
    full = with_thresholds(spark.createDataFrame(table), plan, settings=chosen)
    rows = kept(spark.createDataFrame(table), full, settings=chosen)
    pool = spark.createDataFrame(
        pa.table({"id": table["id"], "a.b": table["text"], "c`d": table["text"]})
    )
    out = materialise(pool, rows, expected=10, settings=chosen)
    assert out.columns[:3] == ["id", "a.b", "c`d"]
    assert out.count() == plan["take"].sum()


def test_rows_without_a_cluster_are_no_candidates(spark, table, plan):
    chosen = settings("exact_count")
    missing = pa.table(
        {"id": [f"none-{i}" for i in range(50)], "cluster": pa.nulls(50, pa.int32())}
    )
    both = pa.concat_tables([table.select(["id", "cluster"]), missing])
    assignments = spark.createDataFrame(both)
    full = with_thresholds(assignments, plan, settings=chosen)
    found = ids(kept(assignments, full, settings=chosen))
    assert len(found) == plan["take"].sum()
    assert not any(i.startswith("none") for i in found)


def test_a_pool_with_the_selections_own_names_is_refused(spark, table, plan):
    pool = spark.createDataFrame(table.select(["id"]).append_column("gio_reason", table["text"]))
    with pytest.raises(InputError, match="gio_reason"):
        materialise(pool, pool, expected=1, settings=settings("exact_count"))


def test_a_ratio_rule_without_ratios_is_refused(spark, table, plan):
    assignments = spark.createDataFrame(table.select(["id", "cluster"]))
    with pytest.raises(InputError, match="log_ratio"):
        with_thresholds(assignments, plan, settings=settings("density_ratio"))


def test_a_plan_must_be_one_row_a_cluster_with_its_columns(spark, table, plan):
    assignments = spark.createDataFrame(table)
    chosen = settings("exact_count")
    with pytest.raises(InputError, match="take"):
        with_thresholds(assignments, plan.drop(columns="take"), settings=chosen)
    with pytest.raises(InputError, match="twice"):
        with_thresholds(assignments, pd.concat([plan, plan]), settings=chosen)
    with pytest.raises(InputError, match="thresholds"):
        kept(assignments, plan, settings=chosen)


def test_a_stored_ratio_scores_new_rows_as_it_would_have_at_first(spark):
    rng = np.random.default_rng(2)
    words = np.array(["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta"])

    def texts(n: int, low: int, high: int, name: str) -> pa.Table:
        made = [" ".join(words[rng.integers(low, high, 8)]) for _ in range(n)]
        ids = [f"{name}{i}" for i in range(n)]
        return pa.table({"id": ids, "body": made, "cluster": np.zeros(n, dtype=np.int32)})

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

    whole = scored(fits[0].model, pool, 1)
    assert scored(fits[0].model, pool, 64) == whole
    stored = RatioModel.from_arrays(first)
    late = scored(stored, pool.slice(600), 7)
    assert late == {i: whole[i] for i in late}
