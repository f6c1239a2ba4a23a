"""How good the choice of `auto` is on real data: share of the headroom of default, auto, hindsight.

    python benchmarks/bench_strategy.py --data PATH [--tasks text_b_static,adult] [--seeds 5]
        [--budgets 0.1,0.5] [--vectors FILE] [--store FOLDER] [--show] [--docs]

Tasks, datasets and the scores of all methods are those of bench_quality.py: the value of a choice
is the stored score of the chosen method on the same task, budget and seed. The figures of all
candidates are kept in benchmarks/results/strategy_figures.csv.gz, so that other rules of choice can
be compared without trying the candidates again; a rerun makes those that are missing. Prints the
tables and, with --docs, renews them in docs/evaluation.md.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import pandas as pd
import quality_tables
from bench_quality import BUDGETS, CELLS, DOCS, dataset_of, default_store
from quality_tasks import Options, all_tasks
from strategy_figures import FIGURES, KEY, choices_of, lines_of, read_figures
from tasks import data_folder

from gio_spark.evaluate.measures import MEASURES
from gio_spark.strategy.candidate_strategies import CANDIDATES, DEFAULT, RANDOM
from gio_spark.strategy.strategy_choice import CONFIDENCE, choose_strategy

TASKS = (
    "text_a_static,text_a_hashed,text_a_minilm,text_b_static,text_b_hashed,text_b_minilm,"
    "text_c_static,text_c_hashed,text_c_minilm,images_damaged,images_faint,images_skewed,adult,bank,weather"
)
#: Tasks that were looked at when the size of the sample, the splits and the unit were set.
TASKS_OF_CONSTANTS = ("text_b", "adult", "images_skewed")
#: Confidences of the guard that are compared; 0.5 is none.
LEVELS = (CONFIDENCE, 0.8, 0.65, 0.5)


def headroom(figures: pd.DataFrame) -> pd.DataFrame:
    """Return gains over random rows of oracle, default, hindsight and the choices, one line each.

    The columns of choices are confidences of the guard; 0.5 is none.
    """
    tasks = all_tasks()
    cells = pd.read_csv(CELLS, keep_default_na=False, na_values={"value": [""]})
    cells = cells[cells["error"] == ""].drop_duplicates([*KEY, "method", "measure"], keep="last")
    cells["budget"] = cells["budget"].round(6)
    scores = cells.set_index([*KEY, "measure", "method"])["value"].astype(float).sort_index()
    choices = choices_of(figures)[KEY]
    for level in LEVELS:
        choices[level] = choices_of(figures, level)["chosen"]
    lines = []
    for choice in choices.to_dict("records"):
        measure = tasks[choice["task"]].score
        sign = 1 if MEASURES[measure].higher_is_better else -1
        key = (choice["task"], choice["seed"], round(choice["budget"], 6), measure)
        gain = sign * (scores.loc[key] - scores.loc[(*key, RANDOM)])
        known = [name for name in CANDIDATES if name in gain]
        lines.append(
            {**{name: choice[name] for name in KEY}, "oracle": gain["oracle"],
             "default": gain[DEFAULT], **{level: gain.get(choice[level]) for level in LEVELS},
             "hindsight": gain[known].max()}
        )  # fmt: skip
    return pd.DataFrame(lines)


def shares_of(lines: pd.DataFrame) -> pd.DataFrame:
    """Return the shares of the headroom over all budgets and seeds, a task a line."""
    names = ["default", *LEVELS, "hindsight"]
    sums = lines.groupby("task", sort=False)[["oracle", *names]].sum()
    return sums[names].div(sums["oracle"], axis=0)


def of_datasets(shares: pd.DataFrame) -> pd.DataFrame:
    """Return the means over the kinds of vectors of the same texts, which are no tasks apart."""
    names = shares.index.str.replace(r"_(static|hashed|minilm)$", "", regex=True)
    return shares.groupby(names, sort=False).mean()


def table(lines: pd.DataFrame) -> str:
    """Return the share of the headroom of each task as Markdown, and the mean without weather."""
    shares = shares_of(lines)
    change = lines[CONFIDENCE] - lines["default"]
    counts = pd.DataFrame(
        {
            "seeds": lines.groupby("task", sort=False)["seed"].nunique(),
            "better": (change > 1e-9).groupby(lines["task"]).sum(),
            "worse": (change < -1e-9).groupby(lines["task"]).sum(),
        }
    )
    titles = [f"auto at {level:.0%}" if level != 0.5 else "no guard" for level in LEVELS]
    rows = [
        f"| task | seeds | default | {' | '.join(titles)} | hindsight | auto better | worse |",
        "|---" * (len(titles) + 6) + "|",
    ]
    for task, share in shares.iterrows():
        count = counts.loc[task]
        figures = " | ".join(f"{value:.2f}" for value in share)
        rows.append(
            f"| {task} | {count['seeds']:.0f} | {figures} | {count['better']:.0f} | "
            f"{count['worse']:.0f} |"
        )
    judged = shares.drop(index="weather", errors="ignore")
    without = counts.drop(index="weather", errors="ignore").sum()
    counted = f"{without['better']:.0f} | {without['worse']:.0f} |"
    for title, part in (("tasks", judged), ("datasets", of_datasets(judged))):
        figures = " | ".join(f"**{value:.2f}**" for value in part.mean())
        rows.append(f"| mean of {len(part)} {title} without weather | | {figures} | {counted}")
        counted = " | |"
    return "\n".join([*rows, "", *_tests(of_datasets(judged))])


def _tests(shares: pd.DataFrame) -> list[str]:
    """Return paired tests over datasets, those that no constant was set on, and the guard's."""
    if len(shares) < 2:
        return []
    chance = {
        str(level): quality_tables.paired_chance(shares[level] - shares["default"])
        for level in LEVELS
    }
    tests = ", ".join(f"{float(n):.0%} p = {p:.3f}" for n, p in quality_tables.holm(chance).items())
    seen = shares.index.isin(TASKS_OF_CONSTANTS)
    parts = [
        f"on {', '.join(part.index)}: default {part['default'].mean():.2f}, "
        + ", ".join(f"{level:.0%} {part[level].mean():.2f}" for level in LEVELS)
        for part in (shares[seen], shares[~seen])
        if len(part)
    ]
    # The confidence that is best on the other tasks.
    left_out = [
        shares.at[task, shares.drop(index=task)[list(LEVELS)].mean().idxmax()]
        for task in shares.index
    ]
    text = (
        "The same texts in several kinds of vectors are one dataset. Paired with the default over "
        f"{len(shares)} datasets (Wilcoxon's signed rank test, Holm-corrected): {tests}. Datasets "
        f"that were looked at when constants were set and all others: {'; '.join(parts)}. The "
        f"confidence set on all datasets but the one that judges: "
        f"{sum(left_out) / len(left_out):.2f}."
    )
    return [text]


