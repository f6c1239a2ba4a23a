"""What the settings are worth: K, embedder, size of the target, kernel width, share of noise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from quality_cells import wanted
from quality_tasks import Options, QualityTask

from gio_spark.report import trial_statistics

if TYPE_CHECKING:
    from bench_quality import Bench

METHODS = ("random", "kl_hash", "kl_ratio_t025", "published_exact")
BUDGET = 0.1
# Setting -> (tasks, values); the first value of each is the task as it is.
FACTORS = {
    "clusters": (("images_faint", "text_a_static"), (0, 50, 150, 1500)),
    "embedder": (("text_a_static",), ("wordllama", "ngrams", "minilm")),
    "target": (("text_a_static", "weather"), (1650, 50, 200, 500, 5000)),
    "width": (("images_faint", "text_a_static"), (1.0, 0.0, 0.3, 3.0)),
    "noise": (("images_faint", "adult"), (-1.0, 0.0, 1 / 3, 0.9)),
}
# Values that are tasks of the table themselves: their cells are taken from there, if there are any.
TASKS = {("embedder", "ngrams"): "text_a_hashed", ("embedder", "minilm"): "text_a_minilm"}
# How the table calls values that stand for a task's own choice.
USUAL = {("clusters", "0"): "auto", ("noise", "-1"): "its own"}


def run(seeds: int, bench: Bench, tasks: dict[str, QualityTask]) -> tuple[str, dict[str, list]]:
    """Compute what is missing; return the gains over random as Markdown and as plain values."""
    found = []
    for seed in range(seeds):
        for factor, (names, values) in FACTORS.items():
            for name in names:
                task = tasks[name]
                for value in values:
                    # The default spelt out is the task's own dataset, whose cells are kept.
                    usual = value == values[0]
                    setting = f"{value:.3g}" if isinstance(value, float) else str(value)
                    there = name if usual else TASKS.get((factor, setting))
                    label = there or f"{name} {factor}={setting}"
                    these = wanted(label, task.version, METHODS, [BUDGET], seed,
                                   (task.score, "jsd"))  # fmt: skip
                    if usual or there is None:
                        options = Options() if usual else Options(**{factor: value})
                        bench.fill(task, label, seed, options, these)
                    cells = bench.cells.of(these)
                    cells = cells[cells["measure"] == task.score]
                    found.append(cells.assign(task=name, factor=factor, setting=setting))
    return _table(pd.concat(found, ignore_index=True))


def _table(cells: pd.DataFrame) -> tuple[str, dict[str, list]]:
    names = [m for m in METHODS if m != "random"]
    lines = [
        f"| setting | task | value | seeds | {' | '.join(f'{n} over random' for n in names)} |",
        "|---" * (4 + len(names)) + "|",
    ]
    rows = []
    for (factor, task, setting), part in cells.groupby(["factor", "task", "setting"], sort=False):
        gains = trial_statistics.paired_gains(
            trial_statistics.checked_trials(part), "random"
        ).set_index("method")
        seeds = int(part["seed"].nunique())
        row: dict = {"factor": factor, "task": task, "setting": setting, "seeds": seeds}
        shown = []
        for name in names:
            if name not in gains.index:
                shown.append("")
                continue
            gain, error = (float(gains.at[name, column]) for column in ("gain", "error"))
            row[name] = [float(f"{v:.4g}") if np.isfinite(v) else None for v in (gain, error)]
            shown.append(f"{gain:+.4f}" + (f" ± {error:.4f}" if np.isfinite(error) else ""))
        rows.append(row)
        value = USUAL.get((factor, setting), setting)
        lines.append(f"| {factor} | {task} | {value} | {seeds} | {' | '.join(shown)} |")
    return "\n".join(lines), {"rows": rows}
