"""Budgets, targets, caps, rules and outputs of a small job."""

from __future__ import annotations

import numpy as np
import pytest

from gio_spark.errors import BudgetError, ConfigError, InputError
from tests.pipeline import jobs

pytestmark = pytest.mark.embedded


def sites(rows) -> dict[str, float]:
    names, counts = np.unique(np.asarray(rows["site"]), return_counts=True)
    return dict(zip(names.tolist(), (counts / counts.sum()).tolist(), strict=True))


@pytest.mark.parametrize("rule", ["exact_count", "density_ratio"])
@pytest.mark.parametrize(("budget", "rows"), [(37, 37), (0.1, 60), ("12.5%", 75)])
def test_rows_and_shares_are_met_to_the_row(place, rule, budget, rows):
    config = jobs.settings(place, budget=budget, within_cluster=rule)
    selected = jobs.picked(config, jobs.select(config))
    assert selected.num_rows == rows == len(set(selected["gio_id"].to_pylist()))


def test_a_hash_share_is_met_on_average_and_never_takes_a_row_twice(place):
    config = jobs.settings(place, within_cluster="hash_share")
    selected = jobs.picked(config, jobs.select(config))
    assert 70 < selected.num_rows < 130
    assert len(set(selected["gio_id"].to_pylist())) == selected.num_rows


def test_a_token_budget_is_spent_and_not_overspent(place):
    config = jobs.settings(place, budget="2000 tokens")
    curation = jobs.select(config)
    selected = jobs.picked(config, curation)
    plan = curation.plan
    centroids = jobs.table(place / "ws", "centroids").to_pandas()
    mean = centroids[centroids["side"] == "pool"].set_index("cluster").eval("tokens / rows")
    planned = float((plan["take"] * mean.reindex(plan["cluster"]).fillna(0).to_numpy()).sum())
    assert planned <= 2000 * 1.001
    assert planned > 2000 - 60
    # Rows of a cluster differ in length, so what is spent differs a little from the plan.
    assert abs(sum(selected["words"].to_pylist()) - planned) < 250


def test_the_tokens_of_a_run_are_those_of_its_rows(place):
    config = jobs.settings(place, budget="2000 tokens")
    curation = jobs.go(config)
    spent = sum(curation.selected.toPandas()["words"])
    assert curation.summary["spent"] == spent
    assert curation.summary["budget_in_words"] == "2,000 tokens (column 'words')"


# All sources but one fill a hundredth each.
SMALL_CAPS = {f"site-{i}": 0.01 for i in range(3)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budget": "1M tokens"}, r"1,000,000 tokens \(column 'words'\) is above the pool"),
        ({"select": {"source_caps": SMALL_CAPS}, "budget": 400}, "at most"),
        ({"select": {"source_floors": {"site-1": 0.5}}, "budget": 400}, "at most"),
        ({"select": {"source_floors": {"nowhere": 0.1}}}, "no row of source 'nowhere'"),
        ({"select": {"source_caps": {"Site-0": 0.1}}}, "no row of source 'Site-0'"),
    ],
)
def test_a_budget_that_the_pool_cannot_fill_is_refused_before_any_work(place, changes, message):
    with pytest.raises(InputError, match=message):
        jobs.select(jobs.settings(place, **changes))
    assert not (place / "ws" / "embeddings").exists()


def test_a_budget_above_what_the_target_reaches_says_what_can_be_had(place):
    near = {"quantize": {"max_passes": 3, "target_clusters": 4, "neighbors": 1}}
    with pytest.raises(BudgetError, match="Ask for at most") as caught:
        jobs.select(jobs.settings(place, budget=590, **near))
    largest = int(caught.value.largest)
    assert 100 < largest < 300
    assert len(jobs.picked_ids(jobs.settings(place, budget=largest, **near))) == largest


def test_an_automatic_budget_takes_what_has_the_targets_distribution(place):
    config = jobs.settings(place, budget="auto")
    selected = jobs.picked(config, jobs.select(config))
    assert 10 <= selected.num_rows <= 200
    assert sites(selected).get("site-0", 0) > 0.9


def test_several_targets_count_by_their_shares(place):
    other = jobs.write(jobs.vector_target(200, blob=1, seed=7), place / "other.parquet")
    target = [{"location": str(place / "target.parquet"), "share": 3}, {"location": other}]
    config = jobs.settings(place, target=target)
    selected = sites(jobs.picked(config, jobs.select(config)))
    assert selected["site-0"] == pytest.approx(0.75, abs=0.05)
    assert selected["site-1"] == pytest.approx(0.25, abs=0.05)
    assert set(jobs.table(place / "ws", "centroids")["side"].to_pylist()) == {
        "fit",
        "pool",
        "target-1",
        "target-2",
    }


