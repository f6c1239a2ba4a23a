"""The same rows however they come, and rows that cannot be used."""

from __future__ import annotations

import json
import math
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from deltalake import write_deltalake

from gio_spark import curate
from gio_spark.errors import InputError, TooManyBadRowsError
from tests.pipeline import jobs
from tests.pipeline.one_job import SPECIAL_NAMES

pytestmark = pytest.mark.embedded
PAIRS = pa.map_(pa.string(), pa.int64())


@pytest.fixture(scope="module")
def expected(spark, tmp_path_factory):
    """The ids that a pool in one Parquet file gives."""
    folder = tmp_path_factory.mktemp("one-file")
    jobs.write(jobs.vector_pool(), folder / "pool.parquet")
    jobs.write(jobs.vector_target(), folder / "target.parquet")
    return jobs.picked_ids(jobs.settings(folder))


def test_the_same_rows_in_other_files_and_in_another_order_give_the_same_selection(place, expected):
    pool = jobs.vector_pool()
    order = np.random.default_rng(0).permutation(pool.num_rows)
    seven = jobs.write(pool.take(order), place / "seven", files=7)
    assert jobs.picked_ids(jobs.settings(place, pool=seven)) == expected


@pytest.mark.parametrize("rule", ["density_ratio", "hash_share"])
def test_other_rules_do_not_depend_on_partitions_either(place, rule):
    pool = jobs.vector_pool()
    seven = jobs.write(pool.take(np.arange(600)[::-1]), place / "seven", files=7)
    selections = [
        jobs.picked_ids(
            jobs.settings(place, pool=where, workspace=str(place / name), within_cluster=rule)
        )
        for name, where in (("a", str(place / "pool.parquet")), ("b", seven))
    ]
    assert selections[0] == selections[1]


def test_a_delta_table_is_read_at_the_version_that_was_asked_for(spark, place, expected):
    where = str(place / "pool-delta")
    spark.createDataFrame(jobs.vector_pool()).write.format("delta").save(where)
    more = spark.createDataFrame(jobs.vector_pool(200, seed=9, name="q"))
    more.write.format("delta").mode("append").save(where)
    old = jobs.settings(place, pool={"location": where, "version": 0})
    first = jobs.select(old)
    rows = jobs.picked(old, first)
    assert rows["gio_id"].to_pylist() == expected
    assert set(rows["gio_input_version"].to_pylist()) == {"0"}
    newest = jobs.settings(place, pool=where)
    rows = jobs.picked(newest, jobs.select(newest))
    assert set(rows["gio_input_version"].to_pylist()) == {"1"}
    assert any(i.startswith("q") for i in rows["gio_id"].to_pylist())


@pytest.mark.parametrize("name", ["Größe #1 (50%)", "a[b]*?"])
def test_folders_of_any_name_hold_inputs_and_tables(place, expected, name):
    odd = place / name / "below"
    odd.mkdir(parents=True)
    # The writer of this Delta table has trouble of its own with such names.
    write_deltalake(str(place / "pool"), jobs.vector_pool())
    (place / "pool").rename(odd / "pool")
    jobs.write(jobs.vector_target(), odd / "target.parquet")
    config = jobs.settings(odd, pool=str(odd / "pool"))
    first = jobs.select(config)
    assert jobs.ids(first.selected) == expected
    selection = Path(first.tables["selected"])
    assert selection.parent == odd / "ws"
    assert (selection / "_delta_log" / f"{0:020}.json").exists()
    assert sorted(p.name for p in odd.iterdir()) == ["pool", "target.parquet", "ws"]
    assert [p.name for p in place.iterdir() if p.is_dir()] == [name]
    again = jobs.select(config)
    assert (again.did_work, again.run_id) == (False, first.run_id)
    assert len(jobs.ids(jobs.select(config.model_copy(update={"seed": 1})).selected)) == 100


def test_frames_of_spark_pandas_and_arrow_are_curated_like_tables(spark, place, expected):
    pool, target = jobs.vector_pool(), jobs.vector_target()
    options = {
        "spark": spark,
        "columns": {"id": "id", "vector": "vector", "source": "site", "tokens": "words"},
        "clusters": 12,
        "quantize": {"max_passes": 3, "target_clusters": 4},
        "within_cluster": "exact_count",
        "tracking": {"enabled": False},
        "workspace": place / "ws",
    }
    first = curate(pool, target, 100, **options)
    assert jobs.ids(first.selected) == expected
    assert len(first.plan) == 12 and first.report.exists()
    assert "site" in first.selected.columns
    # A frame of another kind with the same rows is the same snapshot: nothing is done twice.
    again = curate(spark.createDataFrame(pool), target, 100, **options)
    assert (again.run_id, again.did_work) == (first.run_id, False)
    as_pandas = curate(pool.to_pandas(), place / "target.parquet", 100, **options)
    assert jobs.ids(as_pandas.selected) == expected


