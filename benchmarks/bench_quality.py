"""Which selection is best on real data: all methods, budgets and seeds; the table grows over runs.

    python benchmarks/bench_quality.py --data PATH [--tasks images_faint,adult] [--methods ...]
        [--budgets 0.1,0.5] [--seeds 5] [--minutes 60] [--store FOLDER] [--show] [--docs]
    python benchmarks/bench_quality.py ablate --data PATH ...

Cells (task, method, budget, seed) are kept in a Delta table under --store as they finish; a rerun
computes what is missing or changed. Each seed draws damage, split, sample and clusters anew. Prints
one table, says how long the whole took, writes benchmarks/results/quality.json and, with --docs,
the tables of docs/evaluation.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from pathlib import Path

import numpy as np
import pandas as pd
import quality_tables as tables
from quality_tasks import VERSION, Options, QualityTask, all_tasks
from tasks import data_folder

from gio_spark.engine import session
from gio_spark.evaluate.arena import Arena
from gio_spark.evaluate.cells import Plan, run_cells
from gio_spark.evaluate.measures import MEASURES
from gio_spark.evaluate.methods import methods
from gio_spark.evaluate.pack import pack, unpack
from gio_spark.evaluate.run import titled
from gio_spark.report import render_evaluation
from gio_spark.tables import Workspace

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "benchmarks" / "results" / "quality.json"
DOCS = ROOT / "docs" / "evaluation.md"
BUDGETS = "0.025,0.05,0.1,0.25,0.5"
DEFAULT = "kl_ratio_t025"


def default_store() -> Path:
    """Return the user's cache folder for cells: never inside the project."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "gio-spark" / "quality"


def place_of(task: QualityTask, seed: int, options: Options, store: Path) -> Path:
    """Return where the arrays of an arena are kept."""
    label = f"{task.name}-v{VERSION}-{seed}"
    varied = {k: v for k, v in vars(options).items() if v != getattr(Options(), k)}
    for name, value in varied.items():
        label += f"-{name}-{str(value).replace('/', '_')}"
    return store / "arenas" / f"{label}.npz"


def arena_of(task: QualityTask, data: Path, seed: int, options: Options, store: Path) -> Arena:
    """Return a task's arena of a seed, built once and kept as arrays."""
    place = place_of(task, seed, options, store)
    if place.exists():
        with np.load(place, allow_pickle=False) as kept:
            return unpack({name: kept[name] for name in kept.files})
    arrays = pack(task.build(data, seed, options))
    place.parent.mkdir(parents=True, exist_ok=True)
    part = place.with_suffix(".part.npz")
    np.savez(part, **arrays)
    part.replace(place)
    return unpack(arrays)


def fill(given: argparse.Namespace, data: Path, workspace: Workspace) -> tuple[pd.DataFrame, int]:
    """Compute what is missing, seed by seed, and return all cells and how many were computed."""
    stop = time.monotonic() + 60 * given.minutes
    budgets = [float(b) for b in given.budgets.split(",")]
    known = all_tasks(model=given.model, cnn=given.cnn)
    options = Options(model=given.model, pixels=14 if given.cnn else 7)
    wanted = given.tasks.split(",") if given.tasks else list(known)
    unknown = sorted(set(wanted) - set(known))
    if unknown:
        raise SystemExit(f"Unknown task(s) {', '.join(unknown)}; known: {', '.join(known)}.")
    found, computed = [], 0
    for seed in range(given.seeds):
        for name in wanted:
            task = known[name]
            late = time.monotonic() >= stop or given.show
            if late and not place_of(task, seed, options, given.store).exists():
                continue
            arena = arena_of(task, data, seed, options, given.store)
            chosen = given.methods.split(",") if given.methods else methods(arena)
            plan = Plan(name, [m for m in chosen if m in methods(arena)], budgets, [seed],
                        [MEASURES[m] for m in task.measures])  # fmt: skip
            began = time.monotonic()
            out = run_cells(
                workspace.spark, workspace, arena, plan, run="bench-quality", slots=given.slots,
                stop_at=-1.0 if given.show else stop,
                on_wave=lambda done, cells, last, name=name, seed=seed, began=began: print(
                    f"  {name}, seed {seed}: {done}/{cells} cells, {time.monotonic() - began:.0f} "
                    f"s ({last})", flush=True,
                ),
            )  # fmt: skip
            computed += out.computed
            found.append(out.table.assign(arena_rows=arena.rows))
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(), computed


def main() -> None:
    """Fill, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="?", choices=["tables", "ablate"], default="tables")
    parser.add_argument("--data")
    parser.add_argument("--tasks", default="")
    parser.add_argument("--methods", default="")
    parser.add_argument("--budgets", default=BUDGETS)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=1e9, help="start nothing after so many")
    parser.add_argument("--store", type=Path, default=default_store())
    parser.add_argument("--slots", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--model", default="", help="local folder of a MiniLM model")
    parser.add_argument("--cnn", action="store_true", help="a small CNN as well (needs torch)")
    parser.add_argument("--show", action="store_true", help="compute nothing")
    parser.add_argument("--docs", action="store_true", help="renew the tables of the page")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    data = data_folder(given.data)
    given.store.mkdir(parents=True, exist_ok=True)
    workspace = Workspace(session("embedded"), str(given.store / "cells"))
    began = time.monotonic()
    if given.what == "ablate":
        import quality_ablation

        results = quality_ablation.run(given, data, workspace, arena_of)
        write(given.out.with_name("quality_ablation.json"), results)
        return
    cells, computed = fill(given, data, workspace)
    if cells.empty:
        raise SystemExit("No cell is there yet.")
    spent = tables.hours(cells)
    took = (f"{len(cells.groupby(['task', 'method', 'budget', 'seed'])):,} cells, "
            f"{computed:,} of them computed now in {(time.monotonic() - began) / 60:.1f} min; "
            f"all of them took {spent:.2f} core-hours.")  # fmt: skip
    text, results = tables.summarise(cells, all_tasks(model=given.model, cnn=given.cnn), DEFAULT)
    print(text)
    print(took)
    known = all_tasks(model=given.model, cnn=given.cnn)
    page = render_evaluation(
        titled(tables.scored(cells, known)), given.store / "page",
        title="Selection methods on real data", facts={"cells": took},
    )  # fmt: skip
    print(f"page: {page}")
    write(given.out, {**results, "took": took, "core_hours": spent})
    if given.docs:
        tables.renew(DOCS, text + "\n" + took)


def write(out: Path, results: dict) -> None:
    """Write results with the machine they ran on."""
    machine = {"cpu": platform.machine(), "cores": os.cpu_count(), "load": os.getloadavg()[0],
               "python": platform.python_version(), "date": time.strftime("%Y-%m-%d")}  # fmt: skip
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"machine": machine, **results}, separators=(",", ":")) + "\n")
    print(f"written {out}")


if __name__ == "__main__":
    main()
