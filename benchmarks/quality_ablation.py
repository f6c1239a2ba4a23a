"""What the settings are worth: K, embedder, size of the target, kernel width, share of noise."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from quality_tasks import Options, all_tasks

from gio_spark.evaluate.cells import Plan, run_cells
from gio_spark.evaluate.measures import MEASURES
from gio_spark.report import scores
from gio_spark.tables import Workspace

METHODS = ("random", "kl_hash", "kl_ratio_t025", "published_exact")
BUDGET = 0.1
# Setting -> (tasks, values); the first value of each is the task as it is.
FACTORS = {
    "clusters": (("images_faint", "text_a_static"), (0, 50, 150, 1000, 3000)),
    "embedder": (("text_a_static",), ("wordllama", "ngrams")),
    "target": (("text_a_static", "weather"), (1650, 50, 200, 500, 5000)),
    "width": (("images_faint", "text_a_static"), (1.0, 0.0, 0.3, 3.0, 10.0)),
    "noise": (("images_faint", "adult"), (-1.0, 0.0, 1 / 3, 0.9)),
}


def run(
    given: argparse.Namespace, data: Path, workspace: Workspace, arena_of: Callable
) -> dict[str, list]:
    """Compute what is missing and print one table per setting."""
    tasks = all_tasks(model=given.model)
    stop = time.monotonic() + 60 * given.minutes
    found = []
    for factor, (names, values) in FACTORS.items():
        for name in names:
            for value in values:
                for seed in range(min(given.seeds, 3)):
                    if time.monotonic() >= stop:
                        break
                    task = tasks[name]
                    # The default spelt out is the task's own arena, which is kept.
                    options = Options() if value == values[0] else Options(**{factor: value})
                    arena = arena_of(task, data, seed, options, given.store)
                    plan = Plan(name, METHODS, [BUDGET], [seed],
                                [MEASURES[m] for m in (task.score, "jsd")])  # fmt: skip
                    out = run_cells(workspace.spark, workspace, arena, plan, run="ablation",
                                    slots=given.slots, stop_at=stop)  # fmt: skip
                    table = out.table[out.table["measure"] == task.score]
                    found.append(table.assign(factor=factor, setting=str(value)))
                    print(f"  {name}, {factor} {value}, seed {seed}", flush=True)
    return {"rows": _print(pd.concat(found, ignore_index=True))}


def _print(cells: pd.DataFrame) -> list[dict]:
    rows = []
    for (factor, task, setting), part in cells.groupby(["factor", "task", "setting"], sort=False):
        gains = scores.against(scores.checked(part), "random")
        row = {"factor": factor, "task": task, "setting": setting,
               "seeds": int(part["seed"].nunique())}  # fmt: skip
        for _, line in gains.iterrows():
            row[line["method"]] = [float(f"{line['gain']:.4g}"),
                                   float(f"{line['error']:.4g}") if np.isfinite(line["error"])
                                   else None]  # fmt: skip
        rows.append(row)
    names = [m for m in METHODS if m != "random"]
    print(f"| setting | task | value | seeds | {' | '.join(f'{n} over random' for n in names)} |")
    print("|---" * (4 + len(names)) + "|")
    for row in rows:
        shown = [f"{row[n][0]:+.4f}" + (f" ± {row[n][1]:.4f}" if row[n][1] else "")
                 if n in row else "" for n in names]  # fmt: skip
        print(f"| {row['factor']} | {row['task']} | {row['setting']} | {row['seeds']} | "
              f"{' | '.join(shown)} |")  # fmt: skip
    return rows