def test_a_pandas_frame_without_rows_is_told_to_have_none(spark, place):
    empty = pd.DataFrame({"id": [], "text": []})
    with pytest.raises(InputError, match="target: the DataFrame has no rows"):
        curate(str(place / "pool.parquet"), empty, 5, spark=spark, workspace=place / "ws")


def test_what_is_no_frame_is_refused_by_name(spark, place):
    with pytest.raises(InputError, match="pool: cannot read a object"):
        curate(object(), str(place / "target.parquet"), 5, spark=spark, workspace=place / "ws")


def test_text_is_curated_from_jsonl_with_a_broken_line_quarantined(place):
    rows = jobs.text_rows("p", 200, 0, 60, 1).to_pylist()
    rows += jobs.text_rows("q", 200, 60, 120, 2).to_pylist()
    lines = [json.dumps(r) for r in rows]
    lines.insert(17, '{"id": "broken", "text": ')
    (place / "pool.jsonl").write_text("\n".join(lines))
    target = jobs.write(jobs.text_rows("t", 40, 0, 60, 3), place / "t.parquet")
    config = jobs.settings(
        place,
        pool=str(place / "pool.jsonl"),
        target=target,
        columns={"id": "id", "text": "text", "vector": None, "source": None, "tokens": None},
        embedder={"name": "ngrams", "dimension": 32},
        budget="15%",
        within_cluster="density_ratio",
    )
    selected = jobs.picked(config, jobs.select(config))
    assert selected.num_rows == 60
    assert np.mean([i.startswith("p") for i in selected["gio_id"].to_pylist()]) > 0.95
    assert selected.schema.names[:2] == ["id", "text"]
    assert all(math.isfinite(x) for x in selected["gio_log_ratio"].to_pylist())
    (bad,) = jobs.table(place / "ws", "quarantine").to_pylist()
    assert bad["reason"].startswith("malformed line") and "broken" in bad["detail"]


# ---- rows that cannot be used ------------------------------------------------------------------


def with_bad_vectors(pool: pa.Table) -> pa.Table:
    rows = pool.to_pylist()
    rows[0]["vector"] = None
    rows[1]["vector"] = [math.nan] * jobs.DIMENSION
    rows[2]["vector"] = [math.inf] + [0.0] * (jobs.DIMENSION - 1)
    rows[3]["vector"] = [1.0, 2.0]
    rows[4]["vector"] = [0.0] * jobs.DIMENSION
    rows[5]["vector"] = []
    rows[6]["id"] = None
    rows[8]["id"] = rows[7]["id"]
    return pa.Table.from_pylist(rows, schema=pool.schema)


def reasons(folder, dataset="pool"):
    rows = jobs.table(folder / "ws", "quarantine").to_pandas()
    return rows[rows["side"] == dataset].groupby("reason").size().to_dict()


def test_vectors_that_cannot_be_used_are_counted_by_reason(place):
    pool = jobs.write(with_bad_vectors(jobs.vector_pool()), place / "bad.parquet")
    config = jobs.settings(place, pool=pool, embed={"normalize": True})
    curation = jobs.select(config)
    assert len(jobs.picked(config, curation)) == 100
    counts = reasons(place)
    text = " | ".join(sorted(counts))
    assert sum(counts.values()) == 8, text
    for word in ("null id", "null content", "NaN", "infinite", "length", "zero", "duplicate id"):
        assert word.lower() in text.lower(), (word, text)
    usable = jobs.table(place / "ws", "assignments")["id"].to_pylist()
    bad = jobs.table(place / "ws", "quarantine")["id"].to_pylist()
    assert len(usable) == 592 + 80
    assert not (set(usable) & set(bad)) - {"p00007"}


def test_a_zero_vector_is_usable_where_no_direction_is_needed(place):
    pool = jobs.write(with_bad_vectors(jobs.vector_pool()), place / "bad.parquet")
    config = jobs.settings(place, pool=pool, embed={"normalize": False})
    jobs.select(config)
    assert not any("zero" in reason for reason in reasons(place))
    assert sum(reasons(place).values()) == 7


