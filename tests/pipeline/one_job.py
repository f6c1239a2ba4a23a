"""Run one small job on text, write what it selected: `python -m tests.pipeline.one_job FOLDER`.

A process of its own per engine, since Spark's two APIs cannot be told apart within one.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.pipeline import jobs


def prepare(folder: Path) -> None:
    """Write a pool of lines, one of them broken and one doubled, in two files, and a target."""
    lines = [json.dumps({"text": r["text"], "site": "a"})
             for r in jobs.text_rows("p", 150, 0, 50, 1).to_pylist()]
    lines += [json.dumps({"text": r["text"], "site": "b"})
              for r in jobs.text_rows("q", 150, 50, 100, 2).to_pylist()]
    lines += [lines[0], '{"text": "broken']
    (folder / "pool").mkdir()
    (folder / "pool" / "1.jsonl").write_text("\n".join(lines[0::2]))
    (folder / "pool" / "2.jsonl").write_text("\n".join(lines[1::2]))
    jobs.write(jobs.text_rows("t", 60, 0, 50, 3), folder / "target.parquet")


def main(folder: Path, engine: str) -> None:
    made = jobs.settings(
        folder, engine=engine, workspace=str(folder / f"ws-{engine}"), pool=str(folder / "pool"),
        target={"location": str(folder / "target.parquet"), "columns": {"text": "text"}},
        columns={"id": None, "vector": None, "tokens": None, "text": "text"},
        embedder={"name": "ngrams", "dimension": 16}, clusters=8, budget=40,
        within_cluster="density_ratio",
    )
    done = jobs.go(made)
    rows = done.selected.select("gio_id", "gio_cluster", "gio_log_ratio", "text").toArrow()
    (folder / f"{engine}.json").write_text(
        json.dumps(
            {
                "engine": done.summary["engine"],
                "rows": rows.sort_by("gio_id").to_pylist(),
                "take": done.plan["take"].tolist(),
                "quarantine": done.summary["quarantine"],
                "again": jobs.go(made).did_work,
                "report": done.report.exists(),
            }
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
