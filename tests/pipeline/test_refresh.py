"""A selection brought up to date with a pool that has changed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from deltalake import write_deltalake

from gio_spark import quantize
from gio_spark.engine.progress import Progress
from gio_spark.errors import InputError, TooManyBadRowsError
from gio_spark.pipeline.kmeans_checkpoints import fitted_state
from gio_spark.pipeline.refresh import refresh as refresh_pipeline
from gio_spark.pipeline.stages import embed
from gio_spark.tables import Workspace
from tests.pipeline import jobs

pytestmark = pytest.mark.embedded


def refresh(settings):
    return refresh_pipeline(settings, progress=Progress("silent"))


def grown(pool: pa.Table, gone: int, new: int) -> pa.Table:
    """The pool without its first rows and with new ones."""
    return pa.concat_tables([pool.slice(gone), jobs.vector_pool(new, seed=11, name="n")])


@pytest.mark.parametrize("rule", ["exact_count", "density_ratio"])
def test_new_rows_are_judged_by_the_frozen_plan_and_gone_rows_are_dropped(place, rule):
    config = jobs.settings(place, within_cluster=rule, refresh={"budget": "float"})
    run = jobs.go(config)
    before = set(jobs.ids(run.selected))
    embedded = jobs.table(place / "ws", "embeddings").num_rows
    plan = jobs.table(place / "ws", "plan").sort_by("cluster")
    centroids = jobs.table(place / "ws", "centroids").num_rows

    jobs.write(grown(jobs.vector_pool(), gone=100, new=200), place / "pool.parquet")
    done = refresh(config)
    assert (done.new_rows, done.gone_rows, done.bad_rows) == (200, 100, 0)
    assert done.did_work and done.run_id == run.run_id

    rows = jobs.picked(config, run)
    after = set(rows["gio_id"].to_pylist())
    gone = {i for i in before if i < "p00100"}
    assert before - after == gone
    assert (done.before, done.dropped) == (100, len(gone))
    assert after - before == {i for i in after if i.startswith("n")}
    assert done.added == len(after - before) > 0
    assert done.after == len(after) == rows.num_rows
    # About as large a share of new rows as of old ones, and of the target's kind.
    assert 15 <= done.added <= 60
    assert np.mean([s == "site-0" for s in rows["site"].to_pylist()]) > 0.9
    # Only the new rows were embedded; codebook and plan are what they were.
    assert jobs.table(place / "ws", "embeddings").num_rows == embedded + 200
    assert jobs.table(place / "ws", "plan").sort_by("cluster").equals(plan)
    assert jobs.table(place / "ws", "centroids").num_rows == centroids
    # Every row says which version it was read from.
    assert len(set(rows["gio_input_version"].to_pylist())) == 1
    notes = {r["id"]: r["note"] for r in grown(jobs.vector_pool(), 100, 200).to_pylist()}
    assert all(notes[r["gio_id"]] == r["note"] for r in rows.to_pylist())

    again = refresh(config)
    assert not again.did_work
    assert (again.new_rows, again.gone_rows, again.added, again.dropped) == (0, 0, 0, 0)
    assert again.before == again.after == done.after
    assert set(jobs.picked(config, run)["gio_id"].to_pylist()) == after


def test_a_pool_that_goes_back_to_files_it_had_is_followed(place):
    config = jobs.settings(place)
    run = jobs.go(config)
    path = place / "pool.parquet"
    chosen = {"first": set(jobs.ids(run.selected))}
    shutil.copy2(path, place / "first.kept")
    for name, pool in [("more", grown(jobs.vector_pool(), 0, 100)),
                       ("less", jobs.vector_pool().slice(50))]:  # fmt: skip
        jobs.write(pool, path)
        shutil.copy2(path, place / f"{name}.kept")
        assert refresh(config).did_work
        chosen[name] = set(jobs.picked(config, run)["gio_id"].to_pylist())
    assert chosen["more"] != chosen["less"]
    for name in ("more", "first"):
        shutil.copy2(place / f"{name}.kept", path)
        assert refresh(config).did_work
        assert set(jobs.picked(config, run)["gio_id"].to_pylist()) == chosen[name]


def test_selections_of_earlier_runs_stay(place):
    config = [jobs.settings(place, seed=seed) for seed in range(5)]
    runs = [jobs.go(one) for one in config]
    for one, run in zip(config, runs, strict=True):
        assert len(jobs.picked(one, run)) == run.summary["selected_rows"]


def test_a_pool_may_change_again_and_again(place):
    config = jobs.settings(place)
    run = jobs.go(config)
    pool = jobs.vector_pool()
    jobs.write(grown(pool, 0, 100), place / "pool.parquet")
    first = refresh(config)
    assert (first.new_rows, first.gone_rows) == (100, 0)
    # Some of the new ones go, others come, one that was gone before comes back.
    more = jobs.vector_pool(50, seed=12, name="m")
    jobs.write(pa.concat_tables([pool, more]), place / "pool.parquet")
    second = refresh(config)
    assert second.new_rows == 50
    selected = jobs.picked(config, run)["gio_id"].to_pylist()
    assert not [i for i in selected if i.startswith("n")]
    assert second.after == len(selected)
    jobs.write(grown(pool, 0, 100), place / "pool.parquet")
    third = refresh(config)
    assert third.did_work
    selected = jobs.picked(config, run)["gio_id"].to_pylist()
    assert third.after == len(selected)
    assert [i for i in selected if i.startswith("n")]


def test_nothing_is_done_for_a_pool_that_is_as_it_was(place):
    config = jobs.settings(place)
    jobs.go(config)
    done = refresh(config)
    assert not done.did_work
    assert (done.before, done.after, done.new_rows) == (100, 100, 0)


def test_unusable_new_rows_are_counted_and_too_many_leave_the_selection_as_it_was(place):
    config = jobs.settings(place)
    run = jobs.go(config)
    rows = jobs.vector_pool(100, seed=11, name="n").to_pylist()
    for row in rows[:10]:
        row["vector"] = None
    new = pa.Table.from_pylist(rows, schema=jobs.vector_pool().schema)
    jobs.write(pa.concat_tables([jobs.vector_pool(), new]), place / "pool.parquet")
    assert refresh(config).bad_rows == 10
    # Rows that are in quarantine since an earlier refresh are not counted again.
    more = pa.concat_tables([jobs.vector_pool(), new, jobs.vector_pool(20, seed=12, name="m")])
    jobs.write(more, place / "pool.parquet")
    done = refresh(config)
    assert (done.new_rows, done.changed_rows, done.bad_rows) == (20, 0, 0)
    before = jobs.picked(config, run)["gio_id"].to_pylist()
    worse = [{**row, "id": f"{w}{row['id']}", "vector": None} for row in rows for w in "vw"]
    both = pa.concat_tables(
        [jobs.vector_pool(), pa.Table.from_pylist(worse, schema=jobs.vector_pool().schema)]
    )
    jobs.write(both, place / "pool.parquet")
    with pytest.raises(
        TooManyBadRowsError, match=r"pool: 200 of 800 rows of .*vector.\) cannot be used"
    ):
        refresh(config)
    assert jobs.picked(config, run)["gio_id"].to_pylist() == before


def test_a_refresh_needs_a_finished_run_of_the_same_settings(place):
    with pytest.raises(InputError, match=r"No finished run .* Run `gio-spark run` first"):
        refresh(jobs.settings(place))


# ---- what a run has, a refresh has -------------------------------------------------------------


def changed_rows(pool: pa.Table, **values) -> pa.Table:
    """The pool with other values in some of its first rows."""
    for name, new in values.items():
        column = new + pool[name].to_pylist()[len(new) :]
        index = pool.schema.get_field_index(name)
        pool = pool.set_column(index, name, pa.array(column, pool.schema.field(name).type))
    return pool


def test_updated_rows_have_their_new_content_and_are_judged_by_it(place):
    config = jobs.settings(place)
    run = jobs.go(config)
    pool, before = jobs.vector_pool(), set(jobs.ids(run.selected))
    ids, content = pool["id"].to_pylist(), pool["vector"].to_pylist()
    good = [i for i in range(600) if ids[i] in before][:30]
    bad = [i for i in range(600) if i % jobs.BLOBS][:30]  # of another kind than the target
    swapped = list(content)
    for one, other in zip(good, bad, strict=True):
        swapped[one], swapped[other] = content[other], content[one]
    notes = ["changed"] * 600
    jobs.write(changed_rows(pool, vector=swapped, note=notes), place / "pool.parquet")
    done = refresh(config)
    assert (done.new_rows, done.changed_rows, done.gone_rows) == (0, 60, 0)
    rows = jobs.picked(config, run)
    after = set(rows["gio_id"].to_pylist())
    # Rows are taken by the hash of their id where their cluster holds more than the plan takes.
    assert not after & {ids[i] for i in good} and len(after & {ids[i] for i in bad}) > 10
    assert set(rows["note"].to_pylist()) == {"changed"}
    by_id = dict(zip(ids, swapped, strict=True))
    assert all(by_id[r["gio_id"]] == r["vector"] for r in rows.to_pylist())


def test_a_changed_value_beside_the_content_embeds_nothing_anew(place, spark):
    config = jobs.settings(place)
    jobs.go(config)
    words = [99] * 50
    jobs.write(changed_rows(jobs.vector_pool(), words=words), place / "pool.parquet")
    done = refresh(config)
    assert (done.new_rows, done.changed_rows) == (0, 50)
    tables = Workspace(spark, str(place / "ws"))
    record = [r for r in tables.records() if r.stage == "embed pool"][-1]
    assert record.detail["changes"]["known"] == 50


def test_copies_and_held_out_rows_do_not_enter_by_a_refresh(place):
    def texts(prefix: str, content: pa.ChunkedArray) -> pa.Table:
        return pa.table({"id": [f"{prefix}{i}" for i in range(len(content))], "text": content})

    held_out = jobs.text_rows("h", 20, 0, 90, 40)
    pool = jobs.text_rows("p", 400, 0, 90, 1)
    for name, rows in (
        ("held", held_out), ("pool", pool), ("target", jobs.text_rows("t", 40, 0, 45, 2)),
    ):  # fmt: skip
        jobs.write(rows, place / f"{name}.parquet")
    config = jobs.settings(
        place,
        columns={"vector": None, "source": None, "text": "text", "tokens": None},
        embedder={"name": "ngrams", "dimension": 16},
        held_out=str(place / "held.parquet"),
        quantize={"duplicates": "exact"},
        clusters=6,
        budget=60,
    )
    run = jobs.go(config)
    copies = texts("z", jobs.picked(config, run)["text"].slice(0, 20))
    contaminated = texts("y", held_out["text"])
    fresh = jobs.text_rows("n", 60, 0, 45, 11)
    jobs.write(pa.concat_tables([pool, copies, contaminated, fresh]), place / "pool.parquet")
    done = refresh(config)
    after = jobs.picked(config, run)["gio_id"].to_pylist()
    # Of equal texts the one that comes first by its id stays.
    assert not [i for i in after if i[0] in "yz"] and [i for i in after if i[0] == "n"]
    quarantined = set(jobs.table(place / "ws", "quarantine")["id"].to_pylist())
    assert {*copies["id"].to_pylist(), *contaminated["id"].to_pylist()} <= quarantined
    assert done.bad_rows >= 40
    # A held-out set that has grown changes the selection of the same pool.
    contaminating = jobs.picked(config, run)["text"].slice(0, 10)
    held_out = pa.concat_tables([held_out, texts("i", contaminating)])
    jobs.write(held_out, place / "held.parquet")
    done = refresh(config)
    assert (done.did_work, done.new_rows, done.gone_rows) == (True, 0, 0)
    assert done.bad_rows >= 10 and done.dropped >= 10
    left = set(jobs.picked(config, run)["text"].to_pylist())
    assert not left & set(contaminating.to_pylist())


def test_malformed_lines_null_and_doubled_ids_of_a_refresh_are_in_quarantine(place):
    def lines(rows: pa.Table, *more: str) -> None:
        texts = [json.dumps(r) for r in rows.to_pylist()]
        (place / "pool.jsonl").write_text("\n".join([*texts, *more]) + "\n")

    lines(jobs.vector_pool())
    config = jobs.settings(place, pool=str(place / "pool.jsonl"))
    run = jobs.go(config)
    first = jobs.vector_pool(1).to_pylist()[0]
    odd = ["{broken", json.dumps({**first, "id": None}), json.dumps({**first, "note": "twice"})]
    lines(pa.concat_tables([jobs.vector_pool(), jobs.vector_pool(50, seed=11, name="n")]), *odd)
    done = refresh(config)
    assert (done.new_rows, done.bad_rows) == (50, 3)
    lines(pa.concat_tables([jobs.vector_pool(), jobs.vector_pool(50, seed=11, name="n")]), *odd,
          "{broken too", json.dumps({**first, "id": None}))  # fmt: skip
    done = refresh(config)
    assert (done.new_rows, done.bad_rows) == (0, 2)
    reasons = [
        r["reason"].split(":")[0] for r in jobs.table(place / "ws", "quarantine").to_pylist()
    ]
    assert set(reasons) == {"duplicate id", "malformed line", "null id"}
    ids = jobs.picked(config, run)["gio_id"].to_pylist()
    assert len(ids) == len(set(ids))
    lines(jobs.vector_pool(), *["{broken"] * 400)
    with pytest.raises(TooManyBadRowsError, match="400 of 1,000 rows"):
        refresh(config)
    assert jobs.picked(config, run)["gio_id"].to_pylist() == ids


def test_settings_that_change_no_selection_do_not_part_a_refresh_from_its_run(place):
    run = jobs.go(jobs.settings(place))
    jobs.write(grown(jobs.vector_pool(), 10, 40), place / "pool.parquet")
    other = jobs.settings(
        place, evaluate={"seeds": 7}, name="other", retention={"runs": 9},
        chunk_rows=100, inputs={"verify": "content"},
    )  # fmt: skip
    assert refresh(other).run_id == run.run_id


def test_a_refresh_uses_the_embedder_that_its_own_run_fitted(place):
    text = {
        "columns": {"vector": None, "source": None, "text": "text", "tokens": None},
        "embedder": {"name": "ngrams", "dimension": 8},
        "clusters": 6,
        "budget": 40,
    }
    jobs.write(jobs.text_rows("t", 40, 0, 30, 2), place / "target.parquet")
    pool = jobs.text_rows("p", 300, 0, 90, 1)
    jobs.write(pool, place / "pool.parquet")
    config = jobs.settings(place, **text)
    run = jobs.go(config)
    # Another run fits an embedder of its own, later.
    jobs.write(jobs.text_rows("o", 200, 40, 120, 3), place / "other.parquet")
    jobs.go(jobs.settings(place, **text, pool=str(place / "other.parquet")))
    more = pa.concat_tables([pool, jobs.text_rows("n", 60, 0, 90, 4)])
    jobs.write(more, place / "pool.parquet")
    refresh(config)
    alone = jobs.settings(place, **text, workspace=str(place / "alone"))
    jobs.write(pool, place / "pool.parquet")
    jobs.go(alone)
    jobs.write(more, place / "pool.parquet")
    refresh(alone)
    mine = jobs.selected(place / "ws", run.run_id)["gio_id"].to_pylist()
    assert sorted(mine) == sorted(jobs.selected(place / "alone")["gio_id"].to_pylist())


def test_rows_are_searched_on_two_levels_where_the_run_did_so(place, spark):
    two = {"quantize": {"two_level_above": 4, "probes": 1}}
    config = jobs.settings(place, **two)
    jobs.go(config)
    jobs.write(grown(jobs.vector_pool(), 0, 300), place / "pool.parquet")
    refresh(config)
    tables = Workspace(spark, str(place / "ws"))
    key = [r for r in tables.records() if r.stage == "refresh"][-1].detail["keys"]["assignments"]
    mine = tables.read("assignments", key).select("id", "cluster").toArrow().sort_by("id")
    fit = [r for r in tables.records() if r.stage == "run"][-1].detail["keys"]["fit"]
    embedded = [r for r in tables.records() if r.stage == "embed pool"][-1].fingerprint
    vectors = tables.read("embeddings", embedded)
    centroids = fitted_state(tables, fit).centroids
    complete = quantize.assign(vectors, centroids, two_level=True, probes=1)
    assert mine.equals(complete.select("id", "cluster").toArrow().sort_by("id"))


def test_a_table_that_was_made_again_is_another_though_its_version_is_the_same(place):
    where = str(place / "pool")
    write_deltalake(where, jobs.vector_pool())
    config = jobs.settings(place, pool=where)
    run = jobs.go(config)
    shutil.rmtree(where)
    write_deltalake(where, jobs.vector_pool(500, seed=21, name="r"))
    done = refresh(config)
    assert (done.new_rows, done.gone_rows) == (500, 600)
    after = jobs.picked(config, run)["gio_id"].to_pylist()
    assert after and all(i.startswith("r") for i in after)
    assert not refresh(config).did_work


def test_columns_may_come_go_move_and_widen_and_a_changed_type_is_refused_by_name(place):
    pool = jobs.vector_pool()
    narrow = pool.set_column(3, "words", pool["words"].cast(pa.int32()))
    jobs.write(narrow, place / "pool.parquet")
    config = jobs.settings(place)
    run = jobs.go(config)
    before = sorted(jobs.picked(config, run)["gio_id"].to_pylist())
    wider = pool.drop_columns(["note"]).append_column("lang", pa.array(["en"] * 600))
    wider = wider.select(["lang", "words", "site", "vector", "id"])
    jobs.write(wider, place / "pool.parquet")
    refresh(config)
    rows = jobs.picked(config, run)
    assert rows.schema.names[:5] == ["lang", "words", "site", "vector", "id"]
    assert rows.schema.field("words").type == pa.int64()
    assert sorted(rows["gio_id"].to_pylist()) == before
    odd = wider.set_column(0, "lang", pa.array(range(600), pa.int64()))
    jobs.write(odd, place / "pool.parquet")
    with pytest.raises(InputError, match="was string and is bigint now") as error:
        refresh(config)
    assert error.value.column == "lang"
    assert jobs.picked(config, run).schema.names[0] == "lang"


# ---- one path ----------------------------------------------------------------------------------


def stage_rows(spark, workspace, refreshed: bool) -> dict[str, list[dict]]:
    """Rows of every stage table of the newest refresh, or of a run, as readers see them."""
    tables = Workspace(spark, str(workspace))
    stage = "refresh" if refreshed else "run"
    keys = [r for r in tables.records() if r.stage == stage][-1].detail["keys"]
    rows = {}
    for table in ("embeddings", "assignments", "scores"):
        key = keys[table] if refreshed else keys[table]["pool"]
        if key:
            frame = tables.read(table, key).drop("fingerprint", "input_version", "attempt")
            rows[table] = frame.toArrow().sort_by("id").to_pylist()
    selection = jobs.selected(Path(workspace)).drop_columns(["gio_input_version"])
    rows["selection"] = selection.sort_by("gio_id").to_pylist()
    return rows


CHANGES = ["insert", "update", "delete", "mixed", "overwrite"]


def next_version(pool: pa.Table, random: np.random.Generator, step: int, kind: str) -> pa.Table:
    """The pool after an insert, an update, a delete, a mixture of them, or an overwrite."""
    rows = pool.to_pylist()
    if kind in ("delete", "mixed"):
        rows = [r for r in rows if random.random() > 0.1]
    if kind in ("update", "mixed"):
        for row in rows:
            if random.random() < 0.1:
                row["vector"] = (np.asarray(row["vector"]) + random.normal(0, 2, 6)).tolist()
            elif random.random() < 0.1:
                row["words"], row["note"] = int(row["words"]) + 1, "updated"
    if kind in ("insert", "mixed"):
        rows += jobs.vector_pool(60, seed=100 + step, name=f"s{step}-").to_pylist()
        # Copies that come first, so that a row which stayed so far is removed.
        rows += [{**row, "id": f"a{step}-{i}"} for i, row in enumerate(rows[:15])]
    if kind == "overwrite":
        rows = jobs.vector_pool(400, seed=200 + step, name="p").to_pylist()
    return pa.Table.from_pylist(rows, schema=pool.schema)


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.faults)])
@pytest.mark.parametrize(
    "changes",
    [
        {"within_cluster": "density_ratio"},
        {
            "quantize": {"duplicates": "exact"},
            "select": {"source_caps": {"site-0": 0.6}, "replay": 0.3},
        },
        {
            "within_cluster": "density_ratio",
            "quantize": {"duplicates": "semantic", "duplicate_cosine": 0.998},
            "select": {"replay": 0.3},
        },
    ],
    ids=["ratio", "copies and caps", "near copies and ratio"],
)
def test_refreshes_one_after_another_give_what_one_refresh_to_the_last_version_gives(
    spark, place, monkeypatch, seed, changes
):
    random = np.random.default_rng(seed)
    config = jobs.settings(place, **changes)
    run = jobs.go(config)
    shutil.copytree(place / "ws", place / "whole")
    pool = jobs.vector_pool()
    for step, kind in enumerate(random.permutation(CHANGES)[:4]):
        pool = next_version(pool, random, step, kind)
        jobs.write(pool, place / "pool.parquet")
        done = refresh(config)
        assert done.run_id == run.run_id
    stepwise = stage_rows(spark, place / "ws", refreshed=True)
    # The same models and plan, and every row made anew: nothing stands on earlier rows.
    complete = jobs.settings(place, **changes, workspace=str(place / "whole"))
    monkeypatch.setattr(embed, "earlier_embeddings", lambda *_: "")
    refresh(complete)
    at_once = stage_rows(spark, place / "whole", refreshed=True)
    for table, rows in at_once.items():
        assert stepwise[table] == rows, table
    if "quantize" in changes:
        # Assignments stand on those of the version before, as embeddings do.
        tables = Workspace(spark, str(place / "ws"))
        records = [r for r in tables.records() if r.stage == "clean pool"]
        assert any(r.base("assignments") for r in records)
        removed = [r for r in tables.records() if r.stage == "clean"]
        assert any(r.rows > 0 for r in removed)
    ids = [r["gio_id"] for r in stepwise["selection"]]
    assert len(ids) == len(set(ids)) == done.after