def test_vectors_too_long_to_compare_are_quarantined_unless_they_are_scaled(place):
    rows = jobs.vector_pool().to_pylist()
    rows[0]["vector"] = [3e38] * jobs.DIMENSION
    rows[1]["vector"] = [1e19] + [0.0] * (jobs.DIMENSION - 1)
    rows[2]["vector"] = [1e17] + [0.0] * (jobs.DIMENSION - 1)
    pool = jobs.write(
        pa.Table.from_pylist(rows, schema=jobs.vector_pool().schema), place / "huge.parquet"
    )
    assert len(jobs.picked_ids(jobs.settings(place, pool=pool))) == 100
    assert reasons(place) == {"value too large": 2}
    scaled = jobs.settings(
        place, pool=pool, embed={"normalize": True}, workspace=str(place / "scaled")
    )
    assert len(jobs.picked_ids(scaled)) == 100
    assert not (place / "scaled" / "quarantine").exists()


def test_a_zero_vector_is_quarantined_where_clusters_are_of_directions(place):
    pool = jobs.write(with_bad_vectors(jobs.vector_pool()), place / "bad.parquet")
    config = jobs.settings(place, pool=pool, quantize={"spherical": True})
    assert len(jobs.picked_ids(config)) == 100
    assert reasons(place)["zero norm"] == 1


def test_texts_that_cannot_be_used_are_counted_by_reason(place):
    rows = jobs.text_rows("p", 100, 0, 60, 1).to_pylist()
    rows[0]["text"], rows[1]["text"], rows[2]["text"] = None, "", " \n\t "
    pool = jobs.write(pa.Table.from_pylist(rows), place / "texts.parquet")
    target = jobs.write(jobs.text_rows("t", 20, 0, 60, 3), place / "t.parquet")
    config = jobs.settings(
        place,
        pool=pool,
        target=target,
        columns={"vector": None, "text": "text", "source": None, "tokens": None},
        embedder={"name": "ngrams", "dimension": 32},
        clusters=5,
        budget=10,
        within_cluster="density_ratio",
    )
    assert len(jobs.picked_ids(config)) == 10
    counts = reasons(place)
    assert sum(counts.values()) == 3
    assert any("null" in r for r in counts) and any("empty" in r for r in counts)


def test_too_many_bad_rows_stop_the_run_with_their_count(place):
    rows = jobs.vector_pool().to_pylist()
    for row in rows[:150]:
        row["vector"] = None
    bad = pa.Table.from_pylist(rows, schema=jobs.vector_pool().schema)
    pool = jobs.write(bad, place / "bad.parquet")
    with pytest.raises(
        TooManyBadRowsError,
        match=r"pool: 150 of 600 rows of .*bad.parquet \(columns.vector 'vector",
    ) as e:
        jobs.select(jobs.settings(place, pool=pool))
    assert "150 null content" in str(e.value) and "quarantine.max_share = 0.2" in str(e.value)
    assert not (place / "ws" / "assignments").exists()
    assert jobs.table(place / "ws", "quarantine").num_rows == 150
    config = jobs.settings(place, pool=pool, quarantine={"max_share": 0.3})
    assert len(jobs.picked_ids(config)) == 100


def test_copies_of_rows_without_ids_are_one_row_and_no_fault(place):
    pool = jobs.vector_pool(300)
    thrice = pa.concat_tables([pool, pool, pool]).drop_columns(["id", "note"])
    config = jobs.settings(
        place,
        pool=jobs.write(thrice, place / "thrice.parquet"),
        columns={"id": None},
        budget=50,
        target={"location": str(place / "target.parquet"), "columns": {"vector": "vector"}},
    )
    selected = jobs.picked_ids(config)
    assert len(set(selected)) == 50 and all(len(i) == 32 for i in selected)
    assert reasons(place) == {"copy of another row": 600}


def test_columns_that_hold_one_value_only_are_read_like_any_other(place):
    pool = jobs.vector_pool()
    same = pa.array(["only"] * 600)
    pool = pool.set_column(2, "site", same).append_column("empty", pa.nulls(600, pa.string()))
    pool = pool.set_column(0, "id", pa.array([f"p{i // 2}" for i in range(600)]))
    same = jobs.write(pool, place / "same.parquet")
    with pytest.raises(TooManyBadRowsError, match=r"300 of the 600 rows .* id of another row"):
        jobs.go(jobs.settings(place, pool=same, budget=50))
    assert not (place / "ws" / "embeddings").exists()
    config = jobs.settings(place, pool=same, budget=50, quarantine={"max_share": 0.5})
    assert len(jobs.picked_ids(config)) == 50
    assert reasons(place) == {"duplicate id": 300}


