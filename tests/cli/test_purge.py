"""`gio-spark purge`: rows are gone from every file, and the workspace works on."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from tests.cli.conftest import Project, project
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
    given = {
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
    return project(folder, **given)


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
    """A project whose pool lost rows after two runs, and what a purge said before and did."""
    made = text_project(tmp_path_factory.mktemp("purge"), tracking={"enabled": True})
    assert made("run").exit_code == 0
    assert made("run", "budget=20").exit_code == 0
    selected = jobs.selected(made.folder / "ws")["gio_id"].to_pylist()
    shown = example_ids(made.folder)
    assert shown
    # A copy is in quarantine under the id of the row that stays.
    quarantined = DeltaTable(str(made.folder / "ws" / "quarantine")).to_pyarrow_table()
    keeper = next(d for d in quarantined["detail"].to_pylist() if d)
    ids = {*selected[:3], *shown[:2], keeper}
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
    told = facts["forecast"]
    tables = {t["table"]: t["rows"] for t in told["tables"]}
    assert told["ids"] == len(ids)
    assert tables["embeddings"] == len(ids) and tables["assignments"]
    assert sum(name.startswith("selection_") for name in tables) >= 1
    assert told["publishes"] and told["details"] == 1
    kinds = {page["place"].startswith("tracked run") for page in told["pages"]}
    assert kinds == {True, False}


def test_no_file_holds_an_id_or_a_text_of_a_purged_row(purged):
    made, _, words, (before, _), (_, result) = purged
    assert result.exit_code == 0, result.stderr
    assert len(before) > 6
    assert places_of(made.folder / "ws", words) == set()
