"""What the settings are worth: K, embedder, size of the target, kernel width, share of noise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from quality_cells import wanted
from quality_tasks import Options, QualityTask

from gio_spark.report import scores

if TYPE_CHECKING:
    from bench_quality import Bench

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


def run(seeds: int, bench: Bench, tasks: dict[str, QualityTask]) -> dict[str, list]:
    """Compute what is missing and print one table per setting."""
    found = []
    for seed in range(seeds):
        for factor, (names, values) in FACTORS.items():
            for name in names:
                task = tasks[name]
                for value in values:
                    # The default spelt out is the task's own arena, whose cells are kept.
                    usual = value == values[0]
                    label = name if usual else f"{name} {factor}={value}"
                    options = Options() if usual else Options(**{factor: value})
                    these = wanted(label, task.version, METHODS, [BUDGET], seed,
                                   (task.score, "jsd"))  # fmt: skip
                    bench.fill(task, label, seed, options, these)
                    cells = bench.cells.of(these)
                    cells = cells[cells["measure"] == task.score]
                    found.append(cells.assign(task=name, factor=factor, setting=str(value)))
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
