"""Explanations of rows: they agree with the selection about every row, and name the rule."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest

from gio_spark.engine.progress import Progress
from gio_spark.errors import InputError
from gio_spark.pipeline import run as run_pipeline
from gio_spark.pipeline.commands.explain_rows import (
    Explanation,
    explain_rows,
    explain_table,
)
from gio_spark.pipeline.commands.row_decisions import COLUMNS
from gio_spark.pipeline.commands.row_reasons import RULES
from gio_spark.pipeline.refresh import refresh
from gio_spark.pipeline.stages.publish_selection import publish_by_hand, roll_back
from gio_spark.settings.run import RunSettings
from gio_spark.tables import Workspace
from tests.pipeline import jobs

SILENT = Progress("silent")


def with_source(rows: pa.Table, name: str = "source") -> pa.Table:
    """Rows with a source that takes turns: web, books, code."""
    sources = [("web", "books", "code")[i % 3] for i in range(rows.num_rows)]
    return rows.append_column(name, pa.array(sources))


def renamed(prefix: str, texts: list[str | None], source: str = "web") -> pa.Table:
    """Texts under new ids."""
    return pa.table(
        {
            "id": [f"{prefix}{i}" for i in range(len(texts))],
            "text": pa.array(texts, pa.string()),
            "source": [source] * len(texts),
        }
    )


def pool_rows() -> pa.Table:
    """Rows of two vocabularies with copies, held-out content and empty rows among them."""
    usual = with_source(
        pa.concat_tables(
            [jobs.text_rows("p", 240, 0, 60, 1), jobs.text_rows("q", 120, 400, 460, 3)]
        )
    )
    copies = renamed("copy", usual["text"].slice(0, 9).to_pylist())
    overlapping = renamed("held", held_out_rows()["text"].slice(0, 5).to_pylist())
    return pa.concat_tables([usual, copies, overlapping, renamed("empty", [None, "", None])])


def held_out_rows() -> pa.Table:
    return with_source(jobs.text_rows("h", 12, 0, 60, 40))


def write_inputs(folder: Path) -> None:
    jobs.write(pool_rows(), folder / "pool.parquet")
    jobs.write(held_out_rows(), folder / "held.parquet")
    jobs.write(with_source(jobs.text_rows("t", 60, 0, 45, 2)), folder / "target.parquet")


def text_settings(folder: Path, **changes) -> RunSettings:
    return jobs.settings(
        folder,
        **{
            "columns": {"vector": None, "tokens": None, "text": "text", "source": "source"},
            "embedder": {"name": "ngrams", "dimension": 16},
            "held_out": str(folder / "held.parquet"),
            "quantize": {"duplicates": "exact"},
            "clusters": 8,
            "budget": 80,
            "within_cluster": "density_ratio",
            "select": {"source_caps": {"web": 0.2}},
            "gime": {"on_refresh": False},
            "quarantine": {"max_share": 0.1},
            **changes,
        },
    )


def every_id(pool: pa.Table) -> list[str]:
    return sorted(set(pool["id"].to_pylist()))


def check_agreement(
    settings: RunSettings, spark, selected: set[str], ids: list[str]
) -> tuple[Explanation, dict[str, list[str]]]:
    """Explain all ids and compare with the selection; gives the explanation and rule -> ids."""
    explained = explain_rows(settings, ids, spark=spark)
    assert [row["id"] for row in explained.rows] == ids
    assert {row["id"] for row in explained.rows if row["taken"]} == selected
    by_rule: dict[str, list[str]] = {}
    for row in explained.rows:
        assert tuple(row) == COLUMNS and row["rule"] in RULES and row["why"], row
        assert row["taken"] == (row["rule"] == "selected")
        by_rule.setdefault(row["rule"], []).append(row["id"])
    assert "unexplained" not in by_rule
    assert explained.counts == {rule: len(by_rule[rule]) for rule in sorted(by_rule)}
    return explained, by_rule


def check_run_and_refresh(folder: Path, spark, engine: str) -> None:
    """A run and a refresh whose every row is explained as it was selected."""
    write_inputs(folder)
    settings = text_settings(folder, engine=engine)
    run = run_pipeline(settings, spark=spark, progress=SILENT)
    pool = pool_rows()
    selected = set(jobs.ids(run.selected))
    explained, by_rule = check_agreement(settings, spark, selected, every_id(pool))
    rows = {row["id"]: row for row in explained.rows}
    assert {"selected", "below_threshold", "duplicate", "held_out", "quarantine"} <= set(by_rule)
    assert {"unreached_cluster", "no_allocation"} & set(by_rule)
    assert by_rule["source_cap"] and set(by_rule["held_out"]) >= {f"held{i}" for i in range(5)}
    assert by_rule["quarantine"] == ["empty0", "empty1", "empty2"]
    assert by_rule["duplicate"] == [f"p{i:05d}" for i in range(9)]
    assert rows["p00004"]["why"] == "exact duplicate of copy4"
    capped = rows[by_rule["source_cap"][0]]
    assert capped["why"].startswith("cap of source 'web': ") and capped["decided_by_source"]
    assert capped["rank_score"] < capped["rank_threshold"] and capped["log_ratio"] is not None

    fresh = with_source(jobs.text_rows("n", 60, 0, 45, 11))
    strange = renamed("s", jobs.text_rows("s", 20, 0, 45, 12)["text"].to_pylist(), "forum")
    copies = renamed("twice", pool["text"].slice(30, 4).to_pylist())
    changed = pa.concat_tables([pool.slice(20), fresh, strange, copies, renamed("gap", [None])])
    jobs.write(changed, folder / "pool.parquet")
    refresh(settings, spark=spark, progress=SILENT)
    selected = set(jobs.picked(settings, run)["gio_id"].to_pylist())
    ids = sorted({*every_id(pool), *every_id(changed)})
    explained, by_rule = check_agreement(settings, spark, selected, ids)
    assert set(by_rule["not_in_pool"]) == {f"p{i:05d}" for i in range(20)}
    assert "gap0" in by_rule["quarantine"] and [i for i in by_rule["selected"] if i[0] == "n"]
    # The plan of the refresh knows sources that the run has not seen.
    assert "unknown_source" not in by_rule
    assert set(by_rule["duplicate"]) == {f"twice{i}" for i in range(4)}
    newest = explained.selection
    assert (newest.refresh, newest.publish, newest.is_current) == (1, 2, True)

    floating = text_settings(folder, engine=engine, refresh={"budget": "float"})
    refresh(floating, spark=spark, progress=SILENT)
    selected = set(jobs.picked(settings, run)["gio_id"].to_pylist())
    explained, by_rule = check_agreement(settings, spark, selected, ids)
    assert [i for i in by_rule["unknown_source"] if i[0] == "s"]
    newest = explained.selection
    assert (newest.refresh, newest.publish, newest.is_current) == (2, 3, True)


@pytest.mark.embedded
def test_every_row_is_explained_as_it_was_selected_before_and_after_a_refresh(spark, folder):
    check_run_and_refresh(folder, spark, "embedded")
    # The newest refresh is explained, whatever the name shows.
    settings = text_settings(folder)
    roll_back(Workspace(spark, settings.workspace), "selection")
    after = explain_rows(settings, ["p00100"], spark=spark).selection
    assert (after.refresh, after.publish, after.is_current) == (2, 3, False)


@pytest.mark.faults  # minutes
@pytest.mark.spark
@pytest.mark.timeout(900)
def test_every_row_is_explained_as_it_was_selected_on_local_spark(local_spark, folder):
    check_run_and_refresh(folder, local_spark, "spark")
    settings = text_settings(folder, engine="spark")
    jobs.write(pool_rows().select(["id"]), folder / "ids.parquet")
    done = explain_table(
        settings, str(folder / "ids.parquet"), output=str(folder / "out"), spark=local_spark
    )
    assert sum(done.counts.values()) == pool_rows().num_rows == pq.read_table(done.output).num_rows


@pytest.mark.embedded
class TestOneRun:
    """One finished run on vectors, asked about in several ways."""

    @pytest.fixture(scope="class")
    def finished(self, spark, tmp_path_factory):
        folder = tmp_path_factory.mktemp("explained")
        jobs.write(jobs.vector_pool(), folder / "pool.parquet")
        jobs.write(jobs.vector_target(), folder / "target.parquet")
        settings = jobs.settings(folder)
        return folder, settings, jobs.go(settings)

    def test_a_row_has_cluster_plan_and_score(self, finished):
        _, settings, run = finished
        plan = run.plan.set_index("cluster")
        ids = jobs.vector_pool()["id"].to_pylist()
        explained = explain_rows(settings, ids)
        assert {r["id"] for r in explained.rows if r["taken"]} == set(jobs.ids(run.selected))
        for row in explained.rows:
            line = plan.loc[row["cluster"]]
            assert (row["cluster_rows"], row["cluster_take"]) == (line["rows"], line["take"])
            assert row["cluster_target_mass"] == line["target_mass"]
            assert row["log_ratio"] is None and 0 <= row["rank_score"] <= 1
            assert row["source"].startswith("site-")
            assert row["taken"] == (row["rank_key"] >= row["threshold"])
        assert not any(r["decided_by_source"] for r in explained.rows)
        facts = explained.selection
        assert (facts.run, facts.refresh, facts.embedder) == (run.run_id, 0, "vectors")
        assert (facts.published_name, facts.publish, facts.is_current) == ("selection", 1, True)
        assert facts.pool.endswith("pool.parquet")
        assert facts.pool_version == run.summary["versions"]["pool"]

    def test_ids_keep_their_order_and_count_once(self, finished):
        _, settings, run = finished
        asked = ["p00003", "no such 'row'", "p00001", "p00003"]
        explained = explain_rows(settings, asked, run_id=run.run_id)
        assert [r["id"] for r in explained.rows] == asked[:3]
        assert explained.rows[1]["rule"] == "not_in_pool" and not explained.rows[1]["taken"]

    def test_a_table_of_ids_is_collected_or_written(self, finished):
        folder, settings, run = finished
        ids = pa.table({"id": ["p00002", "p00001", None, "p00001", "nobody"]})
        pc.write_csv(ids, folder / "ids.csv")
        few = explain_table(settings, str(folder / "ids.csv"))
        assert [r["id"] for r in few.rows] == ["nobody", "p00001", "p00002"]
        jobs.write(jobs.vector_pool().select(["id", "note"]), folder / "ids.parquet")
        many = explain_table(settings, str(folder / "ids.parquet"), output=str(folder / "out"))
        rows = pq.read_table(many.output)
        taken = {r["id"] for r in rows.to_pylist() if r["taken"]}
        assert taken == set(jobs.ids(run.selected)) and not many.rows
        assert many.counts["selected"] == len(taken) == 100
        assert set(rows["run"].to_pylist()) == {run.run_id}
        assert set(COLUMNS) < set(rows.column_names)
        with pytest.raises(InputError, match="is there already"):
            explain_table(settings, str(folder / "ids.parquet"), output=str(folder / "out"))

    def test_what_cannot_be_explained_is_one_error(self, finished):
        folder, settings, _ = finished
        with pytest.raises(InputError, match="1,001 ids are more than 1,000"):
            explain_rows(settings, [str(i) for i in range(1_001)])
        with pytest.raises(InputError, match="No id to explain"):
            explain_rows(settings, [])
        with pytest.raises(InputError, match="No finished run 'run-x'"):
            explain_rows(settings, ["p00001"], run_id="run-x")
        with pytest.raises(InputError, match="No finished run of this configuration"):
            explain_rows(jobs.settings(folder, seed=5), ["p00001"])
        jobs.write(pa.table({"name": ["a"]}), folder / "names.parquet")
        with pytest.raises(InputError, match=r"has no column 'id'\. It has: name"):
            explain_table(settings, str(folder / "names.parquet"))

    def test_a_run_published_by_hand_under_another_name_is_named(self, finished, spark):
        _, settings, run = finished
        publish_by_hand(Workspace(spark, settings.workspace), run.run_id, name="other")
        assert explain_rows(settings, ["p00001"]).selection.published_name == "other"
