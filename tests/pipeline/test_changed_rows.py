"""A pool at a new version: only changed rows are embedded, and all rows are as if embedded anew."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest

from gio_spark.pipeline.commands.purge_ids import PurgeRequest
from gio_spark.pipeline.commands.purge_rows import purge_rows
from gio_spark.pipeline.stages import changed_rows
from gio_spark.tables import Workspace
from tests.pipeline import jobs

pytestmark = pytest.mark.embedded


def changed(pool: pa.Table, seed: int, *, share: float = 0.1) -> pa.Table:
    """A pool of which some rows are gone, some new, some with other content or other values."""
    random = np.random.default_rng(seed)
    rows = pool.to_pylist()
    for row in rows:
        chance = random.random()
        if chance < share / 4:
            row["vector"] = (np.asarray(row["vector"]) + 1).astype(np.float32).tolist()
        elif chance < share / 2:
            row["words"] += 1
    rows = [row for row in rows if random.random() > share / 4]
    rows += jobs.vector_pool(int(share * 100), seed=seed, name=f"n{seed}-").to_pylist()
    random.shuffle(rows)
    return pa.Table.from_pylist(rows, schema=pool.schema)


def embeddings(spark, workspace, dataset="pool"):
    """Rows of the newest embeddings of a side, as readers see them."""
    tables = Workspace(spark, str(workspace))
    record = [r for r in tables.records() if r.stage == f"embed {dataset}"][-1]
    rows = tables.read("embeddings", record.fingerprint).toArrow().sort_by("id")
    names = [n for n in rows.schema.names if n not in ("fingerprint", "input_version")]
    new_rows = tables.own_rows("embeddings", record.fingerprint).count()
    return rows.select(sorted(names)), new_rows, record


def embed(place, name="ws", **changes):
    return jobs.go(jobs.settings(place, workspace=str(place / name), **changes), until="embed")


def test_after_any_changes_embeddings_are_those_of_a_fresh_workspace(spark, place):
    pool = jobs.vector_pool()
    embed(place)
    for version in range(1, 8):
        pool = changed(pool, version)
        jobs.write(pool, place / "pool.parquet")
        embed(place)
        embed(place, f"fresh-{version}")
        rows, new_rows, record = embeddings(spark, place / "ws")
        fresh, _, _ = embeddings(spark, place / f"fresh-{version}")
        assert rows.equals(fresh), version
        assert record.rows == pool.num_rows == len(set(rows["id"].to_pylist()))
        changes = record.detail["changes"]
        assert changes["on_base"] and new_rows == changes["added"] + changes["changed"]
        assert new_rows < 0.5 * pool.num_rows
        # Version 5 stands on the lowest one again, with all that changed since.
        below = Workspace(spark, str(place / "ws")).stages_below("embeddings", record.fingerprint)
        assert len(below) == 1 + (version - 1) % changed_rows.MOST_STAGES_BELOW


def test_of_added_files_only_their_rows_are_compared(spark, place):
    files, pool = place / "files", {"pool": str(place / "files")}
    jobs.write(jobs.vector_pool(), files, files=3)
    embed(place, **pool)
    for number in range(2):
        name = f"n{number}-"
        more = jobs.vector_pool(20, seed=number, name=name)
        jobs.write(more, files / f"{name} ü.parquet")
        embed(place, **pool)
        rows, new_rows, record = embeddings(spark, place / "ws")
        assert record.detail["changes"]["by_files"] and new_rows == 20
    embed(place, "fresh", **pool)
    assert rows.equals(embeddings(spark, place / "fresh")[0])

    jobs.write(pa.table({"id": ["n1-00003"]}), place / "ids.parquet")
    request = PurgeRequest(ids=str(place / "ids.parquet"))
    purge_rows(jobs.settings(place, **pool), request, confirmed=True, spark=spark)
    (files / "n1- ü.parquet").unlink()
    embed(place, **pool)
    record = embeddings(spark, place / "ws")[2]
    assert not record.detail["changes"]["by_files"] and record.rows == 620
    # A purged row comes again: in a file that is the only one read.
    jobs.write(jobs.vector_pool(20, seed=1, name="n1-"), files / "again.parquet")
    embed(place, **pool)
    rows, new_rows, record = embeddings(spark, place / "ws")
    assert record.detail["changes"]["by_files"] and (new_rows, record.rows) == (19, 639)
    assert "n1-00003" not in rows["id"].to_pylist()


def test_the_same_selection_comes_of_reused_embeddings(place):
    jobs.select(jobs.settings(place))
    jobs.write(changed(jobs.vector_pool(), 3), place / "pool.parquet")
    reused = jobs.settings(place)
    fresh = jobs.settings(place, workspace=str(place / "fresh"))
    assert jobs.picked_ids(reused) == jobs.picked_ids(fresh)


def test_a_row_with_another_value_or_id_takes_its_vector_from_what_was_embedded(spark, place):
    pytest.importorskip("wordllama", reason="extra 'static' is not installed")
    pool = jobs.text_rows("p", 300, 0, 90, 1)
    tokens = pa.array(range(300), pa.int64())
    jobs.write(pool.append_column("words", tokens), place / "pool.parquet")
    jobs.write(jobs.text_rows("t", 40, 0, 30, 2), place / "target.parquet")
    text = {
        "columns": {"vector": None, "source": None, "text": "text", "tokens": None},
        "embedder": {"name": "wordllama"},
    }
    pool_columns = {"id": "id", "text": "text", "tokens": "words"}
    text["pool"] = {"location": str(place / "pool.parquet"), "columns": pool_columns}
    embed(place, **text)
    ids = [f"q{i}" if i < 20 else f"p{i:05d}" for i in range(300)]
    values = pa.array([i + (1000 if 20 <= i < 50 else 0) for i in range(300)], pa.int64())
    reordered = pa.table({"id": ids, "text": pool["text"], "words": values})
    jobs.write(reordered, place / "pool.parquet")
    embed(place, **text)
    embed(place, "fresh", **text)
    rows, new_rows, record = embeddings(spark, place / "ws")
    assert rows.equals(embeddings(spark, place / "fresh")[0])
    assert new_rows == 50
    counts = {k: record.detail["changes"][k] for k in ("added", "changed", "gone", "known")}
    assert counts == {"added": 20, "changed": 30, "gone": 20, "known": 50}


def test_a_pool_that_is_mostly_other_rows_is_embedded_whole(spark, place):
    embed(place)
    jobs.write(jobs.vector_pool(seed=5, name="x"), place / "pool.parquet")
    embed(place)
    rows, new_rows, record = embeddings(spark, place / "ws")
    assert new_rows == record.rows == rows.num_rows == 600
    assert "base" not in record.detail


def test_another_embedder_reuses_nothing_and_another_target_is_none_of_the_pools(spark, place):
    embed(place)
    embed(place, quantize={"spherical": True})
    assert embeddings(spark, place / "ws")[1] == 600
    jobs.write(jobs.vector_target(90, blob=2, seed=8), place / "target.parquet")
    embed(place)
    assert "on_base" in json.dumps(embeddings(spark, place / "ws", "target")[2].detail)
    assert embeddings(spark, place / "ws", "target")[0].num_rows == 90


def test_a_grown_target_is_assigned_on_what_was_assigned_before(spark, place):
    jobs.select(jobs.settings(place))
    target = pa.concat_tables([jobs.vector_target(), jobs.vector_target(9, seed=7, name="u")])
    jobs.write(target, place / "target.parquet")
    jobs.select(jobs.settings(place))
    tables = Workspace(spark, str(place / "ws"))
    record = [r for r in tables.records() if r.stage == "assign target"][-1]
    assert (record.rows, tables.own_rows("assignments", record.fingerprint).count()) == (89, 9)
    assert tables.read("assignments", record.fingerprint).select("id").distinct().count() == 89


def test_six_runs_on_a_growing_pool_take_little_more_room_than_one(place):
    def size(name: str) -> int:
        return sum(f.stat().st_size for f in (place / "ws" / name).rglob("*") if f.is_file())

    pool = jobs.vector_pool(2000)
    jobs.write(pool, place / "pool.parquet")
    embed(place)
    first = size("embeddings")
    for version in range(1, 6):
        more = jobs.vector_pool(20, seed=version, name=f"m{version}-")
        pool = pa.concat_tables([pool, more])
        jobs.write(pool, place / "pool.parquet")
        embed(place, retention={"hours": 0})
    assert size("embeddings") < 1.6 * first
