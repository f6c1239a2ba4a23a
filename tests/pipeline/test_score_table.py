"""`score`: the frozen plan of a run, applied to the pool itself and to other tables."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from typer.testing import CliRunner

from gio_spark.cli.main import app
from gio_spark.engine.progress import Progress
from gio_spark.errors import InputError, WorkspaceError
from gio_spark.pipeline.commands.score_table import score_table
from gio_spark.settings.inputs import InputSettings
from tests.faults.acting_progress import ActingProgress
from tests.pipeline import jobs

pytestmark = pytest.mark.embedded
SILENT = Progress("silent")


def score(settings, place, name="scores"):
    return score_table(settings, InputSettings(location=str(place)), name, progress=SILENT)


def rows(scored):
    return DeltaTable(scored.output).to_pyarrow_table().sort_by("gio_id")


CASES = {
    "vectors": {"within_cluster": "density_ratio"},
    "caps": {"select": {"source_caps": {"site-0": 0.6}, "replay": 0.3}},
}


@pytest.mark.parametrize("case", CASES)
def test_the_pool_itself_gets_the_decisions_of_its_run(place, case):
    settings = jobs.settings(place, **CASES[case])
    run = jobs.select(settings)
    jobs.go(settings)
    scored = score(settings, place / "pool.parquet", str(place / "scores"))
    table = rows(scored)
    taken = table.filter(table["gio_keep"])
    assert (scored.rows, scored.passing, scored.unusable) == (600, taken.num_rows, 0)
    assert taken["gio_id"].to_pylist() == jobs.ids(run.selected)
    selected = jobs.picked(settings, run)
    assert taken["gio_cluster"].to_pylist() == selected["gio_cluster"].to_pylist()
    if case == "vectors":
        assert taken["gio_log_ratio"].to_pylist() == pytest.approx(
            selected["gio_log_ratio"].to_pylist(), abs=1e-5
        )
    for row in table.to_pylist():
        if row["gio_threshold"] is not None and row["gio_score"] != row["gio_threshold"]:
            assert row["gio_keep"] == (row["gio_score"] > row["gio_threshold"])
    # Nothing of the scores stays in the workspace.
    assert not list((place / "ws").glob("snapshot_*"))


def test_text_of_another_table_is_scored_with_its_bad_rows_named(place, capsys):
    jobs.write(jobs.text_rows("p", 300, 0, 90, 1), place / "pool.parquet")
    jobs.write(jobs.text_rows("t", 60, 0, 30, 2), place / "target.parquet")
    columns = {"id": "id", "text": "text", "vector": None, "source": None, "tokens": None}
    settings = jobs.settings(
        place, columns=columns, embedder={"name": "ngrams", "dimension": 16}, clusters=8,
        budget=60, within_cluster="density_ratio",
    )  # fmt: skip
    jobs.go(settings)
    like, unlike = jobs.text_rows("l", 50, 0, 30, 5), jobs.text_rows("u", 50, 60, 90, 6)
    odd = pa.table({"id": ["empty", None, "l00000"], "text": [None, "a text", "a text"]})
    jobs.write(pa.concat_tables([like, unlike, odd]), place / "others.parquet")
    scored = score(settings, place / "others.parquet", str(place / "scores"))
    table = rows(scored).to_pylist()
    assert (scored.rows, scored.unusable, scored.without_id) == (101, 1, 2)
    assert next(r for r in table if r["gio_id"] == "empty")["gio_cluster"] is None
    labels = [r["gio_id"][0] for r in table if r["gio_keep"]]
    assert len(labels) == scored.passing and labels.count("l") > 4 * labels.count("u")

    with pytest.raises(InputError, match="is there already"):
        score(settings, place / "others.parquet", str(place / "scores"))
    jobs.write(like.rename_columns(["id", "words"]), place / "other-names.parquet")
    with pytest.raises(InputError, match="'text'"):
        score(settings, place / "other-names.parquet", str(place / "more"))

    config = place / "run.yml"
    config.write_text(json.dumps(settings.model_dump(mode="json", exclude_unset=True)))
    arguments = ["score", str(config), str(place / "others.parquet"), "--json", "--quiet"]
    done = CliRunner().invoke(app, [*arguments, "--output", str(place / "by-command")])
    facts = json.loads(done.stdout)
    assert (facts["exit_code"], facts["passing"]) == (0, scored.passing)


def test_no_scores_are_left_of_a_table_that_changes_meanwhile(place):
    settings = jobs.settings(place)
    jobs.go(settings)
    others = jobs.write(jobs.vector_pool(50, seed=5, name="o"), place / "others.parquet")

    def write_again():
        jobs.write(jobs.vector_pool(50, seed=6, name="o"), place / "others.parquet")

    acting = ActingProgress("score", write_again)
    with pytest.raises(WorkspaceError, match="written again"):
        score_table(settings, InputSettings(location=others), str(place / "s"), progress=acting)
    assert not (place / "s").exists()