def main() -> None:
    """Make the missing choices, print the tables and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data")
    parser.add_argument("--tasks", default=TASKS)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--budgets", default=BUDGETS)
    parser.add_argument("--store", type=Path, default=default_store())
    parser.add_argument("--vectors", default="", help="MiniLM vectors, from minilm_vectors.py")
    parser.add_argument("--show", action="store_true", help="make no choice")
    parser.add_argument("--docs", action="store_true", help="renew the table of the page")
    options = parser.parse_args()
    figures = read_figures()
    known = {tuple(key) for key in figures[KEY].itertuples(index=False, name=None)}
    tasks = all_tasks()
    for seed in range(0 if options.show else options.seeds):
        for name in options.tasks.split(","):
            budgets = [b for b in map(float, options.budgets.split(","))
                       if (name, seed, b) not in known]  # fmt: skip
            needs = tasks[name].needs
            if not budgets or (needs and not getattr(options, needs)):
                continue
            data = data_folder(options.data)
            own = Options(**{needs: getattr(options, needs)}) if needs else Options()
            dataset = dataset_of(tasks[name], data, seed, own, options.store)
            rows = []
            for budget in budgets:
                started = time.process_time()
                choice = choose_strategy(dataset, max(1, round(budget * dataset.rows)), seed)
                lines = lines_of(name, seed, budget, choice)
                lines[0]["core_seconds"] = round(time.process_time() - started, 1)
                rows.extend(lines)
                print(f"  {name}, seed {seed}, {budget:.1%}: {choice.line()}", flush=True)
            new = pd.DataFrame(rows)
            figures = pd.concat([figures, new], ignore_index=True) if len(figures) else new
            figures = figures.sort_values(KEY, ignore_index=True, kind="stable")
            figures.to_csv(FIGURES, index=False, float_format="%.6g",
                           compression={"method": "gzip", "mtime": 0})  # fmt: skip
    if figures.empty:
        raise SystemExit("No choice is there yet.")
    text = table(headroom(figures))
    print(text)
    if options.docs:
        quality_tables.renew(DOCS, text, "strategy")


if __name__ == "__main__":
    main()
