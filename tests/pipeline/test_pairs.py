"""Pairs (`columns.output`): misaligned and copied halves are seen, and both halves count."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable

from gio_spark.engine.progress import Progress
from gio_spark.errors import ConfigError, InputError
from gio_spark.pipeline.commands.score_table import score_table
from gio_spark.pipeline.refresh import refresh
from gio_spark.settings.columns import Columns
from gio_spark.settings.inputs import InputSettings
from gio_spark.settings.load import build
from gio_spark.tables.inputs import open_input
from tests.pipeline import jobs

ROWS, WORDS = 600, 60


def pairs(name: str, rows: int, seed: int) -> dict[str, list[str]]:
    """Sentences and their translations into a language with a word for each word."""
    random = np.random.default_rng(seed)
    numbers = [random.choice(WORDS, 8, replace=False) for _ in range(rows)]
    return {
        "id": [f"{name}{i:05d}" for i in range(rows)],
        "question": [" ".join(f"wort{n}" for n in row) for row in numbers],
        "answer": [" ".join(f"mot{n * 7 % WORDS}" for n in row[::-1]) for row in numbers],
    }


def pool_of(bad: str) -> pa.Table:
    """A pool whose every fourth row has the answer of another one, or is a copied question."""
    rows = pairs("p", ROWS, 1)
    answers = list(rows["answer"])
    for at in range(0, ROWS, 4):
        answers[at] = rows["answer"][(at + 40) % ROWS] if bad == "swapped" else rows["question"][at]
    return pa.table({**rows, "answer": answers, "good": [at % 4 > 0 for at in range(ROWS)]})


def settings(folder, output="answer", **changes):
    columns = {"id": "id", "text": "question", "output": output, "vector": None, "source": None}
    return jobs.settings(
        folder, columns={**columns, "tokens": None}, budget=200, embedder="ngrams",
        within_cluster="density_ratio", **changes,
    )  # fmt: skip


def written(folder, pool: pa.Table) -> None:
    jobs.write(pool, folder / "pool.parquet")
    jobs.write(pa.table(pairs("t", 150, 2)), folder / "target.parquet")


def good_share(config) -> float:
    return float(np.mean(jobs.picked(config, jobs.select(config))["good"].to_numpy()))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A pool with swapped halves, null and blank answers, and its finished run."""
    folder = tmp_path_factory.mktemp("pairs")
    pool = pool_of("swapped")
    answers = pool["answer"].to_pylist()
    answers[1], answers[2] = None, " "
    written(folder, pool.set_column(2, "answer", pa.array(answers)))
    config = settings(folder)
    return folder, config, jobs.go(config)


def test_swapped_halves_are_left_out(place):
    folder, config, curation = place
    paired = np.mean(jobs.picked(config, curation)["good"].to_numpy())
    alone = good_share(settings(folder, None, workspace=str(folder / "alone")))
    assert paired > 0.95 > 0.85 > alone


def test_the_pool_is_scored_as_a_table_by_both_halves(place):
    folder, config, curation = place
    scores = str(folder / "scores")
    pool = InputSettings(location=str(folder / "pool.parquet"))
    score_table(config, pool, scores, progress=Progress("silent"))
    rows = DeltaTable(scores).to_pyarrow_table().to_pylist()
    assert sorted(r["gio_id"] for r in rows if r["gio_keep"]) == jobs.ids(curation.selected)


def test_copied_halves_are_left_out(tmp_path):
    written(tmp_path, pool_of("copied"))
    assert good_share(settings(tmp_path)) > 0.98


def test_null_and_blank_outputs_are_in_quarantine_with_their_reason(place):
    folder, *_ = place
    rows = jobs.table(folder / "ws", "quarantine").to_pylist()
    assert {row["id"]: row["reason"] for row in rows} == {
        "p00001": "null output", "p00002": "empty output"
    }  # fmt: skip


def test_a_changed_output_is_a_changed_row_and_judged_anew(place):
    folder, config, curation = place
    before = jobs.picked(config, curation)
    victim = before["gio_id"][0].as_py()
    pool = pool_of("swapped")
    answers = pool["answer"].to_pylist()
    answers[int(victim[1:])] = answers[int(victim[1:])][::-1]
    jobs.write(pool.set_column(2, "answer", pa.array(answers)), folder / "pool.parquet")
    done = refresh(config, progress=Progress("silent"))
    # The two rows of the quarantine have an answer by now.
    assert done.changed_rows == 3
    assert victim not in jobs.selected(folder / "ws")["gio_id"].to_pylist()


def test_rows_without_an_id_are_told_apart_by_both_halves(place, spark):
    rows = pairs("p", 40, 1)
    rows["question"] = rows["question"][:20] * 2
    folder, *_ = place
    jobs.write(pa.table(rows).drop_columns(["id"]), folder / "no-ids.parquet")
    columns = Columns(text="question", output="answer")
    source = InputSettings(location=str(folder / "no-ids.parquet"))
    assert open_input(spark, source, columns, "pool").ids == 40
    alone = open_input(spark, source, Columns(text="question"), "pool")
    assert alone.ids == 20


@pytest.mark.parametrize("text", [None, "answer"])
def test_an_output_without_another_text_is_refused(text):
    with pytest.raises(ConfigError, match=r"columns\.output"):
        build({"pool": "pool", "target": "target", "columns": {"text": text, "output": "answer"}})


def test_what_does_not_see_outputs_is_refused_by_name(place):
    folder, *_ = place
    for change in ({"explode": {"estimator": "knn"}}, {"select": {"strategy": "kl_knn_t025"}}):
        with pytest.raises(ConfigError, match=r"columns.output cannot be combined with"):
            jobs.select(settings(folder, **change))


def test_every_input_needs_the_output(place):
    folder, *_ = place
    target = {
        "location": str(folder / "target.parquet"),
        "columns": {"id": "id", "text": "question"},
    }
    with pytest.raises(ConfigError, match="set for the pool, but not for target"):
        jobs.select(settings(folder, target=[target]))
    with pytest.raises(InputError, match=r"columns.output = 'reply'"):
        jobs.select(settings(folder, "reply"))
