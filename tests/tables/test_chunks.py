"""Long stages in chunks: what is committed once is not made again, whatever happened between."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from gio_spark.errors import WorkspaceError
from gio_spark.tables import Workspace, chunks_for, delta, write_chunks
from gio_spark.tables.hash_chunks import MOST_CHUNKS, Chunk

pytestmark = pytest.mark.embedded
IDS = [f"r{i:03}" for i in range(200)]


@pytest.fixture
def place(folder):
    return str(folder / "ws")


class Stage:
    """A stage over 200 rows that notes which chunks it made, and dies where it is told to."""

    def __init__(self, spark, place):
        self.workspace = Workspace(spark, place)
        self.made = []

    def write(self, count, *, dies_at=0, key="aa", expected=200):
        rows = self.workspace.frame(pa.table({"id": IDS, "x": np.arange(200.0)}))
        self.made = []

        def make(chunk):
            self.made.append(chunk.number)
            return chunk.rows(rows)

        def record_chunk(chunk, rows_written):
            if chunk.number == dies_at:
                raise KeyboardInterrupt

        return write_chunks(
            self.workspace, "embeddings", make, count=count, fingerprint=key, run="r1",
            stage="embed pool", expected=expected, on_chunk=record_chunk,
        )  # fmt: skip

    def ids(self, key="aa"):
        return sorted(self.workspace.read("embeddings", key).toArrow()["id"].to_pylist())


def test_chunks_part_all_rows_into_hash_ranges_of_about_one_size(spark, place):
    rows = Workspace(spark, place).frame(pa.table({"id": IDS}))
    parts = [Chunk(n, 4).rows(rows).toArrow()["id"].to_pylist() for n in range(1, 5)]
    assert sorted(i for part in parts for i in part) == IDS
    assert all(30 <= len(p) <= 70 for p in parts)


def test_the_number_of_chunks_follows_the_rows_up_to_a_bound():
    sizes = [(0, 5), (5, 5), (6, 5), (24, 5), (10**12, 5)]
    assert [chunks_for(n, step) for n, step in sizes] == [1, 1, 2, 5, MOST_CHUNKS]


def test_a_stage_that_was_killed_goes_on_with_the_first_incomplete_chunk(spark, place):
    stage = Stage(spark, place)
    with pytest.raises(KeyboardInterrupt):
        stage.write(5, dies_at=2)
    assert stage.made == [1, 2]
    # Another process, which knows what is in the tables alone.
    again = Stage(spark, place)
    assert again.write(5) == 200
    assert again.made == [3, 4, 5]
    assert again.ids() == IDS
    # Nothing is left: a third call makes nothing.
    third = Stage(spark, place)
    assert third.write(5) == 200 and third.made == []
    named = [r.stage for r in third.workspace.records()]
    assert named == [f"embed pool chunk {n} of 5" for n in range(1, 6)]


def test_each_chunk_is_one_commit_that_names_it_and_a_single_one_is_no_more_than_before(
    spark, place
):
    stage = Stage(spark, place)
    stage.write(3)
    log = delta.open_log(stage.workspace.place("embeddings"))
    notes = [entry["userMetadata"] for entry in reversed(log.history())]
    assert len(notes) == 3
    assert all(f'"chunk": "00{n}-of-003"' in note for n, note in enumerate(notes, 1))
    stage.write(1, key="bb")
    assert stage.workspace.version("embeddings") == 3
    assert [r for r in stage.workspace.records() if r.detail["chunk_of"] == "bb"] == []


def test_a_chunk_whose_rows_are_gone_is_made_again_and_no_other(spark, place):
    stage = Stage(spark, place)
    stage.write(4)
    lost = Chunk(3, 4).rows(stage.workspace.read("embeddings", "aa")).toArrow()["id"][0]
    where = stage.workspace.place("embeddings")
    spark.sql(f"DELETE FROM delta.`{where}` WHERE id = '{lost}'")
    again = Stage(spark, place)
    assert again.write(4) == 200
    assert again.made == [3]
    assert again.ids() == IDS


@pytest.mark.parametrize("counts", [(5, 3), (3, 1, 3), (1, 5)])
def test_another_number_of_chunks_leaves_nothing_of_the_one_before(spark, place, counts):
    for count in counts[:-1]:
        with pytest.raises(KeyboardInterrupt):
            Stage(spark, place).write(count, dies_at=2) if count > 1 else _one_write(spark, place)
    last = Stage(spark, place)
    assert last.write(counts[-1]) == 200
    # Chunks of the same cut that were recorded are taken over, others are not.
    missing = [3] if counts == (3, 1, 3) else list(range(1, counts[-1] + 1))
    assert last.made == missing
    assert last.ids() == IDS


def _one_write(spark, place):
    Stage(spark, place).write(1)
    raise KeyboardInterrupt


def test_chunks_that_come_together_to_another_number_are_refused_and_made_anew(spark, place):
    with pytest.raises(
        WorkspaceError, match="holds 200 rows of embed pool after the write, but 201"
    ):
        Stage(spark, place).write(3, expected=201)
    # The input is what was wrong: once it is mended, nothing of the refused rows is trusted.
    again = Stage(spark, place)
    with pytest.raises(WorkspaceError, match="201 were expected"):
        again.write(3, expected=201)
    assert again.made == [1, 2, 3]


def test_a_chunk_is_read_by_the_files_of_its_own_or_by_its_hash_range(spark, place):
    stage = Stage(spark, place)
    ws = stage.workspace
    rows = stage.write(4)
    ws.record(
        run="r1", stage="embed pool", fingerprint="aa", table="embeddings", rows=rows,
        seconds=1.0, detail={"chunks": 4},
    )  # fmt: skip
    assert len(ws.attempts("embeddings", "aa")) == 4 and ws.attempts("embeddings", "bb") == []
    assert ws.complete("embed pool", "aa") is not None
    chunk_ids = ws.read("embeddings", "aa", chunk=Chunk(2, 4)).toArrow()["id"].to_pylist()
    other = ws.read("embeddings", "aa", chunk=Chunk(1, 2)).toArrow()["id"].to_pylist()
    all_rows = ws.frame(pa.table({"id": IDS}))
    assert sorted(chunk_ids) == sorted(Chunk(2, 4).rows(all_rows).toArrow()["id"].to_pylist())
    assert sorted(other) == sorted(Chunk(1, 2).rows(all_rows).toArrow()["id"].to_pylist())


def test_a_table_of_an_earlier_layout_is_refused_and_keeps_its_rows(spark, place):
    ws = Workspace(spark, place)
    old = pa.table({"id": IDS[:50], "x": np.arange(50.0), "fingerprint": ["old"] * 50})
    frame = ws.frame(old)
    frame.write.format("delta").partitionBy("fingerprint").save(ws.place("embeddings"))
    with pytest.raises(WorkspaceError, match="earlier version of gio_spark"):
        Stage(spark, place).write(3)
    assert delta.open_log(ws.place("embeddings")).to_pyarrow_table().num_rows == 50
