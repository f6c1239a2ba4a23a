"""How good the choice of `auto` is on real data: share of the headroom of default, auto, hindsight.

    python benchmarks/bench_strategy.py --data PATH [--tasks text_b_static,adult] [--seeds 2]
        [--budgets 0.1,0.5] [--store FOLDER] [--show] [--docs]

Tasks, datasets and the scores of all methods are those of bench_quality.py: the value of a choice
is the stored score of the chosen method on the same task, budget and seed. Choices are kept in
benchmarks/results/strategy_choices.csv; a rerun makes those that are missing. Prints one table and,
with --docs, renews it in docs/evaluation.md.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import pandas as pd
import quality_tables
from bench_quality import BUDGETS, CELLS, DOCS, dataset_of, default_store
from quality_tasks import Options, all_tasks
from tasks import data_folder

from gio_spark.evaluate.measures import MEASURES
from gio_spark.strategy.candidate_strategies import CANDIDATES, DEFAULT, RANDOM
from gio_spark.strategy.strategy_choice import StrategyChoice, choose_strategy

CHOICES = CELLS.with_name("strategy_choices.csv")
TASKS = (
    "text_a_static,text_b_static,text_c_static,images_damaged,images_faint,images_skewed,adult,"
    "bank,weather"
)
#: Tasks that were looked at when the size of the sample, the splits and the unit were set.
TASKS_OF_CONSTANTS = ("text_b_static", "adult", "images_skewed")
KEY = ["task", "seed", "budget"]


def row_of(task: str, seed: int, budget: float, choice: StrategyChoice) -> dict:
    """Return one line of the file of choices."""
    judged = [c for c in choice.figures if not c.problem]
    unguarded = max(judged, key=lambda c: c.gain).name if judged else DEFAULT
    return {"task": task, "seed": seed, "budget": budget, "chosen": choice.strategy,
            "unguarded": unguarded, "judging_rows": choice.judging_rows}  # fmt: skip


def headroom(choices: pd.DataFrame) -> pd.DataFrame:
    """Return gains over random rows of oracle, default, choice and hindsight, one line a choice."""
    tasks = all_tasks()
    cells = pd.read_csv(CELLS, keep_default_na=False, na_values={"value": [""]})
    cells = cells[cells["error"] == ""].drop_duplicates([*KEY, "method", "measure"], keep="last")
    cells["budget"] = cells["budget"].round(6)
    scores = cells.set_index([*KEY, "measure", "method"])["value"].astype(float).sort_index()
    lines = []
    for choice in choices.to_dict("records"):
        measure = tasks[choice["task"]].score
        sign = 1 if MEASURES[measure].higher_is_better else -1
        key = (choice["task"], choice["seed"], round(choice["budget"], 6), measure)
        gain = sign * (scores.loc[key] - scores.loc[(*key, RANDOM)])
        known = [name for name in CANDIDATES if name in gain]
        lines.append(
            {**choice, "oracle": gain["oracle"], "default": gain[DEFAULT],
             "auto": gain.get(choice["chosen"]), "no guard": gain.get(choice["unguarded"]),
             "hindsight": gain[known].max()}
        )  # fmt: skip
    return pd.DataFrame(lines)


def table(lines: pd.DataFrame) -> str:
    """Return the share of the headroom of each task as Markdown, and the mean without weather."""
    names = ["default", "auto", "no guard", "hindsight"]
    sums = lines.groupby("task", sort=False)[["oracle", *names]].sum()
    shares = sums[names].div(sums["oracle"], axis=0)
    change = lines["auto"] - lines["default"]
    counts = pd.DataFrame(
        {
            "seeds": lines.groupby("task", sort=False)["seed"].nunique(),
            "better": (change > 1e-9).groupby(lines["task"]).sum(),
            "worse": (change < -1e-9).groupby(lines["task"]).sum(),
        }
    )
    rows = [
        "| task | seeds | default | auto | no guard | hindsight | auto better | worse |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for task, share in shares.iterrows():
        count = counts.loc[task]
        figures = " | ".join(f"{share[name]:.2f}" for name in names)
        rows.append(
            f"| {task} | {count['seeds']:.0f} | {figures} | {count['better']:.0f} | "
            f"{count['worse']:.0f} |"
        )
    mean = shares.drop(index="weather", errors="ignore").mean()
    without = counts.drop(index="weather", errors="ignore").sum()
    figures = " | ".join(f"**{mean[name]:.2f}**" for name in names)
    rows.append(
        f"| mean without weather | | {figures} | {without['better']:.0f} | {without['worse']:.0f} |"
    )
    return "\n".join([*rows, "", *_tests(shares.drop(index="weather", errors="ignore"))])


def _tests(shares: pd.DataFrame) -> list[str]:
    """Return paired tests over tasks, the tasks that no constant was set on, and the guard's."""
    if len(shares) < 2:
        return []
    names = ["auto", "no guard"]
    chance = {n: quality_tables.paired_chance(shares[n] - shares["default"]) for n in names}
    tests = ", ".join(f"{n} p = {p:.3f}" for n, p in quality_tables.holm(chance).items())
    seen = shares.index.isin(TASKS_OF_CONSTANTS)
    parts = [
        f"on {', '.join(part.index)}: default {part['default'].mean():.2f}, "
        f"auto {part['auto'].mean():.2f}, no guard {part['no guard'].mean():.2f}"
        for part in (shares[seen], shares[~seen])
        if len(part)
    ]
    # With or without the guard, as is better on the other tasks.
    left_out = [
        shares.at[task, shares.drop(index=task)[names].mean().idxmax()] for task in shares.index
    ]
    text = (
        f"Paired with the default over {len(shares)} tasks (Wilcoxon's signed rank test, "
        f"Holm-corrected): {tests}. Tasks that were looked at when constants were set and all "
        f"others: {'; '.join(parts)}. Whether there is a guard, set on all tasks but the one that "
        f"judges: {sum(left_out) / len(left_out):.2f}."
    )
    return [text]


