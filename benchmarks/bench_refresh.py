"""Time a refresh beside the run that it follows: 1 % of new rows, and a single new row.

    python benchmarks/bench_refresh.py [--rows 20000] [--share 0.01] [--engine embedded]
        [--within-cluster density_ratio] [--work FOLDER]

The pool is text from a vocabulary of 40 subjects, embedded by hashed n-grams; the target is three
of the subjects. The refresh of one row shows the fixed cost, that of the share what rows add to it.
All in one process, the engine's start left out. Prints seconds by stage and the commits per table,
and writes benchmarks/results/refresh.json, where figures of other sizes and engines stay.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
from deltalake import DeltaTable, write_deltalake

from gio_spark.engine import session
from gio_spark.engine.progress import Progress
from gio_spark.pipeline import run
from gio_spark.pipeline.refresh import refresh
from gio_spark.settings.load import build

SUBJECTS, WORDS = 40, 24
# What the share costs beyond one row, as a part of the time of the run, at most.
BAR = 0.05


def texts(name: str, rows: int, subjects: np.ndarray, seed: int) -> pa.Table:
    """Rows of 24 words, half of them from the vocabulary of the row's subject."""
    random = np.random.default_rng(seed)
    subject = random.choice(subjects, rows)
    own = random.integers(0, 60, (rows, WORDS)) + 1_000 * (1 + subject[:, None])
    words = np.where(random.random((rows, WORDS)) < 0.5, own, random.integers(0, 900, own.shape))
    lines = [" ".join(f"w{w}" for w in row) for row in words]
    return pa.table({"id": [f"{name}{i:08d}" for i in range(rows)], "text": lines})


def versions(workspace: Path) -> dict[str, int]:
    """Versions of the tables of a workspace; those of selections count as one table."""
    counts: Counter[str] = Counter()
    for log in workspace.glob("*/_delta_log"):
        name = log.parent.name
        table = "selection" if name.startswith("selection_") else name
        counts[table] += DeltaTable(log.parent).version() + 1
    return dict(counts)


def stage_seconds(workspace: Path, after: set[str]) -> dict[str, float]:
    """Seconds by stage of the records that are not among earlier ones."""
    seconds: Counter[str] = Counter()
    for row in DeltaTable(workspace / "runs").to_pyarrow_table().to_pylist():
        if row["record"] not in after and row["stage"] != "run":
            seconds[row["stage"]] += row["seconds"]
    return dict(seconds)


def records(workspace: Path) -> set[str]:
    return set(
        DeltaTable(workspace / "runs").to_pyarrow_table(columns=["record"])["record"].to_pylist()
    )


def timed(work, workspace: Path) -> dict:
    """Seconds, seconds by stage and commits per table of a piece of work, and its result."""
    there = (workspace / "runs").exists()
    before, commits = (records(workspace), versions(workspace)) if there else (set(), {})
    began = time.perf_counter()
    result = work()
    wall = time.perf_counter() - began
    made = {t: n - commits.get(t, 0) for t, n in versions(workspace).items()}
    return {
        "seconds": wall,
        "stages": stage_seconds(workspace, before),
        "commits": {t: n for t, n in sorted(made.items()) if n},
        "result": result,
    }


def measure(rows: int, share: float, engine: str, rule: str, folder: Path) -> dict[str, dict]:
    """A run, the refresh after one row was appended, and that after a share was."""
    every, kind = np.arange(SUBJECTS), np.arange(3)
    pool, target = str(folder / "pool"), str(folder / "target")
    write_deltalake(pool, texts("p", rows, every, 1))
    write_deltalake(target, texts("t", max(200, rows // 50), kind, 2))
    settings = build({
        "pool": pool, "target": target, "columns": {"id": "id", "text": "text"}, "budget": 0.1,
        "embedder": {"name": "ngrams"}, "within_cluster": rule, "engine": engine,
        "workspace": str(folder / "ws"), "tracking": {"enabled": False},
    })  # fmt: skip
    spark, silent, workspace = session(engine), Progress("silent"), folder / "ws"
    spark.sql("SELECT 1").collect()

    def again():
        return refresh(settings, spark=spark, progress=silent)

    measured = {
        "run": timed(lambda: run(settings, spark=spark, progress=silent), workspace),
        "nothing": timed(again, workspace),
    }
    write_deltalake(pool, texts("o", 1, every, 3), mode="append")
    measured["one row"] = timed(again, workspace)
    write_deltalake(pool, texts("n", int(rows * share), every, 4), mode="append")
    measured["share"] = timed(again, workspace)
    done = measured["share"]["result"]
    assert done.new_rows == int(rows * share) and done.drift.action == "keep"
    assert abs(done.after - done.plan.budget) < 1 + 4 * done.plan.budget**0.5
    return measured


def print_table(measured: dict[str, dict], share: float) -> None:
    columns = {"run": "run", "nothing": "nothing", "one row": "1 row", "share": f"{share:.2%}"}
    stages = dict.fromkeys(name for one in measured.values() for name in one["stages"])
    print(f"{'seconds':28s}" + "".join(f"{title:>12s}" for title in columns.values()))
    for stage in stages:
        values = (measured[c]["stages"].get(stage) for c in columns)
        print(f"{stage:28s}" + "".join(f"{'' if v is None else f'{v:.2f}':>12s}" for v in values))
    others = (m["seconds"] - sum(m["stages"].values()) for m in measured.values())
    print(f"{'beside the stages':28s}" + "".join(f"{v:12.2f}" for v in others))
    print(f"{'all':28s}" + "".join(f"{m['seconds']:12.2f}" for m in measured.values()))
    tables = sorted({t for one in measured.values() for t in one["commits"]})
    print(f"\n{'commits':28s}" + "".join(f"{title:>12s}" for title in columns.values()))
    for table in tables:
        values = (measured[c]["commits"].get(table, 0) for c in columns)
        print(f"{table:28s}" + "".join(f"{v:12d}" for v in values))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--share", type=float, default=0.01)
    parser.add_argument("--engine", default="embedded")
    parser.add_argument("--within-cluster", default="density_ratio")
    parser.add_argument("--work", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        measured = measure(
            options.rows, options.share, options.engine, options.within_cluster, Path(folder)
        )
    print_table(measured, options.share)
    seconds = {name: one["seconds"] for name, one in measured.items()}
    beyond = (seconds["share"] - seconds["one row"]) / seconds["run"]
    print(f"\nrefresh of {options.share:.2%} beyond that of one row: {beyond:.1%} of the run")
    figures = [
        {"figure": f"{name}, {options.rows} rows, {options.engine}", "value": value, "unit": "s",
         "anchor": seconds["run"], "ratio": value / seconds["run"], "bar": None, "holds": None}
        for name, value in seconds.items()
    ]  # fmt: skip
    figures[-1] |= {"bar": f"<= {BAR:.0%} of the run beyond one row", "holds": beyond <= BAR}
    out = Path(__file__).parent / "results" / "refresh.json"
    machine = {"machine": platform.machine(), "cores": os.cpu_count(), "load": os.getloadavg()[0],
               "python": platform.python_version()}  # fmt: skip
    names = {figure["figure"] for figure in figures}
    known = json.loads(out.read_text())["figures"] if out.exists() else []
    figures = [*(figure for figure in known if figure["figure"] not in names), *figures]
    out.write_text(json.dumps({"machine": machine, "figures": figures}, indent=1) + "\n")
    print(f"wrote {out}")


if __name__ == "__main__":
    main()
