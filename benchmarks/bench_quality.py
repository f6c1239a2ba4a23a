"""Which selection is best on real data: all methods, budgets and seeds; the table grows over runs.

    python benchmarks/bench_quality.py --data PATH [--tasks images_faint,adult] [--methods ...]
        [--budgets 0.1,0.5] [--seeds 5] [--minutes 60] [--store FOLDER] [--show] [--docs]
    python benchmarks/bench_quality.py ablate --data PATH ...
    python benchmarks/bench_quality.py dilute --data PATH [--factor 100] [--tasks text_b_static] ...

Finished cells (task, method, budget, seed) are kept in benchmarks/results/quality_cells.csv.gz; a
rerun computes what is missing or changed, by names and versions. What a run that died had computed
of a dataset is in a Delta table under --store. Each seed draws damage, split, sample and clusters
anew. Prints one table, says how long the whole took, writes benchmarks/results/quality.json and,
with --docs, the tables of docs/evaluation.md. Cells of a task that cannot be built here (MiniLM
without --vectors) are shown all the same, and so are those of the CNN without --cnn.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import quality_tables as tables
from quality_cells import Cells, plans, wanted
from quality_tasks import Options, QualityTask, all_tasks, kept_vectors
from strategy_figures import KEY, cells_of_auto, read_figures
from tasks import data_folder
from threadpoolctl import threadpool_limits

from gio_spark.engine import session
from gio_spark.evaluate.compare_methods import with_measure_titles
from gio_spark.evaluate.dataset_arrays import dataset_from_arrays, dataset_to_arrays
from gio_spark.evaluate.proxy_models import has_torch
from gio_spark.evaluate.trials import run_trials
from gio_spark.report.evaluation_page import render_evaluation
from gio_spark.strategy.evaluation_dataset import EvaluationDataset
from gio_spark.tables import Workspace

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "benchmarks" / "results" / "quality.json"
CELLS = OUT.with_name("quality_cells.csv.gz")
DOCS = ROOT / "docs" / "evaluation.md"
BUDGETS = "0.025,0.05,0.1,0.25,0.5"
DEFAULT = "kl_ratio_t025"


def default_store() -> Path:
    """Return the user's cache folder for datasets and pages: never inside the project."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "gio-spark" / "quality"


def place_of(task: QualityTask, seed: int, options: Options, store: Path) -> Path:
    """Return where the arrays of a dataset are kept."""
    label = f"{task.name}-v{task.version}-{seed}"
    varied = {k: v for k, v in vars(options).items() if v != getattr(Options(), k)}
    for name, value in varied.items():
        value = _content(value) if name == "vectors" else value
        label += f"-{name}-{str(value).replace('/', '_')}"
    # The folder is renamed when datasets get more fields (2: labels of the target).
    return store / "datasets2" / f"{label}.npz"


@cache
def _content(file: str) -> str:
    """Return a checksum, so that other vectors under the same name make another dataset."""
    return f"{zlib.crc32(Path(file).read_bytes()):08x}"


def dataset_of(
    task: QualityTask, data: Path, seed: int, options: Options, store: Path
) -> EvaluationDataset:
    """Return a task's dataset of a seed, built once and kept as arrays."""
    place = place_of(task, seed, options, store)
    if place.exists():
        with np.load(place, allow_pickle=False) as kept:
            return dataset_from_arrays({name: kept[name] for name in kept.files})
    with threadpool_limits(1):
        arrays = dataset_to_arrays(task.build(data, seed, options))
    place.parent.mkdir(parents=True, exist_ok=True)
    part = place.with_suffix(".part.npz")
    np.savez(part, **arrays)
    part.replace(place)
    return dataset_from_arrays(arrays)


@dataclass
class Bench:
    """Where things are and how long it may take; one `fill` per dataset.

    Attributes:
        data: Folder of the data sets.
        store: Folder of datasets, of waves not finished, and of the page.
        cells: The cells that are there.
        stop: time.monotonic() after which nothing is started; none: compute nothing.
        slots: Methods side by side.
        computed: Cells computed so far.
    """

    data: Path
    store: Path
    cells: Cells
    stop: float | None
    slots: int
    computed: int = 0
    workspace: Workspace | None = None

    def fill(self, task: QualityTask, label: str, seed: int, options: Options,
             these: pd.DataFrame) -> None:  # fmt: skip
        """Compute what is missing of some cells of one dataset, and keep it."""
        missing = self.cells.missing(these)
        if missing.empty or self.stop is None or time.monotonic() >= self.stop:
            return
        if self.workspace is None:
            self.workspace = Workspace(session("embedded"), str(self.store / "cells"))
        began = time.monotonic()
        dataset = dataset_of(task, self.data, seed, options, self.store)
        built = time.monotonic() - began
        for plan in plans(missing):
            out = run_trials(self.workspace.spark, self.workspace, dataset, plan,
                            run="bench-quality", slots=self.slots, stop_at=self.stop)  # fmt: skip
            self.computed += out.computed
            self.cells.add(out.table, missing)
        by = missing["measure"].unique()
        judges = by[0] if len(by) == 1 else f"{len(by)} measures"
        print(f"  {label}, seed {seed}: {missing['method'].nunique()} methods by {judges}, "
              f"{built:.0f} + {time.monotonic() - began - built:.0f} s", flush=True)  # fmt: skip


