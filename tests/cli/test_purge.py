"""`gio-spark purge`: rows are gone from every file, and the workspace works on."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake
from typer.testing import CliRunner

from gio_spark.cli import app
from gio_spark.tables import Workspace
from tests.cli.conftest import Project, project
from tests.faults.processes import (
    add_rows,
    check_recorded_rows,
    published,
    records,
)
from tests.pipeline import jobs

pytestmark = pytest.mark.embedded

ROWS = 200


def text_project(folder: Path, **changes) -> Project:
    """A project of texts in Delta tables, some of them copies, with examples in its report."""
    pool = jobs.text_rows("row-", ROWS, 0, 40, seed=1)
    copies = pool.slice(0, 6).set_column(0, "id", pa.array([f"copy-{i}" for i in range(6)]))
    sites = pa.array([f"site-{i % 3}" for i in range(ROWS + 6)])
    pool = pa.concat_tables([pool, copies]).append_column("site", sites)
    write_deltalake(str(folder / "texts"), pool)
    jobs.write(jobs.text_rows("target-", 40, 0, 20, seed=2), folder / "texts.parquet")
    changed_settings = {
        "pool": str(folder / "texts"),
        "target": str(folder / "texts.parquet"),
        "columns": {"id": "id", "text": "text", "source": "site"},
        "embedder": "ngrams",
        "clusters": 6,
        "quantize": {"max_passes": 2, "target_clusters": 3, "duplicates": "exact"},
        "report": {"sample": 50, "examples": 4},
        "name": "texts",
        **changes,
    }
    return project(folder, **changed_settings)


def places_of(folder: Path, words: set[str]) -> set[str]:
    """Files below a folder that hold one of some words: Parquet is decoded, others are read."""
    places = set()
    for file in folder.rglob("*"):
        if not file.is_file():
            continue
        if file.suffix == ".parquet":
            columns = pq.read_table(file).columns
            text = "\n".join(str(v) for c in columns for v in c.to_pylist())
        else:
            text = file.read_text(errors="replace")
        if any(word in text for word in words):
            places.add(str(file.relative_to(folder)))
    return places


def example_ids(folder: Path) -> list[str]:
    """Ids that the pool had and that reports show."""
    pages = " ".join(p.read_text() for p in folder.glob("ws/reports/*/*.html"))
    return [f"row-{i:05d}" for i in range(ROWS) if f"row-{i:05d}<" in pages]


@pytest.fixture(scope="module")
def purged(spark, tmp_path_factory):
    """A project whose pool lost rows after a run, and what a purge said before and did."""
    folder = tmp_path_factory.mktemp("purge")
    made = text_project(folder, tracking={"enabled": True, "uri": str(folder / "ws" / "mlruns")})
    assert made("run").exit_code == 0
    selected = jobs.selected(made.folder / "ws")["gio_id"].to_pylist()
    examples = example_ids(made.folder)
    assert examples
    # A copy is in quarantine under the id of the row that stays.
    quarantined = DeltaTable(str(made.folder / "ws" / "quarantine")).to_pyarrow_table()
    keeper = min(d for d in quarantined["detail"].to_pylist() if d)
    ids = {*selected[:3], *examples[:2], keeper}
    table = DeltaTable(str(made.folder / "texts"))
    rows = table.to_pyarrow_table().to_pylist()
    own = {row["text"] for row in rows if row["id"] in ids}
    others = {row["text"] for row in rows if row["id"] not in ids}
    words = ids | (own - others)
    listed = ", ".join(f"'{i}'" for i in sorted(ids))
    table.delete(f"id IN ({listed})")
    before = places_of(made.folder / "ws", words)
    forecast = made("purge", "--deleted-upstream", "--json")
    untouched = places_of(made.folder / "ws", words)
    result = made("purge", "--deleted-upstream", "--yes", "--json")
    return made, ids, words, (before, untouched), (forecast, result)


def test_the_forecast_names_every_place_and_changes_nothing(purged):
    _, ids, _, (before, untouched), (forecast, _) = purged
    assert forecast.exit_code == 0, forecast.stderr
    facts = json.loads(forecast.stdout)
    assert before == untouched and not facts["did_work"]
    places = facts["forecast"]
    tables = {t["table"]: t["rows"] for t in places["tables"]}
    assert places["ids"] == len(ids)
    assert tables["embeddings"] == len(ids) and tables["assignments"]
    assert sum(name.startswith("selection_") for name in tables) >= 1
    assert places["publishes"] and places["details"] >= 1
    kinds = {page["place"].startswith("tracked run") for page in places["pages"]}
    assert kinds == {True, False}


def test_no_file_holds_an_id_or_a_text_of_a_purged_row(purged):
    made, _, words, (before, _), (_, result) = purged
    assert result.exit_code == 0, result.stderr
    assert len(before) > 6
    assert places_of(made.folder / "ws", words) == set()


def test_counts_agree_and_a_second_purge_finds_nothing(purged):
    made, ids, *_ = purged
    workspace = made.folder / "ws"
    check_recorded_rows(workspace)
    assert published(workspace, "texts").num_rows == 27
    # Earlier commits held the least and greatest numbers of the rows.
    (selection,) = workspace.glob("selection_*")
    assert len(list((selection / "_delta_log").glob("0*.json"))) == 1
    assert "(purged)" in made("explain", min(ids)).stdout
    again = json.loads(made("purge", "--resume", "--yes", "--json").stdout)
    assert again["forecast"]["rows"] == 0 and again["forecast"]["listed"] == len(ids)


def test_a_refresh_fills_the_budget_and_other_commands_work(purged):
    made, ids, words, *_ = purged
    workspace = made.folder / "ws"
    refreshed = made("refresh", "--json")
    assert refreshed.exit_code == 0, refreshed.stderr
    counts = json.loads(refreshed.stdout)["counts"]
    assert (counts["added"], counts["selected"]) == (3, 30)
    assert not ids & set(jobs.selected(workspace)["gio_id"].to_pylist())
    assert made("diff", "texts@1", "texts@2").exit_code == 0
    run = records(workspace)[0]["run"]
    for command in (["show"], ["show", "texts"], ["show", run], ["rollback", "texts"]):
        done = CliRunner().invoke(app, [*command, "--workspace", str(workspace)])
        assert done.exit_code == 0, done.stderr
    assert made("maintain").exit_code == 0
    check_recorded_rows(workspace)
    assert places_of(workspace, words) == set()


def test_logs_hold_no_value_of_a_text(purged):
    made, *_ = purged
    for log in (made.folder / "ws").glob("*/_delta_log/*.json"):
        for line in log.read_text().splitlines():
            stats = json.loads(json.loads(line).get("add", {}).get("stats") or "{}")
            values = {**stats.get("minValues", {}), **stats.get("maxValues", {})}
            texts = {n for n, v in values.items() if isinstance(v, str)} - {"reason"}
            assert not texts, (log, texts)


@pytest.fixture(scope="module")
def finished_run(spark, tmp_path_factory):
    """A project of vectors, run and refreshed once, with a list of selected rows of both."""
    made = project(tmp_path_factory.mktemp("kept"), name="kept")
    assert made("run").exit_code == 0
    first = jobs.selected(made.folder / "ws")["gio_id"].to_pylist()
    add_rows(made.folder, 60)
    assert made("refresh").exit_code == 0
    second = jobs.selected(made.folder / "ws")["gio_id"].to_pylist()
    ids = [*first[:3], *[i for i in second if i not in first][:2]]
    jobs.write(pa.table({"id": ids}), made.folder / "ids.parquet")
    return made, ids


def test_a_pinned_publish_is_named_and_nothing_is_changed(finished_run):
    made, ids = finished_run
    workspace = ["--workspace", str(made.folder / "ws")]
    assert CliRunner().invoke(app, ["pin", "kept", *workspace]).exit_code == 0
    before = places_of(made.folder / "ws", set(ids))
    refused = made("purge", "--ids", str(made.folder / "ids.parquet"), "--yes")
    assert refused.exit_code == 2 and "kept@2" in refused.stderr
    assert places_of(made.folder / "ws", set(ids)) == before
    assert not (made.folder / "ws" / "purged").exists()


def test_an_input_that_was_emptied_purges_nothing(finished_run):
    made, _ = finished_run
    jobs.write(jobs.vector_pool(100), made.folder / "small.parquet")
    pool = made.folder / "pool.parquet"
    pool.rename(made.folder / "whole.parquet")
    (made.folder / "small.parquet").rename(pool)
    refused = made("purge", "--deleted-upstream", "--yes")
    (made.folder / "whole.parquet").rename(pool)
    assert refused.exit_code == 2 and "260 of the 360" in refused.stderr


def test_a_condition_finds_rows_of_the_pool_and_of_selections(finished_run):
    made, _ = finished_run
    done = made("purge", "--where", "site = 'site-1' and words > 30", "--json")
    pool = pq.read_table(made.folder / "pool.parquet").to_pylist()
    rows = [r for r in pool if r["site"] == "site-1"]
    facts = json.loads(done.stdout)
    assert facts["forecast"]["ids"] == sum(r["words"] > 30 for r in rows)
    wrong = made("purge", "--where", "no_such = 1")
    assert wrong.exit_code == 2 and "no_such" in wrong.stderr


def test_rows_that_the_pool_still_has_stay_out_and_are_replaced(spark, finished_run):
    made, ids = finished_run
    listed = str(made.folder / "ids.parquet")
    complete = complete_stages(spark, made.folder / "ws")
    done = made("purge", "--ids", listed, "--yes", "--include-pinned")
    assert done.exit_code == 0, done.stderr
    assert "still has 5" in done.stdout
    # Stages stay complete, those on the rows of an earlier version as well.
    assert complete_stages(spark, made.folder / "ws") == complete
    facts = json.loads(made("refresh", "--json").stdout)
    assert facts["counts"]["selected"] == 30 and facts["counts"]["added"] >= 2
    assert (facts["counts"]["gone"], facts["counts"]["new"]) == (0, 0)
    again = made("run")
    assert again.exit_code == 0 and "30 of 355 rows" in again.stdout
    assert "5 rows of" in again.stdout + again.stderr
    assert "Nothing to do" in made("refresh").stdout
    assert places_of(made.folder / "ws", set(ids)) == set()
    assert "(purged)" in made("explain", ids[0]).stdout


def complete_stages(spark, workspace: Path) -> set[tuple[str, str]]:
    """Stages whose rows are there as recorded."""
    tables = Workspace(spark, str(workspace))
    recorded = {(r.stage, r.fingerprint) for r in tables.records() if r.table and not r.is_chunk}
    return {stage for stage in recorded if tables.complete(*stage) is not None}


def test_one_way_to_name_the_rows_is_asked_for(finished_run):
    made, _ = finished_run
    for words in ([], ["--resume", "--deleted-upstream"]):
        assert made("purge", *words).exit_code == 2


def test_a_workspace_that_is_not_there_is_refused_and_not_made(tmp_path, spark):
    made = project(tmp_path)
    done = made("purge", "--deleted-upstream", "--yes")
    assert done.exit_code == 2 and "No runs are recorded" in done.stderr
    assert not (tmp_path / "ws").exists()
