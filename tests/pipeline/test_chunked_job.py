"""A whole job whose long stages are committed in chunks selects what it selects in one piece."""

from __future__ import annotations

import pyarrow as pa
import pytest

from gio_spark.engine.progress import Progress
from gio_spark.pipeline import run
from gio_spark.pipeline.refresh import refresh
from tests.pipeline import jobs

pytestmark = pytest.mark.embedded


class Killed(Progress):
    """Progress that ends the process's work once a chunk of a stage is committed."""

    def __init__(self, stage, chunk):
        super().__init__("silent")
        self.at = stage, chunk

    def stage(self, name, rows=None, **more):
        stage_progress = super().stage(name, rows, **more)
        if name != self.at[0]:
            return stage_progress
        return _Watched(stage_progress, self.at[1])


class _Watched:
    def __init__(self, inner, note):
        self.inner, self.note = inner, note

    def __enter__(self):
        self.progress = self.inner.__enter__()
        say = self.progress.say

        def note_progress(note):
            say(note)
            if note == self.note:
                raise KeyboardInterrupt

        self.progress.say = note_progress
        return self.progress

    def __exit__(self, *error):
        return self.inner.__exit__(*error)


def chunks_of(folder, stage):
    """Chunk number -> when its record was written."""
    records = jobs.table(folder / "ws", "runs").to_pylist()
    chunk_records = [r for r in records if r["stage"].startswith(f"{stage} chunk ")]
    return {int(r["stage"].split()[-3]): r["finished"] for r in chunk_records}, len(chunk_records)


@pytest.mark.parametrize("stage", ["embed pool", "assign pool", "score pool"])
def test_a_run_killed_between_chunks_goes_on_with_the_next_one(place, stage):
    config = jobs.settings(place, within_cluster="density_ratio", chunk_rows=150)
    with pytest.raises(KeyboardInterrupt):
        run(config, progress=Killed(stage, "chunk 3 of 4"), until="explode")
    before, count = chunks_of(place, stage)
    assert sorted(before) == [1, 2, 3] and count == 3
    curation = jobs.select(config)
    after, count = chunks_of(place, stage)
    assert count == 4 and after == {**before, 4: after[4]}
    for name in ("embeddings", "assignments", "scores"):
        ids = jobs.table(place / "ws", name)["id"].to_pylist()
        assert len(ids) == len(set(ids)) == (600 if name == "scores" else 680)
    assert not jobs.select(config).did_work
    in_one = jobs.settings(place, within_cluster="density_ratio", workspace=str(place / "whole"))
    other = jobs.select(in_one)
    assert other.run_id == curation.run_id
    assert (
        jobs.picked(in_one, other)
        .drop_columns(["gio_run"])
        .equals(jobs.picked(config, curation).drop_columns(["gio_run"]))
    )


def test_another_chunk_size_repeats_nothing_and_selects_the_same(place):
    first = jobs.select(jobs.settings(place, chunk_rows=120))
    again = jobs.select(jobs.settings(place))
    assert again.run_id == first.run_id and not again.did_work
    # Five chunks of the pool, one of the target: an attempt each.
    assert len(set(jobs.table(place / "ws", "assignments")["attempt"].to_pylist())) == 6


def test_a_chunked_run_is_refreshed_and_a_pool_that_outgrew_its_chunks_is_run_again(place):
    config = jobs.settings(place, chunk_rows=300)
    done = jobs.go(config)
    new = jobs.vector_pool(200, seed=11, name="n")
    jobs.write(pa.concat_tables([jobs.vector_pool().slice(50), new]), place / "pool.parquet")
    changed = refresh(config, progress=Progress("silent"))
    assert (changed.new_rows, changed.gone_rows) == (200, 50)
    selected = jobs.picked(config, done)["gio_id"].to_pylist()
    assert changed.after == len(selected) == len(set(selected))
    assert changed.added == sum(i.startswith("n") for i in selected) > 0
    # The run after it embeds nothing: the refresh has done so.
    grown = jobs.select(config)
    assert grown.run_id != done.run_id
    assert "embed pool" not in jobs.done(grown)
    in_one = jobs.settings(place, workspace=str(place / "whole"))
    assert jobs.picked(config, grown)["gio_id"].to_pylist() == jobs.picked_ids(in_one)


def test_quarantined_rows_are_left_out_of_each_chunk(place):
    doubled = pa.concat_tables([jobs.vector_pool(), jobs.vector_pool(60, name="d")])
    jobs.write(doubled, place / "pool.parquet")
    changes = {"quantize": {"duplicates": "exact"}, "columns": {"source": None}}
    cut = jobs.settings(place, chunk_rows=200, **changes)
    records = jobs.picked_ids(cut)
    assert len(chunks_of(place, "clean pool")[0]) == 3  # 600 rows of 660 are left
    in_one = jobs.settings(place, workspace=str(place / "whole"), **changes)
    assert records == jobs.picked_ids(in_one)
