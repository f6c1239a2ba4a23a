"""Run one small job on text, write what it selected: `python -m tests.pipeline.one_job FOLDER`.

A process of its own per engine, since Spark's two APIs cannot be told apart within one.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyspark.sql import types as T

from gio_spark.engine import session
from gio_spark.engine.progress import Progress
from gio_spark.pipeline.stage_runner import run_stages
from gio_spark.pipeline.stages import choose_strategy
from gio_spark.pipeline.stages.open_inputs import open_context, opened_run, pin_inputs
from gio_spark.pipeline.stages.run_graph import run_graph
from gio_spark.settings.run import RunSettings
from gio_spark.strategy import strategy_sample
from gio_spark.tables import Workspace
from tests.pipeline import jobs, test_pairs

# Own columns that are named like those of stages, like words of SQL, or with special characters.
SPECIAL_NAMES = (
    "_rank", "_key", "_hash", "_hidden", "cluster", "vector", "reason", "log_ratio", "fingerprint",
    "attempt", "gio_spark", "tokens", "rank", "order", "select", "group", "a.b", "a`b", "x'y",
    'q"r', "back\\slash", "Größe", "percent%", "a b", "f(x)=y", "{c,d;}", "tab\tbed",
)  # fmt: skip

PLAIN_COLUMNS = (
    "text",
    "site",
    "cluster",
    "_rank",
    "a.b",
    "gio_id",
    "gio_cluster",
    "gio_log_ratio",
)


def prepare(folder: Path) -> None:
    """Write a pool of lines, one of them broken and one doubled, in two files, and a target."""
    lines = [
        json.dumps({"text": row["text"], "site": site, **special_values(number)})
        for site, rows in (
            ("a", jobs.text_rows("p", 150, 0, 50, 1).to_pylist()),
            ("b", jobs.text_rows("q", 150, 50, 100, 2).to_pylist()),
        )
        for number, row in enumerate(rows)
    ]
    lines += [lines[0], '{"text": "broken']
    (folder / "pool").mkdir()
    (folder / "pool" / "1.jsonl").write_text("\n".join(lines[0::2]))
    (folder / "pool" / "2.jsonl").write_text("\n".join(lines[1::2]))
    jobs.write(jobs.text_rows("t", 60, 0, 50, 3), folder / "target.parquet")
    jobs.write(test_pairs.pool_of("swapped"), folder / "pairs.parquet")
    jobs.write(pa.table(test_pairs.pairs("t", 150, 2)), folder / "target-pairs.parquet")


def special_values(number: int) -> dict[str, Any]:
    """Values of the columns with special names: numbers, texts and a struct."""
    values: dict[str, Any] = {name: f"{name} {number}" for name in SPECIAL_NAMES}
    return {
        **values,
        "cluster": number,
        "_rank": number / 2,
        "_key": {"a.b": [number], "of all": number},
    }


def in_a_catalog(folder: Path) -> str:
    """Start local Spark with a catalog of its own; gives the schema for the stage tables."""
    os.chdir(folder)  # files beside the tables of a catalog lie where the process runs
    session("spark", **{"spark.sql.warehouse.dir": str(folder / "warehouse")})
    return "spark_catalog.default"


def view_of(spark: Any, schema: str) -> list[str]:
    """Ids that the view of the published name shows."""
    rows = spark.read.table(f"{schema}.published_selection").select("gio_id")
    return sorted(rows.toArrow()["gio_id"].to_pylist())


def write_plain_selection(tables: Workspace, selected: Any) -> None:
    """Write a selection without the special names that delta-rs does not read on Spark."""
    schema = T.StructType([f for f in selected.schema if f.name in PLAIN_COLUMNS])
    tables.write_selection(selected, schema, run="run-plain", expected=selected.count())


def selected_pairs(folder: Path, engine: str, workspace: str) -> list[str]:
    """Ids of the pairs that a run selects from a pool in which every fourth has a wrong half."""
    settings = test_pairs.settings(
        folder,
        engine=engine,
        workspace=workspace,
        pool=str(folder / "pairs.parquet"),
        target=str(folder / "target-pairs.parquet"),
    )
    return jobs.ids(jobs.go(settings, until="explode").selected)


def strategy_sample_of(settings: RunSettings) -> dict[str, float]:
    """Ids of a sample on which strategies would be tried, with the rows that each stands for."""
    strategy_sample.LARGE_SAMPLE_ROWS = 150
    ctx = open_context(settings, progress=Progress("silent"), dry=True)
    with opened_run(ctx, pin_inputs(ctx), {}) as state:
        names = ["assignments.pool", "cluster_stats", "target_mass"]
        run_stages(ctx, run_graph(settings), state, names)
        sample = choose_strategy.strategy_dataset(ctx, state, budget=1)
    assert sample is not None and sample[0].weights is not None
    return dict(zip(sample[1].to_pylist(), sample[0].weights.tolist(), strict=True))


def main(folder: Path, engine: str) -> None:
    workspace = in_a_catalog(folder) if engine == "spark" else str(folder / f"ws-{engine}")
    settings = jobs.settings(
        folder,
        engine=engine,
        workspace=workspace,
        pool=str(folder / "pool"),
        target={"location": str(folder / "target.parquet"), "columns": {"text": "text"}},
        columns={"id": None, "vector": None, "tokens": None, "text": "text"},
        embedder={"name": "ngrams", "dimension": 16},
        clusters=8,
        budget=40,
        within_cluster="density_ratio",
        select={"strategy": "auto"},
        # Local Spark, the slow one to commit, writes in two chunks what the others write at once.
        chunk_rows=200 if engine == "spark" else 5_000_000,
    )
    done = jobs.go(settings)
    tables = Workspace(session(engine), workspace)
    write_plain_selection(tables, done.selected)
    added = ("gio_run", "gio_input_version")
    rows = done.selected.toArrow().drop_columns(list(added))
    (folder / f"{engine}.json").write_text(
        json.dumps(
            {
                "engine": done.summary["engine"],
                "rows": rows.sort_by("gio_id").to_pylist(),
                "take": done.plan["take"].tolist(),
                "quarantine": done.summary["quarantine"],
                "again": jobs.go(settings).did_work,
                "strategy_sample": strategy_sample_of(settings),
                "pairs": selected_pairs(folder, engine, workspace),
                "report": done.report.exists(),
                "report_path": str(done.report),
                "strategy": done.summary["strategy"]["reason"],
                "stage_rows": {name: rows for name, _, rows, _ in done.summary["stages"]},
                "shared_memory": shutil.disk_usage("/dev/shm").total,  # noqa: S108
                "tables": done.tables,
                "view": view_of(session(engine), workspace) if engine == "spark" else [],
                "chunks": [
                    r.stage for r in tables.records() if r.stage.startswith("embed pool chunk")
                ],
            }
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