def main() -> None:
    """Make the missing choices, print the table and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data")
    parser.add_argument("--tasks", default=TASKS)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--budgets", default=BUDGETS)
    parser.add_argument("--store", type=Path, default=default_store())
    parser.add_argument("--show", action="store_true", help="make no choice")
    parser.add_argument("--docs", action="store_true", help="renew the table of the page")
    options = parser.parse_args()
    choices = pd.read_csv(CHOICES) if CHOICES.exists() else pd.DataFrame(columns=KEY)
    known = {tuple(key) for key in choices[KEY].itertuples(index=False, name=None)}
    tasks = all_tasks()
    for seed in range(0 if options.show else options.seeds):
        for name in options.tasks.split(","):
            budgets = [b for b in map(float, options.budgets.split(","))
                       if (name, seed, b) not in known]  # fmt: skip
            if not budgets:
                continue
            data = data_folder(options.data)
            dataset = dataset_of(tasks[name], data, seed, Options(), options.store)
            rows = []
            for budget in budgets:
                started = time.process_time()
                choice = choose_strategy(dataset, max(1, round(budget * dataset.rows)), seed)
                rows.append(row_of(name, seed, budget, choice))
                rows[-1]["core_seconds"] = round(time.process_time() - started, 1)
                print(f"  {name}, seed {seed}, {budget:.1%}: {choice.line()}", flush=True)
            new = pd.DataFrame(rows)
            choices = pd.concat([choices, new], ignore_index=True) if len(choices) else new
            choices = choices.sort_values(KEY, ignore_index=True)
            choices.to_csv(CHOICES, index=False)
    if choices.empty:
        raise SystemExit("No choice is there yet.")
    text = table(headroom(choices))
    print(text)
    if options.docs:
        quality_tables.renew(DOCS, text, "strategy")


if __name__ == "__main__":
    main()