def parts(task: QualityTask, given: argparse.Namespace) -> Iterator[tuple[tuple, Options]]:
    """Yield which measures of a task are computed here, and on what dataset.

    The CNN sees more pixels than the other judges of the same rows, whose cells stay as they are.
    """
    if task.needs and not getattr(given, task.needs):
        return
    own = {task.needs: getattr(given, task.needs)} if task.needs else {}
    yield task.measures, Options(**own)
    if given.cnn and "proxy_cnn" in task.extra:
        yield ("proxy_cnn",), Options(pixels=14, **own)


def fill(given: argparse.Namespace, bench: Bench, known: dict[str, QualityTask]) -> pd.DataFrame:
    """Compute what is missing, seed by seed, and return all cells of these tasks."""
    budgets = [float(b) for b in given.budgets.split(",")]
    wanted_tasks = given.tasks.split(",") if given.tasks else list(known)
    unknown = sorted(set(wanted_tasks) - set(known))
    if unknown:
        raise SystemExit(f"Unknown task(s) {', '.join(unknown)}; known: {', '.join(known)}.")
    lacking = [n for n in wanted_tasks if not any(parts(known[n], given))]
    if lacking and bench.stop is not None:
        print(f"  not computed without --{known[lacking[0]].needs}: {', '.join(lacking)}")
    found = []
    for seed in range(given.seeds):
        for name in wanted_tasks:
            task = known[name]
            asked = given.methods.split(",") if given.methods else task.methods()
            names = [m for m in asked if m in task.methods()]
            for measures, options in parts(task, given):
                these = wanted(name, task.version, names, budgets, seed, measures)
                bench.fill(task, name, seed, options, these)
            every = (*task.measures, *task.extra)
            found.append(bench.cells.of(wanted(name, task.version, names, budgets, seed, every)))
    return pd.concat(found, ignore_index=True)


def main() -> None:
    """Fill, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="?", choices=["tables", "ablate", "dilute"], default="tables")
    parser.add_argument("--data")
    parser.add_argument("--tasks", default="")
    parser.add_argument("--methods", default="")
    parser.add_argument("--budgets", default=BUDGETS)
    parser.add_argument(
        "--factor", type=int, default=100, help="of dilution: pool rows per own row"
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=1e9, help="start nothing after so many")
    parser.add_argument("--store", type=Path, default=default_store())
    parser.add_argument("--slots", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--vectors", default="", help="MiniLM vectors, from minilm_vectors.py")
    parser.add_argument("--cnn", action="store_true", help="a small CNN as well (needs torch)")
    parser.add_argument("--cells", type=Path, default=CELLS, help="file of finished cells")
    parser.add_argument("--show", action="store_true", help="compute nothing")
    parser.add_argument("--docs", action="store_true", help="renew the tables of the page")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    given.store.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    known = all_tasks()
    data = Path() if given.show else data_folder(given.data)
    if given.cnn and not given.show and not has_torch():
        raise SystemExit("--cnn needs torch: pip install torch")
    if given.vectors and not given.show:
        kept_vectors(data, given.vectors)
    bench = Bench(
        data, given.store, Cells(given.cells),
        None if given.show else began + 60 * given.minutes, given.slots,
    )  # fmt: skip
    if given.what == "ablate":
        import quality_ablation

        text, results = quality_ablation.run(given.seeds, bench, known)
        print(text)
        if given.docs:
            tables.renew(DOCS, text, "ablation")
        write(given.out.with_name("quality_ablation.json"), results)
        return
    if given.what == "dilute":
        import quality_dilution

        names = given.tasks.split(",") if given.tasks else list(quality_dilution.TASKS)
        text, results = quality_dilution.run(names, given.factor, given.seeds, bench, known)
        print(text)
        if given.docs:
            tables.renew(DOCS, text, "dilution")
        write(given.out.with_name("quality_dilution.json"), results)
        return
    cells = fill(given, bench, known)
    if cells.empty:
        raise SystemExit("No cell is there yet.")
    spent, computed_cells = tables.hours(cells), len(cells.groupby([*KEY, "method"]))
    cells = pd.concat([cells, cells_of_auto(cells, read_figures())], ignore_index=True)
    took = (f"{computed_cells:,} cells, "
            f"{bench.computed:,} of them computed now in {(time.monotonic() - began) / 60:.1f} "
            f"min; all of them took {spent:.2f} core-hours.")  # fmt: skip
    text, results = tables.summarise(cells, known, DEFAULT)
    print(text)
    print(took)
    page = render_evaluation(
        with_measure_titles(tables.scored(cells, known)), given.store / "page",
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