def test_integer_ids_are_kept_as_the_pools_own_column(place):
    pool = jobs.vector_pool().to_pandas()
    pool["id"] = np.arange(600)
    pool = pd.DataFrame(pool).rename(columns={"id": "Key"})
    config = jobs.settings(
        place,
        pool={
            "location": jobs.write(pa.Table.from_pandas(pool), place / "ints.parquet"),
            "columns": {"id": "Key", "vector": "vector"},
        },
    )
    rows = jobs.picked(config, jobs.select(config))
    assert rows.schema.field("Key").type == pa.int64()
    assert [str(k) for k in rows["Key"].to_pylist()] == rows["gio_id"].to_pylist()


def test_own_columns_of_any_name_and_type_change_no_selection(place, expected):
    roles = {"id": "doc.id", "vector": "my vec`tor", "site": "select", "words": "_rank"}
    pool, target = (
        table.rename_columns([roles.get(name, name) for name in table.column_names])
        for table in (jobs.vector_pool(), jobs.vector_target())
    )
    for number, name in enumerate((*SPECIAL_NAMES, "ID", "event_time", "_metadata")):
        if name not in roles.values():
            values = pa.array(np.arange(600) + number)
            pool = pool.append_column(name, values if number % 2 else values.cast(pa.string()))
    pairs = [[("k", i)] if i % 3 else None for i in range(600)]
    pool = pool.append_column("pairs", pa.array(pairs, PAIRS))
    settings = jobs.settings(
        place,
        pool=jobs.write(pool, place / "special.parquet"),
        target=jobs.write(target, place / "special-target.parquet"),
        columns={"id": "doc.id", "vector": "my vec`tor", "source": "select", "tokens": "_rank"},
    )
    rows = jobs.picked(settings, jobs.select(settings))
    assert rows["gio_id"].to_pylist() == expected
    chosen = pool.take([int(i[1:]) for i in expected])
    for name in pool.column_names:
        assert rows[name].to_pylist() == chosen[name].to_pylist(), name


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "delta"])
def test_a_target_may_lack_the_optional_columns_that_the_common_roles_name(spark, place, kind):
    roles = ("site", "words", "note")
    bare = {"target": jobs.vector_target(), "held_out": jobs.vector_target(20, blob=3, name="h")}
    for name, table in bare.items():
        rows = table.drop_columns(list(roles))
        if kind == "delta":
            write_deltalake(str(place / f"{name}-bare"), rows)
        elif kind == "jsonl":
            lines = [json.dumps(row) for row in rows.to_pylist()]
            (place / f"{name}-bare").mkdir()
            (place / f"{name}-bare" / "0.jsonl").write_text("\n".join(lines))
        else:
            jobs.write(rows, place / f"{name}-bare", files=2)
    settings = jobs.settings(
        place,
        target=str(place / "target-bare"),
        held_out=[str(place / "held_out-bare")],
        columns={"label": "note"},
    )
    assert jobs.select(settings).selected.count() == 100


def test_a_target_must_have_the_content_and_what_is_named_for_it_alone(spark, place):
    rows = jobs.vector_target().drop_columns(["site", "words"])
    bare = jobs.write(rows, place / "bare.parquet")
    own = {"location": bare, "columns": {"id": "id", "vector": "vector", "source": "site"}}
    with pytest.raises(InputError, match=r"target: .* lacks the column\(s\) columns.source"):
        jobs.select(jobs.settings(place, target=own))
    empty = jobs.write(rows.drop_columns(["vector"]), place / "empty.parquet")
    with pytest.raises(InputError, match=r"target: .* lacks the column\(s\) columns.vector"):
        jobs.select(jobs.settings(place, target=empty))
    pool = jobs.write(jobs.vector_pool().drop_columns(["site"]), place / "bare-pool.parquet")
    with pytest.raises(InputError, match=r"pool: .* lacks the column\(s\) columns.source"):
        jobs.select(jobs.settings(place, pool=pool))


def test_an_input_without_an_id_may_have_times(place):
    times = pa.array([datetime(2024, 1, 1 + i % 28, tzinfo=timezone.utc) for i in range(600)])
    pool = jobs.vector_pool().drop_columns(["id"]).append_column("at", times)
    target = jobs.vector_target().drop_columns(["id"])
    settings = jobs.settings(
        place,
        pool=jobs.write(pool, place / "times.parquet"),
        target=jobs.write(target, place / "bare-target.parquet"),
        columns={"id": None, "event_time": "at"},
    )
    curation = jobs.select(settings)
    assert dict(curation.selected.dtypes)["at"] == "timestamp"
