"""Pools that are diluted by foreign rows: the default, `auto` and rankings without quotas."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
from quality_cells import wanted
from quality_tasks import Options, QualityTask

if TYPE_CHECKING:
    from bench_quality import Bench

METHODS = ("oracle", "random", "kl_ratio_t025", "classifier_top", "kl_knn_t025", "knn_retrieval",
           "auto")  # fmt: skip
# Pools of bank and weather hold few rows of the target's kind as they are.
TASKS = (
    "text_a_static", "text_a_hashed", "text_b_static", "text_b_hashed", "text_c_static",
    "text_c_hashed", "images_damaged", "images_faint", "images_skewed", "adult",
)  # fmt: skip
# Budgets as shares of the task's own rows.
OWN_BUDGETS = (0.25, 0.5)


def run(names: list[str], factor: int, seeds: int, bench: Bench, tasks: dict[str, QualityTask]
        ) -> tuple[str, dict[str, list]]:  # fmt: skip
    """Compute what is missing; return shares of the headroom as Markdown and as plain values."""
    cells = []
    for seed in range(seeds):
        for name in names:
            task = tasks[name]
            budgets = [budget / factor for budget in OWN_BUDGETS]
            these = wanted(f"{name} dilution={factor}", task.version, METHODS, budgets, seed,
                           (task.score,))  # fmt: skip
            bench.fill(task, name, seed, Options(dilution=factor), these)
            cells.append(bench.cells.of(these).assign(task=name))
    return _table(pd.concat(cells, ignore_index=True), factor)


def _table(cells: pd.DataFrame, factor: int) -> tuple[str, dict[str, list]]:
    """Mean gain over random rows in the score of each task, over budgets and seeds.

    Not in parts of the oracle's: on text b the oracle itself is hardly better than random rows.
    """
    shown = [name for name in METHODS if name != "random"]
    cells = cells[cells["error"] == ""]
    lines = [f"| task | seeds | {' | '.join(shown)} |", "|---" * (2 + len(shown)) + "|"]
    rows: list[dict] = []
    for task, part in cells.groupby("task", sort=False):
        values = part.pivot_table(index=["seed", "budget"], columns="method", values="value")
        values = values.dropna()
        sign = 1.0 if part["higher_is_better"].iloc[0] else -1.0
        gains = sign * values.sub(values["random"], axis=0).mean()
        mean = {name: float(gains[name]) for name in shown if name in gains}
        seeds = int(values.index.get_level_values("seed").nunique())
        rows.append({"task": task, "factor": factor, "seeds": seeds, **mean})
        figures = " | ".join(f"{mean[n]:+.3f}" if n in mean else "" for n in shown)
        lines.append(f"| {task} | {seeds} | {figures} |")
    return "\n".join(lines), {"rows": rows}