@pytest.mark.parametrize("rule", ["exact_count", "density_ratio"])
def test_caps_and_floors_hold_for_the_rows_of_a_source(place, rule):
    pool = jobs.vector_pool(1200)
    pool = pool.append_column("part", [[f"part-{i % 3}" for i in range(1200)]])
    config = jobs.settings(
        place,
        pool=jobs.write(pool, place / "parts.parquet"),
        budget=100,
        columns={"source": "part"},
        within_cluster=rule,
        target={
            "location": str(place / "target.parquet"),
            "columns": {"id": "id", "vector": "vector"},
        },
        select={"source_caps": {"part-0": 0.1}, "source_floors": {"part-1": 0.5}},
    )
    rows = jobs.picked(config, jobs.select(config))
    selected = rows["part"].to_pylist()
    assert len(selected) == 100
    assert rows["gio_cluster"].to_numpy().max() < 12
    assert all("(source 'part-" in reason for reason in rows["gio_reason"].to_pylist())
    assert selected.count("part-0") <= 10
    assert selected.count("part-1") >= 50


def test_caps_and_floors_hold_for_the_tokens_of_a_source(place):
    pool = jobs.vector_pool(1200)
    pool = pool.append_column("part", [[f"part-{i % 3}" for i in range(1200)]])
    config = jobs.settings(
        place,
        pool=jobs.write(pool, place / "parts.parquet"),
        budget="4000 tokens",
        columns={"source": "part"},
        target={
            "location": str(place / "target.parquet"),
            "columns": {"id": "id", "vector": "vector", "tokens": "words"},
        },
        select={"source_caps": {"part-0": 0.1}, "source_floors": {"part-1": 0.5}},
    )
    rows = jobs.picked(config, jobs.select(config)).to_pandas()
    words = rows.groupby("part")["words"].sum()
    # The plan counts a cluster's mean; rows of a cluster differ in length.
    assert abs(words.sum() - 4000) < 400
    assert words.get("part-0", 0) < 400 + 150
    assert words["part-1"] > 2000 - 300


def test_replay_lets_other_rows_in(place):
    config = jobs.settings(place, select={"replay": 0.5})
    selected = sites(jobs.picked(config, jobs.select(config)))
    assert selected["site-0"] < 0.8
    assert len(selected) == jobs.BLOBS


@pytest.mark.parametrize("objective", ["published_exact", "published", "knn_kl", "energy_distance"])
def test_other_objectives_choose_rows_like_the_target_too(place, objective):
    config = jobs.settings(place, objective=objective, budget=60)
    selected = jobs.picked(config, jobs.select(config))
    assert 0 < selected.num_rows <= 60
    assert sites(selected).get("site-0", 0) > 0.5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective": "best"}, "No objective is called 'best'. Known: budgeted_kl"),
        ({"budget": "2000 tokens", "columns": {"tokens": None}}, "columns.tokens must name"),
        ({"select": {"source_caps": {"a": 0.1}}, "columns": {"source": None}}, "columns.source"),
    ],
)
def test_choices_that_cannot_work_are_refused_before_anything_is_read(place, changes, message):
    with pytest.raises(ConfigError, match=message):
        jobs.select(jobs.settings(place, **changes))
    assert not (place / "ws" / "runs").exists()


@pytest.mark.parametrize("estimator", ["classifier", "knn"])
def test_the_density_ratio_prefers_rows_like_the_target(place, estimator):
    # The target is one half of a blob, told from the other half by the first number.
    target = jobs.vector_target(400).to_pandas()
    first = np.array([v[0] for v in target["vector"]])
    middle = float(np.median(first))
    half = jobs.pa.Table.from_pandas(target[first > middle], preserve_index=False)
    config = jobs.settings(
        place,
        target=jobs.write(half.cast(jobs.vector_target().schema), place / "half.parquet"),
        clusters=4,
        within_cluster="density_ratio",
        budget=40,
        explode={"estimator": estimator, "temperature": 0.0},
    )
    selected = jobs.picked(config, jobs.select(config))
    share_above_middle = np.mean([v[0] > middle for v in selected["vector"].to_pylist()])
    assert share_above_middle > 0.7
    assert all(x is not None for x in selected["gio_log_ratio"].to_pylist())


def test_ids_alone_may_be_written(place):
    complete = jobs.settings(place)
    expected = jobs.picked_ids(complete)
    config = jobs.settings(place, explode={"output": "ids"}, workspace=str(place / "ids"))
    selected = jobs.picked(config, jobs.select(config))
    assert selected["gio_id"].to_pylist() == expected
    assert "vector" not in selected.schema.names and "note" not in selected.schema.names
    assert set(selected.schema.names) >= {"gio_id", "gio_cluster", "gio_reason", "gio_run"}


def test_another_seed_makes_another_random_choice_inside_clusters(place):
    ids = [jobs.picked_ids(jobs.settings(place, seed=s, budget=50)) for s in (0, 1)]
    assert ids[0] != ids[1]
